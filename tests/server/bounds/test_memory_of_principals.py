"""When memory is short, it is whoever holds much of it that gets no more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from pydotcompute import message
from pydotcompute.exceptions import MemoryExhaustedError
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute_server import Daemon
from pydotcompute_server.bounds.memory import Memory
from tests.embedded import EmbeddedWire, embedded
from tests.principals import believing, saying
from tests.stubs import Failure, Letter, Talk, Wire, failure_of, read_error

MIB = 1 << 20


@message(package="luggage.v1")
class Trunk:
    """Something large."""

    data: bytes = b""


async def store(ctx: KernelContext[Any, Any]) -> None:
    """Sends each trunk back."""
    async for trunk in ctx:
        await ctx.send(trunk)


STORE = KernelType("store", store, RingKernelConfig("store"), Trunk, Trunk)
TEXT = "A" * 400_000  # In base64, of 300,000 bytes.


@asynccontextmanager
async def as_one(daemon: Daemon, name: str) -> AsyncIterator[EmbeddedWire]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(daemon.address, options=options, interceptors=saying(name)) as channel:
        yield EmbeddedWire(channel, daemon.address)


async def refusal_of(wire: Wire, client_id: str) -> Failure:
    """Send trunks until one is refused."""
    while True:
        try:
            await wire.send("store", data=TEXT, client_id=client_id)
        except grpc.aio.AioRpcError as error:
            return read_error(error)


@pytest.mark.parametrize("paused", [True, False], ids=["in the mailbox", "as replies"])
async def test_a_principal_that_fills_memory_is_refused_while_another_has_room(*, paused: bool) -> None:
    async with (
        embedded(believing, kernels=[STORE], memory_bytes=8 * MIB) as daemon,
        as_one(daemon, "bob") as bob,
        as_one(daemon, "alice") as alice,
    ):
        if paused:
            await bob.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id="store"))
        failure = await refusal_of(bob, "his")
        assert failure.reason == "MEMORY_EXHAUSTED"
        assert failure.detail["budget"] == 4 * MIB  # His share; he may have more of it only while there is plenty.
        for _ in range(3):
            await alice.send("store", data=TEXT, client_id="hers")
        assert (await failure_of(bob.send("store", data=TEXT, client_id="his"))).reason == "MEMORY_EXHAUSTED"
        if paused:
            await bob.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id="store"))
        assert len((await alice.receive("store", client_id="hers")).body.value) > 300_000


async def test_a_session_of_a_principal_that_fills_memory_gets_no_credit() -> None:
    async with (
        embedded(believing, kernels=[STORE], memory_bytes=8 * MIB) as daemon,
        as_one(daemon, "bob") as bob,
        as_one(daemon, "alice") as alice,
    ):
        await bob.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id="store"))
        assert (await refusal_of(bob, "his")).reason == "MEMORY_EXHAUSTED"
        hers = Talk(alice)
        assert (await Talk(bob).open("store")).credit.bytes == 0
        assert (await hers.open("store")).credit.bytes > 0
        await hers.send(Letter(b"\x0a\x01x"))
        await hers.until_accepted(1)


def test_only_when_memory_is_tight_does_it_matter_who_holds_it() -> None:
    now, held = [0.0], {"bob": 700, "alice": 0}

    def later(name: str, size: int) -> None:
        held[name] = size
        now[0] += 10.0

    memory = Memory(1_000, lambda: now[0])
    memory.add_place("all", lambda: sum(held.values()))
    memory.tell_apart(held.__getitem__)
    later("bob", 700)
    assert memory.has_room_for(50, "bob")  # Until then, all that nobody else needs is his.
    later("bob", 760)
    assert not memory.has_room_for(10, "bob")
    assert memory.is_full_for("bob")
    with pytest.raises(MemoryExhaustedError, match="760 of 500 bytes"):
        memory.require(10, "bob")
    assert not memory.is_full_for("alice")
    assert memory.has_room_for(100, "alice")
    later("alice", 240)
    with pytest.raises(MemoryExhaustedError, match="of 1000 bytes"):
        memory.require(10, "alice")
