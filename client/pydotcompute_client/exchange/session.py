"""The client's side of a session: this program's conversation with one kernel, over one stream after another."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import UUID

import grpc
from google.rpc import code_pb2, status_pb2

from pydotcompute.exceptions import (
    BackendUnavailableError,
    ConnectionLostError,
    MessageSerializationError,
    MessageTooLargeError,
    PyDotComputeError,
    QueueFullError,
    SessionLostError,
)
from pydotcompute.messages.ids import uuid_from_int, uuids_from_ints
from pydotcompute.messages.message import MAX_PRIORITY, check_header, door
from pydotcompute.ring_kernels.mail.replies import TAKEN, Caller, Replies
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.errors import from_rpc_error, from_status
from pydotcompute.wire.exchange.batches import credit_to_proto, fill
from pydotcompute.wire.exchange.bodies import Bodies, Body
from pydotcompute.wire.exchange.flow import Ahead, Chunk, Credit, Outgoing, ProtocolError
from pydotcompute.wire.exchange.frames import PART_BYTES, PartFrame, read_response, request_part, to_bytes
from pydotcompute.wire.exchange.shared_memory import SharedMemory
from pydotcompute.wire.kernels import strategy_from_proto
from pydotcompute_client.exchange.acks import Acks
from pydotcompute_client.exchange.arrivals import WINDOW, Arrivals, Outputs
from pydotcompute_client.types import RemoteTypes

__all__ = ["Session"]

logger = logging.getLogger(__name__)

EXCHANGE = f"/{pb.DESCRIPTOR.services_by_name['MessageService'].full_name}/Exchange"
"""The method; its frames are read and written by `wire.exchange.frames`, and not by the generated stub."""
LARGEST_BATCH = 1_024
"""Messages in one frame."""
LARGEST_BATCH_BYTES = 1 << 20
"""Bytes of bodies after which a frame is sent."""
SENT_IN_A_ROW = 512
"""Messages that a task sends before other tasks, and so the writer, have their turn."""
FAREWELL_SECONDS = 2.0
"""How long `close` waits for the daemon to have taken what was sent."""
LAST_WORD_SECONDS = 0.5
"""How long it takes, at most, to tell the daemon that the client leaves all the same."""
OPEN_AGAIN_SECONDS = 1.0
"""How long to try again to begin a session, if the connection breaks meanwhile."""
SHORTEST_DELAY, LONGEST_DELAY = 0.02, 2.0
"""Seconds before a stream is opened again, if the last one was never answered: at first, and at most. (How long to wait
before the connection is tried again, is gRPC's affair.)"""

_BROKEN = (grpc.aio.InternalError, grpc.aio.UsageError, asyncio.InvalidStateError)
"""What reading and writing raise on a stream that has ended."""

Sent = tuple["bytes | Body", int, int, "int | None", "float | None"]
"""A message as `wire.frames.Packed`, with the time, of `time.monotonic()`, at which its caller gives up."""


class Session:
    """One session. It may be over (`over` says why); then another must be opened, with its `replies`.

    While it has a stream there are two tasks: the reader hands out what comes, the writer sends whatever there is to
    send, all that has gathered while the last write was under way in one frame. When the stream breaks, another is
    opened.
    """

    def __init__(
        self,
        kernel_id: str,
        target: str,
        types: RemoteTypes,
        channel: grpc.aio.Channel,
        *,
        reconnect_timeout: float,
        max_message_bytes: int,
        shared_memory: bool = False,
        replies: Replies[Any] | None = None,
    ) -> None:
        self.kernel_id = kernel_id
        self.over: PyDotComputeError | None = None
        """Why nothing more comes."""
        self.untold: SessionLostError | None = None
        """Why the session was lost, if nobody waited for it at that moment and could be told."""
        self.refusal: PyDotComputeError | None = None
        """Why the kernel takes no messages."""
        self._target = target
        self._types = types
        self._channel = channel
        self._reconnect_timeout = reconnect_timeout
        self._max_message_bytes = max_message_bytes
        self._shared_memory = shared_memory
        self._token = b""
        self._type_names: list[str] = []
        self._encoders: dict[type, tuple[Callable[[object], None], Callable[[Any], bytes | Body]]] = {}
        self._outcomes: dict[int, asyncio.Future[None]] = {}  # What a `send` waits for that must know at once.
        self._outgoing: Outgoing[Sent] = Outgoing()
        self._room = Signal()
        self._long_gone = Signal()
        self._refusing = Signal()
        self._news = Signal()
        self._acks = Acks(self._news.notify)
        self._closing = self._leaving = False
        self._reply_limit = WINDOW
        if replies is None:
            replies = Replies(kernel_id, Outputs(kernel_id), self._nobody_waits)
        replies.begin(asyncio.get_running_loop(), self._nobody_waits, self._news.notify)
        self.replies = replies
        self._arrivals = Arrivals(replies, self._acks)
        outputs = replies.outputs
        assert isinstance(outputs, Outputs)
        outputs.on_taken = self._acks.output_taken
        self._task: asyncio.Task[None] | None = None

    # -- streams -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin the session.

        Raises:
            KernelNotFoundError, KernelStateError, MessageTypeError: the daemon says so.
            ConnectionLostError: the daemon cannot be reached.
        """
        try:
            await self._open_stream(wait_for_ready=False)
        except ConnectionLostError as error:
            # The connection may have broken just now, and nothing has been sent.
            if await self._open_again(OPEN_AGAIN_SECONDS) is not None:
                raise error from None
        self._task = asyncio.create_task(self._run(), name=f"session with {self.kernel_id}")

    async def _open_stream(self, *, wait_for_ready: bool) -> None:
        exchange = self._channel.stream_stream(EXCHANGE, to_bytes, read_response)
        self._call: Any = exchange(wait_for_ready=wait_for_ready)
        try:
            opening = pb.Open(
                kernel_id=self.kernel_id,
                session_token=self._token,
                received_through=self._arrivals.incoming.received,
                credit=credit_to_proto(self._arrivals.incoming.credit),
                max_message_bytes=self._max_message_bytes,
                part_bytes=PART_BYTES,
                shared_memory=self._shared_memory,
            )
            self._arrivals.incoming.begin(self._arrivals.incoming.received)
            try:
                await self._call.write(pb.ExchangeRequest(open=opening))
                frame = await self._call.read()
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, self._target) from None
            except _BROKEN:
                raise await self._why_it_broke() from None
            if not isinstance(frame, pb.ExchangeResponse):
                raise await self._why_it_broke()
            try:
                self._opened(frame.opened)
            except BackendUnavailableError:
                await self._say_bye()
                raise
        except BaseException:
            self._call.cancel()
            raise

    def _opened(self, opened: pb.Opened) -> None:
        if not self._token:
            self._type_names = [self._types.learn(message_type) for message_type in opened.types]
            self._arrivals.codecs = [self._types.receiving_codec(name) for name in self._type_names]
            self._strategy = strategy_from_proto(opened.backpressure_strategy)
            self._input_queue_size = opened.input_queue_size
            self._reply_limit = opened.output_queue_size
            codecs = self._arrivals.codecs
            self._bodies = self._arrivals.bodies = Bodies(
                self._arrivals.incoming,
                request_part,
                longest=opened.max_message_bytes,
                longest_received=self._max_message_bytes,
                part_bytes=opened.part_bytes,
                memory=SharedMemory.open(opened, codecs) if self._shared_memory else None,
            )
        self._token = opened.session_token
        self._bodies.begin()
        self._outgoing.resume(opened.received_through)
        self._grant(opened.credit)
        self._acks.resume(opened.acks_received)
        if opened.HasField("closed"):
            self._closed(self._error(opened.closed))

    async def _say_bye(self) -> None:
        """End a session that was just opened."""
        with suppress(grpc.aio.AioRpcError, *_BROKEN):
            await self._call.write(pb.ExchangeRequest(bye=pb.Bye()))
            await self._call.done_writing()
            await asyncio.wait((asyncio.ensure_future(self._call.code()),), timeout=LAST_WORD_SECONDS)

    async def _run(self) -> None:
        """Hold the conversation, over one stream after another, to its end."""
        ending: PyDotComputeError | None = None
        try:
            while (ending := await self._converse()) is None:
                await self._reconnect()
        except PyDotComputeError as error:
            ending = error
        except Exception as broken:  # A message class of the program's that refuses what it is made of, say.
            logger.exception("a conversation with %r has failed", self.kernel_id)
            ending = PyDotComputeError(f"the conversation with {self.kernel_id!r} has failed: {broken!r}")
        finally:
            # Nobody may wait for what nobody reads.
            self._end(ending or ConnectionLostError(self._target, "the conversation was cancelled"))

    async def _converse(self) -> PyDotComputeError | None:
        """Hold the conversation over this stream; returns why it is over, or None if only the stream is."""
        writer = asyncio.create_task(self._write(), name=f"writer to {self.kernel_id}")
        try:
            ending = await self._read()
            if ending is not None:
                self._end(ending)
                await asyncio.wait((writer,), timeout=FAREWELL_SECONDS)  # It says the last word,
                # which a cancelled call would overtake.
                await asyncio.wait((asyncio.ensure_future(self._call.code()),), timeout=LAST_WORD_SECONDS)
            return ending
        finally:
            writer.cancel()
            await asyncio.wait((writer,))
            self._call.cancel()

    async def _reconnect(self) -> None:
        """Open another stream for the session.

        Raises:
            SessionLostError: that is not possible, or took too long.
        """
        try:
            error = await self._open_again(self._reconnect_timeout)
        except SessionLostError as lost:
            raise self._lost(lost.problem) from None
        if error is not None:
            raise self._lost(f"not reached again within {self._reconnect_timeout:g} s ({error.problem})")

    async def _open_again(self, timeout: float) -> ConnectionLostError | None:
        """Open another stream; why that is not possible within this time."""
        delay = SHORTEST_DELAY
        error = ConnectionLostError(self._target, "the connection was cut off")
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await self._open_stream(wait_for_ready=True)
                        return None
                    except SessionLostError:
                        raise
                    except ConnectionLostError as broken:
                        error = broken
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(2 * delay, LONGEST_DELAY)
        return error

    def _lost(self, problem: str, not_taken: Iterable[int] = ()) -> SessionLostError:
        """What is known of the messages of a session that cannot go on; some were certainly not taken."""
        unsent = dict.fromkeys([*not_taken, *(item[1] for item in self._outgoing.unsent())])
        unknown = [key for key in self.replies.waiting_keys() if key not in unsent]
        return SessionLostError(
            self._target, problem, self.kernel_id, uuids_from_ints(unknown), uuids_from_ints(list(unsent))
        )

    async def _why_it_broke(self) -> PyDotComputeError:
        """The status of a stream that has ended."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return ConnectionLostError(self._target, "the daemon has ended the stream")
        error = grpc.aio.AioRpcError(
            code, await self._call.initial_metadata(), await self._call.trailing_metadata(), await self._call.details()
        )
        return from_rpc_error(error, self._target)

    async def close(self) -> None:
        """End the session: what was sent is taken by the daemon first, if it does so soon."""
        if self._task is not None:
            if self.over is None:
                self._closing = True
                self._acks.ask_for_news()
            await asyncio.wait((self._task,), timeout=FAREWELL_SECONDS)  # If it is over, for its last word.
            if self.over is None:  # The daemon need not keep for longer what nobody will come for.
                self._leaving = True
                self._news.notify()
                await asyncio.wait((self._task,), timeout=LAST_WORD_SECONDS)
            self._end(ConnectionLostError(self._target, "the client has closed the connection"))
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def wait_closed(self, timeout: float) -> None:
        """Wait until the daemon has said that the kernel takes no more messages."""
        while self.refusal is None and await self._refusing.wait(timeout):
            pass

    # -- what the program does -----------------------------------------------------------------------------------------

    async def send(self, caller: Caller[Any] | None, message: Any, timeout: float | None) -> None:
        """Send a message; the caller (None: the current task) gets the reply. Waits only if there is no credit, or the
        strategy is `reject`."""
        if caller is None:
            caller = self.replies.running_caller()
        if caller.ready.size >= self._reply_limit:
            await self._wait_until_received(caller, timeout)
        body = self._encode(message)
        outgoing = self._outgoing
        if outgoing.long or body.__class__ is not bytes:
            await self._wait_for_long(body, caller, timeout)
        elif len(outgoing.queue) >= outgoing.allowed or outgoing.queued_bytes >= outgoing.allowed_bytes or self.refusal:
            await self._wait_for_credit(timeout)
        message_id, correlation_id = message.message_id, message.correlation_id
        if self.replies.expect(message_id, caller) is TAKEN or message_id.int in self._outcomes:
            raise self._id_taken(message)
        answers = None if correlation_id is None else correlation_id.int
        item = (body, message_id.int, message.priority, answers, None)
        if body.__class__ is bytes:
            outgoing.queue.append(item)
            outgoing.queued_bytes += len(body)
        else:
            outgoing.put(item, caller)
        if self._news.waiters:
            self._news.notify()
        if self._strategy == "reject":
            await self._outcome(message_id)
        elif len(outgoing.queue) % SENT_IN_A_ROW == 0:
            await asyncio.sleep(0)

    async def send_and_receive(self, message: Any, timeout: float | None, deadline: float | None) -> Any:
        """Send a request and wait for its own reply, until the time, of `time.monotonic()`, is `deadline`, that is for
        `timeout` seconds since the program asked.
        """
        body = self._encode(message)
        message_id, correlation_id = message.message_id, message.correlation_id
        reply = self.replies.ask(message_id)
        if reply is None:
            raise self._id_taken(message)
        outgoing = self._outgoing
        try:
            if outgoing.long or body.__class__ is not bytes:
                await self._wait_for_long(body, self.replies.receiver(asyncio.current_task()), timeout)
            elif (
                len(outgoing.queue) >= outgoing.allowed
                or outgoing.queued_bytes >= outgoing.allowed_bytes
                or self.refusal
            ):
                await self._wait_for_credit(timeout)
        except BaseException:
            self.replies.unask(message_id)
            raise
        answers = None if correlation_id is None else correlation_id.int
        item = (body, message_id.int, message.priority, answers, deadline)
        if body.__class__ is bytes:
            outgoing.queue.append(item)
            outgoing.queued_bytes += len(body)
        else:
            outgoing.put(item, self.replies.receiver(asyncio.current_task()))
        self._news.notify()
        try:
            return await self.replies.reply_to(message_id, reply, timeout, deadline)
        except (TimeoutError, asyncio.CancelledError) as error:
            if outgoing.drop(item):  # It was never sent.
                self._long_gone.notify_all()
                self.replies.forget(message_id)
            elif isinstance(error, asyncio.CancelledError) and self.over is None:
                self._acks.withdraw(message_id.bytes)
            raise

    async def _outcome(self, message_id: UUID) -> None:
        """Wait until the kernel has taken a message. Raises what it was refused with."""
        outcome = self._outcomes[message_id.int] = asyncio.get_running_loop().create_future()
        try:
            await outcome
        except PyDotComputeError:
            self.replies.forget(message_id)
            raise

    async def _wait_until_received(self, caller: Caller[Any], timeout: float | None) -> None:
        """One who does not receive its replies cannot go on sending."""
        deadline = None if timeout is None else monotonic() + timeout
        while caller.ready.size >= self._reply_limit:
            remaining = None if deadline is None else deadline - monotonic()
            if self._strategy == "reject" or not await wait_any((caller.room, self._refusing), remaining):
                raise QueueFullError(self.kernel_id, self._reply_limit)
            if self.refusal is not None:
                raise self.refusal.again()

    def _encode(self, message: Any) -> bytes | Body:
        """Check and encode a message."""
        cls = message.__class__
        try:
            check, encode = self._encoders[cls]
        except KeyError:
            codec = self._types.codec(cls, self._type_names[0])
            check, encode = self._encoders[cls] = (door(cls), self._bodies.encoder(codec))
        check(message)
        priority, correlation_id = message.priority, message.correlation_id
        if (
            priority.__class__ is not int
            or not 0 <= priority <= MAX_PRIORITY
            or message.message_id.__class__ is not UUID
            or (correlation_id is not None and correlation_id.__class__ is not UUID)
        ):
            check_header(message)
        body = encode(message)
        if len(body) <= self._bodies.longest_plain:
            return body
        if len(body) > self._bodies.longest:
            raise MessageTooLargeError(cls.__name__, len(body), self._bodies.longest)
        return self._bodies.pack(body)

    def _id_taken(self, message: Any) -> MessageSerializationError:
        problem = "another request of this id waits for its reply"
        return MessageSerializationError(type(message).__name__, problem, "$.message_id")

    async def _wait_for_credit(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        outgoing, woken = self._outgoing, True
        while True:
            if self.refusal is not None:
                raise self.refusal.again()
            free = outgoing.allowed - len(outgoing.queue)
            if free > 0 and outgoing.queued_bytes < outgoing.allowed_bytes:
                if free > 1:
                    self._room.notify()
                return
            if not woken:
                raise QueueFullError(self.kernel_id, self._input_queue_size)
            woken = await self._room.wait(None if deadline is None else deadline - monotonic())

    async def _wait_for_long(self, body: bytes | Body, sender: object, timeout: float | None) -> None:
        """Wait for credit while a body goes ahead of its message: one of the same sender waits until that message is
        gone, and so does another that goes ahead.
        """
        goes_ahead = isinstance(body, Ahead)
        deadline = None if timeout is None else monotonic() + timeout
        outgoing, woken = self._outgoing, True
        while True:
            while outgoing.long and (goes_ahead or outgoing.is_held_up(sender)):
                if self.refusal is not None:
                    raise self.refusal.again()
                if not woken:
                    raise QueueFullError(self.kernel_id, self._input_queue_size)
                woken = await self._long_gone.wait(None if deadline is None else deadline - monotonic())
            await self._wait_for_credit(None if deadline is None else deadline - monotonic())
            if not (outgoing.long and goes_ahead):
                return

    # -- to the daemon -------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            frame = self._next_to_send()
            if frame is None:
                await self._news.wait()
                continue
            try:
                await self._call.write(frame)
                if not isinstance(frame, bytes) and frame.HasField("bye"):
                    await self._call.done_writing()
                    return
            except (grpc.aio.AioRpcError, *_BROKEN):
                return  # The reader learns why.

    def _next_to_send(self) -> pb.ExchangeRequest | bytes | None:
        outgoing, acks = self._outgoing, self._acks
        frame = pb.ExchangeRequest()
        chunk: Chunk[Sent] | bytes | None = None
        if self.over is None:
            self._arrivals.return_outputs()
            # Before any message: what that causes the kernel to send may be for another client.
            acks.outputs_wanted(self.replies.receiving)
            if not (outgoing.has_pieces and acks.is_due):  # What is due does not wait for many pieces of a body.
                chunk = outgoing.next_chunk(LARGEST_BATCH, LARGEST_BATCH_BYTES)
            if isinstance(chunk, bytes):
                return chunk
            if chunk is not None:
                _fill(frame.batch, chunk.first, chunk.items)
                if self._long_gone.waiters and not outgoing.long:
                    self._long_gone.notify_all()
                if outgoing.queue:
                    self._news.notify()
        finished = self.over is not None or self._leaving or (self._closing and outgoing.all_acknowledged)
        if acks.is_due or (chunk is not None and acks.can_go_beside) or (finished and acks.has_news):
            self._arrivals.grant()
            acks.fill(frame.ack)
            frame.ack.credit.CopyFrom(credit_to_proto(self._arrivals.incoming.credit))
        if finished and chunk is None:
            frame.bye.SetInParent()
        elif chunk is None and not frame.HasField("ack"):
            return None
        return frame

    def _nobody_waits(self, message: Any, why: str) -> None:
        """A reply has come too late: the daemon keeps the dead letters."""
        if not self._acks.undeliverable(message):
            logger.warning("a reply of %r is lost: %s after it was acknowledged", self.kernel_id, why)

    # -- from the daemon -----------------------------------------------------------------------------------------------

    async def _read(self) -> PyDotComputeError | None:
        """Act on what comes; returns why the conversation is over, or None if only the stream is."""
        try:
            while isinstance(frame := await self._call.read(), pb.ExchangeResponse | PartFrame):
                if isinstance(frame, PartFrame):
                    self._bodies.take_part(frame)
                elif (ending := self._take(frame)) is not None:
                    return ending
            error = await self._why_it_broke()
        except grpc.aio.AioRpcError as broken:
            error = from_rpc_error(broken, self._target)
        except _BROKEN:
            error = await self._why_it_broke()
        if self._leaving or (self._closing and self._outgoing.all_acknowledged):
            return ConnectionLostError(self._target, "the client has closed the connection")
        return None if isinstance(error, ConnectionLostError) else error

    def _take(self, frame: pb.ExchangeResponse) -> PyDotComputeError | None:
        """Act on a frame; returns why the conversation is over, if it is."""
        match frame.WhichOneof("frame"):
            case "batch":
                self._arrivals.take_batch(frame.batch)
            case "part":
                self._bodies.take_part(frame.part)
            case "refused":
                self._take_refused(frame.refused)
            case "closed":
                self._closed(self._error(frame.closed.status))
            case "bye":
                if frame.HasField("accepted"):
                    self._take_accepted(frame.accepted)
                error = self._error(frame.bye.status)
                if isinstance(error, ConnectionLostError):
                    # What it has not accepted until now, it never will. Is there more, that it had no time to finish?
                    lost = self._lost(error.problem, [item[1] for item in self._outgoing.unacknowledged()])
                    return lost if lost.message_ids else error
                return error
            case None if frame.HasField("accepted"):
                pass
            case other:
                raise ProtocolError(f"unexpected frame: {other or 'none'}")
        if frame.HasField("accepted"):
            self._take_accepted(frame.accepted)
        return None

    def _error(self, status: status_pb2.Status) -> PyDotComputeError:
        """What a status of the daemon's says; UNAVAILABLE is that it is about to end."""
        if status.code == code_pb2.UNAVAILABLE:
            return ConnectionLostError(self._target, status.message)
        return from_status(status)

    def _take_accepted(self, accepted: pb.Accepted) -> None:
        acknowledged = self._outgoing.acknowledge(accepted.through)
        if self._outcomes:
            for item in acknowledged:
                if (outcome := self._outcomes.pop(item[1], None)) is not None and not outcome.done():
                    outcome.set_result(None)
        self._grant(accepted.credit)
        self._acks.confirm(accepted.acks_received)

    def _grant(self, credit: pb.Credit) -> None:
        self._outgoing.grant(Credit(credit.messages, credit.bytes))
        if self._room.waiters:
            self._room.notify()
        if self._outgoing.queue or self._closing:
            self._news.notify()

    def _closed(self, error: PyDotComputeError) -> None:
        if self.refusal is None:
            self.refusal = error
            self._room.notify_all()
            self._long_gone.notify_all()
            self._refusing.notify_all()

    def _take_refused(self, refused: pb.Refused) -> None:
        again = self._arrivals.take_refused(refused.first_sequence, len(refused.refusals))
        for refusal in refused.refusals[again:]:
            error = self._error(refusal.status)
            key = int.from_bytes(refusal.message_id)
            outcome = self._outcomes.pop(key, None) if refusal.sequence else None
            if outcome is None:
                self.replies.fail(uuid_from_int(key), error)
            elif not outcome.done():
                outcome.set_exception(error)

    def _end(self, error: PyDotComputeError) -> None:
        if self.over is not None:
            return
        self.over = error
        self._arrivals.end()
        self._acks.stop()
        told = bool(self._outcomes)
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_exception(error.again())
        self._outcomes.clear()
        if isinstance(error, ConnectionLostError):
            if isinstance(error, SessionLostError):
                self._arrivals.forget_outputs()
            told = self.replies.lose(error) or told
        if isinstance(error, SessionLostError) and not told and (error.message_ids or error.unsent_ids):
            self.untold = error
        self._closed(error)
        self.replies.end(error)
        self._news.notify()


def _fill(batch: pb.Batch, first: int, items: list[Sent]) -> None:
    fill(batch, first, items)
    deadlines: Iterable[float | None] = [item[4] for item in items]
    if any(deadlines):
        now = monotonic()
        batch.timeouts_us.extend(0 if each is None else max(1, int((each - now) * 1e6)) for each in deadlines)
