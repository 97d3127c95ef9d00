"""A kernel that makes long replies from short requests waits when memory is used up, and others go on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from pydotcompute import KernelContext, RingKernelConfig, message
from pydotcompute.protobuf.varints import varint
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute_client import connect
from pydotcompute_server.daemon import Daemon
from pydotcompute_server.limits import Limits
from pydotcompute_server.settings import Settings
from tests.properties import cases
from tests.stubs import PATIENCE, Letter, Talk, Wire

MIB = 1 << 20
BUDGET = 128 * MIB
FULL = 120 * MIB
SLACK = 8 * MIB
"""What an actor may send beyond that before it waits, with what is counted twice while it is being sent."""
CLIENTS = 4
WISHES = 80


@message(package="replies.v1")
class Wish:
    """A short request for so many bytes."""

    size: int = 0


@message(package="replies.v1")
class Gift:
    """A long reply."""

    data: bytes = b""


async def reply(ctx: KernelContext[Wish, Gift]) -> None:
    """Answers each request when it has it."""
    async for wish in ctx:
        await ctx.send(Gift(made(wish.size), correlation_id=wish.message_id))  # type: ignore[call-arg, attr-defined]


async def batch(ctx: KernelContext[Wish, Gift]) -> None:
    """Answers all requests that wait, one by one."""
    async for wishes in ctx.batches(max_size=CLIENTS * WISHES, max_delay=0.05):
        for wish in wishes:
            await ctx.send(Gift(made(wish.size), correlation_id=wish.message_id))  # type: ignore[call-arg, attr-defined]


async def output(ctx: KernelContext[Wish, Gift]) -> None:
    """Sends as many outputs as there are requests, all for the first request."""
    async for wish in ctx:
        for _ in range(CLIENTS * WISHES):
            await ctx.send(Gift(made(wish.size)))


def made(size: int) -> bytes:
    """Bytes that take a moment to make, so that a kernel makes few of them between two looks at the memory."""
    time.sleep(0.001)
    return b"x" * size


def thread(ctx: Any) -> None:
    """Does what `reply` does, in a thread."""
    for wish in ctx:
        ctx.send(Gift(made(wish.size), correlation_id=wish.message_id))  # type: ignore[call-arg]


ACTORS: dict[str, Callable[..., Any]] = {"reply": reply, "batch": batch, "output": output, "thread": thread}


@asynccontextmanager
async def started() -> AsyncIterator[tuple[Daemon, Wire]]:
    types = {
        name: KernelType(name, actor, RingKernelConfig(name), Wish, Gift)
        for name, actor in {**ACTORS, "other": reply}.items()
    }
    limits = Limits(grace=1.0, memory_bytes=BUDGET)
    daemon = Daemon(Settings(listen="127.0.0.1:0", launch=["all"], limits=limits), types)
    await daemon.start()
    running = asyncio.create_task(daemon.run())
    try:
        async with grpc.aio.insecure_channel(daemon.address) as channel:
            yield daemon, Wire(channel)
    finally:
        daemon.stop()
        await running


def wish(size: int = MIB) -> Letter:
    return Letter(b"\x08" + varint(size))


async def waits(wire: Wire, kernel_id: str) -> None:
    """Wait until the actor waits for room."""
    async with asyncio.timeout(PATIENCE):
        while not (await wire.counters(kernel_id)).HasField("stuck_in_send_seconds"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def receive(talk: Talk) -> int:
    """Receive all replies of a client, and acknowledge each. Return how many bytes they have."""
    while len(talk.letters) < WISHES:
        await talk.ack(talk.seen, credit_bytes=1 << 40)
        await talk.hear("batch")
    await talk.ack(talk.seen)
    return sum(len(letter.body) for letter in talk.letters)


@pytest.mark.parametrize("kernel_id", cases(["reply", "batch", "thread"], quick=["reply"]))
async def test_an_actor_waits_until_its_replies_are_received(kernel_id: str) -> None:
    async with started() as (daemon, wire):
        talks = [Talk(wire) for _ in range(CLIENTS)]
        for talk in talks:
            await talk.open(kernel_id, credit_bytes=1)
            await talk.send(*(wish() for _ in range(WISHES)))
        await waits(wire, kernel_id)
        assert FULL <= daemon.memory.used <= FULL + SLACK
        assert daemon.memory.report()["sessions"] >= FULL
        async with connect(daemon.address) as runtime:
            memory = await runtime.fetch_memory()
        assert memory.budget_bytes == BUDGET
        assert memory.used_bytes == sum(memory.places.values())
        assert memory.places["sessions"] >= FULL
        assert memory.resident_bytes > FULL // 2
        for _ in range(20):  # Another kernel goes on.
            assert await wire.ask("other", size=10)
        assert daemon.memory.used <= FULL + SLACK
        received = await asyncio.gather(*map(receive, talks))
        assert min(received) > WISHES * MIB
        for talk in talks:
            talk.cut()


async def test_an_actor_waits_with_outputs_that_nobody_receives() -> None:
    async with started() as (daemon, wire):
        await wire.send("output", client_id="me", size=MIB)
        await waits(wire, "output")
        assert FULL <= daemon.memory.report()["mailboxes"] <= FULL + SLACK
        for _ in range(CLIENTS * WISHES):
            await wire.receive("output")


async def test_replies_to_calls_count_until_they_are_read() -> None:
    async with started() as (daemon, wire):
        asking = [asyncio.ensure_future(wire.ask("reply", size=MIB)) for _ in range(160)]
        most = 0
        while not all(task.done() for task in asking):
            most = max(most, daemon.memory.report()["calls"])
            await asyncio.sleep(0)
        await asyncio.gather(*asking)
        assert MIB <= most <= FULL + SLACK
        async with asyncio.timeout(PATIENCE):
            while daemon.memory.report()["calls"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_an_actor_that_waits_for_room_ends_when_it_is_asked_to() -> None:
    async with started() as (_, wire):
        talk = Talk(wire)
        await talk.open("reply", credit_bytes=1)
        await talk.send(*(wish() for _ in range(CLIENTS * WISHES)))
        await waits(wire, "reply")
        await wire.terminate("reply", timeout=PATIENCE)
        talk.cut()
