"""How many workers share a mailbox, changed while they work."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import (
    InvalidConfigurationError,
    KernelFailedError,
    KernelNotFoundError,
    KernelStateError,
    LimitExceededError,
)
from pydotcompute.ring_kernels import RuntimeLimits
from pydotcompute.ring_kernels.declaration import kernel_type_of
from tests.contract.world import PATIENCE, eventually
from tests.workers import kernels
from tests.workers.kernels import Ask, remove, touch


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime(limits=RuntimeLimits(max_instances=3)) as started:
        yield started


async def launched(runtime: RingKernelRuntime, kernel: Any, kernel_id: str = "k") -> Any:
    launched = await runtime.launch(kernel_id, kernel)
    await runtime.activate(kernel_id)
    return launched


async def ask(runtime: RingKernelRuntime, number: int = 0, do: str = "", kernel_id: str = "k") -> Any:
    return await runtime.send_and_receive(kernel_id, Ask(number, do), timeout=PATIENCE)


async def test_nothing_is_lost_or_done_twice_while_workers_come_and_go() -> None:
    async with RingKernelRuntime() as runtime:
        await come_and_go(runtime)


async def come_and_go(runtime: RingKernelRuntime) -> None:
    kernel = await launched(runtime, kernels.fragile)
    seen: list[int] = []
    stop = asyncio.Event()
    sent = 0

    async def load(first: int) -> None:
        nonlocal sent
        number = first
        while not stop.is_set():
            sent += 1
            assert (await ask(runtime, number)).number == number
            number += 20

    loads = [asyncio.create_task(load(number)) for number in range(20)]
    for count in (3, 1, 2, 3, 1):
        await runtime.scale("k", count)
        seen.append(kernel.instances)
        before = sent
        await eventually(lambda before=before: sent > before + 40)  # type: ignore[misc]
    stop.set()
    await asyncio.gather(*loads)
    assert seen == [3, 1, 2, 3, 1]
    telemetry = runtime.get_telemetry("k")
    assert telemetry is not None
    assert telemetry.messages_processed == sent
    assert (telemetry.error_count, runtime.get_dead_letters("k")) == (0, [])


async def test_a_new_worker_takes_at_once_what_waits_and_an_old_one_finishes_what_it_has(
    runtime: RingKernelRuntime, tmp_path: Path
) -> None:
    kernel = await launched(runtime, kernels.patient)
    held = [asyncio.create_task(ask(runtime, do=str(tmp_path / name))) for name in ("first", "second")]
    others = [asyncio.create_task(ask(runtime, number)) for number in range(50)]
    await eventually(lambda: kernel.queue_depth == 51)
    await runtime.scale("k", 3)
    told = await asyncio.gather(*others)
    assert [each.number for each in told] == [*range(50)]
    assert len({each.pid for each in told}) == 1  # The other two have each a message in hand.

    waiting = [asyncio.create_task(ask(runtime, number, str(tmp_path / "third"))) for number in range(3)]
    await runtime.scale("k", 1)
    assert kernel.instances == 1
    with pytest.raises(LimitExceededError, match="max_instances is 3, and this would make") as refused:
        await runtime.scale("k", 3)
    assert refused.value.retry_after
    for name in ("first", "second", "third"):
        touch(tmp_path / name)
    pids = {each.pid for each in await asyncio.gather(*held)}
    assert len(pids | {each.pid for each in told}) == 3
    assert [each.number for each in await asyncio.gather(*waiting)] == [0, 1, 2]
    assert len({(await ask(runtime, number)).pid for number in range(10)}) == 1
    assert runtime.get_dead_letters("k") == []


async def test_what_comes_back_keeps_its_order(runtime: RingKernelRuntime, tmp_path: Path) -> None:
    kernel = await launched(runtime, kernels.patient)
    await runtime.deactivate("k")
    await runtime.scale("k", 2)
    await runtime.reactivate("k")
    gate = str(tmp_path / "gate")
    for number in range(20):
        await runtime.send("k", Ask(number, gate if number < 2 else ""))
    await eventually(lambda: kernel.queue_depth == 18)
    await runtime.scale("k", 1)
    touch(gate)
    numbers = [(await runtime.receive("k", timeout=PATIENCE)).number for _ in range(20)]
    assert sorted(numbers) == [*range(20)]
    # The worker that stays had one ahead, while that of the other came back.
    assert [number for number in numbers if number > 3] == [*range(4, 20)]


async def test_a_pause_and_an_end_hold_for_a_worker_that_still_finishes(
    runtime: RingKernelRuntime, tmp_path: Path
) -> None:
    kernel = await launched(runtime, kernels.patient)
    await runtime.scale("k", 2)
    gate = str(tmp_path / "gate")
    held = [asyncio.create_task(ask(runtime, number, gate)) for number in range(2)]
    waiting = asyncio.create_task(ask(runtime, 3))
    await eventually(lambda: kernel.queue_depth == 1)
    await runtime.scale("k", 1)
    await runtime.deactivate("k")
    touch(gate)
    await asyncio.gather(*held)
    assert kernel.queue_depth == 1
    await runtime.reactivate("k")
    assert (await waiting).number == 3
    remove(gate)
    held = [asyncio.create_task(ask(runtime, 4, gate))]
    await eventually(lambda: not kernel.is_idle and not kernel.queue_depth)
    ending = asyncio.create_task(runtime.terminate("k", PATIENCE))
    with pytest.raises(KernelStateError, match="cannot scale"):
        await runtime.scale("k", 2)
    touch(gate)
    await asyncio.gather(ending, *held)


async def test_if_a_new_worker_cannot_be_started_nothing_changes(runtime: RingKernelRuntime, tmp_path: Path) -> None:
    kernel_id = str(tmp_path / "k")
    kernel = await launched(runtime, kernels.patient, kernel_id)
    touch(kernel_id)
    with pytest.raises(KernelFailedError, match="ValueError: not now"):
        await runtime.scale(kernel_id, 3)
    assert kernel.instances == 1
    assert (await ask(runtime, 3, kernel_id=kernel_id)).number == 3
    remove(kernel_id)
    scaling = asyncio.create_task(runtime.scale(kernel_id, 2))
    await asyncio.sleep(0)
    scaling.cancel()
    await asyncio.wait((scaling,))
    assert (kernel.instances, len(kernel._runner._crew.everyone)) == (1, 1)


async def test_a_number_out_of_bounds_is_refused(runtime: RingKernelRuntime) -> None:
    await runtime.launch("k", kernels.fragile)
    wrong: list[Any] = [0, -1, 1.5, True]
    for count in wrong:
        with pytest.raises(
            InvalidConfigurationError, match=f"instances={count!r}: must be a whole number of at least 1"
        ):
            await runtime.scale("k", count)
    with pytest.raises(LimitExceededError, match="max_instances is 3, and this would make 4"):
        await runtime.scale("k", 4)
    kernel_type = kernel_type_of(kernels.shared)
    assert kernel_type is not None
    async with RingKernelRuntime(limits=RuntimeLimits(max_instances=2)) as smaller:
        with pytest.raises(LimitExceededError, match="max_instances is 2, and this would make 3"):
            await smaller.launch("k", kernel_type)
        assert smaller.kernel_ids == []


async def test_only_a_kernel_with_workers_can_be_scaled(runtime: RingKernelRuntime) -> None:
    kernel = await launched(runtime, kernels.here)
    with pytest.raises(InvalidConfigurationError, match="only worker processes can share a mailbox"):
        await runtime.scale("k", 2)
    assert kernel.instances == 0
    with pytest.raises(KernelNotFoundError):
        await runtime.scale("nobody", 2)
