"""A runtime is used in the event loop in which it was started, and in no other; the error says so."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import MisuseError
from pydotcompute_client import RemoteRuntime, connect
from tests.contract import kernels
from tests.contract.kernels import Job
from tests.contract.world import PATIENCE
from tests.stubs import KERNELS

Use = Callable[[Any], Awaitable[object]]


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any]) -> str:
    """A daemon that squares."""
    address: str = start_daemon(str(KERNELS), "--launch", "square").target
    return address


@pytest.fixture
async def runtime(target: str) -> AsyncIterator[RemoteRuntime]:
    """A runtime of the loop of the test, which has a conversation with the kernel."""
    async with connect(target) as runtime:
        await ask(runtime)
        yield runtime


async def ask(runtime: Any) -> object:
    return await runtime.send_and_receive("square", Job(3), timeout=PATIENCE)


async def watch(runtime: RemoteRuntime) -> None:
    async for _ in runtime.watch_telemetry():
        return


USES: dict[str, Use] = {
    "ask": ask,
    "send": lambda runtime: runtime.send("square", Job(1), timeout=PATIENCE),
    "receive": lambda runtime: runtime.receive("square", timeout=PATIENCE),
    "first message": lambda runtime: runtime.send("gate", Job(1), timeout=PATIENCE),
    "fetch": lambda runtime: runtime.fetch_kernel_ids(),
    "lifecycle": lambda runtime: runtime.activate("square"),
    "watch": watch,
    "start": lambda runtime: runtime.start(),
    "shutdown": lambda runtime: runtime.shutdown(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
async def test_while_its_loop_runs_another_one_is_refused(runtime: RemoteRuntime, use: Use) -> None:
    async def elsewhere() -> None:
        with pytest.raises(MisuseError, match="run_coroutine_threadsafe"):
            await use(runtime)

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert (await runtime.send_and_receive("square", Job(4), timeout=PATIENCE)).number == 16


@pytest.mark.parametrize("use", [USES["ask"], USES["send"], USES["receive"]], ids=["ask", "send", "receive"])
async def test_in_process_another_loop_is_refused_too(use: Use) -> None:
    async with RingKernelRuntime() as runtime:
        await runtime.launch("square", kernels.square)
        await runtime.activate("square")

        async def elsewhere() -> None:
            with pytest.raises(MisuseError, match="event loop"):
                await use(runtime)

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert (await runtime.send_and_receive("square", Job(4), timeout=PATIENCE)).number == 16


async def test_a_blocking_call_may_come_from_any_thread(runtime: RemoteRuntime) -> None:
    assert await asyncio.to_thread(lambda: runtime.kernel_ids) == ["square"]


async def test_shutdown_is_idempotent_also_at_once_and_from_elsewhere(runtime: RemoteRuntime) -> None:
    await asyncio.gather(*(runtime.shutdown() for _ in range(3)))
    await runtime.shutdown()
    await asyncio.to_thread(asyncio.run, runtime.shutdown())
    await runtime.start()
    await runtime.start()
    await ask(runtime)
