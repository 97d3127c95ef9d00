"""Refusals, acknowledgements and outputs when the stream is cut between them: each has its effect once."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from pydotcompute.v1 import message_service_pb2 as pb
from tests.server.exchange.helpers import MIB, Talks, answered, go_on, ids, jobs, nothing_left, pause
from tests.stubs import Failure, Letter, Talk, Wire, job_bytes, read_status

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


async def test_refusals_need_no_credit_and_neither_does_what_is_accepted(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("small")
    await pause(wire, kernel_id)
    one = talk()
    await one.open(kernel_id, credit=0, credit_bytes=0)
    sent = jobs(*range(8))
    await one.send(*sent[:4])
    await one.until_accepted(4)
    await one.send(*sent[4:])
    refusals = await one.refused(4)
    assert [refusal.message_id for refusal in refusals] == ids(sent[4:])
    await one.until_accepted(8)
    told = 0
    for frame in one.frames:
        told += len(frame.refused.refusals)
        assert frame.accepted.through <= 4 + told
    await go_on(wire, kernel_id)
    await wire.until(kernel_id, messages_processed=4)
    assert not one.letters, "messages need credit"
    await one.ack(credit=4, credit_bytes=MIB)
    await one.heard()
    assert not one.letters, "and refusals have used up what there would have been"
    await one.ack(credit=8)
    assert answered(await one.received(4)) == ids(sent[:4])


async def test_a_request_that_is_given_up_later_is_refused_though_replies_wait_for_credit(
    wire: Wire, talk: Talks
) -> None:
    kernel_id = await wire.launch(
        "square", input_queue_size=2, backpressure_strategy=pb.BACKPRESSURE_STRATEGY_DROP_OLDEST
    )
    one = talk()
    await one.open(kernel_id, credit=0, credit_bytes=0)
    await one.send(*(answers := jobs(1, 2)))
    await wire.until(kernel_id, messages_processed=2)
    await pause(wire, kernel_id)
    await one.send(*(more := jobs(3, 4)))
    await one.until_accepted(4)
    await one.send(*jobs(5))
    (refusal,) = await one.refused(1)
    assert (refusal.sequence, refusal.message_id) == (0, more[0].message_id)
    assert read_status(refusal.status).reason == "QUEUE_FULL"
    await one.ack(1, credit=10, credit_bytes=MIB)
    assert answered(await one.received(2)) == ids(answers)


async def test_a_client_that_acknowledges_no_refusals_gets_4096_of_them_and_can_send_little_more(
    wire: Wire, talk: Talks
) -> None:
    kernel_id = await wire.launch("square", input_queue_size=4_096)
    one = talk()
    await one.open(kernel_id, credit=0, credit_bytes=0)
    await pause(wire, kernel_id)
    malformed = Letter(b"\xff")
    while len(one.refusals) < 4_096:
        room = min(1_000, one.accepted.credit.messages - one.sent)
        if room:
            await one.send(*[replace(malformed, message_id=uuid4().bytes) for _ in range(room)])
        await one.hear("refused", "accepted")
    while one.sent < one.accepted.credit.messages:
        await one.send(replace(malformed, message_id=uuid4().bytes))
    assert one.sent <= 3 * 4_096
    assert len(one.refusals) == 4_096
    await one.ack(4_096)
    await one.hear("refused")


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


@pytest.mark.parametrize("ack", [pb.Ack(), pb.Ack(credit=pb.Credit(messages=9, bytes=MIB))])
async def test_an_acknowledgement_without_a_number_is_refused_in_words(wire: Wire, talk: Talks, ack: pb.Ack) -> None:
    one = talk()
    await one.open(await wire.launch("square"))
    await one.say(ack=ack)
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.detail["problem"] == "an ack without a number, or with 0: they are counted from 1"


async def test_numbers_of_acknowledgements_rise_and_need_not_be_the_next_ones(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(await wire.launch("square"), credit=0)
    await one.send(*jobs(1, 2))
    one.acks = 4
    await one.ack(credit=1)
    await one.received(1)
    await one.heard()
    one.acks = 2
    await one.ack(credit=2)  # It is ignored, as one that comes again.
    await one.ack(credit=2, number=6)
    await one.received(2)


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
