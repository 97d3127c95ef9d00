"""Sessions outlive their streams: what is lost with one comes again on the next, and nothing is done twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from tests.contract.world import eventually
from tests.stubs import KERNELS, PATIENCE, Failure, Letter, Talk, Wire, failure_of, how_it_ends, job_bytes, read_status

Talks = Callable[[], Talk]

SESSION_TIMEOUT = 0.2
MIB = 1 << 20


@pytest.fixture(scope="module")
def brief_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon that soon forgets a session without a stream, and takes messages of the usual length."""
    return start_daemon(str(KERNELS), "--session-timeout", str(SESSION_TIMEOUT))


@pytest.fixture
async def brief(brief_daemon: Any) -> AsyncIterator[Wire]:
    """Its services."""
    async with grpc.aio.insecure_channel(
        brief_daemon.target, options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        wire = Wire(channel)
        yield wire
        for kernel_id in wire.launched:
            await wire.terminate(kernel_id, timeout=0.5)


async def pause(wire: Wire, kernel_id: str) -> None:
    """From now on the kernel is handed nothing."""
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))


async def go_on(wire: Wire, kernel_id: str) -> None:
    """The pause is over."""
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))


def jobs(*numbers: int) -> list[Letter]:
    return [Letter(job_bytes(number)) for number in numbers]


def ids(letters: list[Letter]) -> list[bytes]:
    return [letter.message_id for letter in letters]


def answered(replies: list[Letter]) -> list[bytes | None]:
    return [reply.correlation_id for reply in replies]


async def nothing_left(wire: Wire, kernel_id: str) -> bool:
    """Whether the kernel has no output for anybody."""
    return (await failure_of(wire.receive(kernel_id, timeout=0.01))).reason == "QUEUE_TIMEOUT"


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


async def test_a_stream_that_only_seems_to_live_is_replaced(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(await wire.launch("square"))
    await one.send(*(sent := jobs(1, 2)))
    await one.received(2)
    await one.resume()
    assert await how_it_ends(one.calls[0]) is grpc.StatusCode.OK, "it is over, and the session is not"
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
    endings = [asyncio.create_task(how_it_ends(call)) for call in one.calls[:-1]]
    assert (await one.hear("opened")).session_token == token
    assert set(await asyncio.gather(*endings)) == {grpc.StatusCode.OK}
    await one.send(*(sent := jobs(3)))
    assert answered(await one.received(1)) == ids(sent)


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


async def test_a_token_of_another_kernel_opens_nothing(wire: Wire, talk: Talks) -> None:
    kernel_id, another_id = await wire.launch("square"), await wire.launch("square")
    one, astray = talk(), talk()
    token = (await one.open(kernel_id)).session_token
    assert lost(another_id, await failure_of(astray.open(another_id, session_token=token)))
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


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_refusals_that_were_lost_with_the_stream_come_again_before_their_requests_count_as_accepted(
    wire: Wire, talk: Talks
) -> None:
    kernel_id = await wire.launch("small")
    await pause(wire, kernel_id)
    one = talk()
    await one.open(kernel_id)
    sent = jobs(0, 1, 2, 3, 4, 5)
    await one.send(*sent[:4])
    await one.until_accepted(4)
    await one.send(*sent[4:])
    refusals = list(await one.refused(2))
    one.cut()
    await one.resume(received_through=0)
    first = len(one.frames)
    while len(one.refusals) < 4:
        await one.hear("refused")
    await one.ack(2)
    await one.heard()
    assert one.refusals[2:] == refusals
    assert [(refusal.sequence, refusal.message_id) for refusal in refusals] == [
        (5, sent[4].message_id),
        (6, sent[5].message_id),
    ]
    told = [frame.WhichOneof("frame") == "refused" for frame in one.frames[first:]]
    covered = [frame.accepted.through >= 5 for frame in one.frames[first:]]
    assert told.index(True) <= covered.index(True)
    one.cut()
    await one.resume()
    await go_on(wire, kernel_id)
    assert answered(await one.received(4)) == ids(sent[:4])
    assert len(one.refusals) == 4, "what was acknowledged is not said again"
    assert one.seen == 6, "refusals have sequences in one count with messages"


async def test_refusals_use_up_credit_and_count_as_accepted_when_they_are_told(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("small")
    await pause(wire, kernel_id)
    one, other = talk(), talk()
    await one.open(kernel_id, credit=3)
    await other.open(kernel_id)
    await one.send(*jobs(*range(4)))
    await one.until_accepted(4)
    await one.send(*jobs(*range(4)))
    await one.refused(3)
    await one.ack(3, credit=3)
    await wire.counters(kernel_id)
    await other.ack()
    await other.heard()  # Later than the daemon would have told this client, too, what it has accepted.
    await one.ack(credit=4)
    await one.refused(4)
    await one.until_accepted(8)
    told = 0
    for frame in one.frames:
        told += len(frame.refused.refusals)
        assert frame.accepted.through <= 4 + told


# -- acknowledgements --------------------------------------------------------------------------------------------------


async def dead_letter(wire: Wire, one: Talk) -> tuple[dict[str, Any], Callable[[], Awaitable[None]]]:
    """A reply that the client cannot deliver: exactly one dead letter."""
    await one.open(kernel_id := await wire.launch("square"))
    await one.send(*jobs(1, 2))
    await one.received(2)

    async def check() -> None:
        await wire.until(kernel_id, messages_dropped=1)

    return {"through": 2, "undeliverable": [2]}, check


async def return_(wire: Wire, one: Talk) -> tuple[dict[str, Any], Callable[[], Awaitable[None]]]:
    """An output that goes back: another client gets it, once."""
    await one.open(kernel_id := await wire.launch("emitter"))
    await one.send(*jobs(1))
    await one.pull(1)
    (output,) = await one.received(1)

    async def check() -> None:
        another = Talk(wire)
        await another.open(kernel_id)
        await another.pull(2)
        assert ids(await another.received(1)) == [output.message_id]
        await another.ack(1, outputs=1)
        await another.heard()
        another.cut()
        assert await nothing_left(wire, kernel_id)

    return {"returned": [1], "outputs": 0}, check


async def withdrawal(wire: Wire, one: Talk) -> tuple[dict[str, Any], Callable[[], Awaitable[None]]]:
    """A request that nobody wants answered any more, and then one of the same id."""
    await one.open(kernel_id := await wire.launch("square"))
    await pause(wire, kernel_id)
    (request,) = jobs(3)
    await one.send(request)
    await one.until_accepted(1)

    async def check() -> None:
        await wire.until(kernel_id, queue_depth=0, messages_dropped=0)

    return {"withdrawn": [request.message_id]}, check


DEEDS = [dead_letter, return_, withdrawal]
deeds = pytest.mark.parametrize("deed", DEEDS, ids=[deed.__name__.strip("_") for deed in DEEDS])


@deeds
async def test_an_acknowledgement_that_was_lost_with_the_stream_is_told_again(
    wire: Wire, talk: Talks, deed: Callable[..., Any]
) -> None:
    one = talk()
    fields, check = await deed(wire, one)
    one.acks += 1  # It was written, and has not come.
    one.cut()
    opened = await one.resume()
    assert opened.acks_received == one.acks - 1
    one.acks -= 1
    await one.ack(**fields)
    await one.heard()
    await check()


@deeds
async def test_an_acknowledgement_that_comes_twice_does_it_once(
    wire: Wire, talk: Talks, deed: Callable[..., Any]
) -> None:
    one = talk()
    fields, check = await deed(wire, one)
    ack = one.make_ack(**fields)
    await one.say(ack=ack)
    await one.heard()
    one.cut()
    opened = await one.resume()
    assert opened.acks_received == one.acks
    await one.say(ack=ack)
    await one.ack()
    await one.heard()
    await check()


@deeds
@pytest.mark.parametrize("half_open", [False, True])
async def test_an_acknowledgement_during_which_the_stream_is_cut_is_known_to_have_come_or_not(
    wire: Wire, talk: Talks, deed: Callable[..., Any], half_open: bool
) -> None:
    one = talk()
    fields, check = await deed(wire, one)
    ack = one.make_ack(**fields)
    await one.say(ack=ack)
    if not half_open:
        one.cut()
    opened = await one.resume()
    assert opened.acks_received in (one.acks - 1, one.acks)
    if opened.acks_received < one.acks:
        await one.say(ack=ack)
        await one.heard()
    await check()


async def test_an_old_withdrawal_that_comes_again_does_not_touch_a_new_request_of_that_id(
    wire: Wire, talk: Talks
) -> None:
    one = talk()
    fields, _ = await withdrawal(wire, one)
    ack = one.make_ack(**fields)
    await one.say(ack=ack)
    await one.heard()
    await wire.until(one.kernel_id, queue_depth=0)
    again = Letter(job_bytes(5), message_id=fields["withdrawn"][0])
    await one.send(again)
    await one.until_accepted(2)
    one.cut()
    await one.resume()
    await one.say(ack=ack)
    await one.ack()
    await one.heard()
    await go_on(wire, one.kernel_id)
    assert answered(await one.received(1)) == [again.message_id]


async def test_an_acknowledgement_may_come_beside_messages_and_is_read_before_them(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("emitter")
    one, other = talk(), talk()
    await one.open(kernel_id)
    await other.open(kernel_id)
    await other.pull(9)
    await other.heard()
    await other.ack(outputs=0)
    await other.heard()
    await one.send(*jobs(2), ack=one.make_ack(outputs=2))
    assert [output.output for output in await one.received(2)] == [True, True]
    await one.heard()


# -- outputs -----------------------------------------------------------------------------------------------------------


async def test_outputs_that_were_not_acknowledged_come_again_and_more_only_when_they_are_wanted(
    wire: Wire, talk: Talks
) -> None:
    kernel_id = await wire.launch("emitter")
    one = talk()
    await one.open(kernel_id)
    await one.send(*jobs(3))
    await one.pull(100)
    outputs = list(await one.received(3))
    await one.ack(1)
    await one.heard()
    one.cut()
    await one.resume(received_through=1)
    assert (await one.received(5))[3:] == outputs[1:]
    await one.send(*jobs(2))
    await wire.receive(kernel_id)  # A new stream begins with no wish: so there is one for others.
    await one.pull(4)
    assert len(set(ids(await one.received(6)))) == 4


async def test_outputs_go_to_others_when_the_session_that_had_them_has_expired(brief: Wire) -> None:
    kernel_id = await brief.launch("emitter")
    one, another = Talk(brief), Talk(brief)
    await one.open(kernel_id)
    await one.send(*jobs(5))
    await one.pull(4)
    outputs = list(await one.received(4))
    await one.ack(1)
    await one.heard()
    await another.open(kernel_id)
    one.cut()
    await another.pull(4)
    again = await another.received(4)
    assert len(set(ids(again))) == 4
    assert set(ids(outputs[1:])) < set(ids(again))
    assert outputs[0].message_id not in ids(again)
    assert (await brief.counters(kernel_id)).messages_dropped == 0


async def test_what_a_client_did_not_want_is_dealt_with_once_also_if_it_leaves_before_it_acknowledges(
    wire: Wire, talk: Talks
) -> None:
    emitter, square = await wire.launch("emitter"), await wire.launch("square")
    one, other = talk(), talk()
    await one.open(emitter)
    await one.send(*jobs(1))
    await one.pull(1)
    await one.received(1)
    await one.ack(returned=[1], outputs=0)
    await one.say(bye=pb.Bye())
    await one.ended()
    await wire.receive(emitter)
    assert await nothing_left(wire, emitter)
    await other.open(square)
    await other.send(*jobs(1, 2))
    await other.received(2)
    await other.ack(undeliverable=[2])
    await other.say(bye=pb.Bye())
    await other.ended()
    assert (await wire.counters(square)).messages_dropped == 2


async def test_an_output_that_is_returned_no_longer_counts_against_the_wish(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("emitter")
    one, other = talk(), talk()
    await one.open(kernel_id)
    await other.open(kernel_id)
    await one.send(*jobs(2))
    await one.pull(1)
    (first,) = await one.received(1)
    await one.ack(returned=[1], outputs=0)
    await other.pull(2)
    assert ids(await other.received(2))[0] == first.message_id, "it is the first of the outputs again"
    await one.pull(1)
    await one.send(*jobs(1))
    assert first.message_id not in ids((await one.received(2))[1:])


# -- time-outs and withdrawals -----------------------------------------------------------------------------------------


def expired(kernel_id: str, request: Letter, refusal: pb.Refusal) -> bool:
    """Whether this says that nobody waits for the request any more."""
    failure = read_status(refusal.status)
    return (refusal.sequence, refusal.message_id, failure.code, failure.reason, failure.detail["kernel_id"]) == (
        0,
        request.message_id,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "QUEUE_TIMEOUT",
        kernel_id,
    )


async def test_a_request_whose_time_has_passed_is_not_handed_over(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    await pause(wire, kernel_id)
    one = talk()
    await one.open(kernel_id)
    late, patient, careless = (Letter(job_bytes(n), timeout_us=us) for n, us in enumerate((1, 60_000_000, 0)))
    await one.send(late, patient, careless)
    await one.until_accepted(3)
    await go_on(wire, kernel_id)
    (refusal,) = await one.refused()
    assert expired(kernel_id, late, refusal)
    assert answered(await one.received(2)) == ids([patient, careless])
    await wire.until(kernel_id, messages_processed=2, messages_dropped=1)


async def test_one_time_out_holds_for_all_of_a_batch(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    await pause(wire, kernel_id)
    one = talk()
    await one.open(kernel_id)
    sent = jobs(0, 1, 2)
    batch = pb.Batch(
        first_sequence=1, message_ids=b"".join(ids(sent)), bodies=[each.body for each in sent], timeouts_us=[1]
    )
    await one.say(batch=batch)
    await one.until_accepted(3)
    await go_on(wire, kernel_id)
    refusals = await one.refused(3)
    assert all(expired(kernel_id, letter, refusal) for letter, refusal in zip(sent, refusals, strict=True))
    await wire.until(kernel_id, messages_processed=0, messages_dropped=3)


@pytest.mark.parametrize("strategy", list(pb.BackpressureStrategy.values())[1:], ids=pb.BackpressureStrategy.Name)
async def test_requests_whose_time_has_passed_take_no_room(wire: Wire, talk: Talks, strategy: Any) -> None:
    kernel_id = await wire.launch("square", input_queue_size=2, backpressure_strategy=strategy)
    await pause(wire, kernel_id)
    one, other = talk(), talk()
    await one.open(kernel_id)
    await other.open(kernel_id)
    late = [Letter(job_bytes(n), timeout_us=1) for n in range(2)]
    await one.send(*late)
    await one.until_accepted(2, besides=("refused",))
    await other.send(*(sent := jobs(5, 6)))
    await other.until_accepted(2)
    refusals = await one.refused(2)
    assert all(expired(kernel_id, letter, refusal) for letter, refusal in zip(late, refusals, strict=True))
    await go_on(wire, kernel_id)
    assert answered(await other.received(2)) == ids(sent)


async def test_a_withdrawn_request_is_not_handed_over(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    await pause(wire, kernel_id)
    one, other = talk(), talk()
    await one.open(kernel_id)
    first, second, third = jobs(1, 2, 3)
    await one.send(first, second, third)
    await one.until_accepted(3)
    await one.ack(withdrawn=[second.message_id])
    await wire.until(kernel_id, queue_depth=2)
    await other.open(kernel_id)
    await other.send(second)  # Nobody waits for a reply to one of this id.
    await go_on(wire, kernel_id)
    assert answered(await one.received(2)) == ids([first, third])
    assert answered(await other.received(1)) == ids([second])
    await wire.until(kernel_id, messages_processed=3, messages_dropped=0)


async def test_a_request_that_waits_for_room_can_be_withdrawn_too(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square", input_queue_size=2)
    await pause(wire, kernel_id)
    one, other = talk(), talk()
    await one.open(kernel_id)
    await other.open(kernel_id)
    await one.send(*(sent := jobs(1, 2)))
    await one.until_accepted(2)
    first, second = jobs(3, 4)
    await other.send(first, second)
    await other.ack(withdrawn=[first.message_id])
    await other.heard()
    await go_on(wire, kernel_id)
    assert answered(await other.received(1)) == ids([second])
    assert answered(await one.received(2)) == ids(sent)
    await other.until_accepted(2)
    await wire.until(kernel_id, messages_processed=3, messages_dropped=0)


async def test_a_request_that_the_kernel_has_taken_is_answered_all_the_same(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("gate")
    one = talk()
    await one.open(kernel_id)
    await one.send(*(sent := jobs(1)))
    await wire.until(kernel_id, queue_depth=0)
    await one.until_accepted(1)
    await one.ack(withdrawn=ids(sent))
    await one.send(opening := Letter(job_bytes(note="open")))
    assert answered(await one.received(2)) == ids([*sent, opening])


async def test_nobody_withdraws_the_request_of_another(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    await pause(wire, kernel_id)
    one, other = talk(), talk()
    await one.open(kernel_id)
    await other.open(kernel_id)
    await one.send(*(sent := jobs(1)))
    await one.until_accepted(1)
    await other.ack(withdrawn=ids(sent))
    await other.heard()
    await go_on(wire, kernel_id)
    assert answered(await one.received(1)) == ids(sent)


# -- credit ------------------------------------------------------------------------------------------------------------


async def test_a_client_that_acknowledges_nothing_gets_4096_messages_whatever_it_allows(
    wire: Wire, talk: Talks
) -> None:
    kernel_id = await wire.launch("square", input_queue_size=10_000, output_queue_size=10_000)
    one = talk()
    await one.open(kernel_id, credit=1 << 40)
    count = 5_000
    for first in range(0, count, 1_000):
        while one.accepted.credit.messages < first + 1_000:
            await one.hear("accepted")
        await one.send(*jobs(*[1] * 1_000))
    await one.received(4_096)
    await wire.until(kernel_id, messages_processed=count)
    ending = asyncio.ensure_future(wire.terminate(kernel_id))
    await one.hear("closed")  # A reply beyond the limit would come before that.
    assert len(one.letters) == 4_096
    await one.ack(4_000)
    await one.received(count)
    await one.hear("bye")
    await ending


async def test_replies_stay_within_the_credit_in_bytes(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("echo_job")
    one = talk()
    body = job_bytes(1, "x" * 96)
    assert len(body) == 100
    await one.open(kernel_id, credit_bytes=201)
    await one.send(*[Letter(body) for _ in range(9)])
    await one.received(3)
    await wire.until(kernel_id, messages_processed=9)
    await one.ack(3, credit_bytes=301)
    await one.received(4)
    ending = asyncio.ensure_future(wire.terminate(kernel_id))
    await one.hear("closed")
    assert len(one.letters) == 4
    await one.ack(4, credit_bytes=100_000)
    await one.received(9)
    await one.hear("bye")
    await ending


def large(size: int) -> Letter:
    """A `Job` with a note of so many bytes."""
    length, left = b"", size
    while left >= 128:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return Letter(b"\x1a" + length + bytes([left]) + b"x" * size)


async def test_one_message_may_be_longer_than_the_credit_and_another_may_not_follow(brief: Wire) -> None:
    kernel_id = await brief.launch("sink")
    one = Talk(brief)
    opened = await one.open(kernel_id)
    size = opened.credit.bytes + MIB
    assert size < opened.max_message_bytes
    await one.send(large(size))
    await one.until_accepted(1)
    while one.accepted.credit.bytes <= size:
        await one.hear("accepted")
    two = Talk(brief)
    await two.open(kernel_id)
    await two.send(large(size), *jobs(1))
    failure = await two.ended()
    assert isinstance(failure, Failure)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")
    assert failure.detail["problem"].startswith("the batch ends with byte ")
    await brief.until(kernel_id, messages_processed=1)


def memory(process: int) -> int:
    """The bytes that a process holds in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10


async def test_a_client_that_sends_much_to_a_kernel_that_takes_nothing_is_held_back_by_its_bytes(
    start_daemon: Callable[..., Any],
) -> None:
    daemon = start_daemon(str(KERNELS))
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        wire = Wire(channel)
        kernel_id = await wire.launch("sink", input_queue_size=4_096)
        await pause(wire, kernel_id)
        before = memory(daemon.process.pid)
        one = Talk(wire)
        await one.open(kernel_id)
        message, sent_bytes = large(MIB), 0
        limit = 256 * MIB
        while sent_bytes < limit or one.accepted.through < one.sent or sent_bytes < one.accepted.credit.bytes:
            if sent_bytes < one.accepted.credit.bytes:
                await one.send(Letter(message.body))
                sent_bytes += len(message.body)
                assert sent_bytes < limit + 20 * MIB, "it is held back"
            else:
                await one.hear("accepted")
        assert one.sent < one.accepted.credit.messages, "it is not for the number of messages"
        assert memory(daemon.process.pid) - before < 2 * limit
        await go_on(wire, kernel_id)
        await wire.until(kernel_id, messages_processed=one.sent)
        while one.accepted.credit.bytes <= sent_bytes:
            await one.hear("accepted")
    daemon.stop()


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


@asynccontextmanager
async def out_of_credit(start_daemon: Callable[..., Any], grace: int) -> AsyncIterator[tuple[Talk, Any]]:
    """A session that has had two of ten replies and gives no credit for more; and its daemon, which is asked to end."""
    daemon = start_daemon(str(KERNELS), "--grace", str(grace))
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        wire = Wire(channel)
        one = Talk(wire)
        await one.open(await wire.launch("echo_job"), credit=2)
        await one.send(*jobs(*range(10)))
        await one.received(2)
        await one.until_accepted(10)
        stopping = asyncio.create_task(asyncio.to_thread(daemon.stop))
        yield one, daemon
        async with asyncio.timeout(PATIENCE):
            await stopping


async def test_a_daemon_that_ends_says_bye_after_what_had_no_credit_before(start_daemon: Callable[..., Any]) -> None:
    async with out_of_credit(start_daemon, grace=30) as (one, daemon):
        await eventually(lambda: "TERMINATED" in daemon.log_text())
        await one.ack(2, credit=100)
        while len(one.letters) < 10:
            await one.hear("batch", besides=("closed",))
        await one.hear("bye", besides=("closed",))
        await one.ack(10)
        await one.say(bye=pb.Bye())


async def test_a_daemon_that_ends_says_bye_in_time_to_a_client_that_never_gives_credit(
    start_daemon: Callable[..., Any],
) -> None:
    async with out_of_credit(start_daemon, grace=2) as (one, _):
        await one.hear("bye", besides=("closed",))
        assert len(one.letters) == 2
