"""The daemon's side of a session: what there is of a client's conversation with a kernel apart from its stream."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import UUID

from google.rpc import status_pb2

from pydotcompute.exceptions import (
    MessageError,
    MessageTooLargeError,
    MessageTypeError,
    PyDotComputeError,
    SessionLostError,
)
from pydotcompute.messages.ids import uuid_from_int
from pydotcompute.messages.message import DEFAULT_PRIORITY
from pydotcompute.ring_kernels.lifecycle import RingKernel
from pydotcompute.ring_kernels.mail.dead_letters import TO_KERNEL, DeadLetterReason
from pydotcompute.ring_kernels.mail.inbox import Terms
from pydotcompute.ring_kernels.mail.replies import Caller, Unanswered
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.errors import to_status
from pydotcompute.wire.exchange.batches import read, spread
from pydotcompute.wire.exchange.bodies import Bodies, Body, Opened
from pydotcompute.wire.exchange.flow import Credit, Incoming, Outgoing, ProtocolError
from pydotcompute.wire.exchange.frames import response_part
from pydotcompute.wire.exchange.shared_memory import SharedMemory
from pydotcompute_server.catalog import Catalog

__all__ = ["CREDIT_BYTES", "LARGEST_CREDIT", "OUTPUT", "REFUSAL", "Session", "Sessions"]

LARGEST_CREDIT = 4_096
"""Messages that either side may have under way at once, however much the other side allows."""
CREDIT_BYTES = 16 << 20
"""Bytes of messages that a client may have under way at once, but for the last message."""
READ_AHEAD = 512
"""Messages that a client may have under way though the mailbox is full, while other clients send to it too: with less,
each of many clients would have frames of a few messages."""
LARGE_BYTES = 4_096
"""The bytes of a message in a mailbox are counted if they are as many as this."""
MAILBOX_BYTES = 256 << 20
"""Bytes of large messages in a mailbox beyond which sessions put no more into it."""
SESSIONS_KEPT = 4_096
"""How many sessions without a stream are kept; the one that lost its stream first goes first."""

Waiting = tuple[Opened, "UUID | None", int, "UUID | None", "Terms | None"]
"""A message that has come and is not in the mailbox yet: body, header (no id: it was withdrawn), terms."""
Sent = tuple["bytes | Body", int, int, "int | None", Any, int]
"""On its way to the client: a message as `wire.frames.Packed`, the message itself, and its kind: an index into the
types of the kernel, with OUTPUT added if it is an output; or REFUSAL, with a `Refusal` in the place of the message."""

OUTPUT = 1_000
REFUSAL = -1


class Session:
    """One client's conversation with one kernel. A `Conversation` carries it, one after the other."""

    def __init__(
        self,
        kernel: RingKernel[Any, Any],
        catalog: Catalog,
        max_message_bytes: int,
        opening: pb.Open,
        shared_memory_bytes: int = 0,
    ) -> None:
        self.token = secrets.token_bytes(16)
        self.kernel = kernel
        self.codecs = catalog.codecs(kernel.type)
        self.max_message_bytes = max_message_bytes
        """The longest body that the client may send."""
        self._decode = self.codecs[0].decode_checked
        self.incoming = Incoming()
        self.outgoing: Outgoing[Sent] = Outgoing()
        shares_memory = opening.shared_memory and shared_memory_bytes
        self.bodies = Bodies(
            self.incoming,
            response_part,
            longest=min(max_message_bytes, opening.max_message_bytes or max_message_bytes),
            longest_received=max_message_bytes,
            part_bytes=opening.part_bytes,
            memory=SharedMemory.create(shared_memory_bytes, self.codecs) if shares_memory else None,
        )
        self._types = {codec.schema.cls: (index, self.bodies.encoder(codec)) for index, codec in enumerate(self.codecs)}
        self.news = Signal()
        """Notified when there may be something to send to the client."""
        self.caller: Caller[Any] = Caller(private=True, arrived=self.news)
        self.pending: deque[Waiting] = deque()
        """What has come and is not in the mailbox yet, in order."""
        self._pending_bytes = 0
        self.acks_received = 0
        self.outputs_sent = 0
        self.outputs_wanted = 0
        self.draining: status_pb2.Status | None = None
        """Why no more messages are taken, when the daemon is about to end."""
        self.over = False
        self.lock = asyncio.Lock()
        """Held by whoever carries the session."""
        self.newest_stream: object = None
        """The one that is to carry it next, or does."""

    # -- from the client -----------------------------------------------------------------------------------------------

    def take_batch(self, batch: pb.Batch) -> None:
        """Messages have come. ProtocolError, MessageDeserializationError: they break the rules."""
        if len(batch.bodies) > LARGEST_CREDIT:
            raise ProtocolError(f"a batch has at most {LARGEST_CREDIT} messages, not {len(batch.bodies)}")
        bodies, message_ids, priorities, correlation_ids, _ = read(batch, bodies=self.bodies)
        sizes = list(map(len, bodies))
        again = self.incoming.receive(batch.first_sequence, sizes)
        terms: list[Terms | None] = [None] * len(sizes)
        if max(sizes) >= LARGE_BYTES:
            terms = [Terms(size=size) if size >= LARGE_BYTES else None for size in sizes]
        if batch.timeouts_us:
            now = monotonic()
            for index, microseconds in enumerate(spread(batch.timeouts_us, len(sizes), 0, "timeouts_us")):
                if microseconds:
                    timeout = microseconds / 1e6
                    size = sizes[index] if sizes[index] >= LARGE_BYTES else 0
                    terms[index] = Terms(timeout, now + timeout, size)
        waiting = zip(bodies, message_ids, priorities, correlation_ids, terms, strict=True)
        self.pending.extend(list(waiting)[again:] if again else waiting)
        self._pending_bytes += sum(sizes[again:])

    def take_ack(self, ack: pb.Ack) -> None:
        """The client has received something, or wants something. ProtocolError: that cannot be."""
        if ack.number <= self.acks_received:
            return
        self.acks_received = ack.number
        if max(len(ack.undeliverable), len(ack.returned), len(ack.withdrawn)) > LARGEST_CREDIT:
            raise ProtocolError(f"an ack names at most {LARGEST_CREDIT} messages of a kind")
        for sequence in ack.undeliverable:
            self.kernel.bury(self._take_out(sequence, output=False), "its caller had given up")
        for sequence in ack.returned:
            self.kernel.replies.give_back(self._take_out(sequence, output=True))
            self.outputs_sent -= 1
        for message_id in ack.withdrawn:
            self._withdraw(message_id)
        self.outgoing.acknowledge(ack.through)
        self.outputs_wanted = ack.outputs
        self.grant_outgoing(ack.credit)

    def grant_outgoing(self, credit: pb.Credit) -> None:
        """However much a client allows: what it has not acknowledged is kept here, and that must have an end."""
        self.outgoing.grant(Credit(min(credit.messages, self.outgoing.acknowledged + LARGEST_CREDIT), credit.bytes))

    def _take_out(self, sequence: int, *, output: bool) -> Any:
        """The message of this sequence, which the client has not delivered: from now on it is not the client's."""
        body, key, priority, correlation_id, message, kind = self.outgoing.find(sequence)
        if message is None or kind == REFUSAL or (kind >= OUTPUT) is not output:
            raise ProtocolError(f"sequence {sequence} is no {'output' if output else 'reply'} that was not delivered")
        self.outgoing.replace(sequence, (body, key, priority, correlation_id, None, kind))
        return message

    def _withdraw(self, message_id: bytes) -> None:
        if len(message_id) != 16:
            raise ProtocolError(f"a UUID has 16 bytes, not {len(message_id)}")
        uuid = uuid_from_int(int.from_bytes(message_id))
        for index, waiting in enumerate(self.pending):
            if waiting[1] == uuid:
                self.pending[index] = (b"", None, 0, None, None)
                self._pending_bytes -= len(waiting[0])
                return
        self.kernel.withdraw(uuid, self.caller)

    @property
    def refusal(self) -> status_pb2.Status | None:
        """Why no messages are taken; None if they are."""
        if self.draining is not None:
            return self.draining
        refusal = self.kernel.refusal
        return None if refusal is None else to_status(refusal)

    # -- into the mailbox ----------------------------------------------------------------------------------------------

    @property
    def can_put_at_once(self) -> bool:
        """Whether the next message need not wait for anything."""
        kernel = self.kernel
        return (
            self.refusal is None
            and kernel.inbox.strategy == "block"
            and kernel.inbox.room > 0
            and self.caller.ready.size < kernel.outputs.capacity
            and kernel.inbox.bytes < MAILBOX_BYTES
        )

    def put(self, count: int) -> None:
        """Put the next messages into the mailbox, in which there is room for so many."""
        count = min(count, len(self.pending))
        if not count:
            return
        popleft, decode = self.pending.popleft, self._decode
        waiting = [popleft() for _ in range(count)]
        bodies, message_ids, priorities, correlation_ids, terms = zip(*waiting, strict=True)
        sizes = list(map(len, bodies))
        self._pending_bytes -= sum(sizes)
        messages = None
        places: Sequence[int] = range(1, count + 1)
        if max(sizes) <= self.max_message_bytes and all(message_ids):
            with suppress(MessageError):
                messages = list(map(decode, bodies, message_ids, priorities, correlation_ids))
        if messages is None:  # One was withdrawn, or is malformed.
            messages, terms, places = self._decode_each(waiting)
        if messages:
            keys = [message.message_id.int for message in messages]
            plain = terms.count(None) == len(terms)
            for index, refusal in self.kernel.accept(self.caller, messages, keys, () if plain else terms):
                self.refuse(messages[index].message_id, refusal, self.incoming.done + places[index])
        self.incoming.finish(count)

    def _decode_each(self, waiting: list[Waiting]) -> tuple[list[Any], tuple[Terms | None, ...], list[int]]:
        """The messages with their terms and their places, from 1, without those that were withdrawn, and those that are
        refused.
        """
        messages, terms, places = [], [], []
        for done, (body, message_id, priority, correlation_id, each) in enumerate(waiting, 1):
            if message_id is None:
                continue
            try:
                messages.append(self._decode_one(body, message_id, priority, correlation_id))
                terms.append(each)
                places.append(done)
            except PyDotComputeError as error:
                self.refuse(message_id, error, self.incoming.done + done)
        return messages, tuple(terms), places

    def _decode_one(self, body: Opened, message_id: UUID, priority: int, correlation_id: UUID | None) -> Any:
        if len(body) > self.max_message_bytes:
            raise MessageTooLargeError(self.codecs[0].schema.name, len(body), self.max_message_bytes)
        return self._decode(body, message_id, priority, correlation_id)

    def refuse_pending(self, status: status_pb2.Status) -> None:
        """Put nothing more into the mailbox: refuse what has come."""
        for done, (_, message_id, *_) in enumerate(self.pending, 1):
            if message_id is not None:
                self._refuse(message_id, status, self.incoming.done + done)
        self.incoming.finish(len(self.pending))
        self.pending.clear()
        self._pending_bytes = 0

    async def put_next(self) -> None:
        """Put the next message into the mailbox, as `RingKernel.send` does where it need not wait for room, or refuse
        it."""
        body, message_id, priority, correlation_id, terms = self.pending.popleft()
        if message_id is not None:
            self._pending_bytes -= len(body)
            try:
                message = self._decode_one(body, message_id, priority, correlation_id)
                await self.kernel.send_as(self.caller, message, terms=terms)
            except PyDotComputeError as error:
                self.refuse(message_id, error, self.incoming.done + 1)
        self.incoming.finish()

    def grant(self) -> None:
        """Give the client what credit there is to give.

        Under `block`, it may send what the mailbox has room for; otherwise the mailbox is never waited for.
        """
        inbox = self.kernel.inbox
        if inbox.strategy != "block":
            room = inbox.capacity
        elif inbox.capacity >= READ_AHEAD and inbox.waiting_putters > (1 if self.pending else 0):
            room = READ_AHEAD - len(self.pending)
        else:
            room = inbox.room - len(self.pending)
        room_bytes = 0 if self.kernel.inbox.bytes >= MAILBOX_BYTES else CREDIT_BYTES - self._pending_bytes
        self.incoming.grant(min(room, LARGEST_CREDIT), room_bytes)

    # -- to the client -------------------------------------------------------------------------------------------------

    def refuse(self, message_id: UUID, error: PyDotComputeError, sequence: int = 0) -> None:
        """Tell the client that a request will not be answered: one of this sequence, that was not taken, or one that
        was given up later.
        """
        self._refuse(message_id, to_status(error), sequence)

    def _refuse(self, message_id: UUID, status: status_pb2.Status, sequence: int) -> None:
        refusal = pb.Refusal(sequence=sequence, message_id=message_id.bytes, status=status)
        self.outgoing.queue.append((b"", message_id.int, 0, None, refusal, REFUSAL))
        self.news.notify()

    def collect(self, most: int) -> bool:
        """Prepare up to so many replies, and outputs as far as the client wants them, for sending, as its credit
        allows; whether that was all for now.
        """
        outgoing = self.outgoing
        room = outgoing.allowed - len(outgoing.queue)
        left = min(room, most)
        if not outgoing.has_enough_long:
            ready = self.caller.take_many(left)
            left -= len(ready)
            if ready:
                self._queue_each(ready, self._queue_alike(ready))
        while left > 0 and self.takes_outputs:
            output = self.kernel.outputs.get_nowait()
            if output is None:
                break
            self.outputs_sent += self._queue(output, OUTPUT)
            left -= 1
        return left > 0 or room <= most

    def _queue_each(self, ready: list[Any], begin: int) -> None:
        """Queue replies, and refusals, from the index `begin` on, as far as they may go beside bodies that go ahead."""
        for index in range(begin, len(ready)):
            item = ready[index]
            if self.outgoing.has_enough_long:
                for each in reversed(ready[index:]):
                    priority = DEFAULT_PRIORITY if each.__class__ is Unanswered else each.priority
                    self.caller.ready.push_front(each, priority)
                return
            if item.__class__ is Unanswered:
                self.refuse(item.message_id, item.error)
            else:
                self._queue(item, 0)

    def _queue_alike(self, messages: list[Any]) -> int:
        """Queue messages, if they are all of one class, to the first that is long or cannot be sent; how many."""
        cls = messages[0].__class__
        known = self._types.get(cls)
        if known is None or [message.__class__ for message in messages].count(cls) != len(messages):
            return 0
        index, encode = known
        bodies, size, longest, long = [], 0, self.bodies.longest_plain, None
        for message in messages:
            try:
                body = encode(message)
            except MessageError:
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
                message,
                index,
            )
            for body, message in zip(bodies, messages, strict=False)
        ]
        self.outgoing.queued_bytes += size
        if long is None:
            return len(bodies)
        self._queue_body(messages[len(bodies)], long, index, 0)
        return len(bodies) + 1

    def _queue(self, message: Any, flag: int) -> bool:
        """Queue a message for sending; whether it can be sent. Else it is a dead letter, and its caller is told."""
        error: PyDotComputeError
        try:
            index, encode = self._types[message.__class__]
            return self._queue_body(message, encode(message), index, flag)
        except KeyError:
            error = MessageTypeError(" or ".join(cls.__name__ for cls in self._types), type(message).__name__)
        except MessageError as unfit:  # The actor has changed it after it was sent.
            error = unfit
        return self._cannot_send(message, error)

    def _queue_body(self, message: Any, body: bytes | Body, index: int, flag: int) -> bool:
        if len(body) > self.bodies.longest_plain:
            if len(body) > (longest := self.bodies.longest):
                return self._cannot_send(message, MessageTooLargeError(type(message).__name__, len(body), longest))
            body = self.bodies.pack(body)
        answers = None if (correlation_id := message.correlation_id) is None else correlation_id.int
        self.outgoing.put((body, message.message_id.int, message.priority, answers, message, index + flag), flag)
        return True

    def _cannot_send(self, message: Any, error: PyDotComputeError) -> bool:
        self.kernel.bury(message, str(error), DeadLetterReason.UNDELIVERABLE)
        self.refuse(message.correlation_id or message.message_id, error)
        return False

    @property
    def takes_outputs(self) -> bool:
        """Whether the client waits for outputs."""
        outgoing = self.outgoing
        return (
            self.outputs_sent < self.outputs_wanted
            and outgoing.allowed > len(outgoing.queue)
            and not outgoing.is_held_up(OUTPUT)  # No output comes before another.
        )

    @property
    def all_is_told(self) -> bool:
        """Whether the client was sent all replies and refusals that there are for it."""
        return self.outgoing.all_sent and not self.caller.ready.size

    @property
    def all_is_sent(self) -> bool:
        """Whether the kernel has ended and the client was sent all that is left of it."""
        kernel = self.kernel
        return kernel.has_ended and self.all_is_told and not (kernel.outputs.items.size or self.pending)

    # -- the end -------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The session is over. What the client never acknowledged is for others, or for nobody."""
        self.over = True
        kernel, caller = self.kernel, self.caller
        caller.gone = True
        for *_, message, kind in reversed([*self.outgoing.unacknowledged(), *self.outgoing.unsent()]):
            if kind == REFUSAL or message is None:
                continue
            if kind >= OUTPUT:
                kernel.replies.give_back(message)
            else:
                kernel.bury(message, "its caller is gone")
        while (item := caller.take()) is not None:
            if not isinstance(item, Unanswered):
                kernel.bury(item, "its caller is gone")
        for body, message_id, priority, correlation_id, _ in self.pending:
            if message_id is not None:
                self._bury_pending(body, message_id, priority, correlation_id)
        self.pending.clear()
        self.bodies.close()

    def _bury_pending(self, body: Opened, message_id: UUID, priority: int, correlation_id: UUID | None) -> None:
        try:
            message = self._decode(body, message_id=message_id, priority=priority, correlation_id=correlation_id)
        except MessageError:
            return  # It would have been refused, and its sender, whose mistake it was, is gone.
        detail = "its session ended before there was room for it"
        self.kernel.bury(message, detail, DeadLetterReason.CALLER_GONE, TO_KERNEL)


class Sessions:
    """The sessions of a daemon, by their tokens."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        """Seconds that a session lives without a stream."""
        self._sessions: dict[bytes, Session] = {}
        self._expiries: dict[bytes, asyncio.TimerHandle] = {}

        self.ended = Signal()
        """Notified when a session is over."""

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        """A session begins."""
        self._sessions[session.token] = session

    def find(self, token: bytes, kernel_id: str) -> Session:
        """The session of this token. SessionLostError if there is none, or not any more."""
        session = self._sessions.get(token)
        if session is None or session.kernel.kernel_id != kernel_id:
            problem = "the daemon has no such session: it has restarted, or the session was too long without a stream"
            raise SessionLostError("", problem, kernel_id)
        return session

    def keep(self, session: Session) -> None:
        """Its stream has ended: it can go on within the time-out."""
        loop = asyncio.get_running_loop()
        self._expiries[session.token] = loop.call_later(self.timeout, self.end, session)
        if len(self._expiries) > SESSIONS_KEPT:
            self.end(self._sessions[next(iter(self._expiries))])

    def attach(self, session: Session) -> None:
        """It has a stream again."""
        expiry = self._expiries.pop(session.token, None)
        if expiry is not None:
            expiry.cancel()

    def end(self, session: Session) -> None:
        """It is over."""
        self.attach(session)
        if self._sessions.pop(session.token, None) is not None:
            session.end()
            self.ended.notify_all()

    def end_delivered(self) -> None:
        """End those without a stream whose clients have all that there is for them."""
        for token in list(self._expiries):
            session = self._sessions[token]
            if session.outgoing.all_acknowledged and not session.caller.ready:
                self.end(session)

    def end_all(self) -> None:
        """The daemon ends."""
        for session in list(self._sessions.values()):
            self.end(session)
