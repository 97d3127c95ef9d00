"""How many kernels and threads a runtime takes, and what it remembers of those that have ended."""

import asyncio
import threading
from typing import Any

import pytest

from pydotcompute.exceptions import InvalidConfigurationError, KernelNotFoundError, LimitExceededError
from pydotcompute.ring_kernels import RingKernelRuntime, RuntimeLimits
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.places import Places, Share
from tests.contract.kernels import Job, blocking, short_lived, square


def exceeded(name: str, limit: int, asked: int) -> Any:
    return pytest.raises(LimitExceededError, match=f"^{name} is {limit}, and this would make {asked};")


async def test_one_kernel_too_many_is_refused_until_one_ends() -> None:
    async with RingKernelRuntime(limits=RuntimeLimits(max_kernels=2)) as runtime:
        await runtime.launch("a", square)
        await runtime.launch("b", square)
        with exceeded("max_kernels", 2, 3):
            await runtime.launch("c", square)
        await runtime.terminate("a")
        await runtime.launch("c", square)
        assert (runtime.kernel_ids, runtime.kernel_count) == (["b", "c"], 2)


async def test_a_kernel_whose_launch_fails_takes_no_place() -> None:
    async def fails(ctx: Any) -> None:
        raise ValueError("no")

    async with RingKernelRuntime(limits=RuntimeLimits(max_kernels=1)) as runtime:
        for _ in range(3):
            with pytest.raises(Exception, match="no"):
                await runtime.launch("a", fails)
        await runtime.launch("a", square)


async def test_kernels_that_end_by_themselves_are_forgotten_too() -> None:
    async with RingKernelRuntime(limits=RuntimeLimits(terminated_kernels=2)) as runtime:
        for number in range(4):
            kernel = await runtime.launch(f"k{number}", short_lived)
            await kernel.activate()
            await kernel.send(Job(1))
            while kernel.state.name != "TERMINATED":
                await kernel.gate.changed.wait()
        assert runtime.kernel_ids == []
        for number, is_known in enumerate([False, False, True, True]):
            try:
                runtime.kernel(f"k{number}")
            except KernelNotFoundError:
                assert not is_known
            else:
                assert is_known


async def test_kernels_are_numbered_in_the_order_of_their_launch() -> None:
    async with RingKernelRuntime() as runtime:
        numbers = [(await runtime.launch(name, square)).number for name in ("a", "b", "c")]
        assert numbers == sorted(numbers)
        await runtime.terminate("b")
        assert (await runtime.launch("b", square)).number > numbers[2]
        assert [kernel.kernel_id for kernel in runtime.kernels_after(numbers[0])] == ["c", "b"]


async def test_an_error_lists_no_more_ids_than_a_person_reads() -> None:
    async with RingKernelRuntime(limits=RuntimeLimits(names_told=2)) as runtime:
        for name in "abc":
            await runtime.launch(name, square)
        with pytest.raises(KernelNotFoundError) as missing:
            runtime.kernel("d")
        assert missing.value.available == ("a", "b", "…")


async def test_a_thread_that_goes_on_keeps_its_place() -> None:
    go_on, may_end = threading.Event(), threading.Event()

    def stubborn(ctx: Any) -> None:
        ctx.wait_active()
        go_on.set()
        may_end.wait()

    limits = RuntimeLimits(max_threads=1, cancellation_grace=0.01)
    async with RingKernelRuntime(limits=limits) as runtime:
        kernel = await runtime.launch("a", stubborn)
        await kernel.activate()
        await asyncio.to_thread(go_on.wait)
        await runtime.terminate("a", timeout=0)
        with exceeded("max_threads", 1, 2):
            await runtime.launch("b", blocking)
        assert runtime.kernel_ids == []
        may_end.set()
        while runtime._threads.taken:  # noqa: ASYNC110  # The end of a thread is no event.
            await asyncio.sleep(0)
        await runtime.launch("b", blocking)


async def test_a_thread_that_the_system_does_not_give_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with RingKernelRuntime(limits=RuntimeLimits(max_threads=1)) as runtime:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            with pytest.raises(Exception, match="can't start new thread"):
                await runtime.launch("a", blocking)
        await runtime.launch("a", blocking)


@pytest.mark.parametrize("name", ["input_queue_size", "output_queue_size"])
def test_a_mailbox_that_is_too_long_is_refused(name: str) -> None:
    sizes: dict[str, Any] = {name: 5_001}
    with exceeded("max_queue_size", 5_000, 5_001):
        RingKernel("a", square, config=RingKernelConfig("a", **sizes), limits=RuntimeLimits(max_queue_size=5_000))


async def test_many_kernels_end_together() -> None:
    async with RingKernelRuntime(limits=RuntimeLimits(ended_at_once=10)) as runtime:
        kernels = [await runtime.launch(f"k{number}", square) for number in range(95)]
    assert {kernel.state.name for kernel in kernels} == {"TERMINATED"}


def test_places_are_for_all_and_for_each_owner() -> None:
    places = Places("all", 4, Share("each", 3), Share("each one", 2))
    places.take(("a", 1))
    places.take(("a", 1))
    with exceeded("each one", 2, 3):
        places.take(("a", 1))
    places.take(("a", 2))
    with exceeded("each", 3, 4):
        places.take(("a", 3))
    places.take(("b", 4))
    with exceeded("all", 4, 5):
        places.take(("c", 5))
    places.leave(("a", 1))
    places.take(("c", 5))
    assert places.taken == 4


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "7"])
def test_a_limit_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfigurationError, match="max_kernels"):
        RuntimeLimits(max_kernels=value)
