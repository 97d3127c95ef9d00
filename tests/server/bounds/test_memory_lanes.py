"""Over the budget of memory every lane refuses, nothing that was accepted is lost, and who does not read is cut off."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import repeat
from typing import Any

import grpc
import pytest

from pydotcompute.exceptions import MemoryExhaustedError
from pydotcompute_client import connect
from tests.contract.kernels import Job
from tests.server.exchange.helpers import MIB, go_on, large, pause
from tests.server.typed.services import keys, service_of
from tests.stubs import KERNELS, PATIENCE, Failure, Letter, Talk, Wire, failure_of

BUDGET = 8 * MIB
UNACKNOWLEDGED = 2 * MIB
STALLED = 0.4


async def wire_of(daemon: Any) -> AsyncIterator[Wire]:
    """The services of a daemon. Its kernels end with the test."""
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        wire = Wire(channel)
        yield wire
        for kernel_id in wire.launched:
            await wire.terminate(kernel_id, timeout=0.5)


@pytest.fixture(scope="module")
def small_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with little memory, and soon rid of what a session without a stream holds of it."""
    return start_daemon(str(KERNELS), "--memory-bytes", str(BUDGET), "--session-timeout", "0.1")


@pytest.fixture
async def small(small_daemon: Any) -> AsyncIterator[Wire]:
    async for wire in wire_of(small_daemon):
        yield wire


@pytest.fixture(scope="module")
def strict_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon that soon loses its patience."""
    return start_daemon(
        str(KERNELS),
        *("--limit", f"unacknowledged_bytes={UNACKNOWLEDGED}"),
        *("--limit", f"stalled_reader={STALLED}", "--limit", f"stalled_parts={STALLED}"),
    )


@pytest.fixture
async def strict(strict_daemon: Any) -> AsyncIterator[Wire]:
    async for wire in wire_of(strict_daemon):
        yield wire


def is_exhausted(failure: Failure) -> bool:
    """Whether this is the refusal for want of memory, with figures that may be."""
    detail = failure.detail
    return (
        (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MEMORY_EXHAUSTED")
        and detail["budget"] == BUDGET
        and 0 < detail["used"] <= BUDGET < detail["used"] + detail["asked"]
    )


async def queued(wire: Wire, kernel_id: str, least: int) -> None:
    """Wait until so many messages, or more, are in the mailbox."""
    async with asyncio.timeout(PATIENCE):
        while (await wire.counters(kernel_id)).queue_depth < least:
            pass


async def cut_off(talk: Talk) -> str:
    """Wait until the daemon cuts this stream off; what comes before that is noted. Returns the reason."""
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await talk.received(1 << 20)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(ended.value.details())


# -- the budget --------------------------------------------------------------------------------------------------------


async def test_a_unary_send_over_the_budget_is_refused_and_those_before_are_answered(small: Wire) -> None:
    kernel_id = await small.launch("echo_job")
    await pause(small, kernel_id)
    sent = 0
    while True:
        try:
            await small.send(kernel_id, client_id="me", number=sent, note="x" * MIB)
        except grpc.aio.AioRpcError as error:
            refused = error
            break
        sent += 1

    async def refuse() -> None:
        raise refused

    assert is_exhausted(await failure_of(refuse()))
    assert 6 <= sent <= 8
    await go_on(small, kernel_id)
    replies = [await small.receive(kernel_id, client_id="me") for _ in range(sent)]
    assert [small.fields(reply.body)["number"] for reply in replies] == [str(number) for number in range(sent)]
    assert (await small.ask(kernel_id, note="x" * MIB))["note"] == "x" * MIB


async def test_an_ask_over_the_budget_is_refused(small: Wire) -> None:
    kernel_id = await small.launch("echo_job")
    await pause(small, kernel_id)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(asyncio.wait((ask(small, kernel_id),))) for _ in range(12)]
        await queued(small, kernel_id, 4)
        await asyncio.sleep(0)
        await go_on(small, kernel_id)
    failures = [task.exception() for done in asking for task in done.result()[0] if task.exception()]
    assert 0 < len(failures) < 12
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in failures)


def ask(wire: Wire, kernel_id: str) -> Any:
    return asyncio.ensure_future(wire.ask(kernel_id, note="x" * MIB))


async def test_over_exchange_what_finds_no_memory_is_refused_and_the_rest_is_answered(small: Wire) -> None:
    kernel_id = await small.launch("echo_job")
    await pause(small, kernel_id)
    one = Talk(small)
    await one.open(kernel_id)
    letters = [large(MIB) for _ in range(12)]
    for letter in letters:  # The credit was given when there was memory.
        await one.send(letter)
    refusals = await one.refused(1)
    await one.until_accepted(len(letters), besides=("refused",))
    refused = {refusal.message_id for refusal in refusals}
    assert 4 <= len(refused) <= 6
    await go_on(small, kernel_id)
    replies = await one.received(len(letters) - len(refused))
    assert {reply.message_id for reply in replies} == {letter.message_id for letter in letters} - refused
    one.cut()


async def test_a_body_in_parts_that_finds_no_memory_is_refused(small: Wire) -> None:
    kernel_id = await small.launch("echo_job")
    await pause(small, kernel_id)
    one = Talk(small)
    await one.open(kernel_id)
    letter = large(BUDGET)
    while one.accepted.credit.bytes < len(letter.body):  # Another session may still hold memory for a moment.
        await one.hear("accepted")
    offset = 0
    while offset < len(letter.body):
        offset = await one.send_part(letter.body, offset)
    await one.send_parted(letter)
    (refusal,) = await one.refused()
    assert refusal.message_id == letter.message_id
    while one.accepted.credit.bytes <= len(letter.body):
        await one.hear("accepted")
    small_one = large(100)
    await one.send(small_one)
    await go_on(small, kernel_id)
    (reply,) = await one.received(1)
    assert reply.body == small_one.body
    one.cut()


async def test_a_client_that_obeys_the_credit_waits_and_loses_nothing(small_daemon: Any, small: Wire) -> None:
    kernel_id = await small.launch("echo_job")
    await pause(small, kernel_id)
    async with connect(small_daemon.target) as runtime:
        sending = [asyncio.ensure_future(runtime.send(kernel_id, Job(number, note="x" * MIB))) for number in range(40)]
        await queued(small, kernel_id, 4)
        await go_on(small, kernel_id)
        numbers, refused = set(), 0
        async with asyncio.timeout(PATIENCE):
            for _ in sending:
                try:
                    numbers.add((await runtime.receive(kernel_id)).number)
                except MemoryExhaustedError:
                    refused += 1
            await asyncio.gather(*sending)
        assert len(numbers) + refused == len(sending)
        assert len(numbers) >= 6


async def test_a_stream_of_a_kernels_own_service_waits_for_memory(small: Wire) -> None:
    kernel_id = await small.launch("echo_job")
    service = await service_of(small, kernel_id)
    await pause(small, kernel_id)
    stream = service.stream({"kernel-id": kernel_id})

    async def write() -> None:
        for number in range(12):
            await stream.write(service.message(number=number, note="x" * MIB))
        await stream.done_writing()

    writing = asyncio.ensure_future(write())
    await queued(small, kernel_id, 7)
    await go_on(small, kernel_id)
    assert [(await stream.read()).number for _ in range(12)] == list(range(12))
    await writing


async def test_the_oldest_dead_letters_give_way(small: Wire) -> None:
    kernel_id, other = await small.launch("echo_job"), await small.launch("echo_job")
    await pause(small, kernel_id)
    for number in range(5):
        await small.send(kernel_id, number=number, note="x" * MIB)
    await small.terminate(kernel_id)
    assert (await small.counters(kernel_id)).messages_dropped == 5
    for _ in range(3):
        assert (await small.ask(other, note="x" * 3 * MIB))["note"]
    from pydotcompute.v1 import dead_letter_service_pb2 as dead_pb

    answer = await small.dead_letters.ListDeadLetters(dead_pb.ListDeadLettersRequest(kernel_id=kernel_id))
    oldest = int(small.fields(answer.dead_letters[0].message.body)["number"])
    assert oldest > 0


# -- the bytes of one mailbox ------------------------------------------------------------------------------------------


async def test_a_unary_send_waits_for_bytes_in_the_mailbox(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--limit", f"mailbox_bytes={2 * MIB}")
    async for wire in wire_of(daemon):
        kernel_id = await wire.launch("echo_job")
        await pause(wire, kernel_id)
        for _ in range(2):
            await wire.send(kernel_id, note="x" * MIB)
        assert (await failure_of(wire.send(kernel_id, timeout=0.01, note="x" * MIB))).reason == "QUEUE_FULL"
        assert (await failure_of(wire.ask(kernel_id, timeout=0.01, note="x" * MIB))).reason == "QUEUE_FULL"
        await wire.send(kernel_id, note="a small one finds room")
        waiting = asyncio.ensure_future(wire.ask(kernel_id, number=7, note="x" * MIB))
        await wire.send(kernel_id, note="the wait is no hindrance")
        await go_on(wire, kernel_id)
        assert (await waiting)["number"] == "7"


# -- the replies that wait for one client ------------------------------------------------------------------------------


async def test_replies_that_a_session_gives_no_credit_for_hold_it_back(strict: Wire) -> None:
    kernel_id = await strict.launch("stretcher")
    one = Talk(strict)
    await one.open(kernel_id, credit_bytes=1)
    asks_for_much = b"\x10\x80\x80\x20"  # A note of 512 KiB.
    for count in range(1, 5):  # One after the other: what is in the mailbox already is answered.
        await one.send(Letter(asks_for_much))
        await strict.until(kernel_id, messages_processed=count)
    await one.send(*(Letter(asks_for_much) for _ in range(100)))
    assert "acknowledged nothing" in await cut_off(one)
    assert (await strict.counters(kernel_id)).messages_processed == 4
    await one.resume()
    while len(one.letters) < 104:
        await one.ack(one.seen, credit_bytes=1 << 40)
        await one.hear("batch")
    one.cut()


async def test_replies_that_a_client_id_does_not_receive_hold_it_back(strict: Wire) -> None:
    kernel_id = await strict.launch("echo_job")
    for _ in range(2):
        await strict.send(kernel_id, client_id="me", note="x" * MIB)
    await strict.until(kernel_id, messages_processed=2)
    assert (await failure_of(strict.send(kernel_id, timeout=0.01, client_id="me"))).reason == "QUEUE_FULL"
    await strict.send(kernel_id, client_id="you")
    waiting = asyncio.ensure_future(strict.send(kernel_id, client_id="me", number=7))
    for _ in range(2):
        assert (await strict.receive(kernel_id, client_id="me")).body.value
    await waiting
    assert strict.fields((await strict.receive(kernel_id, client_id="me")).body)["number"] == "7"


# -- clients that make no progress -------------------------------------------------------------------------------------


async def test_a_session_that_acknowledges_nothing_is_cut_off_and_resumed_with_nothing_lost(strict: Wire) -> None:
    one = Talk(strict)
    await one.open(await strict.launch("echo_job"))
    letters = [large(MIB // 2) for _ in range(12)]
    for letter in letters:
        await one.send(letter)
    assert "acknowledged nothing" in await cut_off(one)
    assert UNACKNOWLEDGED <= sum(len(letter.body) for letter in one.letters) <= UNACKNOWLEDGED + MIB
    await one.resume()
    while len(one.letters) < len(letters):
        await one.ack(one.seen)
        await one.hear("batch")
    assert [reply.message_id for reply in one.letters] == [letter.message_id for letter in letters]
    assert [reply.body for reply in one.letters] == [letter.body for letter in letters]
    one.cut()


async def test_a_session_that_reads_nothing_is_cut_off_and_resumed_with_nothing_lost(
    start_daemon: Callable[..., Any],
) -> None:
    daemon = start_daemon(str(KERNELS), "--limit", f"stalled_reader={STALLED}")
    async for wire in wire_of(daemon):
        kernel_id = await wire.launch("echo_job")
        one = Talk(wire)
        await one.open(kernel_id)
        letters = [large(MIB) for _ in range(16)]
        for letter in letters:
            await one.send(letter)
        async with asyncio.timeout(PATIENCE):
            while "a client is cut off" not in daemon.log_text():  # noqa: ASYNC110  # It is another process.
                await asyncio.sleep(0.01)
        assert "has read nothing" in await cut_off(one)
        await one.resume()
        replies = await one.received(len(letters))
        assert [reply.message_id for reply in replies] == [letter.message_id for letter in letters]
        one.cut()


async def test_a_body_that_does_not_go_on_ends_the_stream_and_not_the_session(strict: Wire) -> None:
    one = Talk(strict)
    await one.open(await strict.launch("echo_job"))
    letter = large(3 * MIB)
    await one.send_part(letter.body, 0)
    assert "the next part of a body has not come" in await cut_off(one)
    await one.resume()
    offset = 0
    while offset < len(letter.body):
        offset = await one.send_part(letter.body, offset)
    await one.send_parted(letter)
    (reply,) = await one.received(1)
    assert reply.body == letter.body
    one.cut()


async def test_a_client_that_only_waits_is_not_cut_off(strict: Wire) -> None:
    kernel_id = await strict.launch("echo_job")
    await pause(strict, kernel_id)
    one = Talk(strict)
    await one.open(kernel_id)
    letter = large(100)
    await one.send(letter)
    await asyncio.sleep(3 * STALLED)  # As long as would be too long for one that ought to do something.
    await go_on(strict, kernel_id)
    (reply,) = await one.received(1)
    assert reply.message_id == letter.message_id
    one.cut()


async def test_a_stream_that_is_not_read_ends_with_a_status_that_says_so(strict_daemon: Any, strict: Wire) -> None:
    kernel_id = await strict.launch("echo_job")
    service = await service_of(strict, kernel_id)
    body = service.message(note="x" * MIB).SerializeToString()
    with grpc.insecure_channel(strict_daemon.target) as channel:
        # Not grpc.aio: there a write that fails hides the status.
        start: Any = channel.stream_stream(f"/{service.name}/Stream")
        stream = start(repeat(body), metadata=keys({"kernel-id": kernel_id}))
        async with asyncio.timeout(PATIENCE):  # Its replies are dead letters when the stream has ended.
            while not (await strict.counters(kernel_id)).messages_dropped:
                pass
        error = await asyncio.to_thread(ending_of, stream)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "has read nothing" in error.details()


def ending_of(stream: Any) -> Any:
    """Read to the end. Returns the error."""
    with pytest.raises(grpc.RpcError) as ended:
        deque(stream, maxlen=0)
    return ended.value
