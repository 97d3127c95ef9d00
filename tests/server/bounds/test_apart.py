"""Long messages are read and written apart: others are answered meanwhile, and nothing is lost or doubled."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from pydotcompute.v1 import dead_letter_service_pb2 as dead
from pydotcompute.v1 import message_service_pb2 as pb
from tests.chaos.overload import ask, struct_ask
from tests.embedded import Recorder
from tests.server.bounds import long_messages as long
from tests.server.bounds.long_messages import MANY, OUTPUT, Holds, ask_load, body
from tests.stubs import PATIENCE, Letter, Talk, Wire, duration, failure_of, read_status


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with asyncio.timeout(4 * PATIENCE), long.daemon() as daemon:
        yield daemon


async def others_are_answered(wire: Wire) -> None:
    assert await wire.ask("short", amount=3) == {"amount": "3"}


def letter(note: str = "hold", count: int = MANY) -> Letter:
    return Letter(body(count, note))


def order(amount: int) -> Letter:
    return Letter(b"\x08" + bytes([amount & 127 | 128, amount >> 7]))


# -- reading -----------------------------------------------------------------------------------------------------------


async def by_ask(wire: Wire) -> None:
    await wire.messages.Ask(ask_load())


async def by_send(wire: Wire) -> None:
    request = pb.SendRequest(kernel_id="taking", message=ask_load().message, client_id="me")
    await wire.messages.Send(request)
    await wire.receive("taking", client_id="me")


async def by_struct(wire: Wire) -> None:
    struct = Struct()
    struct.update({"items": [{}] * MANY, "note": "hold"})
    await wire.messages.Ask(struct_ask("taking", struct.SerializeToString()))


async def service(wire: Wire, kernel_id: str) -> str:
    return str((await wire.describe(kernel_id)).kernel_type.service)


async def by_typed_ask(wire: Wire) -> None:
    call: Any = wire.channel.unary_unary(f"/{await service(wire, 'taking')}/Ask")
    assert await call(body())


async def by_typed_stream(wire: Wire) -> None:
    call: Any = wire.channel.stream_stream(f"/{await service(wire, 'taking')}/Stream")()
    await call.write(body())
    await call.done_writing()
    assert [each async for each in call]


async def by_exchange(wire: Wire) -> None:
    talk = Talk(wire)
    await talk.open("taking")
    await talk.send(letter())
    await talk.received(1)


WAYS_IN = [by_ask, by_send, by_struct, by_typed_ask, by_typed_stream, by_exchange]


@pytest.mark.parametrize("send", WAYS_IN)
async def test_others_are_answered_while_a_long_message_is_read(
    wire: Wire, send: Callable[[Wire], Coroutine[Any, Any, None]]
) -> None:
    Holds.reading.armed = True
    sending = asyncio.create_task(send(wire))
    await Holds.reading.reached()
    await others_are_answered(wire)
    assert not sending.done()
    Holds.reading.let_go.set()
    await sending
    await wire.until("taking", messages_processed=1)


async def test_messages_of_a_session_keep_their_order_around_a_long_one(wire: Wire) -> None:
    Holds.reading.armed = True
    talk, other = Talk(wire), Talk(wire)
    await talk.open("taking")
    await talk.send(letter("", 1), letter(), letter("", 2))
    await Holds.reading.reached()
    await other.open("taking")
    await other.send(letter("", 3))
    assert [each.body for each in await other.received(1)] == [b"\x08\x03"]  # The other session does not wait.
    Holds.reading.let_go.set()
    assert [each.body for each in await talk.received(3)] == [b"\x08\x01", b"\x08\x90\x4e", b"\x08\x02"]


async def test_an_ask_that_is_cancelled_while_it_is_read_never_reaches_the_kernel() -> None:
    recorder = Recorder()
    async with asyncio.timeout(4 * PATIENCE), long.daemon(recorder) as wire:
        Holds.reading.armed = True
        call = wire.messages.Ask(ask_load())
        await Holds.reading.reached()
        call.cancel()
        await recorder.ended.wait()  # Now the daemon knows it.
        Holds.reading.let_go.set()
        await wire.messages.Ask(ask_load(note=""))  # It is read after the other one.
        await wire.until("taking", messages_processed=1)


async def test_a_kernel_that_ends_meanwhile_refuses_the_message(wire: Wire) -> None:
    Holds.reading.armed = True
    talk = Talk(wire)
    await talk.open("taking")
    await talk.send(letter())
    asking = wire.messages.Ask(ask_load(note=""))
    await Holds.reading.reached()
    await wire.terminate("taking")
    Holds.reading.let_go.set()
    assert (await failure_of(asking)).reason == "KERNEL_STATE_INVALID"
    while not talk.refusals:
        await talk.hear("refused", "closed", "bye")
    assert [read_status(each.status).reason for each in talk.refusals] == ["KERNEL_STATE_INVALID"]


async def test_a_stream_that_breaks_while_a_message_is_read_loses_and_doubles_nothing(wire: Wire) -> None:
    Holds.reading.armed = True
    talk = Talk(wire)
    await talk.open("taking")
    await talk.send(letter(), letter("", 2))
    await Holds.reading.reached()
    talk.cut()
    assert (await talk.resume()).received_through == 2
    Holds.reading.let_go.set()
    assert [each.body for each in await talk.received(2)] == [b"\x08\x90\x4e", b"\x08\x02"]
    await wire.until("taking", messages_processed=2)


async def test_a_message_that_is_withdrawn_while_it_is_read_is_not_handled(wire: Wire) -> None:
    Holds.reading.armed = True
    talk, sent = Talk(wire), letter()
    await talk.open("taking")
    await talk.send(sent, letter("", 2))
    await Holds.reading.reached()
    await talk.ack(withdrawn=[sent.message_id])
    await talk.heard()
    Holds.reading.let_go.set()
    assert [each.body for each in await talk.received(1)] == [b"\x08\x02"]
    await wire.until("taking", messages_processed=1)


async def test_a_message_of_a_session_that_ends_meanwhile_becomes_a_dead_letter(wire: Wire) -> None:
    Holds.reading.armed = True
    talk, sent = Talk(wire), letter()
    await talk.open("taking")
    await talk.send(sent)
    await Holds.reading.reached()
    await talk.say(bye=pb.Bye())
    assert await talk.ended() is grpc.StatusCode.OK
    Holds.reading.let_go.set()
    await wire.until("taking", messages_dropped=1)
    await wire.until("taking", messages_processed=0)


async def test_a_malformed_long_message_is_refused_alone(wire: Wire) -> None:
    talk = Talk(wire)
    await talk.open("taking")
    bad = Letter(body(MANY, "") + b"\x0a\xff")
    await talk.send(letter("", 1), bad, letter("", 2))
    (refusal,) = await talk.refused()
    assert (refusal.sequence, refusal.message_id) == (2, bad.message_id)
    assert read_status(refusal.status).reason == "MESSAGE_INVALID"
    assert len(await talk.received(2)) == 2


async def test_the_garbage_collector_pauses_only_while_a_long_message_is_read(wire: Wire) -> None:
    Holds.reading.armed = True
    assert gc.isenabled()
    asking = asyncio.ensure_future(wire.messages.Ask(ask_load()))
    await Holds.reading.reached()
    assert not gc.isenabled()
    Holds.reading.let_go.set()
    await asking
    assert gc.isenabled()


# -- writing -----------------------------------------------------------------------------------------------------------


def ask_for(amount: int) -> pb.AskRequest:
    return ask("giving", "overload.v1.Order", order(amount).body)


async def by_asking(wire: Wire) -> None:
    await wire.messages.Ask(ask_for(MANY))


async def by_receiving(wire: Wire) -> None:
    await wire.send("giving", amount=MANY)
    await wire.receive("giving")


async def by_typed_asking(wire: Wire) -> None:
    call: Any = wire.channel.unary_unary(f"/{await service(wire, 'giving')}/Ask")
    assert await call(order(MANY).body)


async def by_typed_streaming(wire: Wire) -> None:
    call: Any = wire.channel.stream_stream(f"/{await service(wire, 'giving')}/Stream")()
    await call.write(order(MANY).body)
    await call.done_writing()
    assert [each async for each in call]


async def by_exchanging(wire: Wire) -> None:
    talk = Talk(wire)
    await talk.open("giving")
    await talk.send(order(MANY))
    await talk.received(1)


WAYS_OUT = [by_asking, by_receiving, by_typed_asking, by_typed_streaming, by_exchanging]


@pytest.mark.parametrize("fetch", WAYS_OUT)
async def test_others_are_answered_while_a_long_message_is_written(
    wire: Wire, fetch: Callable[[Wire], Coroutine[Any, Any, None]]
) -> None:
    Holds.writing.armed = True
    fetching = asyncio.create_task(fetch(wire))
    await Holds.writing.reached()
    await others_are_answered(wire)
    assert not fetching.done()
    Holds.writing.let_go.set()
    await fetching
    await wire.until("giving", messages_dropped=0)


async def test_a_page_of_dead_letters_is_written_apart(wire: Wire) -> None:
    talk = Talk(wire)
    await talk.open("giving", credit=0)
    await talk.send(order(MANY))
    await wire.until("giving", messages_processed=1)
    await talk.say(bye=pb.Bye())
    assert await talk.ended() is grpc.StatusCode.OK
    await wire.until("giving", messages_dropped=1)
    Holds.writing.armed = True
    listing = asyncio.ensure_future(wire.dead_letters.ListDeadLetters(dead.ListDeadLettersRequest(kernel_id="giving")))
    await Holds.writing.reached()
    await others_are_answered(wire)
    Holds.writing.let_go.set()
    (found,) = (await listing).dead_letters
    assert len(found.message.body.value) == 2 * MANY


async def test_replies_of_a_session_keep_their_order_around_a_long_one(wire: Wire) -> None:
    Holds.writing.armed = True
    talk = Talk(wire)
    await talk.open("giving")
    await talk.send(order(1), order(MANY), order(2), order(MANY), order(3))
    await Holds.writing.reached()
    Holds.writing.let_go.set()
    assert [len(each.body) // 2 for each in await talk.received(5)] == [1, MANY, 2, MANY, 3]


async def test_a_reply_that_is_being_written_when_the_stream_breaks_comes_on_the_next(wire: Wire) -> None:
    Holds.writing.armed = True
    talk = Talk(wire)
    await talk.open("giving")
    await talk.send(order(MANY), order(2))
    await Holds.writing.reached()
    talk.cut()
    await talk.resume()
    Holds.writing.let_go.set()
    assert [len(each.body) // 2 for each in await talk.received(2)] == [MANY, 2]
    await wire.until("giving", messages_processed=2, messages_dropped=0)


async def test_a_reply_that_is_being_written_when_the_session_ends_becomes_one_dead_letter(wire: Wire) -> None:
    Holds.writing.armed = True
    talk = Talk(wire)
    await talk.open("giving")
    await talk.send(order(MANY))
    await Holds.writing.reached()
    await talk.say(bye=pb.Bye())
    assert await talk.ended() is grpc.StatusCode.OK
    await wire.until("giving", messages_dropped=1)
    Holds.writing.let_go.set()
    await wire.messages.Ask(ask_for(MANY))  # It is written after the other one.
    await wire.until("giving", messages_processed=2, messages_dropped=1)


async def test_an_output_that_is_being_written_when_the_session_ends_is_for_others(wire: Wire) -> None:
    Holds.writing.armed = True
    talk = Talk(wire)
    await talk.open("giving")
    await talk.send(Letter(OUTPUT))
    await talk.pull(1)
    await Holds.writing.reached()
    await talk.say(bye=pb.Bye())
    assert await talk.ended() is grpc.StatusCode.OK
    Holds.writing.let_go.set()
    received = await wire.receive("giving")
    assert len(received.body.value) == 2 * MANY


@pytest.mark.parametrize("how", ["ask", "receive"])
async def test_a_message_whose_receiver_is_gone_while_it_is_written_is_not_lost(wire: Wire, how: str) -> None:
    Holds.writing.armed = True
    if how == "ask":
        call = wire.messages.Ask(ask_for(MANY))
    else:
        await wire.send("giving", amount=MANY, client_id="me")
        call = wire.messages.Receive(pb.ReceiveRequest(kernel_id="giving", client_id="me", timeout=duration(PATIENCE)))
    task = asyncio.ensure_future(call)
    await Holds.writing.reached()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if how == "ask":
        await wire.until("giving", messages_dropped=1)
        Holds.writing.let_go.set()
    else:
        Holds.writing.let_go.set()
        again = await wire.lease("giving", 10, client_id="me")
        assert len(again.message.body.value) == 2 * MANY
        assert again.redelivered
        await wire.until("giving", messages_dropped=0)
