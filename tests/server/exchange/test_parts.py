"""Long bodies travel in parts: what goes between them does not wait, and what is cut in the middle comes once."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.frames import (
    PART_BYTES,
    PartFrame,
    read_request,
    read_response,
    request_part,
    response_part,
)
from tests.server.exchange.helpers import MIB, go_on, jobs, large, memory, pause
from tests.stubs import KERNELS, Failure, Letter, Talk, Wire, job_bytes

LIMIT = 64 * MIB


@pytest.fixture(scope="module")
def roomy_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon that takes messages of the usual length."""
    return start_daemon(str(KERNELS))


@pytest.fixture
async def roomy(roomy_daemon: Any) -> AsyncIterator[Wire]:
    """Its services, for a client that takes no longer frame than gRPC's own limit."""
    async with grpc.aio.insecure_channel(roomy_daemon.target) as channel:
        wire = Wire(channel)
        yield wire
        for kernel_id in wire.launched:
            await wire.terminate(kernel_id, timeout=0.5)


async def send_in_parts(one: Talk, letter: Letter) -> None:
    """Send a message with nothing between its parts."""
    offset = 0
    while offset < len(letter.body):
        offset = await one.send_part(letter.body, offset)
    await one.send_parted(letter)


# -- to the daemon -----------------------------------------------------------------------------------------------------


async def test_a_long_body_goes_and_comes_back_in_parts(roomy: Wire) -> None:
    one = Talk(roomy)
    opened = await one.open(await roomy.launch("echo_job"), part_bytes=PART_BYTES)
    assert opened.part_bytes == PART_BYTES
    letter = large(9 * MIB)
    await send_in_parts(one, letter)
    (reply,) = await one.received(1)
    assert (reply.body, reply.message_id) == (letter.body, letter.message_id)
    sizes = [len(frame.part.data) for frame in one.frames if frame.HasField("part")]
    assert len(sizes) == 10
    assert max(sizes) == PART_BYTES


async def test_what_is_sent_between_the_parts_is_answered_before_the_last_has_gone(roomy: Wire) -> None:
    one = Talk(roomy)
    await one.open(await roomy.launch("square"))
    letter = large(3 * MIB)
    offset = 0
    while offset < len(letter.body):
        offset = await one.send_part(letter.body, offset)
        await one.send(*jobs(2))
        await one.received(one.sent)
    await one.send_parted(letter)
    assert (await one.received(5))[-1].correlation_id == letter.message_id


async def test_a_body_that_was_cut_in_the_middle_begins_again(roomy: Wire) -> None:
    one = Talk(roomy)
    kernel_id = await roomy.launch("sink")
    await one.open(kernel_id)
    letter = large(3 * MIB)
    await one.send_part(letter.body, await one.send_part(letter.body, 0))
    one.cut()
    assert (await one.resume()).received_through == 0
    await send_in_parts(one, letter)
    await one.until_accepted(1)
    one.cut()
    assert (await one.resume()).received_through == 1
    await one.send(*jobs(1))
    await roomy.until(kernel_id, messages_processed=2)


async def test_a_body_that_goes_on_where_another_stream_has_ended_is_refused(roomy: Wire) -> None:
    one = Talk(roomy)
    await one.open(await roomy.launch("sink"))
    letter = large(3 * MIB)
    offset = await one.send_part(letter.body, 0)
    one.cut()
    await one.resume()
    await one.send_part(letter.body, offset)
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.detail["problem"].startswith(f"a part has bytes {offset} to {offset + MIB} of {len(letter.body)}")


async def test_the_limit_is_that_of_a_whole_body_and_holds_before_it_has_come(roomy: Wire) -> None:
    one = Talk(roomy)
    opened = await one.open(await roomy.launch("sink"))
    assert opened.max_message_bytes == LIMIT
    await one.say(part=pb.Part(body_bytes=LIMIT + 1, data=bytes(MIB)))
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.reason == "MESSAGE_INVALID"
    assert failure.detail["problem"] == f"a body of {LIMIT + 1} bytes comes in parts, the limit is {LIMIT}"


async def test_a_body_does_not_begin_without_credit(roomy: Wire) -> None:
    kernel_id = await roomy.launch("sink", input_queue_size=1)
    await pause(roomy, kernel_id)
    one = Talk(roomy)
    await one.open(kernel_id)
    letter = large(3 * MIB)
    await send_in_parts(one, letter)
    await one.send_part(letter.body, 0)
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.detail["problem"] == "a part begins a message for which there is no credit"
    await go_on(roomy, kernel_id)


async def test_a_message_whose_parts_have_not_come_is_refused(roomy: Wire) -> None:
    one = Talk(roomy)
    await one.open(await roomy.launch("sink"))
    letter = large(3 * MIB)
    await one.send_part(letter.body, 0)
    await one.send_parted(letter)
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.detail["problem"] == f"only {MIB} of {len(letter.body)} bytes have come in parts"


async def test_a_client_whose_parts_would_be_too_small_is_refused(roomy: Wire) -> None:
    one = Talk(roomy)
    await one.say(open=pb.Open(kernel_id=await roomy.launch("sink"), part_bytes=4_095))
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.detail["problem"] == "parts of 4095 bytes, at least 4096 are needed"


async def test_bodies_that_are_begun_and_never_finished_do_not_pile_up(roomy: Wire, roomy_daemon: Any) -> None:
    one = Talk(roomy)
    await one.open(await roomy.launch("square"))
    letter = large(32 * MIB)
    before = memory(roomy_daemon.process.pid)
    for _ in range(16):
        offset = 0
        while offset < 16 * MIB:
            offset = await one.send_part(letter.body, offset)
        await one.send(*jobs(1))
        await one.received(one.sent)
        assert memory(roomy_daemon.process.pid) - before < 4 * len(letter.body)


# -- from the daemon ---------------------------------------------------------------------------------------------------


async def test_a_small_reply_comes_between_the_parts_of_a_long_one_and_says_so(roomy: Wire) -> None:
    kernel_id = await roomy.launch("echo_job")
    one = Talk(roomy)
    await one.open(kernel_id, part_bytes=PART_BYTES)
    letter = large(48 * MIB)
    await send_in_parts(one, letter)
    await one.hear("part")
    await one.send(*(small := jobs(1)))
    await roomy.until(kernel_id, messages_processed=2)
    first, second = await one.received(2)
    assert (first.message_id, second.message_id) == (small[0].message_id, letter.message_id)
    assert [batch.before_replies_to for batch in one.batches] == [letter.message_id, b""]


async def test_what_was_accepted_is_told_between_the_parts(roomy: Wire) -> None:
    kernel_id = await roomy.launch("echo_job")
    one = Talk(roomy)
    await one.open(kernel_id, part_bytes=PART_BYTES)
    await send_in_parts(one, large(48 * MIB))
    await one.hear("part")
    await one.ack(0)
    await one.heard()
    assert one.parts, "the body is still coming"


async def test_a_long_reply_that_was_cut_in_the_middle_comes_again_and_once(roomy: Wire) -> None:
    one = Talk(roomy)
    await one.open(await roomy.launch("echo_job"), part_bytes=PART_BYTES)
    letter = large(20 * MIB)
    await send_in_parts(one, letter)
    for _ in range(3):
        await one.hear("part")
        one.cut()
        await one.resume(part_bytes=PART_BYTES)
    assert [reply.body for reply in await one.received(1)] == [letter.body]
    one.cut()
    await one.resume(received_through=0)
    assert (await one.received(2))[1].body == letter.body, "it was not acknowledged, and keeps its sequence"
    assert one.seen == 1


async def test_an_output_does_not_come_before_a_long_one(roomy: Wire) -> None:
    kernel_id = await roomy.launch("crier")
    one = Talk(roomy)
    await one.open(kernel_id, part_bytes=PART_BYTES)
    letter = large(20 * MIB)
    await one.pull(2)
    await send_in_parts(one, letter)
    await one.send(*jobs(7))
    first, second = await one.received(2)
    assert (len(first.body), second.body) == (len(letter.body), job_bytes(7))
    assert first.output
    assert second.output


# -- frames as bytes ---------------------------------------------------------------------------------------------------


def test_a_part_written_by_hand_is_the_frame_that_protobuf_makes_of_it() -> None:
    data = bytes(range(256)) * 100
    part = pb.Part(body_bytes=1 << 40, offset=1 << 33, data=data)
    view = memoryview(data)
    assert pb.ExchangeRequest.FromString(request_part(1 << 40, 1 << 33, view)) == pb.ExchangeRequest(part=part)
    assert pb.ExchangeResponse.FromString(response_part(1 << 40, 1 << 33, view)) == pb.ExchangeResponse(part=part)
    expected = PartFrame(1 << 40, 1 << 33, view)
    assert read_request(pb.ExchangeRequest(part=part).SerializeToString()) == expected
    assert read_response(pb.ExchangeResponse(part=part).SerializeToString()) == expected


def test_a_part_with_something_beside_it_is_left_to_protobuf() -> None:
    frame = pb.ExchangeRequest(part=pb.Part(body_bytes=3, data=b"abc"), ack=pb.Ack(number=1))
    pieces = [pb.ExchangeRequest(part=frame.part), pb.ExchangeRequest(ack=frame.ack)]
    assert read_request(b"".join(each.SerializeToString() for each in pieces)) == frame
    assert read_request(frame.SerializeToString()) == frame


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_part_that_is_cut_off_is_no_frame(cut: int) -> None:
    whole = request_part(3, 0, memoryview(b"abc"))
    with pytest.raises(Exception, match="parsing message"):
        read_request(whole[:-cut])
