"""The daemon's side of one Exchange stream."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import Any

import grpc
from google.rpc import status_pb2

from pydotcompute.exceptions import (
    MessageDeserializationError,
    MessageError,
    MessageSerializationError,
    MessageTypeError,
    PyDotComputeError,
)
from pydotcompute.ring_kernels.dead_letters import DeadLetterReason
from pydotcompute.ring_kernels.lifecycle import KernelState, RingKernel
from pydotcompute.ring_kernels.replies import Caller, Unanswered
from pydotcompute.ring_kernels.waiting import Signal, wait_any
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.errors import to_status
from pydotcompute.wire.exchange import Incoming, Outgoing, ProtocolError
from pydotcompute.wire.kernels import strategy_to_proto
from pydotcompute.wire.messages import Packed, add_envelope, from_envelope, pack
from pydotcompute_server.catalog import Catalog

__all__ = ["Conversation"]

LARGEST_CREDIT = 4_096
"""Messages that a client may have under way at once, however much room the mailbox has."""
LARGEST_BATCH = 1_024
"""Messages in one frame."""
LARGEST_BATCH_BYTES = 1 << 20
"""Bytes of bodies after which a frame is sent."""
TOLD_AT_ONCE = 512
"""Messages accepted, or of new credit, that the client must hear of before more replies, for it may be waiting."""
PUT_IN_A_ROW = 128
"""Messages put into the mailbox before the kernel and the writer have their turn."""
FAREWELL_SECONDS = 1.0
"""How long the client has to acknowledge and close after the daemon's `bye`."""


_Sent = tuple[Any, bool]
"""A message on its way to the client, until acknowledged; and whether it is an output."""


class Conversation:
    """Moves messages between one client and one kernel.

    Three tasks: the reader takes frames from the stream and never waits for anything else, so that acknowledgements get
    through while the mailbox is full; the feeder puts messages into the mailbox, and waits where the mailbox makes
    senders wait; the writer sends whatever there is to send, all that has gathered while the last write was under way
    in one frame.
    """

    def __init__(
        self,
        kernel: RingKernel[Any, Any],
        catalog: Catalog,
        context: grpc.aio.ServicerContext[Any, Any],
        max_message_bytes: int,
    ) -> None:
        self._kernel = kernel
        self._catalog = catalog
        self._codecs = catalog.codecs(kernel.type)
        self._type_index = {codec.schema.cls: index for index, codec in enumerate(self._codecs)}
        self._context = context
        self._max_message_bytes = max_message_bytes
        self._caller: Caller[Any] = Caller(private=True)
        self._incoming = Incoming(credit=0)
        self._outgoing: Outgoing[_Sent] = Outgoing()
        self._pending: deque[pb.Envelope] = deque()
        self._fed = Signal()
        self._something_to_send = Signal()
        self._refused: deque[pb.Refused] = deque()
        self._told_refused = Signal()
        self._told: tuple[int, int] = (0, 0)  # The last `accepted` frame: done, credit.
        self._outputs_sent = 0
        self._outputs_wanted = 0
        self._closed_told = False
        self._farewell: status_pb2.Status | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the conversation is over."""

    async def run(self, opening: pb.Open) -> None:
        """Hold the conversation until the client or the kernel ends it.

        Raises:
            KernelStateError: the kernel is not activated yet.
            ProtocolError: the client broke the rules.
        """
        if opening.session_token:
            raise ProtocolError("this daemon resumes no conversation: open a new one, without a session_token")
        if self._kernel.state in (KernelState.CREATED, KernelState.LAUNCHED):
            refusal = self._kernel.refusal
            assert refusal is not None
            raise refusal.again()
        self._grant_outgoing(opening.credit)
        self._grant()
        config = self._kernel.config
        opened = pb.Opened(
            session_token=secrets.token_bytes(16),
            types=[self._catalog.message_type(codec.schema.cls) for codec in self._codecs],
            credit=self._incoming.credit,
            backpressure_strategy=strategy_to_proto(config.backpressure_strategy),
            input_queue_size=config.input_queue_size,
            output_queue_size=config.output_queue_size,
            max_message_bytes=self._max_message_bytes,
            closed=None if (refusal := self._kernel.refusal) is None else to_status(refusal),
        )
        self._closed_told = refusal is not None
        self._told = (0, self._incoming.credit)
        await self._context.write(pb.ExchangeResponse(opened=opened))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in (self._read(), self._write(), self._feed())]
                reader, writer, _ = tasks
                await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait((reader,), timeout=FAREWELL_SECONDS)
                for task in tasks:
                    task.cancel()
        except* PyDotComputeError as errors:
            raise errors.exceptions[0] from None
        finally:
            self._give_back()

    def farewell(self, status: status_pb2.Status) -> None:
        """End the conversation with this status, after what there is to send."""
        self._farewell = status
        self._something_to_send.notify()

    # -- from the client -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while isinstance(frame := await self._context.read(), pb.ExchangeRequest):
            match frame.WhichOneof("frame"):
                case "batch":
                    self._incoming.receive(frame.batch.first_sequence, len(frame.batch.messages))
                    self._pending.extend(frame.batch.messages)
                    self._fed.notify()
                case "ack":
                    for sequence in frame.ack.undeliverable:
                        self._kernel.bury(self._outgoing.find(sequence)[0], "its caller had given up")
                    for sequence in frame.ack.returned:
                        self._take_back(sequence)
                    self._outgoing.acknowledge(frame.ack.through)
                    self._grant_outgoing(frame.ack.credit)
                    self._something_to_send.notify()
                case "pull":
                    self._outputs_wanted = frame.pull.outputs
                    self._something_to_send.notify()
                case "bye":
                    return
                case other:
                    raise ProtocolError(f"unexpected frame: {other or 'none'}")

    def _grant_outgoing(self, credit: int) -> None:
        """However much a client allows: what it has not acknowledged is kept here, and that must have an end."""
        self._outgoing.grant(min(credit, self._outgoing.acknowledged + LARGEST_CREDIT))

    def _take_back(self, sequence: int) -> None:
        """Undo the sending of an output."""
        message, is_output = self._outgoing.find(sequence)
        if not is_output:
            raise ProtocolError(f"sequence {sequence} is no output that could be returned")
        self._outgoing.replace(sequence, (None, False))
        self._outputs_sent -= 1
        self._kernel.replies.give_back(message)

    async def _feed(self) -> None:
        """Put what the client sends into the mailbox, and give credit as there is room."""
        while True:
            while self._pending:
                while len(self._refused) >= LARGEST_CREDIT:  # The client reads nothing, and need not be read either.
                    await self._told_refused.wait()
                for _ in range(min(len(self._pending), PUT_IN_A_ROW)):
                    await self._put(self._pending.popleft())
                self._grant()
                self._something_to_send.notify()
                await asyncio.sleep(0)
            self._grant()
            if self._wants_credit():
                await wait_any((self._fed, self._kernel.inbox.taken))
            else:
                await self._fed.wait()

    async def _put(self, envelope: pb.Envelope) -> None:
        try:
            if len(envelope.body) > self._max_message_bytes:
                problem = f"{len(envelope.body)} bytes, the limit is {self._max_message_bytes}"
                raise MessageDeserializationError(self._codecs[0].schema.name, problem)
            if envelope.type != 0:
                raise MessageTypeError(
                    self._codecs[0].descriptor.full_name, f"type {envelope.type} of the opening frame"
                )
            await self._kernel.send_as(self._caller, from_envelope(envelope, self._codecs[0]))
        except PyDotComputeError as error:
            self._refuse(envelope.message_id, error, self._incoming.done + 1)
        self._incoming.finish()

    def _wants_credit(self) -> bool:
        left = self._incoming.credit - self._incoming.received
        return left < min(LARGEST_CREDIT, self._kernel.inbox.capacity) // 2 or left == 0

    def _grant(self) -> None:
        """Under `block`, a client may send what the mailbox has room for; otherwise the mailbox is never waited for."""
        inbox = self._kernel.inbox
        room = inbox.room - len(self._pending) if inbox.strategy == "block" else inbox.capacity
        if self._incoming.grant(self._incoming.received + min(room, LARGEST_CREDIT)):
            self._something_to_send.notify()

    # -- to the client -------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            frame = self._next_to_send()
            if frame is not None:
                if not frame.HasField("batch"):
                    self._pass_on()  # While this is being written, another can take what there is.
                try:
                    await self._context.write(frame)
                except (grpc.aio.InternalError, grpc.aio.UsageError):
                    return  # The client is gone, and the reader will notice.
                if frame.WhichOneof("frame") == "bye":
                    return
                continue
            signals = [self._something_to_send, self._caller.arrived, self._kernel.changed]
            if self._takes_outputs():
                signals.append(self._kernel.replies.wanted)
            await wait_any(signals)
            if not self._takes_outputs():
                self._pass_on()

    def _takes_outputs(self) -> bool:
        return self._outputs_sent < self._outputs_wanted and self._outgoing.allowed > 0

    def _pass_on(self) -> None:
        """Wake another for the outputs that this one may have been woken for."""
        if self._kernel.outputs.items.size:
            self._kernel.replies.wanted.notify()

    def _next_to_send(self) -> pb.ExchangeResponse | None:
        if self._refused:
            return self._next_refused()
        done, credit = self._incoming.done, self._incoming.credit
        news = max(done - self._told[0], credit - self._told[1])
        if news < TOLD_AT_ONCE and (batch := self._next_batch()) is not None:
            return pb.ExchangeResponse(batch=batch)
        if self._refused:  # By the batch.
            return self._next_refused()
        if news:
            self._told = (done, credit)
            return pb.ExchangeResponse(accepted=pb.Accepted(through=done, credit=credit))
        refusal = self._kernel.refusal
        if refusal is not None and not self._closed_told:
            self._closed_told = True
            return pb.ExchangeResponse(closed=pb.Closed(status=to_status(refusal)))
        if self._farewell is None and self._kernel.has_ended and not self._caller.ready and not self._kernel.outputs:
            assert self._kernel.replies.ended is not None
            self._farewell = to_status(self._kernel.replies.ended)
        if self._farewell is not None:
            return pb.ExchangeResponse(bye=pb.Bye(status=self._farewell))
        return None

    def _next_refused(self) -> pb.ExchangeResponse:
        self._told_refused.notify()
        return pb.ExchangeResponse(refused=self._refused.popleft())

    def _next_batch(self) -> pb.Batch | None:
        """Replies, and outputs as far as the client wants them, up to its credit."""
        batch = pb.Batch(first_sequence=self._outgoing.sent + 1)
        sent: list[_Sent] = []
        size = 0
        room = min(self._outgoing.allowed, LARGEST_BATCH)
        caller = self._caller
        while len(sent) < room and size < LARGEST_BATCH_BYTES:
            item = caller.take()
            is_output = item is None
            if is_output:
                if self._outputs_sent >= self._outputs_wanted or (item := self._kernel.outputs.get_nowait()) is None:
                    break
            elif item.__class__ is Unanswered:
                self._refuse(item.message_id.bytes, item.error)
                continue
            packed = self._pack(item)
            if packed is None:
                continue
            envelope = add_envelope(batch, packed)
            if is_output:
                envelope.output = True
                self._outputs_sent += 1
            size += len(packed[3])
            sent.append((item, is_output))
        if not sent:
            return None
        self._outgoing.send(sent)
        return batch

    def _pack(self, message: Any) -> Packed | None:
        """The message for the wire; if it cannot cross it, a dead letter, of which the caller is told."""
        index = self._type_index.get(message.__class__)
        error: PyDotComputeError
        if index is None:
            error = MessageTypeError(" or ".join(cls.__name__ for cls in self._type_index), type(message).__name__)
        else:
            try:
                body = self._codecs[index].encode(message)
                if len(body) <= self._max_message_bytes:
                    return pack(message, body, index)
                problem = f"{len(body)} bytes, the limit is {self._max_message_bytes}"
                error = MessageSerializationError(type(message).__name__, problem)
            except MessageError as unfit:  # The actor has changed it after it was sent.
                error = unfit
        self._kernel.bury(message, str(error), DeadLetterReason.UNDELIVERABLE)
        request = message.correlation_id or message.message_id
        self._refuse(request.bytes, error)
        return None

    def _refuse(self, message_id: bytes, error: PyDotComputeError, sequence: int = 0) -> None:
        self._refused.append(pb.Refused(sequence=sequence, message_id=message_id, status=to_status(error)))

    def _give_back(self) -> None:
        """The client is gone: what it never acknowledged is for others, or for nobody."""
        self._caller.gone = True
        for message, is_output in reversed(tuple(self._outgoing.unacknowledged)):
            if is_output:
                self._kernel.replies.give_back(message)
            elif message is not None:  # One that was taken back.
                self._kernel.bury(message, "its caller is gone")
        while (item := self._caller.take()) is not None:
            if not isinstance(item, Unanswered):
                self._kernel.bury(item, "its caller is gone")
        self._pass_on()
