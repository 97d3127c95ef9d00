"""Several workers that share the mailbox of a kernel."""

import asyncio
from typing import Any

import pytest

from pydotcompute import RingKernelConfig, RingKernelRuntime
from pydotcompute.exceptions import InvalidConfigurationError, KernelFailedError
from pydotcompute.ring_kernels.declaration import KernelType
from tests.contract.world import PATIENCE
from tests.workers import kernels
from tests.workers.kernels import Ask


async def ask(runtime: RingKernelRuntime, number: int = 0, do: str = "") -> Any:
    return await runtime.send_and_receive("k", Ask(number, do), timeout=PATIENCE)


async def test_all_instances_answer() -> None:
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("k", kernels.shared):
        told = await asyncio.gather(*(ask(runtime, number, "compute" if number < 3 else "") for number in range(60)))
    assert [each.number for each in told] == [*range(60)]
    assert len({each.pid for each in told}) == 3


async def test_nobody_waits_behind_a_message_that_is_held_while_another_instance_has_nothing_to_do() -> None:
    async with RingKernelRuntime() as runtime:
        await runtime.launch("k", kernels.holding)
        await runtime.activate("k")
        await asyncio.gather(*(ask(runtime, number) for number in range(500)))  # The instances are quick.
        holding = asyncio.create_task(ask(runtime, do="hold"))
        told = await asyncio.gather(*(ask(runtime, number) for number in range(500)))
        assert [each.number for each in told] == [*range(500)]
        assert not holding.done()
        await runtime.terminate("k")
        await holding


async def test_the_others_go_on_when_one_dies() -> None:
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("k", kernels.shared):
        asking = [asyncio.create_task(ask(runtime, number, "kill" if number == 50 else "")) for number in range(100)]
        told = await asyncio.gather(*asking, return_exceptions=True)
        lost = [number for number, each in enumerate(told) if isinstance(each, KernelFailedError)]
        assert 50 in lost
        assert [getattr(each, "number", number) for number, each in enumerate(told)] == [*range(100)]
        assert [letter.message.number for letter in runtime.get_dead_letters("k")] == lost


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_number_of_instances_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(InvalidConfigurationError, match="at least 1"):
        KernelType("k", kernels.answer, RingKernelConfig("k"), Ask, instances=count)


async def test_instances_need_workers() -> None:
    kernel_type = KernelType("k", kernels.answer, RingKernelConfig("k"), Ask, instances=2)
    async with RingKernelRuntime() as runtime:
        with pytest.raises(InvalidConfigurationError, match="only worker processes can share a mailbox"):
            await runtime.launch("k", kernel_type)
