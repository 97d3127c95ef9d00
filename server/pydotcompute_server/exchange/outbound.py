"""The replies, outputs and refusals on their way from a kernel to one client."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from google.rpc import status_pb2

from pydotcompute.exceptions import (
    MessageError,
    MessageSerializationError,
    MessageTooLargeError,
    MessageTypeError,
    PyDotComputeError,
)
from pydotcompute.messages.header import DEFAULT_PRIORITY
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.raw import RawCodec
from pydotcompute.protobuf.runtime_helpers import text_of
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.callers import Caller, Unanswered
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.ring_kernels.mail.sizes import estimated_sum
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.batches import Packed, fill
from pydotcompute.wire.exchange.bodies import Bodies, Body
from pydotcompute.wire.exchange.flow import Chunk, Credit, Outgoing, ProtocolError
from pydotcompute.wire.exchange.limits import WINDOW
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.memory import MESSAGE_BYTES
from pydotcompute_server.calls.errors import told_status
from pydotcompute_server.clients import leave

__all__ = ["Outbound", "Refused", "frames_of"]

MOST_TYPES = 1_000
"""The most types of messages that a kernel may send in one session."""
T = TypeVar("T")

_OUTPUTS = object()
"""Stands for the sender of all outputs, which keep their order."""


class Refused(NamedTuple):
    """A refusal on its way to the client. It has a sequence like a message, and an empty body."""

    body: bytes
    refusal: pb.Refusal


class _HeavyError(Exception):
    """Raised in place of writing a message that should be written apart."""


class Outbound:
    """Takes messages for a client from the kernel, and keeps each until the client has acknowledged it.

    Args:
        codecs: the codecs of the messages that the kernel may send. Those of further types are appended.
        new_codec: makes the codec of a further type; None if the client takes none.
        most_bytes: the most bytes of messages that are not acknowledged, not counting the last message.
    """

    def __init__(
        self,
        kernel: RingKernel[Any, Any],
        caller: Caller[Any],
        codecs: list[Codec[Any]],
        bodies: Bodies,
        apart: Apart,
        most_bytes: int,
        new_codec: Callable[[type], Codec[Any]] | None,
    ) -> None:
        self.outgoing: Outgoing[Packed | Refused] = Outgoing()
        self.acks_received = 0
        """The number of the last acknowledgement that has arrived."""
        self._kernel = kernel
        self._caller = caller
        self._bodies = bodies
        self._apart = apart
        self._most_bytes = most_bytes
        self._codecs = codecs
        self._new_codec = new_codec
        self.types_told = len(codecs)
        """How many of the codecs have types that the client knows."""
        self._encoders = {codec.message_type: (index, self._encoder(codec)) for index, codec in enumerate(codecs)}
        for index, codec in enumerate(codecs):
            if isinstance(codec, RawCodec):  # What another kernel has answered need not be raw.
                self._encoders[codec.schema.cls] = index, self._encoder(codec.real)
        self._being_written: tuple[Any, bool] | None = None
        """The message that is being written apart, and True if it is an output. All later messages wait for it."""
        self._over = False
        self.failed_told = 0
        """How many of the caller's requests that failed have been queued as refusals."""
        self._outputs_sent = 0
        self.outputs_wanted = 0
        """How many more outputs the client waits for."""

    # -- what the client says ------------------------------------------------------------------------------------------

    def take_ack(self, ack: pb.Ack) -> bool:
        """Take in an acknowledgement of the client. Return False if it had arrived before.

        Raises:
            ProtocolError: the acknowledgement breaks the rules.
        """
        if ack.number <= self.acks_received:
            if not ack.number:
                raise ProtocolError("an ack without a number, or with 0: they are counted from 1")
            return False
        self.acks_received = ack.number
        if max(len(ack.undeliverable), len(ack.returned), len(ack.withdrawn)) > WINDOW:
            raise ProtocolError(f"an ack names at most {WINDOW} messages of a kind")
        for sequence in ack.undeliverable:
            self._kernel.mail.bury(self._take_out(sequence, output=False), "its caller had given up")
        for sequence in ack.returned:
            self._kernel.mail.replies.give_back(self._take_out(sequence, output=True))
            self._outputs_sent -= 1
        self.outgoing.acknowledge(ack.through)
        self.outputs_wanted = ack.outputs - self._outputs_sent
        self.grant(ack.credit)
        return True

    def grant(self, credit: pb.Credit) -> None:
        """Take the client's credit, but no more than `WINDOW` messages, and `most_bytes`, beyond the acknowledged ones.

        The daemon keeps every message that is not acknowledged, so they must be bounded.
        """
        outgoing = self.outgoing
        most_bytes = outgoing.sent_bytes - outgoing.kept_bytes + self._most_bytes
        most = Credit(outgoing.acknowledged + WINDOW, most_bytes)
        outgoing.grant(Credit(min(credit.messages, most.messages), min(credit.bytes, most.bytes)))

    @property
    def holds_back(self) -> bool:
        """True if so many bytes wait for the client, or for its acknowledgement, that its requests must wait."""
        outgoing, ready = self.outgoing, self._caller.ready
        if outgoing.kept_bytes >= self._most_bytes:
            return True
        if not ready.size or (outgoing.allowed > len(outgoing.queue) and not self._has_enough_queued):
            return False  # What is ready is about to be sent.
        return outgoing.held_bytes + estimated_sum(ready, ready.size) >= self._most_bytes

    @property
    def is_at_limit(self) -> bool:
        """True if the client leaves so many messages or bytes unacknowledged that nothing more is sent to it."""
        return self.holds_back or self.outgoing.sent - self.outgoing.acknowledged >= WINDOW

    @property
    def held_bytes(self) -> int:
        """The bytes of all messages that are for the client and not acknowledged, in part estimated.

        Every message counts twice: there is its body, or will be, and the message itself in case the session ends
        before it is acknowledged.
        """
        outgoing, ready = self.outgoing, self._caller.ready
        count = outgoing.sent - outgoing.acknowledged + len(outgoing.queue)
        return 2 * (outgoing.held_bytes + estimated_sum(ready, ready.size)) + MESSAGE_BYTES * count

    def forget_wish(self) -> None:
        """Send no more outputs: the stream on which the client asked for them is over."""
        self.outputs_wanted = 0

    def _take_out(self, sequence: int, *, output: bool) -> Any:
        """Take back the message of this sequence, which the client has not delivered, and return it.

        Raises:
            ProtocolError: no such message was sent, or it is acknowledged already.
        """
        item = self.outgoing.find(sequence)
        if not isinstance(item, Refused):
            body, key, priority, answers, index, is_output, deadline, message = item
            if message is not None and is_output is output:
                taken_out = (body, key, priority, answers, index, is_output, deadline, None)
                self.outgoing.replace(sequence, taken_out)
                return message
        raise ProtocolError(f"sequence {sequence} is no {'output' if output else 'reply'} that was not delivered")

    # -- what the kernel has -------------------------------------------------------------------------------------------

    def refuse(self, message_id: UUID, status: status_pb2.Status, sequence: int = 0) -> None:
        """Tell the client that a request will not be answered.

        Args:
            sequence: the sequence of a request that was not taken; 0 for one that was taken first, and given up later.
        """
        refusal = pb.Refusal(sequence=sequence, message_id=message_id.bytes, status=status)
        self.outgoing.queue.append(Refused(b"", refusal))
        self._caller.arrived.notify()

    def _refuse_taken(self, request: Unanswered) -> None:
        """Tell the client that a request which was taken will not be answered."""
        self.failed_told += 1
        self.refuse(request.message_id, told_status(request.error))

    def next_refusals(self, most: int) -> Chunk[Packed | Refused] | None:
        """Return refusals, ahead of the messages that wait for credit. Call this when there is nothing else to send."""
        if self._caller.failed > self.failed_told and self.outgoing.allowed <= len(self.outgoing.queue):
            for request in self._caller.ready.remove_all(lambda item: item.__class__ is Unanswered):
                self._refuse_taken(request)
            self._caller.room.notify_all()
        if not self.outgoing.queue:
            return None
        return self.outgoing.next_free(Refused, most, self.outgoing.acknowledged + WINDOW)

    @property
    def all_is_refused(self) -> bool:
        """True if no refusal is left to be sent. Messages may be, that wait for credit."""
        outgoing = self.outgoing
        if outgoing.all_short_sent or outgoing.again or outgoing.allowed > 0:
            return outgoing.all_short_sent
        return not any(item.__class__ is Refused for item in outgoing.queue)

    def _encoder(self, codec: Codec[T]) -> Callable[[T], bytes | Body]:
        """Return a function that encodes light messages of this codec's class, and raises _HeavyError for others."""
        encode, weigh, heavy = self._bodies.encoder(codec), codec.weigh_elements, self._apart.heavy_weight
        if weigh is None:
            return encode

        def encode_if_light(message: T) -> bytes | Body:
            if weigh(message, heavy) >= heavy:
                raise _HeavyError
            return encode(message)

        return encode_if_light

    def collect(self, most: int) -> bool:
        """Prepare up to `most` replies and outputs for sending, as far as the client's credit allows.

        Outputs are taken only as far as the client wants them. Return True if that was all for now.
        """
        if self._being_written is not None:
            return True
        outgoing = self.outgoing
        room = 0 if self._has_enough_queued else outgoing.allowed - len(outgoing.queue)
        left = min(room, most)
        if self._caller.ready.size and not (outgoing.long and outgoing.has_enough_long):
            ready = self._caller.take_many(left)
            left -= len(ready)
            if ready:
                begin = self._queue_alike(ready)
                if begin < len(ready):
                    self._queue_each(ready, begin)
                    if self._being_written is not None:
                        return True
        while left > 0 and self.outputs_wanted > 0 and self.takes_outputs:
            output = self._kernel.mail.outputs.get_nowait()
            if output is None:
                break
            try:
                if not self._queue(output, is_output=True):
                    left -= 1
                    continue
            except _HeavyError:
                self._write_apart(output, is_output=True)
                left = 0
            self._outputs_sent += 1
            self.outputs_wanted -= 1
            left -= 1
        return left > 0 or room <= most

    @property
    def _has_enough_queued(self) -> bool:
        """True if the messages in the queue use up the client's credit of bytes."""
        outgoing = self.outgoing
        return outgoing.queued_bytes >= outgoing.allowed_bytes

    def _queue_alike(self, messages: list[Any]) -> int:
        """Queue messages that are all of one class, and return the number of messages queued.

        Queuing ends after the first long message, before the first message that is heavy or cannot be sent, and when
        the client's credit of bytes is used up. If the messages are not all of one class, none is queued.
        """
        cls = messages[0].__class__
        known = self._encoders.get(cls)
        if known is None or [message.__class__ for message in messages].count(cls) != len(messages):
            return 0
        index, encode = known
        bodies, size, longest, long = [], 0, self._bodies.longest_plain, None
        most = self.outgoing.allowed_bytes - self.outgoing.queued_bytes
        for message in messages:
            if size >= most:
                break
            try:
                body = encode(message)
            except (MessageError, _HeavyError):
                break
            if len(body) > longest:
                long = body
                break
            bodies.append(body)
            size += len(body)
        self.outgoing.queue += [
            (
                body,
                message.message_id.int,
                message.priority,
                None if (answers := message.correlation_id) is None else answers.int,
                index,
                False,
                None,
                message,
            )
            for body, message in zip(bodies, messages, strict=False)
        ]
        self.outgoing.queued_bytes += size
        if long is None:
            return len(bodies)
        self._queue_body(messages[len(bodies)], long, index)
        return len(bodies) + 1

    def _queue_each(self, ready: list[Any], begin: int) -> None:
        """Queue replies and refusals, from the index `begin` on.

        When enough long bodies are under way, the client's credit of bytes is used up, or a heavy message is being
        written, the rest goes back to the caller's replies.
        """
        for index in range(begin, len(ready)):
            item = ready[index]
            if self.outgoing.has_enough_long or self._has_enough_queued or self._being_written is not None:
                for each in reversed(ready[index:]):
                    priority = DEFAULT_PRIORITY if each.__class__ is Unanswered else each.priority
                    self._caller.ready.push_front(each, priority)
                return
            if item.__class__ is Unanswered:
                self._refuse_taken(item)
                continue
            try:
                self._queue(item)
            except _HeavyError:
                self._write_apart(item)

    def _queue(self, message: Any, *, is_output: bool = False) -> bool:
        """Queue a message for sending. Return False if the message cannot be sent.

        Then it has become a dead letter, and its caller is told.

        Raises:
            _HeavyError: the message should be written apart.
        """
        error: PyDotComputeError
        try:
            index, encode = self._encoders.get(message.__class__) or self._encoder_of_new(message.__class__)
            return self._queue_body(message, encode(message), index, is_output=is_output)
        except MessageError as unfit:  # The actor has changed the message after it sent it.
            error = unfit
        return self._cannot_send(message, error)

    def _encoder_of_new(self, cls: type) -> tuple[int, Callable[[Any], bytes | Body]]:
        """Return the index and the encoder of a class that the kernel, which declares no output type, sends first now.

        Raises:
            MessageTypeError: the client takes no further types, or the class cannot cross the wire.
        """
        if self._new_codec is None or len(self._codecs) >= MOST_TYPES:
            raise MessageTypeError(" or ".join(known.__name__ for known in self._encoders), cls.__name__)
        codec = self._new_codec(cls)
        encoder = self._encoders[cls] = (len(self._codecs), self._encoder(codec))
        self._codecs.append(codec)
        return encoder

    def untold_types(self) -> list[type]:
        """Return the classes whose types the client does not know yet. From now on it does."""
        untold = [codec.schema.cls for codec in self._codecs[self.types_told :]]
        self.types_told = len(self._codecs)
        return untold

    def _write_apart(self, message: Any, *, is_output: bool = False) -> None:
        """Begin to write a heavy message apart. It belongs to the session all the time, whatever becomes of the stream.

        It counts as taken, so that an output is not wished for again.
        """
        self._being_written = message, is_output
        index, _ = self._encoders[message.__class__]
        self._apart.write(self._codecs[index], message, aligned=True).add_done_callback(self._written)

    def _written(self, written: Future[bytes]) -> None:
        """Queue the message that was written apart, unless the session has ended meanwhile."""
        if self._over or written.cancelled():  # If the daemon ends, the session does too, and gives the message up.
            return
        assert self._being_written is not None
        (message, is_output), self._being_written = self._being_written, None
        index, _ = self._encoders[message.__class__]
        error = written.exception()
        if error is None:
            queued = self._queue_body(message, self._bodies.place(written.result()), index, is_output=is_output)
        else:
            if not isinstance(error, MessageError):
                error = MessageSerializationError(type(message).__name__, text_of(error))
            queued = self._cannot_send(message, error)
        if is_output and not queued:
            self._outputs_sent -= 1
        self._caller.arrived.notify()

    def _queue_body(self, message: Any, body: bytes | Body, index: int, *, is_output: bool = False) -> bool:
        bodies = self._bodies
        if len(body) > bodies.longest:
            error = MessageTooLargeError(type(message).__name__, len(body), bodies.longest)
            return self._cannot_send(message, error)
        if len(body) > bodies.longest_plain:
            body = bodies.pack(body)
        answers = None if (correlation_id := message.correlation_id) is None else correlation_id.int
        item = (body, message.message_id.int, message.priority, answers, index, is_output, None, message)
        self.outgoing.put(item, _OUTPUTS if is_output else None)
        return True

    def _cannot_send(self, message: Any, error: PyDotComputeError) -> bool:
        self._kernel.mail.bury(message, str(error), DeadLetterReason.UNDELIVERABLE)
        self.refuse(message.correlation_id or message.message_id, told_status(error))
        return False

    # -- progress ------------------------------------------------------------------------------------------------------

    @property
    def takes_outputs(self) -> bool:
        """True if outputs may be sent now. It is cheaper to look at `outputs_wanted` first."""
        outgoing = self.outgoing
        return (
            self.outputs_wanted > 0
            and outgoing.allowed > len(outgoing.queue)
            and not self._has_enough_queued
            and not outgoing.is_held_up(_OUTPUTS)
            and self._being_written is None
        )

    @property
    def all_is_told(self) -> bool:
        """True if all replies and refusals for the client have been sent."""
        return self.outgoing.all_sent and not self._caller.ready.size and self._being_written is None

    @property
    def all_is_acknowledged(self) -> bool:
        """True if the client has acknowledged everything, and no more replies wait for it."""
        return self.outgoing.all_acknowledged and not self._caller.ready.size and self._being_written is None

    def end(self) -> None:
        """Give up the messages that the client never acknowledged, because the session is over.

        Outputs go back to the kernel, for other clients. Replies become dead letters.
        """
        kernel = self._kernel
        self._caller.gone = self._over = True
        if self._being_written is not None:
            self._give_up(*self._being_written)
        for item in reversed([*self.outgoing.unacknowledged(), *self.outgoing.unsent()]):
            if isinstance(item, Refused):
                continue
            *_, is_output, _, message = item
            if message is not None:
                self._give_up(message, is_output)
        self.outgoing = Outgoing()  # Its bodies are of no more use. Others may refer to this object for a while.
        leave(kernel, self._caller)

    def _give_up(self, message: Any, is_output: bool) -> None:
        if is_output:
            self._kernel.mail.replies.give_back(message)
        else:
            self._kernel.mail.bury(message, "its caller is gone")


def frames_of(chunk: Chunk[Packed | Refused]) -> Iterator[pb.ExchangeResponse]:
    """Yield the frames of a chunk: one for each row of messages, and one for each row of refusals."""
    first = chunk.first
    for kind, group in groupby(chunk.items, type):
        items: list[Any] = list(group)
        frame = pb.ExchangeResponse()
        if kind is Refused:
            frame.refused.first_sequence = first
            frame.refused.refusals.extend(item.refusal for item in items)
        else:
            fill(frame.batch, first, items)
            if chunk.before:
                frame.batch.before_replies_to = _requests_of(chunk.before)
        yield frame
        first += len(items)


def _requests_of(replies: Sequence[Packed | Refused]) -> bytes:
    """Return the ids, 16 bytes each, of the requests that these replies answer. Outputs answer none."""
    requests = []
    for reply in replies:
        if not isinstance(reply, Refused):
            _, key, _, answers, _, is_output, _, _ = reply
            if not is_output:
                requests.append((key if answers is None else answers).to_bytes(16))
    return b"".join(requests)
