"""Who uses the daemon, and how that is ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from pydotcompute.exceptions import InvalidConfigurationError, SessionLostError
from pydotcompute.v1 import client_service_pb2 as pb
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.v1.client_service_pb2_grpc import ClientServiceStub
from pydotcompute_client import RemoteRuntime, connect
from pydotcompute_client.channels import USER_AGENT
from pydotcompute_server import Daemon
from tests.embedded import EmbeddedWire, Order, embedded
from tests.principals import believing, saying
from tests.stubs import PATIENCE, Letter, Talk, duration, failure_of

BODY = b"\x08\x05"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def daemon(stack: AsyncExitStack) -> Daemon:
    return await stack.enter_async_context(embedded(believing, list_page=2))


async def wire_of(stack: AsyncExitStack, daemon: Daemon, name: str) -> EmbeddedWire:
    """A connection of this principal's."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.insecure_channel(daemon.address, options=options, interceptors=saying(name))
    return EmbeddedWire(await stack.enter_async_context(channel), daemon.address)


async def runtime_of(stack: AsyncExitStack, daemon: Daemon, name: str) -> RemoteRuntime:
    return await stack.enter_async_context(connect(daemon.address, interceptors=saying(name)))


async def eventually(runtime: RemoteRuntime, **facts: int) -> Any:
    """The only client of `alice`, once it is so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            (alice,) = [client for client in await runtime.fetch_clients() if client.principal == "alice"]
            if {name: getattr(alice, name) for name in facts} == facts:
                return alice


# -- the list ----------------------------------------------------------------------------------------------------------


async def test_a_client_is_listed_with_what_it_does(stack: AsyncExitStack, daemon: Daemon) -> None:
    alice = await runtime_of(stack, daemon, "alice")
    assert await alice.fetch_clients() == []  # Whoever only asks is not listed.
    for number in range(3):
        await alice.send_and_receive("echo", Order(number))
    told = await eventually(alice, messages_received=3, messages_sent=3, sessions=1, calls=1)
    assert told.principal == "alice"
    assert told.peer.startswith("ipv4:127.0.0.1:")
    assert told.user_agent.startswith(USER_AGENT)
    assert (told.messages_per_second, told.bytes_per_second) == (None, None)
    assert told.bytes_received == told.bytes_sent > 0
    await alice.deactivate("echo")
    for number in range(5):
        await alice.send("echo", Order(number))
    await eventually(alice, messages_under_way=5, messages_received=8)
    await alice.reactivate("echo")
    await eventually(alice, messages_under_way=0, messages_sent=8)


async def test_what_a_client_has_sent_still_counts_when_its_session_is_over(
    stack: AsyncExitStack, daemon: Daemon
) -> None:
    bob = await runtime_of(stack, daemon, "bob")
    async with connect(daemon.address, interceptors=saying("alice")) as alice:
        await alice.send_and_receive("echo", Order(1))
    await eventually(bob, messages_received=1, messages_sent=1, sessions=0, calls=0)


async def test_unary_calls_and_streams_are_counted_too(stack: AsyncExitStack, daemon: Daemon) -> None:
    bob, alice = await runtime_of(stack, daemon, "bob"), await wire_of(stack, daemon, "alice")
    await alice.ask("echo", amount=1)
    await alice.send("echo", amount=2, client_id="hers")
    await alice.receive("echo", client_id="hers")
    await eventually(bob, messages_received=2, bytes_received=4, messages_sent=2, bytes_sent=4, sessions=0, calls=0)
    method: Any = alice.channel.stream_stream("/shop.v1.Echo/Stream")
    call = method()
    await call.write(BODY)
    assert await call.read() == BODY
    await eventually(bob, messages_received=3, bytes_received=6, messages_sent=3, bytes_sent=6, sessions=0, calls=1)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    await eventually(bob, messages_received=3, calls=0)


async def test_the_rate_is_that_of_the_interval(stack: AsyncExitStack, daemon: Daemon) -> None:
    alice = await runtime_of(stack, daemon, "alice")
    await alice.send_and_receive("echo", Order(1))
    listing = asyncio.create_task(alice.fetch_clients(0.5))
    while not listing.done():
        await alice.send_and_receive("echo", Order(1))
    (told,) = listing.result()
    assert told.messages_per_second is not None
    assert told.bytes_per_second == pytest.approx(2 * told.messages_per_second)
    assert 0 < told.messages_per_second <= 2 * told.messages_received


async def test_an_interval_shorter_than_clocks_count_is_a_longer_one(stack: AsyncExitStack, daemon: Daemon) -> None:
    alice = await runtime_of(stack, daemon, "alice")
    await alice.send_and_receive("echo", Order(1))
    for _ in range(20):
        (told,) = await alice.fetch_clients(1e-9)
        assert told.messages_per_second == 0


async def test_clients_are_listed_in_pages_in_the_order_in_which_they_came(
    stack: AsyncExitStack, daemon: Daemon
) -> None:
    names = [f"client {number}" for number in range(5)]
    for name in names:
        await (await wire_of(stack, daemon, name)).ask("echo", amount=1)
    stub: Any = ClientServiceStub((await wire_of(stack, daemon, "bob")).channel)
    found, token = [], ""
    while True:
        page = await stub.ListClients(pb.ListClientsRequest(page_size=9, page_token=token))
        assert len(page.clients) <= 2
        found += [client.principal for client in page.clients]
        if not (token := page.next_page_token):
            break
    assert found == names
    bob = await runtime_of(stack, daemon, "bob")
    assert [client.principal for client in await bob.fetch_clients()] == names
    assert [client.principal for client in await asyncio.to_thread(bob.get_clients)] == names
    refusal = await failure_of(stub.ListClients(pb.ListClientsRequest(page_token="x")))
    assert (refusal.reason, refusal.detail["path"]) == ("MESSAGE_INVALID", "$.page_token")


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_a_kicked_principal_loses_its_sessions_with_words_and_may_come_again(
    stack: AsyncExitStack, daemon: Daemon
) -> None:
    alice, bob = await runtime_of(stack, daemon, "alice"), await runtime_of(stack, daemon, "bob")
    await bob.send_and_receive("echo", Order(1))
    await alice.send_and_receive("echo", Order(1))
    await bob.deactivate("echo")
    waiting = asyncio.create_task(alice.send_and_receive("echo", Order(2)))
    his = asyncio.create_task(bob.send_and_receive("echo", Order(3)))
    await eventually(bob, messages_under_way=1)
    kicked = await bob.kick("alice", reason="the host is needed")
    assert (kicked.sessions, kicked.calls, kicked.client_ids) == (1, 1, 0)
    with pytest.raises(SessionLostError, match="an operator has ended it: the host is needed"):
        await waiting
    await bob.reactivate("echo")
    assert (await his).amount == 3
    assert (await alice.send_and_receive("echo", Order(4))).amount == 4


async def test_a_kicked_session_without_a_stream_cannot_be_resumed(stack: AsyncExitStack, daemon: Daemon) -> None:
    alice, bob = await wire_of(stack, daemon, "alice"), await runtime_of(stack, daemon, "bob")
    talk = Talk(alice)
    await talk.open("echo")
    talk.cut()
    await eventually(bob, sessions=1, calls=0)
    assert (await bob.kick("alice")).sessions == 1
    assert (await failure_of(talk.resume())).reason == "SESSION_LOST"


async def test_a_kick_by_address_is_for_that_connection_alone(stack: AsyncExitStack, daemon: Daemon) -> None:
    one, other = Talk(await wire_of(stack, daemon, "alice")), Talk(await wire_of(stack, daemon, "alice"))
    bob = await runtime_of(stack, daemon, "bob")
    await one.open("echo")
    await other.open("echo")
    first, _ = await bob.fetch_clients()
    assert (await bob.kick(peer=first.peer)).sessions == 1
    failure = await one.ended()
    assert not isinstance(failure, grpc.StatusCode)
    assert failure.reason == "SESSION_LOST"
    await other.send(Letter(BODY))
    await other.received(1)


async def test_a_kick_ends_streams_and_waiting_calls(stack: AsyncExitStack, daemon: Daemon) -> None:
    alice, bob = await wire_of(stack, daemon, "alice"), await runtime_of(stack, daemon, "bob")
    method: Any = alice.channel.stream_stream("/shop.v1.Echo/Stream")
    stream = method()
    await stream.write(BODY)
    await stream.read()
    waiting = asyncio.create_task(failure_of(alice.receive("echo", 30.0)))
    await eventually(bob, calls=2)
    assert (await bob.kick("alice", reason="maintenance")).calls == 2
    assert (await waiting).detail["problem"] == "an operator has ended it: maintenance"
    assert (await failure_of(stream.read())).reason == "SESSION_LOST"
    assert await alice.ask("echo", amount=1) == {"amount": "1"}


async def test_a_kicked_client_id_is_forgotten_and_its_receive_ends(stack: AsyncExitStack, daemon: Daemon) -> None:
    alice, bob = await wire_of(stack, daemon, "alice"), await runtime_of(stack, daemon, "bob")
    other = await wire_of(stack, daemon, "carol")
    await alice.send("echo", amount=1, client_id="shared")
    sent = await other.send("echo", amount=2, client_id="shared")
    await alice.until("echo", messages_processed=2)
    assert (await bob.kick("alice", client_id="shared")).client_ids == 1
    (letter,) = await bob.fetch_dead_letters("echo")
    assert letter.message.amount == 1
    assert (await other.receive("echo", client_id="shared")).message_id == sent
    waiting = asyncio.create_task(failure_of(alice.receive("echo", 30.0, client_id="shared")))
    await eventually(bob, calls=1)
    assert (await bob.kick(client_id="shared", reason="enough")).client_ids == 2  # Of alice and of carol.
    assert (await waiting).detail["problem"] == "an operator has ended it: enough"


async def test_a_kick_of_nobody_in_particular_is_refused(stack: AsyncExitStack, daemon: Daemon) -> None:
    bob = await runtime_of(stack, daemon, "bob")
    with pytest.raises(InvalidConfigurationError, match="name a principal, a peer or a client_id"):
        await bob.kick(reason="all of you")
    assert (await bob.kick("nobody")).sessions == 0


async def test_a_call_that_its_client_cancels_is_no_kick(stack: AsyncExitStack, daemon: Daemon) -> None:
    alice, bob = await wire_of(stack, daemon, "alice"), await runtime_of(stack, daemon, "bob")
    call = alice.messages.Receive(message_pb.ReceiveRequest(kernel_id="echo", timeout=duration(30.0)))
    await eventually_called(bob)
    call.cancel()
    await eventually(bob, calls=0)
    await bob.deactivate("echo")
    await alice.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id="echo"))


async def eventually_called(runtime: RemoteRuntime) -> None:
    async with asyncio.timeout(PATIENCE):
        while not [client for client in await runtime.fetch_clients() if client.calls]:
            pass
