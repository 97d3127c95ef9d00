"""A client that talks to many kernels in turn keeps nothing of those that are over, and leaves nothing open."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydotcompute.exceptions import KernelNotFoundError
from pydotcompute_client import RemoteRuntime, connect
from pydotcompute_client import runtime as client_runtime
from tests.contract.kernels import Job
from tests.contract.world import eventually
from tests.stubs import KERNELS


@pytest.fixture(scope="module")
def own_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon that only this file connects to."""
    return start_daemon(str(KERNELS), "--launch", "square")


async def use(runtime: RemoteRuntime, kernel_id: str, *, receive: bool = True) -> None:
    """Launch a kernel, have it answer, and end it."""
    async with runtime.kernel_scope(kernel_id, "square"):
        await runtime.send(kernel_id, Job(3))
        if receive:
            assert (await runtime.receive(kernel_id)).number == 9
            return
        telemetry = await runtime.fetch_telemetry(kernel_id)
        while telemetry is None or not telemetry.messages_processed:
            telemetry = await runtime.fetch_telemetry(kernel_id)


async def test_sessions_with_kernels_that_have_ended_are_forgotten(own_daemon: Any) -> None:
    async with connect(own_daemon.target) as runtime:
        for number in range(3 * client_runtime.FEW_SESSIONS):
            await use(runtime, f"job-{number}")
        assert len(runtime._sessions) <= 2 * client_runtime.FEW_SESSIONS
        assert not runtime._opening
        assert not runtime._launched


async def test_replies_that_wait_are_not_forgotten(own_daemon: Any) -> None:
    async with connect(own_daemon.target) as runtime:
        await use(runtime, "unread", receive=False)
        await eventually(lambda: runtime._sessions["unread"].over is not None)
        for number in range(2 * client_runtime.FEW_SESSIONS):
            await use(runtime, f"job-{number}")
        assert (await runtime.receive("unread")).number == 9


async def test_of_the_replies_that_nobody_receives_the_last_are_kept(
    own_daemon: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_runtime, "UNRECEIVED_KEPT", 2)
    monkeypatch.setattr(client_runtime, "FEW_SESSIONS", 4)
    async with connect(own_daemon.target) as runtime:
        for number in range(9):
            await use(runtime, f"unread-{number}", receive=False)
            await eventually(lambda: all(each.over is not None for each in runtime._sessions.values()))
        assert len(runtime._sessions) < 9
        assert "what 'unread-0' has sent is forgotten" in caplog.text
        assert (await runtime.receive("unread-8")).number == 9


def connections_to(target: str) -> int:
    """How many established connections there are to this port of this host."""
    port = f":{int(target.rpartition(':')[2]):04X}"
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return sum(remote.endswith(port) and state == "01" for _, _, remote, state, *_ in rows)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """No garbage collection during the test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def nothing(runtime: RemoteRuntime) -> None:
    pass


async def ask(runtime: RemoteRuntime) -> None:
    await runtime.send_and_receive("square", Job(3))


async def call_and_block(runtime: RemoteRuntime) -> None:
    await runtime.fetch_kernel_ids()
    assert runtime.get_telemetry("square") is not None


async def watch_a_moment(runtime: RemoteRuntime) -> None:
    async for _ in runtime.watch_telemetry(interval=0.01):
        break


async def several_kernels(runtime: RemoteRuntime) -> None:
    for number in range(3):
        await use(runtime, f"job-{number}", receive=number != 1)


async def fail(runtime: RemoteRuntime) -> None:
    with pytest.raises(KernelNotFoundError):
        await runtime.send("nobody", Job(3))


async def be_cancelled(runtime: RemoteRuntime) -> None:
    waiting = asyncio.create_task(runtime.receive("square"))
    await eventually(lambda: "square" in runtime._sessions)
    waiting.cancel()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "use_it",
    [nothing, ask, call_and_block, watch_a_moment, several_kernels, fail, be_cancelled],
    ids=lambda f: f.__name__,
)
async def test_the_connection_ends_with_the_block_without_the_garbage_collector(own_daemon: Any, use_it: Any) -> None:
    async with connect(own_daemon.target) as runtime:
        await use_it(runtime)
        assert connections_to(own_daemon.target) >= 1
    await eventually(lambda: connections_to(own_daemon.target) == 0)
