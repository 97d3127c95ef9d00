"""The client's side of one Exchange stream: this program's conversation with one kernel."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
from google.rpc import code_pb2

from pydotcompute.exceptions import (
    ConnectionLostError,
    MessageSerializationError,
    PyDotComputeError,
    QueueFullError,
)
from pydotcompute.ring_kernels.mailbox import Mailbox
from pydotcompute.ring_kernels.message import check_header, door, uuid_from_int
from pydotcompute.ring_kernels.replies import TAKEN, Caller, Replies
from pydotcompute.ring_kernels.waiting import Signal, wait_any
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.errors import from_rpc_error, from_status
from pydotcompute.wire.exchange import Incoming, Outgoing, ProtocolError
from pydotcompute.wire.kernels import strategy_from_proto
from pydotcompute.wire.messages import Packed, add_envelope, from_envelope, pack
from pydotcompute_client.types import RemoteTypes

if TYPE_CHECKING:
    from pydotcompute.v1.message_service_pb2_grpc import MessageServiceAsyncStub

__all__ = ["Session"]

logger = logging.getLogger(__name__)

WINDOW = 4_096
"""Messages that the daemon may have under way to this client."""
ACKNOWLEDGE_AFTER = WINDOW // 8
"""Replies that may arrive before the daemon must hear of it."""
LARGEST_BATCH = 1_024
"""Messages in one frame."""
LARGEST_BATCH_BYTES = 1 << 20
"""Bytes of bodies after which a frame is sent."""
FAREWELL_SECONDS = 2.0
"""How long `close` waits for the daemon to have taken what was sent."""


class _Outputs(Mailbox[Any]):
    """Outputs that were pulled, and who is told when one is received."""

    def __init__(self, kernel_id: str, on_taken: Callable[[Any], None]) -> None:
        super().__init__(kernel_id, WINDOW)
        self._on_taken = on_taken

    def get_nowait(self) -> Any:
        item = super().get_nowait()
        if item is not None:
            self._on_taken(item)
        return item


class Session:
    """One conversation. It may be over (`over` says why); then another must be opened.

    Two tasks: the reader hands out what comes, the writer sends whatever there is to send, all that has gathered while
    the last write was under way in one frame.
    """

    def __init__(self, kernel_id: str, target: str, types: RemoteTypes) -> None:
        self.kernel_id = kernel_id
        self.over: PyDotComputeError | None = None
        """Why nothing more comes."""
        self.refusal: PyDotComputeError | None = None
        """Why the kernel takes no messages."""
        self._target = target
        self._types = types
        self._type_names: list[str] = []
        self._encoders: dict[type, tuple[Callable[[object], None], Callable[[Any], bytes]]] = {}
        self._outcomes: dict[bytes, asyncio.Future[None]] = {}  # What a `send` waits for that must know at once.
        self._outgoing: Outgoing[bytes] = Outgoing()  # Message ids.
        self._incoming = Incoming(credit=WINDOW)
        self._outbox: deque[Packed] = deque()
        self._room = Signal()
        self._refusing = Signal()
        self._something_to_send = Signal()
        self._outputs_held: dict[int, int] = {}  # Of the outputs that nobody has received yet: identity → sequence.
        self._outputs_received = 0
        self._told_acknowledged = 0
        self._told_outputs = 0
        self._must_acknowledge = False
        self._unacknowledged: deque[tuple[int, Any]] = deque()  # What has arrived, by sequence, until the daemon hears.
        self._undeliverable: list[int] = []
        self._closing = False
        self._reply_limit = WINDOW
        self.replies: Replies[Any] = Replies(kernel_id, _Outputs(kernel_id, self._output_taken), self._nobody_waits)
        self.replies.loop = asyncio.get_running_loop()
        self.replies.on_receiving = self._something_to_send.notify
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, stub: MessageServiceAsyncStub) -> None:
        """Begin the conversation.

        Raises:
            KernelNotFoundError, KernelStateError, MessageTypeError: the daemon says so.
            ConnectionLostError: the daemon cannot be reached.
        """
        self._call = stub.Exchange()
        try:
            await self._begin()
        except BaseException:
            self._call.cancel()
            raise

    async def _begin(self) -> None:
        opening = pb.Open(kernel_id=self.kernel_id, credit=self._incoming.credit)
        try:
            await self._call.write(pb.ExchangeRequest(open=opening))
            frame = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self._target) from None
        except (asyncio.InvalidStateError, grpc.aio.InternalError, grpc.aio.UsageError):
            raise await self._why_it_broke() from None
        if not isinstance(frame, pb.ExchangeResponse):
            raise await self._why_it_broke()
        opened = frame.opened
        self._type_names = [self._types.learn(message_type) for message_type in opened.types]
        self._codecs = [self._types.receiving_codec(name) for name in self._type_names]
        self._outgoing.grant(opened.credit)
        self._strategy = strategy_from_proto(opened.backpressure_strategy)
        self._input_queue_size = opened.input_queue_size
        self._reply_limit = opened.output_queue_size
        self._max_message_bytes = opened.max_message_bytes
        if opened.HasField("closed"):
            self.refusal = from_status(opened.closed)
        self._tasks = [
            asyncio.create_task(part, name=f"session with {self.kernel_id}") for part in (self._read(), self._write())
        ]

    async def close(self) -> None:
        """End the conversation: what was sent is taken by the daemon first, if it does so soon."""
        if self.over is None:
            self._closing = True
            self._something_to_send.notify()
            await asyncio.wait(self._tasks, timeout=FAREWELL_SECONDS)
        self._end(ConnectionLostError(self._target, "the client has closed the connection"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._call.cancel()

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
        packed = self._pack(message)
        if len(self._outbox) >= self._outgoing.allowed or self.refusal is not None:
            await self._wait_for_credit(timeout)
        if packed[0] in self._outcomes or self.replies.expect(message.message_id, caller) is TAKEN:
            raise self._id_taken(message)
        self._outbox.append(packed)
        if self._something_to_send.waiters:
            self._something_to_send.notify()
        if self._strategy == "reject":
            await self._outcome(message.message_id)

    async def send_and_receive(self, message: Any, timeout: float | None, deadline: float | None) -> Any:
        """Send a request and wait for its own reply, until the event loop's time is `deadline`, that is for `timeout`
        seconds since the program asked.
        """
        packed = self._pack(message)
        reply = self.replies.ask(message.message_id)
        if reply is None:
            raise self._id_taken(message)
        if len(self._outbox) >= self._outgoing.allowed or self.refusal is not None:
            try:
                await self._wait_for_credit(timeout)
            except BaseException:
                self.replies.unask(message.message_id)
                raise
        self._outbox.append(packed)
        self._something_to_send.notify()
        return await self.replies.reply_to(message.message_id, reply, timeout, deadline)

    async def _outcome(self, message_id: UUID) -> None:
        """Wait until the kernel has taken a message. Raises what it was refused with."""
        outcome = self._outcomes[message_id.int.to_bytes(16)] = asyncio.get_running_loop().create_future()
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

    def _pack(self, message: Any) -> Packed:
        """Check and encode a message."""
        cls = message.__class__
        try:
            check, encode = self._encoders[cls]
        except KeyError:
            codec = self._types.codec(cls, self._type_names[0])
            check, encode = self._encoders[cls] = (door(cls), codec.encode)
        check(message)
        check_header(message)
        body = encode(message)
        if len(body) > self._max_message_bytes:
            problem = f"{len(body)} bytes, the limit is {self._max_message_bytes}"
            raise MessageSerializationError(cls.__name__, problem)
        return pack(message, body)

    def _id_taken(self, message: Any) -> MessageSerializationError:
        problem = "another request of this id waits for its reply"
        return MessageSerializationError(type(message).__name__, problem, "$.message_id")

    async def _wait_for_credit(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        woken = True
        while True:
            if self.refusal is not None:
                raise self.refusal.again()
            free = self._outgoing.allowed - len(self._outbox)
            if free > 0:
                if free > 1:
                    self._room.notify()
                return
            if not woken:
                raise QueueFullError(self.kernel_id, self._input_queue_size)
            woken = await self._room.wait(None if deadline is None else deadline - monotonic())

    # -- to the daemon -------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            frame = self._next_to_send()
            if frame is None:
                await self._something_to_send.wait()
                continue
            try:
                await self._call.write(frame)
            except (grpc.aio.AioRpcError, grpc.aio.InternalError, grpc.aio.UsageError, asyncio.InvalidStateError):
                return  # The reader learns why.
            if frame.HasField("bye"):
                await self._call.done_writing()
                return

    def _next_to_send(self) -> pb.ExchangeRequest | None:
        outputs = self._outputs_received + self.replies.receiving
        if self.over is None and outputs != self._told_outputs:
            # Before any message: what that causes the kernel to send may be for another client.
            self._told_outputs = outputs
            return pb.ExchangeRequest(pull=pb.Pull(outputs=outputs))
        if self.over is None and self._outbox and self._outgoing.allowed:
            return pb.ExchangeRequest(batch=self._next_batch())
        if self._outputs_held and not self.replies.receiving and self.over is None:
            return pb.ExchangeRequest(ack=self._return_outputs())
        taken = not self._outbox and self._outgoing.acknowledged == self._outgoing.sent
        finished = self.over is not None or (self._closing and taken)
        through = self._acknowledged()
        if through > self._told_acknowledged and (
            self._must_acknowledge or finished or self._incoming.received - self._told_acknowledged >= ACKNOWLEDGE_AFTER
        ):
            self._told_acknowledged = through
            self._must_acknowledge = False
            self._incoming.grant(self._incoming.received + WINDOW)
            while self._unacknowledged and self._unacknowledged[0][0] <= through:
                self._unacknowledged.popleft()
            undeliverable = [sequence for sequence in self._undeliverable if sequence <= through]
            self._undeliverable = [sequence for sequence in self._undeliverable if sequence > through]
            ack = pb.Ack(through=through, credit=self._incoming.credit, undeliverable=undeliverable)
            return pb.ExchangeRequest(ack=ack)
        if finished:
            return pb.ExchangeRequest(bye=pb.Bye())
        return None

    def _return_outputs(self) -> pb.Ack:
        """Give back what was pulled and nobody here waits for any more: another client may."""
        returned = []
        for output in self.replies.outputs.drain():
            sequence = self._outputs_held.pop(id(output), None)
            if sequence is None:  # A reply to a task that has ended; it is for this program.
                self.replies.outputs.put_anyway(output, output.priority)
            else:
                returned.append(sequence)
        self._outputs_received -= len(returned)
        return pb.Ack(through=self._told_acknowledged, credit=self._incoming.credit, returned=returned)

    def _next_batch(self) -> pb.Batch:
        batch = pb.Batch(first_sequence=self._outgoing.sent + 1)
        sent: list[bytes] = []
        size = 0
        room = min(self._outgoing.allowed, LARGEST_BATCH, len(self._outbox))
        while len(sent) < room and size < LARGEST_BATCH_BYTES:
            packed = self._outbox.popleft()
            add_envelope(batch, packed)
            sent.append(packed[0])
            size += len(packed[3])
        self._outgoing.send(sent)
        return batch

    def _acknowledged(self) -> int:
        """Every message through this sequence has been received: a reply when it arrives, for it is for this program
        alone; an output when a task receives it, for until then it could be another's."""
        return next(iter(self._outputs_held.values()), self._incoming.received + 1) - 1

    def _output_taken(self, output: Any) -> None:
        if self._outputs_held.pop(id(output), None) is not None:
            self._must_acknowledge = True
            self._something_to_send.notify()

    def _nobody_waits(self, message: Any, why: str) -> None:
        """A reply has come too late: the daemon keeps the dead letters."""
        for sequence, arrived in reversed(self._unacknowledged):
            if arrived is message:
                self._undeliverable.append(sequence)
                self._must_acknowledge = True
                self._something_to_send.notify()
                return
        logger.warning("a reply of %r is lost: %s after it was acknowledged", self.kernel_id, why)

    # -- from the daemon -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        error: PyDotComputeError = ConnectionLostError(self._target, "the conversation was cut off")
        try:
            while isinstance(frame := await self._call.read(), pb.ExchangeResponse):
                if (ending := self._take(frame)) is not None:
                    error = ending  # And the writer says the last word.
                    return
            error = await self._why_it_broke()
        except grpc.aio.AioRpcError as broken:
            error = from_rpc_error(broken, self._target)
        except PyDotComputeError as broken:
            error = broken
        except Exception as broken:  # A message class of the program's that refuses what it is made of, say.
            logger.exception("a conversation with %r has failed", self.kernel_id)
            error = PyDotComputeError(f"the conversation with {self.kernel_id!r} has failed: {broken!r}")
        finally:
            self._end(error)  # Nobody may wait for what nobody reads.

    def _take(self, frame: pb.ExchangeResponse) -> PyDotComputeError | None:
        """Act on a frame; returns why the conversation is over, if it is."""
        match frame.WhichOneof("frame"):
            case "batch":
                self._take_batch(frame.batch)
            case "accepted":
                for message_id in self._outgoing.acknowledge(frame.accepted.through):
                    if self._outcomes and (outcome := self._outcomes.pop(message_id, None)) and not outcome.done():
                        outcome.set_result(None)
                self._outgoing.grant(frame.accepted.credit)
                self._room.notify()
                if self._outbox or self._closing:
                    self._something_to_send.notify()
            case "refused":
                self._refused(frame.refused)
            case "closed":
                self.refusal = from_status(frame.closed.status)
                self._room.notify_all()
                self._refusing.notify_all()
            case "bye":
                status = frame.bye.status
                if status.code == code_pb2.UNAVAILABLE:
                    return ConnectionLostError(self._target, status.message)
                return from_status(status)
            case other:
                raise ProtocolError(f"unexpected frame: {other or 'none'}")
        return None

    def _take_batch(self, batch: pb.Batch) -> None:
        self._incoming.receive(batch.first_sequence, len(batch.messages))
        codecs = self._codecs
        for sequence, envelope in enumerate(batch.messages, batch.first_sequence):
            message = from_envelope(envelope, codecs[envelope.type])
            self._unacknowledged.append((sequence, message))
            if envelope.output:
                self._outputs_held[id(message)] = sequence
                self._outputs_received += 1
            elif self.replies.deliver(message):
                continue
            self.replies.outputs.put_anyway(message, message.priority)
            self.replies.wanted.notify()
        if self._outputs_held or self._incoming.received - self._told_acknowledged >= ACKNOWLEDGE_AFTER:
            self._something_to_send.notify()

    def _refused(self, refused: pb.Refused) -> None:
        error = from_status(refused.status)
        outcome = self._outcomes.pop(refused.message_id, None) if refused.sequence else None
        if outcome is None:
            self.replies.fail(uuid_from_int(int.from_bytes(refused.message_id)), error)
        elif not outcome.done():
            outcome.set_exception(error)

    async def _why_it_broke(self) -> PyDotComputeError:
        """The status of a stream that has ended."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return ConnectionLostError(self._target, "the daemon has ended the conversation")
        error = grpc.aio.AioRpcError(
            code, await self._call.initial_metadata(), await self._call.trailing_metadata(), await self._call.details()
        )
        return from_rpc_error(error, self._target)

    def _end(self, error: PyDotComputeError) -> None:
        if self.over is not None:
            return
        self.over = error
        if self.refusal is None:
            self.refusal = error
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_exception(error.again())
        self.replies.end(error)
        self._room.notify_all()
        self._refusing.notify_all()
        self._something_to_send.notify()
