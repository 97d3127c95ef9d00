"""Neither side sends more than the credit that the other side gives, in messages and in bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from pydotcompute.v1 import message_service_pb2 as pb
from tests.contract.world import eventually
from tests.server.exchange.helpers import MIB, Talks, go_on, jobs, large, memory, pause
from tests.stubs import KERNELS, PATIENCE, Failure, Letter, Talk, Wire, job_bytes


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
