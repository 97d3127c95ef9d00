"""A kernel whose actor is started anew because somebody asks for it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pydotcompute import KernelState, RingKernelRuntime
from pydotcompute.exceptions import InvalidConfigurationError, KernelFailedError, KernelStateError
from pydotcompute.ring_kernels import DeadLetterReason
from tests.contract.world import PATIENCE, eventually
from tests.workers import kernels
from tests.workers.kernels import Ask, remove, touch


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime() as started:
        yield started


async def launched(runtime: RingKernelRuntime, kernel: Any, kernel_id: str = "k") -> Any:
    launched = await runtime.launch(kernel_id, kernel)
    await runtime.activate(kernel_id)
    return launched


async def ask(runtime: RingKernelRuntime, number: int = 0, do: str = "", kernel_id: str = "k") -> Any:
    return await runtime.send_and_receive(kernel_id, Ask(number, do), timeout=PATIENCE)


async def test_a_restart_finishes_what_is_in_hand_and_the_rest_waits(
    runtime: RingKernelRuntime, tmp_path: Path
) -> None:
    kernel = await launched(runtime, kernels.patient)
    gate = tmp_path / "gate"
    held = asyncio.create_task(ask(runtime, do=str(gate)))
    waiting = [asyncio.create_task(ask(runtime, number)) for number in range(20)]
    await eventually(lambda: kernel.queue_depth == 20)
    restart = asyncio.create_task(runtime.restart("k", PATIENCE))
    await eventually(lambda: not kernel._runner._crew.staying)
    touch(gate)
    before = (await held).pid
    await restart
    told = await asyncio.gather(*waiting)
    assert [each.number for each in told] == [*range(20)]
    assert before not in {each.pid for each in told}
    again = asyncio.create_task(kernel.restart(PATIENCE))
    await eventually(lambda: not kernel._runner._crew.staying)
    again.cancel()  # It is done all the same.
    assert (await ask(runtime)).pid not in {before, told[0].pid}

    await runtime.deactivate("k")
    await runtime.restart("k")
    assert kernel.state is KernelState.DEACTIVATED
    waiting = [asyncio.create_task(ask(runtime, number)) for number in range(3)]
    await eventually(lambda: kernel.queue_depth == 3)
    await runtime.reactivate("k")
    await asyncio.gather(*waiting)
    assert (kernel.get_telemetry().error_count, runtime.get_dead_letters("k")) == (0, [])


async def test_one_instance_after_the_other(runtime: RingKernelRuntime) -> None:
    kernel = await launched(runtime, kernels.shared)
    before = {each.process.pid for each in kernel._runner._crew.staying}
    least = 3
    restart = asyncio.create_task(runtime.restart("k"))
    number = 0
    while not restart.done():
        assert (await ask(runtime, number)).number == number
        least = min(least, sum(each.is_ready for each in kernel._runner._crew.everyone))
        number += 1
    await restart
    after = {each.process.pid for each in kernel._runner._crew.staying}
    assert (len(after), before & after) == (3, set())
    assert least == 2
    assert (kernel.get_telemetry().messages_processed, runtime.get_dead_letters("k")) == (number, [])


@pytest.mark.parametrize("do", ["a file that never comes", "compute forever"])
async def test_an_actor_that_does_not_end_in_time_loses_what_it_has_in_hand(
    runtime: RingKernelRuntime, do: str
) -> None:
    kernel = await launched(runtime, kernels.fragile if do == "compute forever" else kernels.patient)
    held = asyncio.create_task(ask(runtime, 1, do))
    waiting = asyncio.create_task(ask(runtime, 2))
    await eventually(lambda: kernel.queue_depth == 1)
    await runtime.restart("k", timeout=0.05)
    with pytest.raises(KernelFailedError, match="was told to end") as caught:
        await held
    assert caught.value.cause_type == "WorkerStopped"
    assert (await waiting).number == 2
    (letter,) = runtime.get_dead_letters("k")
    assert (letter.reason, letter.message.number) == (DeadLetterReason.WORKER_LOST, 1)


async def test_a_failed_kernel_is_launched_again_with_its_dead_letters(
    runtime: RingKernelRuntime, tmp_path: Path
) -> None:
    kernel_id = str(tmp_path / "k")
    await launched(runtime, kernels.patient, kernel_id)
    await launched(runtime, kernels.here, "another")
    with pytest.raises(KernelFailedError, match="as told"):
        await ask(runtime, 5, "raise", kernel_id=kernel_id)
    await eventually(lambda: runtime.get_kernel_state(kernel_id) is KernelState.FAILED)
    touch(kernel_id)
    with pytest.raises(KernelFailedError, match="not now"):
        await runtime.restart(kernel_id)
    assert runtime.get_kernel_state(kernel_id) is KernelState.FAILED
    assert runtime.kernel_ids == [kernel_id, "another"]
    remove(kernel_id)
    await runtime.restart(kernel_id)
    assert runtime.get_kernel_state(kernel_id) is KernelState.ACTIVE
    assert (await ask(runtime, 6, kernel_id=kernel_id)).number == 6
    (letter,) = runtime.get_dead_letters(kernel_id)
    assert letter.message.number == 5


async def test_a_failed_kernel_of_this_process_is_launched_again(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.here)
    with pytest.raises(KernelFailedError):
        await ask(runtime, do="raise")
    await eventually(lambda: runtime.get_kernel_state("k") is KernelState.FAILED)
    await runtime.restart("k")
    assert (await ask(runtime, 1)).number == 1
    with pytest.raises(InvalidConfigurationError, match="only a worker process is restarted"):
        await runtime.restart("k")
    await runtime.terminate("k")
    with pytest.raises(KernelStateError, match="cannot restart"):
        await runtime.restart("k")


async def test_an_end_ends_a_restart(runtime: RingKernelRuntime) -> None:
    kernel = await launched(runtime, kernels.patient)
    held = asyncio.create_task(ask(runtime, do="a file that never comes"))
    await eventually(lambda: not kernel.is_idle and not kernel.queue_depth)
    restart = asyncio.create_task(runtime.restart("k", PATIENCE))
    await eventually(lambda: not kernel._runner._crew.staying)
    await runtime.terminate("k", timeout=0.05)
    with pytest.raises(KernelStateError, match="cannot restart"):
        await restart
    with pytest.raises(KernelFailedError, match="was told to end"):
        await held


async def test_a_kernel_that_cannot_be_started_anew_fails(runtime: RingKernelRuntime, tmp_path: Path) -> None:
    kernel_id = str(tmp_path / "k")
    await launched(runtime, kernels.patient, kernel_id)
    touch(kernel_id)
    with pytest.raises(KernelFailedError, match="not now"):
        await runtime.restart(kernel_id)
    assert runtime.get_kernel_state(kernel_id) is KernelState.FAILED
