"""Sessions outlive their streams: what is lost with one comes again on the next, and nothing is done twice."""

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from pydotcompute.v1 import message_service_pb2 as pb
from tests.contract.world import eventually
from tests.server.exchange.helpers import MIB, SESSION_TIMEOUT, Talks, answered, ids, jobs
from tests.stubs import KERNELS, PATIENCE, Failure, Letter, Talk, Wire, failure_of, how_it_ends, job_bytes, read_status

# -- types that the kernel has not declared ----------------------------------------------------------------------------


def names(types: Iterable[pb.MessageType]) -> list[str]:
    return [each.full_name.rpartition(".")[2] for each in types]


async def test_a_new_type_is_named_before_its_first_message_and_on_the_next_stream(wire: Wire, talk: Talks) -> None:
    one = talk()
    opened = await one.open(await wire.launch("undeclared"), new_types=True)
    assert names(opened.types) == ["Job"]
    await one.send(*jobs(0, 2))
    assert names((await one.hear("types")).types) == ["Result"]
    await one.received(2)
    assert [list(batch.types) for batch in one.batches if batch.types] in ([[0, 1]], [[1]])
    await one.send(*jobs(4, 3))
    assert names((await one.hear("types")).types) == ["Bare"]
    await one.received(4)
    one.cut()
    assert names((await one.resume(received_through=0)).types) == ["Job", "Result", "Bare"]
    await one.send(*jobs(6))
    await one.received(9)
    assert [frame.WhichOneof("frame") for frame in one.frames].count("types") == 2


async def test_a_client_that_takes_no_new_types_is_told_and_goes_on(wire: Wire, talk: Talks) -> None:
    one, kernel_id = talk(), await wire.launch("undeclared")
    await one.open(kernel_id)
    await one.send(*(sent := jobs(2, 0)))
    refused = await one.hear("refused")
    assert refused.refusals[0].message_id == sent[0].message_id
    assert read_status(refused.refusals[0].status).reason == "MESSAGE_INVALID"
    assert answered(await one.received(1)) in ([None], ids(sent[1:]))


# -- a stream is cut ---------------------------------------------------------------------------------------------------


async def test_a_new_stream_says_what_has_come_and_brings_again_what_was_not_received(wire: Wire, talk: Talks) -> None:
    one = talk()
    token = (await one.open(await wire.launch("square"))).session_token
    await one.send(*(sent := jobs(0, 1, 2, 3, 4)))
    replies = list(await one.received(5))
    one.cut()
    opened = await one.resume(received_through=2)
    assert (opened.received_through, opened.session_token) == (5, token)
    assert (await one.received(8))[5:] == replies[2:], "with the sequences 3 to 5"
    assert one.seen == 5
    await one.send(*(more := jobs(6)))
    assert answered((await one.received(9))[8:]) == ids(more)
    assert answered(replies) == ids(sent)


async def test_what_was_received_is_not_sent_again_though_it_was_not_acknowledged(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(await wire.launch("square"))
    await one.send(*jobs(1, 2, 3))
    await one.received(3)
    one.cut()
    await one.resume()
    await one.send(*(more := jobs(4)))
    assert answered((await one.received(4))[3:]) == ids(more)


async def test_a_client_cannot_want_again_what_it_has_acknowledged(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(await wire.launch("square"))
    await one.send(*jobs(1, 2, 3))
    await one.received(3)
    await one.ack(2)
    await one.heard()
    one.cut()
    failure = await failure_of(one.resume(received_through=1))
    assert failure.reason == "MESSAGE_INVALID"
    assert failure.detail["problem"] == "received through 1, but 2 to 3 were under way"


async def test_requests_that_come_twice_reach_the_kernel_once(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    one = talk()
    await one.open(kernel_id)
    await one.send(*(sent := jobs(0, 1, 2, 3, 4, 5, 6))[:5])
    await one.until_accepted(5)
    one.cut()
    await one.resume()
    await one.send(*sent[:3], first=1)
    await one.send(*sent[2:], first=3)
    await one.until_accepted(7)
    assert answered(await one.received(7)) == ids(sent)
    assert (await wire.counters(kernel_id)).messages_processed == 7


async def test_whenever_the_streams_are_cut_each_request_is_answered_once_and_in_order(wire: Wire, talk: Talks) -> None:
    dice = random.Random(5)
    kernel_id = await wire.launch("square", input_queue_size=1_000)
    one = talk()
    opened = await one.open(kernel_id, credit=100_000)
    sent: list[Letter] = []
    for _ in range(40):
        sent += jobs(*range(dice.randrange(1, 60)))
        assert len(sent) <= opened.credit.messages, "the test sends no more than it may"
        await one.send(*sent[one.sent :])
        wanted = dice.randint(len(one.letters), len(sent))
        while len(one.letters) < wanted:
            await one.hear("batch")
        await one.ack(one.seen)
        if dice.random() < 0.7:
            one.cut()
        opened = await one.resume()
        one.sent = opened.received_through
        if one.sent < len(sent):
            await one.send(*sent[one.sent :])
    assert answered(await one.received(len(sent))) == ids(sent)
    await one.until_accepted(len(sent))
    assert (await wire.counters(kernel_id)).messages_processed == len(sent)


async def test_the_replies_of_a_session_without_a_stream_wait_for_it(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("gate")
    one, other = talk(), talk()
    await one.open(kernel_id)
    await one.send(*(sent := jobs(1, 2, 3)))
    await one.until_accepted(3)
    one.cut()
    await other.open(kernel_id)
    await other.send(Letter(job_bytes(note="open")))
    await other.received(1)
    await wire.until(kernel_id, messages_processed=4)
    await one.resume()
    assert answered(await one.received(3)) == ids(sent)
    assert (await wire.counters(kernel_id)).messages_dropped == 0


async def test_the_end_of_a_kernel_is_told_to_a_session_that_had_no_stream_then(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    one = talk()
    await one.open(kernel_id, credit=1)
    await one.send(*(sent := jobs(1, 2, 3)))
    await one.received(1)
    await wire.until(kernel_id, messages_processed=3)
    one.cut()
    await wire.terminate(kernel_id)
    opened = await one.resume(credit=pb.Credit(messages=10, bytes=MIB))
    assert read_status(opened.closed).detail["state"] == "TERMINATED"
    assert answered(await one.received(3)) == ids(sent)
    assert (await one.hear("bye")).status.code == code_pb2.FAILED_PRECONDITION
    await one.ack(3)
    await one.say(bye=pb.Bye())
    assert await one.ended() is grpc.StatusCode.OK
    assert (await failure_of(one.resume())).reason == "SESSION_LOST"
    assert (await wire.counters(kernel_id)).messages_dropped == 0


TAKEN_OVER = "a later stream, opened with the same token, has taken the session over; do not take it back"


async def taken_over(call: Any) -> bool:
    """Whether the daemon ends this stream because another one has its session, and says so in words."""
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await how_it_ends(call, read=False)
    return (ended.value.code(), ended.value.details()) == (grpc.StatusCode.ABORTED, TAKEN_OVER)


async def test_a_stream_that_only_seems_to_live_is_replaced(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(await wire.launch("square"))
    await one.send(*(sent := jobs(1, 2)))
    await one.received(2)
    await one.resume()
    assert await taken_over(one.calls[0]), "it is over, and the session is not"
    await one.send(*(more := jobs(3)))
    assert answered(await one.received(3)) == ids(sent + more)


async def test_many_streams_with_one_token_take_turns_and_the_last_one_stays(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    one = talk()
    token = (await one.open(kernel_id)).session_token
    opening = pb.Open(kernel_id=kernel_id, session_token=token, credit=pb.Credit(messages=10, bytes=MIB))
    for _ in range(10):
        one.calls.append(wire.messages.Exchange())
        await one.say(open=opening)
    endings = [asyncio.create_task(taken_over(call)) for call in one.calls[:-1]]
    assert (await one.hear("opened")).session_token == token
    assert all(await asyncio.gather(*endings))
    await one.send(*(sent := jobs(3)))
    assert answered(await one.received(1)) == ids(sent)


async def test_the_stream_that_is_replaced_is_told_in_bye_too_if_its_client_asks_for_that(
    wire: Wire, talk: Talks
) -> None:
    one = talk()
    await one.open(await wire.launch("square"), error_in_bye=True)
    first = one.call
    await one.resume()
    frame = await first.read()
    assert (frame.bye.status.code, frame.bye.status.message) == (code_pb2.ABORTED, TAKEN_OVER)
    await one.send(*(sent := jobs(3)))
    assert answered(await one.received(1)) == ids(sent)
    assert not first.done(), "a proxy might lose `bye` if the daemon did not wait"
    assert await taken_over(first)


async def test_a_client_that_ends_its_side_without_bye_ends_the_stream_and_not_the_session(
    wire: Wire, talk: Talks
) -> None:
    one = talk()
    await one.open(await wire.launch("gate"))
    await one.send(*(sent := jobs(1)))
    await one.until_accepted(1)
    await one.call.done_writing()
    assert await one.ended() is grpc.StatusCode.OK
    opened = await one.resume()
    assert opened.received_through == 1
    await one.send(*(opener := [Letter(job_bytes(note="open"))]))
    assert sorted(filter(None, answered(await one.received(2)))) == sorted(ids(sent + opener))


# -- tokens ------------------------------------------------------------------------------------------------------------


def lost(kernel_id: str, failure: Failure) -> bool:
    """Whether this is the error for a session that is not there."""
    return (failure.code, failure.reason, failure.detail["kernel_id"]) == (
        grpc.StatusCode.NOT_FOUND,
        "SESSION_LOST",
        kernel_id,
    )


@pytest.mark.parametrize("change", [lambda token: token[::-1], lambda token: token[:-1], lambda _: b"x"])
async def test_a_token_of_no_session_opens_nothing(wire: Wire, talk: Talks, change: Callable[[bytes], bytes]) -> None:
    kernel_id = await wire.launch("square")
    one, thief = talk(), talk()
    token = (await one.open(kernel_id)).session_token
    assert lost(kernel_id, await failure_of(thief.open(kernel_id, session_token=change(token))))
    await one.send(*(sent := jobs(1)))
    assert answered(await one.received(1)) == ids(sent), "the session has not noticed"


@pytest.mark.parametrize("names_one", [True, False])
async def test_a_client_that_goes_on_names_the_kernel_of_its_session(wire: Wire, talk: Talks, names_one: bool) -> None:
    kernel_id = await wire.launch("square")
    other_id = await wire.launch("square") if names_one else ""
    one, astray = talk(), talk()
    token = (await one.open(kernel_id)).session_token
    failure = await failure_of(astray.open(other_id, session_token=token))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")
    named = f"names kernel '{other_id}'" if names_one else "names no kernel"
    assert failure.detail["problem"] == (
        f"`open` {named}, and the session of its token is with kernel '{kernel_id}'; name that one to go on with it"
    )
    await one.send(*(sent := jobs(1)))
    assert answered(await one.received(1)) == ids(sent), "the session has not noticed"


async def test_a_session_is_over_after_bye(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(kernel_id := await wire.launch("square"))
    await one.say(bye=pb.Bye())
    await one.ended()
    assert lost(kernel_id, await failure_of(one.resume()))


async def test_a_session_is_over_after_its_client_broke_the_rules(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(kernel_id := await wire.launch("square"))
    await one.send(*jobs(1), first=7)
    await one.ended()
    assert lost(kernel_id, await failure_of(one.resume()))


async def test_a_session_is_over_when_it_was_too_long_without_a_stream(brief: Wire) -> None:
    kernel_id = await brief.launch("square")
    one = Talk(brief)
    opened = await one.open(kernel_id)
    assert opened.session_timeout.ToTimedelta().total_seconds() == SESSION_TIMEOUT
    await one.send(*jobs(1))
    await one.received(1)
    one.cut()
    await brief.until(kernel_id, messages_dropped=1)
    assert lost(kernel_id, await failure_of(one.resume()))


async def test_a_session_with_a_stream_lives_as_long_as_it_pleases(brief: Wire) -> None:
    kernel_id = await brief.launch("square")
    one, leaving = Talk(brief), Talk(brief)
    await one.open(kernel_id)
    one.cut()
    await one.resume()
    await leaving.open(kernel_id)
    await leaving.send(*jobs(1))
    await leaving.received(1)
    leaving.cut()
    await brief.until(kernel_id, messages_dropped=1)  # So the time is over of one that was cut after the other was.
    await one.send(*(sent := jobs(2)))
    assert answered(await one.received(1)) == ids(sent)


# -- the end of the daemon ---------------------------------------------------------------------------------------------


async def test_a_daemon_that_ends_waits_for_a_session_that_has_lost_its_stream_if_something_is_left_for_it(
    start_daemon: Callable[..., Any],
) -> None:
    daemon = start_daemon(str(KERNELS), "--grace", "30")
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        wire = Wire(channel)
        kernel_id = await wire.launch("square")
        one, content = Talk(wire), Talk(wire)
        for each in (one, content):
            await each.open(kernel_id)
            await each.send(*jobs(3))
            await each.received(1)
        await content.ack(1)
        await content.heard()
        content.cut()
        one.cut()
        stopping = asyncio.create_task(asyncio.to_thread(daemon.stop))
        await eventually(lambda: "TERMINATED" in daemon.log_text())
        await one.resume(received_through=0)
        await one.received(2)
        bye = await one.hear("bye", besides=("closed",))
        assert bye.status.code in (code_pb2.UNAVAILABLE, code_pb2.FAILED_PRECONDITION)
        await one.ack(1)
        await one.say(bye=pb.Bye())
        async with asyncio.timeout(PATIENCE):
            await stopping
