"""The lane for programs, frame by frame: a raw Exchange stream by the generated stub."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

import grpc
import pytest
from google.rpc import code_pb2

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from tests.stubs import MAX_MESSAGE_BYTES, Failure, Letter, Talk, Wire, failure_of, job_bytes, read_status

Talks = Callable[[], Talk]


def number_of(wire: Wire, talk: Talk, message: Letter) -> int:
    """The number in a `Result`."""
    result = wire.message(talk.opened.types[message.type].full_name)
    result.ParseFromString(message.body)
    return int(result.number)


# -- opening and closing -----------------------------------------------------------------------------------------------


async def test_opened_tells_all_that_a_client_needs_to_know(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("small")
    opened = await talk().open(kernel_id)
    assert [message_type.full_name for message_type in opened.types] == ["kernels.v1.Job", "kernels.v1.Result"]
    for message_type in opened.types:
        wire.learn(message_type)
        wire.message(message_type.full_name)
    assert opened.backpressure_strategy == pb.BACKPRESSURE_STRATEGY_REJECT
    assert (opened.input_queue_size, opened.output_queue_size) == (4, 8)
    assert opened.max_message_bytes == MAX_MESSAGE_BYTES
    assert opened.credit.messages > 0
    assert opened.credit.bytes > 0
    assert opened.session_timeout.ToTimedelta().total_seconds() == 60
    assert (opened.received_through, opened.acks_received) == (0, 0)
    assert not opened.HasField("closed")
    assert len(opened.session_token) >= 16
    kernels = await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())
    assert opened.daemon_epoch == kernels.daemon_epoch != ""


async def test_each_conversation_has_a_token_of_its_own(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    assert len({(await talk().open(kernel_id)).session_token for _ in range(5)}) == 5


async def test_an_error_comes_in_bye_too_if_the_client_asks_for_that(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.say(open=pb.Open(kernel_id="nobody", error_in_bye=True))
    bye = await one.hear("bye")
    assert read_status(bye.status).reason == "KERNEL_NOT_FOUND"
    await one.call.done_writing()
    ended = await one.ended()
    assert isinstance(ended, Failure)
    assert ended == read_status(bye.status)


async def test_a_client_that_asks_for_bye_and_does_not_end_its_side_gets_the_error_all_the_same(
    wire: Wire, talk: Talks
) -> None:
    one = talk()
    await one.say(open=pb.Open(kernel_id="nobody", error_in_bye=True))
    ended = await one.ended()
    assert isinstance(ended, Failure)
    assert ended.reason == "KERNEL_NOT_FOUND"


async def test_a_type_that_is_input_and_output_is_named_once(wire: Wire, talk: Talks) -> None:
    assert len((await talk().open(await wire.launch("echo"))).types) == 1


async def test_bye_ends_the_call_with_ok(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(await wire.launch("square"))
    await one.say(bye=pb.Bye())
    assert await one.ended() is grpc.StatusCode.OK


async def test_what_a_client_says_after_bye_is_ignored(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("sink")
    one = talk()
    await one.open(kernel_id)
    await one.say(bye=pb.Bye())
    with suppress(grpc.aio.InternalError, asyncio.InvalidStateError):  # The stream may have ended by now.
        await one.send(Letter(b"\xff"), first=7)
    with suppress(grpc.aio.AioRpcError):  # gRPC's client puts an error of its own in the place of the status then.
        assert await one.ended() is grpc.StatusCode.OK
    assert (await wire.counters(kernel_id)).messages_processed == 0


async def test_a_client_that_opens_without_credit_gets_messages_once_it_gives_some(wire: Wire, talk: Talks) -> None:
    one = talk()
    kernel_id = one.kernel_id = await wire.launch("square")
    await one.say(open=pb.Open(kernel_id=kernel_id))
    await one.hear("opened")
    await one.send(Letter(job_bytes(2)))
    await wire.until(kernel_id, messages_processed=1)
    await one.until_accepted(1)
    assert not one.letters
    await one.ack(credit=1, credit_bytes=1)
    await one.received(1)


async def test_a_kernel_that_is_not_active_yet_opens_no_conversation(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square", activate=False)
    one = talk()
    await one.say(open=pb.Open(kernel_id=kernel_id))
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KERNEL_STATE_INVALID")
    assert failure.detail["state"] == "LAUNCHED"


async def test_the_end_of_the_kernel_is_told_before_bye(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    one = talk()
    await one.open(kernel_id)
    terminating = asyncio.ensure_future(wire.terminate(kernel_id))
    closed = read_status((await one.hear("closed")).status)
    assert (closed.code, closed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KERNEL_STATE_INVALID")
    bye = read_status((await one.hear("bye")).status)
    assert (bye.reason, bye.detail["state"]) == ("KERNEL_STATE_INVALID", "TERMINATED")
    await one.say(bye=pb.Bye())
    assert await one.ended() is grpc.StatusCode.OK
    await terminating


async def test_a_failure_is_told_with_its_cause(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("fragile")
    one = talk()
    await one.open(kernel_id)
    waiting, fatal = Letter(job_bytes(note="hold")), Letter(job_bytes(5, "boom"))
    await one.send(waiting, fatal)
    cause = {"kernel_id": kernel_id, "cause_type": "ValueError", "cause_message": "no square of 5"}
    failed = Failure(grpc.StatusCode.ABORTED, "KERNEL_FAILED", cause)
    (refused,) = await one.refused()
    assert (refused.sequence, refused.message_id) == (0, fatal.message_id)
    assert read_status(refused.status) == failed
    assert read_status((await one.hear("closed")).status) == failed
    assert read_status((await one.hear("bye")).status) == failed


async def test_a_kernel_that_has_ended_says_so_in_opened(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    await wire.terminate(kernel_id)
    one = talk()
    assert read_status((await one.open(kernel_id)).closed).detail["state"] == "TERMINATED"
    assert (await one.hear("bye")).status.code == code_pb2.FAILED_PRECONDITION


# -- messages ----------------------------------------------------------------------------------------------------------


async def test_many_messages_of_one_frame_are_answered_in_order(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(await wire.launch("square"))
    wire.learn(one.opened.types[1])
    sent = [Letter(job_bytes(n % 128)) for n in range(500)]
    await one.send(*sent)
    replies = await one.received(500)
    assert [reply.correlation_id for reply in replies] == [message.message_id for message in sent]
    assert [number_of(wire, one, reply) for reply in replies] == [(n % 128) ** 2 for n in range(500)]
    assert {(reply.type, reply.output) for reply in replies} == {(1, False)}
    assert len({reply.message_id for reply in replies}) == 500
    assert len(one.batches) < 50, "what has gathered goes into one frame"
    await one.until_accepted(500)


async def test_an_echo_comes_back_with_its_header(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(await wire.launch("echo_job"))
    sent = Letter(job_bytes(3, "x"), priority=7, correlation_id=uuid4().bytes)
    await one.send(sent)
    assert await one.received(1) == [sent]


async def test_messages_are_told_apart_by_their_sequences_and_not_by_their_ids(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("echo_job")
    one = talk()
    await one.open(kernel_id)
    sent = [Letter(job_bytes(number), message_id=bytes(16)) for number in (1, 2)]
    await one.send(*sent)
    await one.until_accepted(2)
    await wire.until(kernel_id, messages_processed=2)
    assert [reply.body for reply in await one.received(2)] == [letter.body for letter in sent]


async def test_a_message_that_is_not_answered_is_accepted_all_the_same(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("sink")
    one = talk()
    await one.open(kernel_id)
    await one.send(*[Letter(job_bytes()) for _ in range(3)])
    await one.until_accepted(3)
    await wire.until(kernel_id, messages_processed=3)


async def test_replies_stay_within_the_credit_of_the_client(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    one = talk()
    await one.open(kernel_id, credit=3)
    await one.send(*[Letter(job_bytes(n)) for n in range(10)])
    await wire.until(kernel_id, messages_processed=10)
    await one.received(3)
    # What the daemon says next is that the kernel is closed: a reply beyond the credit would come before that.
    ending = asyncio.ensure_future(wire.terminate(kernel_id))
    await one.hear("closed")
    await one.received(3)
    await one.ack(3, credit=5)
    await one.received(5)
    await one.ack(5, credit=1_000)
    await one.received(10)
    await one.hear("bye")
    await ending


async def test_an_acknowledgement_that_allows_less_takes_no_credit_back(wire: Wire, talk: Talks) -> None:
    one = talk()
    await one.open(await wire.launch("square"), credit=5)
    await one.ack(credit=1)
    await one.send(*[Letter(job_bytes(n)) for n in range(5)])
    await one.received(5)


async def test_credit_of_the_daemon_follows_the_room_in_the_mailbox(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square", input_queue_size=10)
    one = talk()
    assert (await one.open(kernel_id)).credit.messages == 10
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    await one.send(*[Letter(job_bytes()) for _ in range(10)])
    await one.until_accepted(10)
    assert one.accepted.credit.messages == 10, "the mailbox is full"
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))
    await one.received(10)
    while one.accepted.credit.messages < 20:
        await one.hear("accepted")


async def test_a_refused_message_does_not_end_the_conversation(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("small")
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    one = talk()
    await one.open(kernel_id)
    sent = [Letter(job_bytes(n)) for n in range(6)]
    await one.send(*sent[:4])
    await one.until_accepted(4)
    await one.send(*sent[4:])
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", {"kernel_id": kernel_id, "queue_size": 4})
    for sequence, refused in enumerate(await one.refused(2), 5):
        assert (refused.sequence, refused.message_id) == (sequence, sent[sequence - 1].message_id)
        assert read_status(refused.status) == full
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))
    assert [reply.correlation_id for reply in await one.received(4)] == [message.message_id for message in sent[:4]]


async def test_a_message_that_is_dropped_to_make_room_is_refused_after_it_was_accepted(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch(
        "square", input_queue_size=2, backpressure_strategy=pb.BACKPRESSURE_STRATEGY_DROP_OLDEST
    )
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    one = talk()
    await one.open(kernel_id)
    sent = [Letter(job_bytes(n), priority=priority) for n, priority in enumerate((9, 5, 7))]
    await one.send(*sent[:2])
    await one.until_accepted(2)
    await one.send(sent[2])
    (refused,) = await one.refused()
    assert (refused.sequence, refused.message_id) == (0, sent[1].message_id)
    assert read_status(refused.status).reason == "QUEUE_FULL"
    await wire.until(kernel_id, messages_dropped=1)


# -- outputs -----------------------------------------------------------------------------------------------------------


async def test_outputs_come_only_as_far_as_they_are_pulled(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("emitter")
    one = talk()
    await one.open(kernel_id)
    await one.send(Letter(job_bytes(5)))
    await wire.until(kernel_id, messages_processed=1)
    await one.pull(2)
    outputs = await one.received(2)
    assert [(output.output, output.correlation_id) for output in outputs] == [(True, None)] * 2
    # The daemon has looked for more to send by the time that it answers this.
    await one.send(Letter(job_bytes(0)))
    await one.until_accepted(2)
    await one.pull(5)
    wire.learn(one.opened.types[1])
    assert [number_of(wire, one, output) for output in await one.received(5)] == [0, 1, 2, 3, 4]


async def test_a_client_that_does_not_pull_leaves_the_outputs_to_others(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("emitter")
    idle, eager = talk(), talk()
    await idle.open(kernel_id)
    await eager.open(kernel_id)
    await eager.pull(3)
    await idle.send(Letter(job_bytes(3)))
    await eager.received(3)
    assert not idle.batches


async def test_a_wish_can_be_taken_back(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("emitter")
    one, other = talk(), talk()
    await one.open(kernel_id)
    await other.open(kernel_id)
    await one.pull(1)
    await one.pull(0)
    await one.send(Letter(job_bytes(0)))
    await one.until_accepted(1)  # So it has heard both.
    await other.pull(1)
    await other.send(Letter(job_bytes(1)))
    await other.received(1)


async def test_outputs_that_were_not_acknowledged_go_back_when_the_session_ends(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("emitter")
    one = talk()
    await one.open(kernel_id)
    await one.send(Letter(job_bytes(5)))
    await one.pull(4)
    held = await one.received(4)
    await one.ack(2)
    await one.send(Letter(job_bytes(0)))
    await one.until_accepted(2)  # So it has heard the acknowledgement.
    await one.say(bye=pb.Bye())
    another = talk()
    await another.open(kernel_id)
    await another.pull(3)
    again = await another.received(3)
    assert [output.message_id for output in again[:2]] == [output.message_id for output in held[2:]]
    assert again[2].message_id not in {output.message_id for output in held}
    assert (await wire.counters(kernel_id)).messages_dropped == 0


async def test_outputs_acknowledged_after_the_daemons_bye_do_not_go_back(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("emitter")
    one = talk()
    await one.open(kernel_id)
    await one.pull(2)
    await one.send(Letter(job_bytes(2)))
    await one.received(2)
    await wire.terminate(kernel_id)
    await one.hear("bye", besides=("closed",))
    await one.ack(2)
    await one.say(bye=pb.Bye())
    assert await one.ended() is grpc.StatusCode.OK
    failure = await failure_of(wire.receive(kernel_id, timeout=5.0))
    assert (failure.reason, failure.detail["state"]) == ("KERNEL_STATE_INVALID", "TERMINATED")


async def test_replies_to_a_client_that_leaves_become_dead_letters(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    one = talk()
    await one.open(kernel_id, credit=2)
    await one.send(*[Letter(job_bytes(n)) for n in range(6)])
    await wire.until(kernel_id, messages_processed=6)
    await one.received(2)
    await one.ack(1)
    await one.send(Letter(job_bytes()))
    await one.until_accepted(7)
    await wire.until(kernel_id, messages_processed=7)
    await one.say(bye=pb.Bye())
    await wire.until(kernel_id, messages_dropped=6)  # All but the one acknowledged.
    assert (await failure_of(wire.receive(kernel_id, timeout=0.01))).reason == "QUEUE_TIMEOUT"


async def test_a_reply_that_the_client_cannot_deliver_becomes_a_dead_letter(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    one = talk()
    await one.open(kernel_id)
    await one.send(*[Letter(job_bytes(n)) for n in range(3)])
    await one.received(3)
    await one.ack(3, undeliverable=[2])
    await wire.until(kernel_id, messages_dropped=1)


# -- slow clients ------------------------------------------------------------------------------------------------------


async def test_a_client_that_takes_no_replies_is_held_back_and_nobody_else_is(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square", input_queue_size=50, output_queue_size=20)
    slow, healthy = talk(), talk()
    await slow.open(kernel_id, credit=5)
    await healthy.open(kernel_id)
    listening = asyncio.ensure_future(slow.hear("bye", besides=("closed",)))
    for _ in range(30):
        if (room := slow.accepted.credit.messages - slow.sent) > 0:
            await slow.send(*[Letter(job_bytes(1)) for _ in range(room)])
        await healthy.send(*[Letter(job_bytes(2)) for _ in range(10)])
        await healthy.received(healthy.sent)
    # 5 replies on their way, 20 that wait, the mailbox once; and as much again waits at the daemon's door.
    assert slow.sent <= 5 + 20 + 2 * 50
    await slow.ack(5, credit=1_000)
    await wire.until(kernel_id, messages_processed=slow.sent + healthy.sent)
    await wire.terminate(kernel_id)
    await listening
    await slow.received(slow.sent)


@pytest.mark.parametrize("kernel_type", ["square", "sink"])
async def test_two_conversations_of_one_kernel_have_sequences_of_their_own(
    wire: Wire, talk: Talks, kernel_type: str
) -> None:
    kernel_id = await wire.launch(kernel_type)
    for _ in range(2):
        one = talk()
        await one.open(kernel_id)
        await one.send(Letter(job_bytes(4)))
        await one.until_accepted(1)
