"""A client asks in its session why its requests are not answered yet."""

import pytest

from pydotcompute.v1 import message_service_pb2 as pb
from tests.server.exchange.helpers import Talks, ids, jobs, pause
from tests.stubs import Failure, Letter, Wire, job_bytes


def told(explanation: pb.Explanation) -> dict[bytes, tuple[str, int]]:
    """Why each request is not answered yet, and how many messages are before it."""
    return {delay.message_id: (delay.cause, delay.before) for delay in explanation.delays}


async def test_each_request_is_explained_and_so_is_that_there_is_nothing_to_receive(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square", input_queue_size=2)
    await pause(wire, kernel_id)
    one = talk()
    assert (await one.open(kernel_id)).explains
    sent = jobs(0, 1)
    await one.send(*sent)
    await one.until_accepted(2)
    await one.say(inquiry=pb.Inquiry(message_ids=b"".join(ids(sent)), receive=True))
    explanation = await one.hear("explanation", besides=("accepted",))
    assert told(explanation) == {
        sent[0].message_id: ("PAUSED", 0),
        sent[1].message_id: ("PAUSED", 1),
        b"": ("PAUSED", 2),
    }


async def test_a_request_that_waits_for_room_is_behind_those_in_the_mailbox(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square", input_queue_size=100)
    await pause(wire, kernel_id)
    one, other = talk(), talk()
    await one.open(kernel_id)
    await other.open(kernel_id)
    await one.send(*jobs(*range(100)))
    await one.until_accepted(100)
    (late,) = jobs(7)
    await other.send(late)  # It has credit from before, and no room.
    await other.say(inquiry=pb.Inquiry(message_ids=late.message_id))
    explanation = await other.hear("explanation", besides=("accepted",))
    assert told(explanation) == {late.message_id: ("PAUSED", 100)}


async def test_nothing_is_said_of_the_requests_of_others(wire: Wire, talk: Talks) -> None:
    kernel_id = await wire.launch("square")
    await pause(wire, kernel_id)
    one, other = talk(), talk()
    await one.open(kernel_id)
    await other.open(kernel_id)
    sent = Letter(job_bytes(1))
    await one.send(sent)
    await one.until_accepted(1)
    await other.say(inquiry=pb.Inquiry(message_ids=sent.message_id))
    explanation = await other.hear("explanation", besides=("accepted",))
    assert told(explanation) == {sent.message_id: ("", 0)}


@pytest.mark.parametrize("message_ids", [b"x" * 15, b"x" * 17, b"x" * 16 * 4_097])
async def test_an_inquiry_against_the_rules_ends_the_session(wire: Wire, talk: Talks, message_ids: bytes) -> None:
    kernel_id = await wire.launch("square")
    one = talk()
    await one.open(kernel_id)
    await one.say(inquiry=pb.Inquiry(message_ids=message_ids))
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.reason == "MESSAGE_INVALID"
    assert "at most 4096 ids of 16 bytes each" in failure.detail["problem"]
