"""The lane for people: every unary RPC, and WatchTelemetry, by the generated stubs."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from tests.moments import Moments
from tests.stubs import (
    KERNELS,
    MAX_MESSAGE_BYTES,
    PATIENCE,
    Failure,
    Letter,
    Talk,
    Wire,
    duration,
    failure_of,
    job_bytes,
)

LAUNCHED = kernel_pb.KERNEL_STATE_LAUNCHED
ACTIVE = kernel_pb.KERNEL_STATE_ACTIVE
DEACTIVATED = kernel_pb.KERNEL_STATE_DEACTIVATED
TERMINATED = kernel_pb.KERNEL_STATE_TERMINATED


def timed_out(kernel_id: str, timeout: float, operation: str, cause: str) -> Failure:
    detail = {"kernel_id": kernel_id, "timeout": timeout, "operation": operation}
    detail |= {"cause": cause, "before": 0, "seconds": 0.0, "asking": ""}
    return Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "QUEUE_TIMEOUT", detail)


# -- headers -----------------------------------------------------------------------------------------------------------


async def test_an_id_and_a_priority_are_made_for_a_message_without_them(wire: Wire) -> None:
    kernel_id = await wire.launch("echo_job")
    message_id = await wire.send(kernel_id, number=3)
    assert UUID(message_id).version == 4
    echo = await wire.receive(kernel_id)
    assert (echo.message_id, echo.priority, echo.correlation_id) == (message_id, 128, "")
    assert wire.fields(echo.body) == {"number": "3", "client": "0", "note": ""}


async def test_a_header_that_is_given_is_kept(wire: Wire) -> None:
    kernel_id = await wire.launch("echo_job")
    await wire.describe(kernel_id)
    ids = [str(uuid4()), str(uuid4())]
    sent = pb.Message(message_id=ids[0], priority=0, correlation_id=ids[1], body=wire.body("kernels.v1.Job", note="ü"))
    answer = await wire.messages.Send(pb.SendRequest(kernel_id=kernel_id, message=sent))
    assert answer.message_id == ids[0]
    assert await wire.receive(kernel_id) == sent


async def test_a_reply_names_its_request(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    message_id = await wire.send(kernel_id, number=9)
    reply = await wire.receive(kernel_id)
    assert reply.correlation_id == message_id
    assert reply.message_id not in ("", message_id)
    assert reply.body.TypeName() == "kernels.v1.Result"
    assert wire.fields(reply.body)["number"] == "81"


async def test_messages_are_handled_by_priority(wire: Wire) -> None:
    kernel_id = await wire.launch("square", activate=False)
    await wire.describe(kernel_id)
    await wire.kernels.Activate(kernel_pb.ActivateRequest(kernel_id=kernel_id))
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    for priority in (10, 255, 0, 128):
        message = pb.Message(priority=priority, body=wire.body("kernels.v1.Job", number=priority))
        await wire.messages.Send(pb.SendRequest(kernel_id=kernel_id, message=message))
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))
    order = [int(wire.fields((await wire.receive(kernel_id)).body)["number"]) for _ in range(4)]
    assert order == [255**2, 128**2, 10**2, 0]


# -- who gets what -----------------------------------------------------------------------------------------------------


async def test_a_reply_goes_to_the_client_id_of_its_request(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    clients = [*"abcdefgh", ""]
    sent = {client: await wire.send(kernel_id, number=n, client_id=client) for n, client in enumerate(clients)}
    for client in reversed(clients):
        assert (await wire.receive(kernel_id, client_id=client)).correlation_id == sent[client]
    for client in clients:
        assert (await failure_of(wire.receive(kernel_id, 0.01, client))).reason == "QUEUE_TIMEOUT"


async def test_an_output_goes_to_whichever_client_receives_first(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter")
    await wire.send(kernel_id, number=2, client_id="a")
    numbers = [wire.fields((await wire.receive(kernel_id, client_id=c)).body)["number"] for c in ("b", "c")]
    assert numbers == ["0", "1"]


async def test_asks_at_once_get_each_its_own_reply(wire: Wire) -> None:
    kernel_id = await wire.launch("shuffler")
    replies = await asyncio.gather(*(wire.ask(kernel_id, number=n) for n in range(100)))
    assert [int(reply["number"]) for reply in replies] == [n**2 for n in range(100)]


# -- time-outs and cancellation ----------------------------------------------------------------------------------------


async def test_a_receive_that_times_out_says_for_how_long_it_waited(wire: Wire) -> None:
    kernel_id = await wire.launch("sink")
    assert await failure_of(wire.receive(kernel_id, timeout=0.05)) == timed_out(kernel_id, 0.05, "receive", "IDLE")


async def test_an_ask_that_times_out_leaves_its_reply_to_nobody(wire: Wire) -> None:
    kernel_id = await wire.launch("gate")
    told = timed_out(kernel_id, 0.05, "send_and_receive", "NO_REPLY")
    assert await failure_of(wire.ask(kernel_id, 0.05, number=7)) == told
    await wire.ask(kernel_id, number=1, note="open")
    await wire.until(kernel_id, messages_processed=2, messages_dropped=1)
    assert (await failure_of(wire.receive(kernel_id, 0.01))).reason == "QUEUE_TIMEOUT"


async def test_a_send_to_a_full_mailbox_waits_for_room_until_its_time_is_over(wire: Wire) -> None:
    kernel_id = await wire.launch("sink", input_queue_size=2)
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    for number in range(2):
        await wire.send(kernel_id, number=number)
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", {"kernel_id": kernel_id, "queue_size": 2})
    assert await failure_of(wire.send(kernel_id, 0.05, number=2)) == full
    waiting = asyncio.ensure_future(wire.send(kernel_id, number=3))
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))
    await waiting
    await wire.until(kernel_id, messages_processed=3)


async def test_a_receive_without_a_timeout_waits_until_there_is_something(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter")
    receiving = asyncio.ensure_future(wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id)))
    await wire.send(kernel_id, number=1)
    assert wire.fields((await receiving).message.body)["number"] == "0"


@pytest.mark.parametrize("client_id", ["", "a"])
async def test_a_receive_that_is_cancelled_leaves_an_output_to_the_next(wire: Wire, client_id: str) -> None:
    kernel_id = await wire.launch("emitter")
    for number in range(1, 50):
        calls = [wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id, client_id=client_id)) for _ in range(3)]
        await wire.counters(kernel_id)  # Went out after them: when its answer is here, they wait at the daemon.
        for call in calls:
            call.cancel()
        await wire.counters(kernel_id)
        await wire.send(kernel_id, number=1)
        await wire.receive(kernel_id, client_id="b" if number % 2 else client_id)
        for call in calls:
            with pytest.raises(asyncio.CancelledError):
                await call


async def test_a_receive_that_is_cancelled_leaves_a_reply_to_the_next_of_its_client(wire: Wire) -> None:
    kernel_id = await wire.launch("gate")
    for _ in range(50):
        message_id = await wire.send(kernel_id, client_id="a", number=2)
        call = wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id, client_id="a"))
        await wire.counters(kernel_id)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await wire.ask(kernel_id, note="open")
        assert (await wire.receive(kernel_id, client_id="a")).correlation_id == message_id


async def test_a_receive_whose_deadline_passes_leaves_the_message(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter")
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id), timeout=0.05)
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await wire.counters(kernel_id)  # Went out after the news of the end.
    await wire.send(kernel_id, number=1)
    await wire.receive(kernel_id)


async def test_the_deadline_of_a_call_is_a_timeout_too(wire: Wire) -> None:
    kernel_id = await wire.launch("sink", input_queue_size=1)
    await wire.describe(kernel_id)
    message = pb.Message(body=wire.body("kernels.v1.Job"))
    receiving = wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id), timeout=4.0)
    asking = wire.messages.Ask(pb.AskRequest(kernel_id=kernel_id, message=message), timeout=4.0)
    for call, operation in ((receiving, "receive"), (asking, "send_and_receive")):
        failure = await failure_of(call)
        assert (failure.reason, failure.detail["operation"]) == ("QUEUE_TIMEOUT", operation)
        assert 1.0 < failure.detail["timeout"] < 4.0
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    await wire.send(kernel_id)
    request = pb.SendRequest(kernel_id=kernel_id, message=message, timeout=duration(PATIENCE))
    assert (await failure_of(wire.messages.Send(request, timeout=2.0))).reason == "QUEUE_FULL"


async def test_an_ask_that_is_cancelled_leaves_no_waiter(wire: Wire) -> None:
    kernel_id = await wire.launch("gate")
    await wire.describe(kernel_id)
    message = pb.Message(message_id=str(uuid4()), body=wire.body("kernels.v1.Job", number=3, note="open"))
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    call = wire.messages.Ask(pb.AskRequest(kernel_id=kernel_id, message=message))
    await wire.until(kernel_id, queue_depth=1)
    refused = await failure_of(wire.messages.Ask(pb.AskRequest(kernel_id=kernel_id, message=message)))
    assert refused.detail["path"] == "$.message.message_id"
    call.cancel()
    await wire.counters(kernel_id)  # Went out after the news of the end.
    again = asyncio.ensure_future(wire.messages.Ask(pb.AskRequest(kernel_id=kernel_id, message=message)))
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))
    assert wire.fields((await again).message.body)["number"] == "9"


class Pipe:
    """A connection to the daemon that can be held up, and broken."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._writers: list[asyncio.StreamWriter] = []
        self._copying: set[asyncio.Task[Any]] = set()
        self.open = asyncio.Event()
        """Cleared: nothing passes, in either direction."""
        self.open.set()
        self.target = ""

    async def __aenter__(self) -> "Pipe":
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        self._writers += [writer, far_writer]
        for source, to in ((reader, far_writer), (far_reader, writer)):
            self._copying.add(asyncio.create_task(self._copy(source, to)))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self.open.wait()
            writer.write(data)

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def __aexit__(self, *exc_info: object) -> None:
        self.cut()
        self._server.close()
        for task in self._copying:
            task.cancel()
        await asyncio.gather(*self._copying, return_exceptions=True)


@pytest.mark.parametrize("lease", [None, 600.0], ids=["no lease", "a lease"])
async def test_a_response_that_cannot_leave_before_the_connection_breaks_leaves_its_message(
    wire: Wire, daemon: Any, lease: float | None
) -> None:
    kernel_id = await wire.launch("echo_job")
    longest = "x" * (MAX_MESSAGE_BYTES - 10)  # More than the client's end takes before it is read.
    small_window = [("grpc.http2.lookahead_bytes", 65_535), ("grpc.http2.bdp_probe", 0)]
    async with Pipe(daemon.target) as pipe, grpc.aio.insecure_channel(pipe.target, small_window) as channel:
        broken = Wire(channel)
        await broken.describe(kernel_id)
        request = pb.ReceiveRequest(kernel_id=kernel_id, client_id="a")
        if lease is not None:
            request.lease.CopyFrom(duration(lease))
        call = broken.messages.Receive(request)
        await broken.counters(kernel_id)  # When its answer is here, the call waits at the daemon.
        pipe.open.clear()
        message_id = await wire.send(kernel_id, client_id="a", note=longest)
        await wire.until(kernel_id, messages_processed=1)
        assert (await failure_of(wire.receive(kernel_id, 0.01, "a"))).reason == "QUEUE_TIMEOUT"
        pipe.cut()
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    again = await wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id, client_id="a"))
    assert (again.message.message_id, again.redelivered) == (message_id, True)


# -- leases ------------------------------------------------------------------------------------------------------------

SOON = 0.05
"""A lease, in seconds, that is meant to run out."""


@pytest.mark.parametrize("kernel_type", ["emitter", "repeater"])
async def test_with_leases_nothing_is_lost_or_acknowledged_twice_whatever_is_cancelled(
    wire: Wire, kernel_type: str
) -> None:
    kernel_id = await wire.launch(kernel_type)
    await wire.send(kernel_id, number=200, client_id="a")
    await wire.until(kernel_id, messages_processed=1)
    request = pb.ReceiveRequest(kernel_id=kernel_id, client_id="a", timeout=duration(PATIENCE), lease=duration(SOON))
    moments = Moments(3)
    acknowledged: list[str] = []
    cancelled = redelivered = 0
    while len(acknowledged) < 200:
        call = wire.messages.Receive(request)
        if cancelled < 200:
            await moments.wait()
            call.cancel()
        try:
            response = await call
        except asyncio.CancelledError:
            cancelled += 1
            moments.was_early()
            continue
        moments.was_late()
        redelivered += response.redelivered
        if not await wire.acknowledge(kernel_id, response.delivery_id):
            acknowledged.append(response.message.message_id)
    assert redelivered
    assert len(set(acknowledged)) == 200
    assert (await failure_of(wire.receive(kernel_id, 2 * SOON, "a"))).reason == "QUEUE_TIMEOUT"


async def test_an_output_whose_lease_runs_out_comes_again_to_anyone(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter")
    await wire.send(kernel_id, number=3)
    first = await wire.lease(kernel_id, 600.0, client_id="a")
    second = await wire.receive(kernel_id)
    third = await wire.lease(kernel_id, SOON, client_id="a")
    assert (first.redelivered, third.redelivered) == (False, False)
    assert len({first.delivery_id, third.delivery_id, ""}) == 3
    again = await wire.lease(kernel_id, 600.0, client_id="b")  # Waits until the last lease has run out.
    assert again.message == third.message
    assert again.redelivered
    assert again.delivery_id != third.delivery_id
    assert [int(wire.fields(m.body)["number"]) for m in (first.message, second, third.message)] == [0, 1, 2]
    assert await wire.acknowledge(kernel_id, third.delivery_id, again.delivery_id) == [third.delivery_id]


@pytest.mark.parametrize("kernel_type", ["emitter", "repeater"])
async def test_what_comes_again_comes_before_others_of_its_priority(wire: Wire, kernel_type: str) -> None:
    kernel_id = await wire.launch(kernel_type, output_queue_size=2)
    await wire.send(kernel_id, number=2)
    await wire.lease(kernel_id, 600.0)
    first = await wire.lease(kernel_id, SOON)
    await wire.send(kernel_id, number=1)
    await wire.until(kernel_id, messages_processed=2)
    again: pb.ReceiveResponse | None = None
    async with asyncio.timeout(PATIENCE):
        while again is None:
            with suppress(grpc.aio.AioRpcError):  # Until the lease has run out there is no place for another.
                again = await wire.lease(kernel_id, 600.0)
    assert (again.message, again.redelivered) == (first.message, True)
    assert await wire.receive(kernel_id) != first.message


async def test_a_reply_whose_lease_runs_out_comes_again_to_its_client_alone_however_many_were_answered_since(
    wire: Wire, talk: Callable[[], Talk]
) -> None:
    kernel_id = await wire.launch("square")
    message_id = await wire.send(kernel_id, number=5, client_id="a")
    leased = await wire.lease(kernel_id, 2.0, client_id="a")
    other = talk()
    await other.open(kernel_id, credit=10_000)
    for _ in range(10):  # More than the kernel remembers of whom it has answered.
        await other.send(*[Letter(job_bytes(1)) for _ in range(1_000)])
        await other.received(other.sent)
        await other.ack(other.sent, credit=10_000 + other.sent)
    elsewhere = wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id, client_id="b"))
    again = await wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id, client_id="a"))
    assert (again.message, again.redelivered) == (leased.message, True)
    assert again.message.correlation_id == message_id
    await wire.counters(kernel_id)
    assert not elsewhere.done()
    elsewhere.cancel()


async def test_what_is_acknowledged_does_not_come_again(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter")
    await wire.send(kernel_id, number=2)
    done, forgotten = [await wire.lease(kernel_id, 2.0) for _ in range(2)]
    for _ in range(2):
        assert await wire.acknowledge(kernel_id, done.delivery_id) == []
    assert await wire.acknowledge(kernel_id, "never", done.delivery_id) == ["never"]
    assert await wire.receive(kernel_id) == forgotten.message  # The time of both leases is over.
    assert await wire.acknowledge(kernel_id, done.delivery_id, forgotten.delivery_id) == [forgotten.delivery_id]
    assert (await failure_of(wire.receive(kernel_id, 0.01))).reason == "QUEUE_TIMEOUT"


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 600.1])
async def test_a_lease_that_is_not_positive_or_too_long_is_refused(wire: Wire, seconds: float) -> None:
    kernel_id = await wire.launch("emitter")
    await wire.send(kernel_id, number=1)
    failure = await failure_of(wire.lease(kernel_id, seconds))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")
    assert (failure.detail["message_type"], failure.detail["path"]) == ("ReceiveRequest", "$.lease")
    await wire.receive(kernel_id)


async def test_a_kernel_has_as_many_open_leases_as_its_output_mailbox_holds_messages(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter", output_queue_size=2)
    await wire.send(kernel_id, number=4)
    first, _ = [await wire.lease(kernel_id, 600.0) for _ in range(2)]
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", {"kernel_id": kernel_id, "queue_size": 2})
    assert await failure_of(wire.lease(kernel_id, 600.0)) == full
    await wire.receive(kernel_id)
    assert await wire.acknowledge(kernel_id, first.delivery_id) == []
    await wire.lease(kernel_id, 600.0)


async def test_a_lease_that_found_nothing_takes_no_place(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter", output_queue_size=1)
    for _ in range(3):
        assert (await failure_of(wire.lease(kernel_id, 600.0, timeout=0.01))).reason == "QUEUE_TIMEOUT"


@pytest.mark.parametrize("kernel_type", ["emitter", "repeater"])
async def test_a_lease_that_runs_out_after_the_end_of_its_kernel_brings_the_message_back(
    wire: Wire, kernel_type: str
) -> None:
    kernel_id = await wire.launch(kernel_type)
    await wire.send(kernel_id, number=3, client_id="a")
    await wire.until(kernel_id, messages_processed=1)
    leased = await wire.lease(kernel_id, 0.3, client_id="a")
    kept = await wire.lease(kernel_id, 600.0, client_id="a")
    await wire.terminate(kernel_id)
    await wire.receive(kernel_id, client_id="a")
    again: pb.ReceiveResponse | None = None
    async with asyncio.timeout(PATIENCE):
        while again is None:
            with suppress(grpc.aio.AioRpcError):  # Until the lease has run out there is nothing.
                again = await wire.lease(kernel_id, 600.0, client_id="a")
    assert (again.message, again.redelivered) == (leased.message, True)
    assert await wire.acknowledge(kernel_id, leased.delivery_id, kept.delivery_id) == [leased.delivery_id]


# -- sending again -----------------------------------------------------------------------------------------------------


async def test_a_send_of_an_id_that_was_taken_answers_and_puts_nothing(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    request = await request_of(wire, kernel_id, number=3)
    answers = [await wire.messages.Send(request) for _ in range(3)]
    assert [answer.message_id for answer in answers] == [request.message.message_id] * 3
    assert (await wire.receive(kernel_id)).correlation_id == request.message.message_id
    await wire.messages.Send(request)
    await wire.ask(kernel_id, number=1)  # Is handled after all that was put before.
    assert (await wire.counters(kernel_id)).messages_processed == 2
    await wire.terminate(kernel_id)
    await wire.messages.Send(request)


async def test_another_message_of_an_id_that_was_taken_is_refused(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    request = await request_of(wire, kernel_id, number=3)
    await wire.messages.Send(request)
    await wire.receive(kernel_id)
    for changed in (
        await request_of(wire, kernel_id, request.message.message_id, number=4),
        pb.SendRequest(kernel_id=kernel_id, message=request.message, client_id="b"),
        pb.SendRequest(kernel_id=kernel_id, message=pb.Message(body=request.message.body, priority=1)),
    ):
        changed.message.message_id = request.message.message_id.upper()
        failure = await failure_of(wire.messages.Send(changed))
        assert (failure.reason, failure.detail["path"]) == ("MESSAGE_INVALID", "$.message.message_id")
    assert (await wire.counters(kernel_id)).messages_processed == 1


@pytest.fixture
async def full(wire: Wire) -> str:
    """A kernel whose mailbox is full until it is reactivated."""
    kernel_id = await wire.launch("sink", input_queue_size=1)
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    await wire.send(kernel_id)
    return kernel_id


async def test_a_second_send_of_an_id_waits_with_the_first(wire: Wire, full: str) -> None:
    request = await request_of(wire, full, number=1)
    sends = [asyncio.ensure_future(wire.messages.Send(request)) for _ in range(5)]
    hasty = pb.SendRequest(kernel_id=full, message=request.message, timeout=duration(0.05))
    assert (await failure_of(wire.messages.Send(hasty))).reason == "QUEUE_FULL"
    changed = await request_of(wire, full, request.message.message_id, number=2)
    assert (await failure_of(wire.messages.Send(changed))).detail["path"] == "$.message.message_id"
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=full))
    assert {answer.message_id for answer in await asyncio.gather(*sends)} == {request.message.message_id}
    await wire.send(full)
    await wire.until(full, messages_processed=3)


@pytest.mark.parametrize("end", ["times out", "is cancelled"])
async def test_if_the_first_send_of_an_id_fails_a_second_tries_for_itself(wire: Wire, full: str, end: str) -> None:
    request = await request_of(wire, full, number=1)
    hasty = pb.SendRequest(kernel_id=full, message=request.message, timeout=duration(0.2))
    first = wire.messages.Send(hasty if end == "times out" else request)
    second = asyncio.ensure_future(wire.messages.Send(request))
    await wire.counters(full)  # Went out after them: when its answer is here, they wait at the daemon.
    if end == "times out":
        assert (await failure_of(first)).reason == "QUEUE_FULL"
    else:
        first.cancel()
        await wire.counters(full)
    assert not second.done()
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=full))
    assert (await second).message_id == request.message.message_id
    await wire.messages.Send(request)
    await wire.send(full)
    await wire.until(full, messages_processed=3)


async def request_of(wire: Wire, kernel_id: str, message_id: str = "", **fields: Any) -> pb.SendRequest:
    """A request to send a job with these fields, under an id of the client's."""
    await wire.describe(kernel_id)
    message = pb.Message(message_id=message_id or str(uuid4()), body=wire.body("kernels.v1.Job", **fields))
    return pb.SendRequest(kernel_id=kernel_id, message=message)


# -- lifecycle ---------------------------------------------------------------------------------------------------------


async def test_a_time_out_says_that_the_kernel_is_paused_and_what_is_before_the_request(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    await wire.send(kernel_id, number=1)
    for call, operation in ((wire.ask(kernel_id, 0.05, number=2), "ask"), (wire.receive(kernel_id, 0.05), "receive")):
        detail = (await failure_of(call)).detail
        assert (detail["cause"], detail["before"]) == ("PAUSED", 1), operation


async def test_every_answer_names_the_same_run_of_the_daemon(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    kernels = await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())
    name = (await wire.describe(kernel_id)).input_type.full_name
    message = pb.Message(body=wire.body(name, number=3))
    asked = await wire.messages.Ask(pb.AskRequest(kernel_id=kernel_id, message=message))
    sent = await wire.messages.Send(pb.SendRequest(kernel_id=kernel_id, message=message))
    received = await wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id, daemon_epoch=sent.daemon_epoch))
    assert sent.daemon_epoch
    assert {each.daemon_epoch for each in (kernels, asked, received)} == {sent.daemon_epoch}


async def test_what_was_sent_to_another_run_of_the_daemon_is_lost(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    name = (await wire.describe(kernel_id)).input_type.full_name
    message = pb.Message(body=wire.body(name, number=3))
    for call in (
        wire.messages.Send(pb.SendRequest(kernel_id=kernel_id, message=message, daemon_epoch="another")),
        wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id, daemon_epoch="another")),
        wire.messages.Receive(pb.ReceiveRequest(kernel_id="not launched again", daemon_epoch="another")),
    ):
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_LOST")
        assert "the daemon has restarted since" in failure.detail["problem"]
    await wire.until(kernel_id, queue_depth=0, messages_processed=0)


async def test_a_client_is_told_that_the_daemon_was_killed_and_started_again(start_daemon: Callable[..., Any]) -> None:
    epochs: list[str] = []
    for _ in range(2):
        daemon = start_daemon(str(KERNELS), "--launch", "square")
        async with grpc.aio.insecure_channel(daemon.target) as channel:
            wire = Wire(channel)
            name = (await wire.describe("square")).input_type.full_name
            if epochs:
                call = wire.messages.Receive(pb.ReceiveRequest(kernel_id="square", daemon_epoch=epochs[0]))
                assert (await failure_of(call)).reason == "SESSION_LOST"
            message = pb.Message(body=wire.body(name, number=3))
            sent = await wire.messages.Send(pb.SendRequest(kernel_id="square", message=message))
            epochs.append(sent.daemon_epoch)
        daemon.process.kill()
        daemon.process.wait()
    assert len(set(epochs)) == 2


async def test_every_step_of_a_life_answers_with_the_new_state(wire: Wire) -> None:
    kernel_id = f"square-{uuid4().hex}"
    launch = await wire.kernels.Launch(kernel_pb.LaunchRequest(kernel_id=kernel_id, kernel_type="square"))
    assert launch.kernel == kernel_pb.Kernel(
        kernel_id=kernel_id, kernel_type="square", state=LAUNCHED, device="cpu", output_queue_size=4_096
    )
    for name, state in (
        ("Activate", ACTIVE),
        ("Deactivate", DEACTIVATED),
        ("Reactivate", ACTIVE),
        ("Terminate", TERMINATED),
        ("Terminate", TERMINATED),
    ):
        request = getattr(kernel_pb, f"{name}Request")(kernel_id=kernel_id)
        answer = await getattr(wire.kernels, name)(request)
        assert (answer.kernel.kernel_id, answer.kernel.state) == (kernel_id, state), name


async def test_a_launch_without_a_type_takes_the_type_of_the_same_name(wire: Wire) -> None:
    launch = await wire.kernels.Launch(kernel_pb.LaunchRequest(kernel_id="short_lived"))
    wire.launched.append("short_lived")
    assert launch.kernel.kernel_type == "short_lived"


async def test_settings_of_a_launch_stand_beside_those_declared(wire: Wire) -> None:
    kernel_id = await wire.launch("small", output_queue_size=99)
    config = (await wire.describe(kernel_id)).kernel_type.config
    assert config == kernel_pb.KernelConfig(
        input_queue_size=4,
        output_queue_size=99,
        backpressure_strategy=pb.BACKPRESSURE_STRATEGY_REJECT,
        grid_size=1,
        block_size=256,
    )
    declared = (await wire.describe("small")).kernel_type.config
    assert declared.output_queue_size == 8


async def test_kernels_are_listed_in_the_order_of_their_launch_until_they_are_terminated(wire: Wire) -> None:
    ids = [await wire.launch("square", activate=number % 2 == 0) for number in range(4)]
    await wire.terminate(ids[1])
    listed = (await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())).kernels
    states = {kernel.kernel_id: kernel.state for kernel in listed if kernel.kernel_id in ids}
    assert list(states.items()) == [(ids[0], ACTIVE), (ids[2], ACTIVE), (ids[3], LAUNCHED)]


async def test_a_kernel_that_failed_is_listed_with_the_reason(wire: Wire) -> None:
    kernel_id = await wire.launch("fragile")
    await wire.send(kernel_id, number=3, note="boom")
    await wire.until(kernel_id, error_count=1)
    listed = (await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())).kernels
    failed = next(kernel for kernel in listed if kernel.kernel_id == kernel_id)
    assert (failed.state, failed.failure) == (kernel_pb.KERNEL_STATE_FAILED, "ValueError: no square of 3")


async def test_every_kernel_type_is_listed_with_its_types(wire: Wire) -> None:
    types = (await wire.kernels.ListKernelTypes(kernel_pb.ListKernelTypesRequest())).kernel_types
    names = [kernel_type.name for kernel_type in types]
    assert names == sorted(names)
    total = next(kernel_type for kernel_type in types if kernel_type.name == "total")
    assert (total.input_type, total.output_type) == ("kernels.v1.Bare", "kernels.v1.Inherited")
    assert total.documentation.startswith("Adds up")


async def test_a_type_that_is_not_launched_can_be_described(wire: Wire) -> None:
    described = await wire.describe("total")
    assert not described.HasField("kernel")
    assert described.kernel_type.name == "total"
    assert described.input_type.full_name == "kernels.v1.Bare"
    assert described.output_type.full_name == "kernels.v1.Inherited"


async def test_a_kernel_of_another_id_is_described_with_the_name_of_its_type(wire: Wire) -> None:
    kernel_id = await wire.launch("total", input_queue_size=7)
    described = await wire.describe(kernel_id)
    assert (described.kernel.kernel_id, described.kernel.kernel_type) == (kernel_id, "total")
    assert described.kernel_type.name == "total"
    assert described.kernel_type.config.input_queue_size == 7, "the settings are those of the kernel"


async def test_the_sample_of_every_type_is_a_body_of_it(wire: Wire) -> None:
    types = (await wire.kernels.ListKernelTypes(kernel_pb.ListKernelTypesRequest())).kernel_types
    assert types
    for kernel_type in types:
        described = await wire.describe(kernel_type.name)
        wire.body(described.input_type.full_name, **json.loads(described.sample_json))


async def test_the_sample_can_be_sent_as_it_is(wire: Wire) -> None:
    kernel_id = await wire.launch("echo")
    sample = json.loads((await wire.describe(kernel_id)).sample_json)
    assert await wire.ask(kernel_id, **sample) == sample


# -- telemetry ---------------------------------------------------------------------------------------------------------


async def test_telemetry_is_of_the_kernels_named_in_that_order(wire: Wire) -> None:
    ids = [await wire.launch("square") for _ in range(3)]
    await wire.ask(ids[1], number=1)
    request = telemetry_pb.GetTelemetryRequest(kernel_ids=[ids[2], ids[1]])
    snapshots = (await wire.telemetry.GetTelemetry(request)).kernels
    assert [(s.kernel_id, s.messages_processed, s.state) for s in snapshots] == [
        (ids[2], 0, ACTIVE),
        (ids[1], 1, ACTIVE),
    ]
    latency = snapshots[1]
    assert 0 < latency.min_latency_ns == latency.max_latency_ns
    assert latency.throughput > 0
    assert latency.uptime_seconds > 0


async def test_telemetry_without_names_is_of_all(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    listed = (await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())).kernels
    snapshots = (await wire.telemetry.GetTelemetry(telemetry_pb.GetTelemetryRequest())).kernels
    assert [s.kernel_id for s in snapshots] == [kernel.kernel_id for kernel in listed]
    assert kernel_id in [s.kernel_id for s in snapshots]


async def test_a_watch_shows_the_kernel_at_once_and_then_at_each_interval(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    watch = wire.telemetry.WatchTelemetry(
        telemetry_pb.WatchTelemetryRequest(kernel_ids=[kernel_id], interval=duration(0.01))
    )
    async with asyncio.timeout(PATIENCE):
        assert [k.messages_processed for k in (await watch.read()).kernels] == [0]
        await wire.ask(kernel_id, number=1)
        while (await watch.read()).kernels[0].messages_processed != 1:
            pass
    watch.cancel()


async def test_a_watch_of_an_unknown_kernel_ends_with_its_name(wire: Wire) -> None:
    watch = wire.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest(kernel_ids=["nobody"]))
    failure = await failure_of(anext(aiter(watch)))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "KERNEL_NOT_FOUND")
    assert failure.detail["kernel_id"] == "nobody"


async def test_a_watch_of_all_begins_to_show_what_is_launched_later(wire: Wire) -> None:
    watch: Any = wire.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest(interval=duration(0.01)))
    before = {kernel.kernel_id for kernel in (await watch.read()).kernels}
    kernel_id = await wire.launch("square")
    assert kernel_id not in before
    async with asyncio.timeout(PATIENCE):
        while kernel_id not in {kernel.kernel_id for kernel in (await watch.read()).kernels}:
            pass
    watch.cancel()
