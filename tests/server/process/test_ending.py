"""When the daemon ends, everyone whom it refuses is told just that, whatever lane, kernel and moment it is."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
import pytest

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute_client import RemoteRuntime, connect
from tests.contract.kernels import Job
from tests.server.typed.services import service_of
from tests.stubs import KERNELS, PATIENCE, Wire

ROUNDS = 3
LOOPS = 4
"""How many of each kind ask again and again."""


class Callers:
    """Everyone who wants something of the daemon when it ends, and how each of them was refused."""

    def __init__(self, group: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        self.refusals: Counter[tuple[str, str]] = Counter()
        self.busy: set[str] = set()
        """Those who have been served at least once."""
        self._group = group
        self._stack = stack
        self._tasks: list[asyncio.Task[None]] = []

    async def client(self, target: str) -> RemoteRuntime:
        """A client of its own."""
        return await self._stack.enter_async_context(connect(target, reconnect_timeout=1.0, timeout=PATIENCE))

    def waits(self, name: str, call: Awaitable[Any]) -> None:
        """Someone waits for the one call, which the daemon will not answer."""
        self._tasks.append(self._group.create_task(self._refused(name, call)))

    def repeats(self, name: str, call: Callable[[], Awaitable[Any]]) -> None:
        """Several call again and again, until the daemon refuses them."""

        async def repeat() -> None:
            while True:
                await call()
                self.busy.add(name)

        for _ in range(LOOPS):
            self.waits(name, repeat())

    async def _refused(self, name: str, call: Awaitable[Any]) -> None:
        try:
            await call
        except PyDotComputeError as error:
            self.refusals[name, type(error).__name__] += 1
        except grpc.aio.AioRpcError as error:
            self.refusals[name, error.code().name] += 1

    async def are_refused(self) -> None:
        """Wait until everyone knows."""
        await asyncio.wait(self._tasks, timeout=PATIENCE)
        assert all(task.done() for task in self._tasks)


@pytest.mark.parametrize("number", range(ROUNDS))
async def test_everyone_who_is_refused_is_told_that_the_daemon_ends(
    start_daemon: Callable[..., Any], number: int
) -> None:
    daemon = start_daemon(str(KERNELS), "--launch", "square", "--grace", "2")
    async with (
        grpc.aio.insecure_channel(daemon.target) as channel,
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        wire, callers = Wire(channel), Callers(group, stack)
        await wire.describe("square")
        idle, paused, full = "echo_job", "patient", "stretcher"
        for kernel_type, size in ((idle, 16), (paused, 16), (full, 1), ("sleeper", 16), ("sink", 16)):
            await wire.kernels.Launch(
                kernel_pb.LaunchRequest(
                    kernel_id=kernel_type,
                    kernel_type=kernel_type,
                    config=kernel_pb.KernelConfig(input_queue_size=size),
                )
            )
            await wire.kernels.Activate(kernel_pb.ActivateRequest(kernel_id=kernel_type))
            await wire.describe(kernel_type)
        for kernel_type in (paused, full):
            await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_type))
        await wire.send(full, number=1)

        # What waits: in hand, in a mailbox, for room, and for something to receive.
        client = await callers.client(daemon.target)
        callers.waits("exchange in hand", client.send_and_receive("sleeper", Job(60_000)))
        await wire.until("sleeper", queue_depth=0)
        callers.waits("exchange paused", client.send_and_receive(paused, Job(1)))
        callers.waits("exchange room", client.send_and_receive(full, Job(1)))
        callers.waits("exchange receive", client.receive(idle))
        callers.waits("unary paused", wire.ask(paused, number=1))
        callers.waits("unary room", wire.send(full, number=1))
        callers.waits("unary ask room", wire.ask(full, number=1))
        callers.waits("unary receive", wire.receive(idle))
        callers.waits("unary receive paused", wire.receive(paused))
        service = await service_of(wire, paused)
        stream = service.stream({})
        await stream.write(service.message(number=1))
        callers.waits("typed stream", stream.read())
        callers.waits("typed paused", service.ask({}, number=1))
        await wire.until(paused, queue_depth=4)

        # What comes again and again.
        for _ in range(2):
            runtime = await callers.client(daemon.target)
            callers.repeats("exchange", partial(ask_square, runtime))
        callers.repeats("unary", lambda: wire.ask("square", number=2))
        callers.repeats("unary send", lambda: wire.send("sink", number=1))
        typed = await service_of(wire, "square")
        callers.repeats("typed", lambda: typed.ask({}, number=2))
        callers.repeats("open", lambda: connect_and_ask(daemon.target))
        callers.repeats("launch", lambda: launch_and_terminate(wire))
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            while len(callers.busy) < 6:
                await wire.counters("square")
        await asyncio.to_thread(daemon.stop)
        await callers.are_refused()
    refused = dict(callers.refusals)
    assert refused.pop(("exchange in hand", "SessionLostError")) == 1, "the only one that the kernel had begun"
    told = {reason for _, reason in refused}
    assert told == {"ConnectionLostError", "UNAVAILABLE"}, refused


async def ask_square(runtime: RemoteRuntime) -> None:
    """A client that asks."""
    await runtime.send_and_receive("square", Job(2))


async def connect_and_ask(target: str) -> None:
    """A client that comes, asks once, and goes."""
    async with connect(target, reconnect_timeout=1.0, timeout=PATIENCE) as runtime:
        await runtime.send_and_receive("square", Job(3))


async def launch_and_terminate(wire: Wire) -> None:
    """A kernel that is launched, and ended."""
    kernel_id = await wire.launch("sink")
    await wire.terminate(kernel_id)
