"""Requests whose time has passed, and requests that their clients withdraw, are not handed over."""

from typing import Any

import grpc
import pytest

from pydotcompute.v1 import message_service_pb2 as pb
from tests.server.exchange.helpers import Talks, answered, go_on, ids, jobs, pause
from tests.stubs import Letter, Wire, job_bytes, read_status


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
