"""What is whose: what another principal names is as unknown as what never was."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute_server.principals import Principal
from tests.embedded import EmbeddedWire, embedded
from tests.principals import believing, saying
from tests.stubs import Failure, Letter, Talk, Wire, duration, failure_of, read_error

FEW: dict[str, Any] = {
    "client_ids": 4,
    "max_sessions": 8,
    "max_leases": 8,
    "max_watchers": 8,
    "sessions_kept": 4,
    "sent_ids": 4,
}


async def connected(stack: AsyncExitStack, address: str, name: str) -> EmbeddedWire:
    """A connection of this principal's."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.insecure_channel(address, options=options, interceptors=saying(name))
    return EmbeddedWire(await stack.enter_async_context(channel), address)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def address(stack: AsyncExitStack) -> str:
    return (await stack.enter_async_context(embedded(believing, **FEW))).address


@pytest.fixture
async def alice(stack: AsyncExitStack, address: str) -> EmbeddedWire:
    return await connected(stack, address, "alice")


@pytest.fixture
async def bob(stack: AsyncExitStack, address: str) -> EmbeddedWire:
    return await connected(stack, address, "bob")


async def opening_fails(wire: Wire, token: bytes) -> Failure:
    """How it ends to open a session with this token."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await Talk(wire).open("echo", session_token=token)
    return read_error(failed.value)


# -- another's -----------------------------------------------------------------------------------------------------


async def test_a_client_id_of_another_principal_is_another_client_id(alice: Wire, bob: Wire) -> None:
    sent = await alice.send("echo", amount=1, client_id="mine")
    await alice.until("echo", messages_processed=1)
    assert await failure_of(bob.receive("echo", 0.01, "mine")) == await failure_of(bob.receive("echo", 0.01, "nobody"))
    assert (await alice.receive("echo", client_id="mine")).message_id == sent


async def test_a_session_of_another_principal_is_as_unknown_as_none(alice: Wire, bob: Wire) -> None:
    talk = Talk(alice)
    token = (await talk.open("echo")).session_token
    nobodys = token[:16] + bytes(16)
    assert await opening_fails(bob, token) == await opening_fails(bob, nobodys)
    await talk.send(Letter(b"\x08\x05"))  # Her stream has not been taken over.
    await talk.received(1)


async def test_a_session_without_a_stream_is_resumed_by_its_own_principal_alone(
    stack: AsyncExitStack, alice: Wire, bob: Wire, address: str
) -> None:
    talk = Talk(alice)
    token = (await talk.open("echo")).session_token
    talk.call.cancel()
    assert (await opening_fails(bob, token)).reason == "SESSION_LOST"
    assert (await opening_fails(await connected(stack, address, "anonymous-2"), token)).reason == "SESSION_LOST"
    again = await connected(stack, address, "alice")  # Another connection of hers.
    assert (await Talk(again).open("echo", session_token=token)).session_token == token


async def test_a_lease_of_another_principal_is_as_unknown_as_none(alice: Wire, bob: Wire) -> None:
    await alice.send("echo", amount=1, client_id="mine")
    leased = (await alice.lease("echo", 600.0, client_id="mine")).delivery_id
    assert await bob.acknowledge("echo", leased, "nobody's") == [leased, "nobody's"]
    assert await alice.acknowledge("echo", leased) == []
    assert await alice.acknowledge("echo", leased) == []  # She may say it twice.
    assert await bob.acknowledge("echo", leased) == [leased]


async def test_a_message_id_of_another_principal_says_nothing_of_what_was_sent(alice: Wire, bob: Wire) -> None:
    described = await alice.describe("echo")
    body = alice.body(described.input_type.full_name, amount=1)
    message_id = await alice.send("echo", amount=1, client_id="mine")
    await alice.receive("echo", client_id="mine")
    request = pb.SendRequest(kernel_id="echo", message=pb.Message(body=body, message_id=message_id), client_id="mine")
    await bob.messages.Send(request)
    assert (await bob.receive("echo", client_id="mine")).message_id == message_id  # It is a message of his own.


def test_nobody_may_be_called_as_those_in_the_process() -> None:
    with pytest.raises(InvalidConfigurationError, match="own process"):
        Principal("local")


# -- full tables ---------------------------------------------------------------------------------------------------


def refused(name: str, limit: int) -> Failure:
    detail = {"name": name, "limit": limit, "asked": limit + 1, "retry_after": 1.0}
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", detail)


async def test_a_principal_with_many_client_ids_displaces_its_own(alice: Wire, bob: Wire) -> None:
    sent = await alice.send("echo", amount=1, client_id="mine")
    last = [await bob.send("echo", amount=number, client_id=f"flood {number}") for number in range(6)][-1]
    await alice.until("echo", messages_processed=7)
    assert (await alice.receive("echo", client_id="mine")).message_id == sent
    assert (await bob.receive("echo", client_id="flood 5")).message_id == last
    assert (await failure_of(bob.receive("echo", 0.01, client_id="flood 0"))).reason == "QUEUE_TIMEOUT"


async def test_a_principal_with_many_connections_takes_no_client_id_of_another(
    stack: AsyncExitStack, alice: Wire, address: str
) -> None:
    sent = await alice.send("echo", amount=1, client_id="mine")
    for number in range(3):
        await (await connected(stack, address, "bob")).send("echo", amount=number, client_id=str(number))
    await alice.until("echo", messages_processed=4)
    one_more = (await connected(stack, address, "bob")).send("echo", amount=9, client_id="9")
    assert await failure_of(one_more) == refused("client_ids", 4)
    assert (await alice.receive("echo", client_id="mine")).message_id == sent


async def test_a_principal_who_has_most_gives_way_to_one_who_has_none(alice: Wire, bob: Wire) -> None:
    for number in range(4):
        await bob.send("echo", amount=number, client_id=str(number))
    await bob.until("echo", messages_processed=4)
    sent = await alice.send("echo", amount=1, client_id="mine")
    assert (await alice.receive("echo", client_id="mine")).message_id == sent


async def test_a_principal_who_keeps_many_sessions_displaces_its_own(alice: Wire, bob: Wire) -> None:
    async def left_alone(wire: Wire) -> bytes:
        talk = Talk(wire)
        token = (await talk.open("echo")).session_token
        talk.call.cancel()
        return token

    hers = await left_alone(alice)
    his = [await left_alone(bob) for _ in range(6)]
    assert (await Talk(alice).open("echo", session_token=hers)).session_token == hers
    assert (await opening_fails(bob, his[0])).reason == "SESSION_LOST"
    assert (await Talk(bob).open("echo", session_token=his[-1])).session_token == his[-1]


async def test_one_session_too_many_of_a_principal_is_refused_and_others_have_room(
    stack: AsyncExitStack, alice: Wire, address: str
) -> None:
    for _ in range(7):
        await Talk(await connected(stack, address, "bob")).open("echo")
    assert await opening_fails(await connected(stack, address, "bob"), b"") == refused("max_sessions_per_principal", 7)
    await Talk(alice).open("echo")


async def test_one_lease_too_many_of_a_principal_is_refused_and_others_have_room(
    stack: AsyncExitStack, alice: Wire, address: str
) -> None:
    for number in range(7):
        bob = await connected(stack, address, "bob")
        await bob.send("echo", amount=number, client_id="his")
        await bob.lease("echo", 600.0, client_id="his")
    request = pb.ReceiveRequest(kernel_id="echo", timeout=duration(0.01), lease=duration(600.0))
    assert await failure_of(bob.messages.Receive(request)) == refused("max_leases_per_principal", 7)
    await alice.send("echo", amount=1, client_id="mine")
    assert (await alice.lease("echo", 600.0, client_id="mine")).delivery_id


async def test_one_watcher_too_many_of_a_principal_is_refused_and_others_have_room(
    stack: AsyncExitStack, alice: Wire, address: str
) -> None:
    from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb

    watches = []
    for _ in range(7):
        bob = await connected(stack, address, "bob")
        watches.append(bob.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest(interval=duration(0.1))))
        await watches[-1].read()
    one_more = bob.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
    assert await failure_of(one_more.read()) == refused("max_watchers_per_principal", 7)
    hers = alice.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
    await hers.read()
    for watch in (*watches, hers):
        watch.cancel()
