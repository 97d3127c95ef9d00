"""The messages of one client on their way into a kernel's mailbox."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, TypeAlias, cast
from uuid import UUID

from google.rpc import status_pb2

from pydotcompute.exceptions import MemoryExhaustedError, MessageError, MessageTooLargeError, PyDotComputeError
from pydotcompute.messages.ids import uuid_from_int
from pydotcompute.protobuf.codec import Codec
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.callers import Caller
from pydotcompute.ring_kernels.mail.dead_letters import TO_KERNEL, DeadLetterReason
from pydotcompute.ring_kernels.mail.inbox import Terms
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.batches import read, spread
from pydotcompute.wire.exchange.bodies import Bodies, Opened
from pydotcompute.wire.exchange.flow import Incoming, ProtocolError
from pydotcompute.wire.exchange.frames import PartFrame
from pydotcompute.wire.exchange.limits import WINDOW, WINDOW_BYTES
from pydotcompute.wire.exchange.parts import Missing
from pydotcompute_server.bounds.apart import Apart, Read
from pydotcompute_server.bounds.memory import MESSAGE_BYTES, TIGHT_BYTES, Memory
from pydotcompute_server.calls.errors import told_status
from pydotcompute_server.clients import may_put, terms_of
from pydotcompute_server.connected import ConnectedClient
from pydotcompute_server.limits import Limits

__all__ = ["Inbound", "Refuse"]

Refuse: TypeAlias = Callable[[UUID, status_pb2.Status, int], None]
"""Tells the client that a request will not be answered: the request's id, why, and its sequence.

The sequence is 0 for a request that was taken first and given up later."""


Waiting: TypeAlias = tuple[Opened | Read, "UUID | None", int, "UUID | None", "Terms | None"]
"""A message that has come and is not in the mailbox yet: body, header, terms. It has no id if it was withdrawn."""

_WITHDRAWN: Waiting = (b"", None, 0, None, None)


class _NoRoom(bytes):
    """Stands for the body of a message that is to be refused, because there was no memory for it. It is empty."""

    error: MemoryExhaustedError


def _no_room(error: MemoryExhaustedError) -> _NoRoom:
    body = _NoRoom()
    body.error = error
    return body


class Inbound:
    """Takes in the messages of a client, and puts them into the mailbox as there is room."""

    def __init__(
        self,
        kernel: RingKernel[Any, Any],
        caller: Caller[Any],
        codec: Codec[Any],
        incoming: Incoming,
        bodies: Bodies,
        limits: Limits,
        apart: Apart,
        memory: Memory,
        refuse: Refuse,
        client: ConnectedClient,
    ) -> None:
        self.incoming = incoming
        self.pending: deque[Waiting] = deque()
        """The messages that have arrived and are not in the mailbox yet, in order."""
        self.draining: status_pb2.Status | None = None
        """The status that refuses further messages when the daemon is about to end; else None."""
        self.account = client.account
        """The account of the client's principal; None if the principal has no limits."""
        self._principal = client.owner.principal
        self._kernel = kernel
        self._caller = caller
        self._bodies = bodies
        self._codec = codec
        self._apart = apart
        self._bytes_at_once = apart.bytes_at_once(codec)
        self._decode = codec.decode_checked
        self._limits = limits
        self._memory = memory
        self._without_room = 0  # How many messages in `pending` are to be refused, because there was no memory.
        self._part_error: MemoryExhaustedError | None = None  # The error of the last part for which there was none.
        self._max_message_bytes = limits.max_message_bytes
        self._at_once = limits.messages_at_once
        self._refuse = refuse
        self._pending_bytes = 0
        self._window = min(WINDOW, kernel.mail.inbox.capacity)

    @property
    def refusal(self) -> status_pb2.Status | None:
        """The status that refuses messages, or None if they are taken."""
        if self.draining is not None:
            return self.draining
        refusal = self._kernel.gate.refusal
        return None if refusal is None else told_status(refusal)

    # -- from the client -----------------------------------------------------------------------------------------------

    def take_batch(self, batch: pb.Batch) -> None:
        """Take in a batch of messages.

        Raises:
            ProtocolError, MessageDeserializationError: the batch breaks the rules.
        """
        if len(batch.bodies) > WINDOW:
            raise ProtocolError(f"a batch has at most {WINDOW} messages, not {len(batch.bodies)}")
        opened, message_ids, priorities, correlation_ids, _ = read(batch, bodies=self._bodies)
        sizes = list(map(len, opened))
        again = self.incoming.receive(batch.first_sequence, sizes)
        new_bytes = sum(sizes[again:])
        is_missing = isinstance(cast(object, opened[0]), Missing)
        if is_missing or not self._memory.has_room_for(new_bytes, self._principal):
            error = self._part_error if is_missing else None
            opened = [_no_room(error or self._memory.error(size, self._principal)) for size in sizes]
            sizes, new_bytes = [0] * len(sizes), 0
            self._without_room += len(sizes) - again
        terms: list[Terms | None] = [None] * len(sizes)
        if max(sizes) >= self._limits.large_message_bytes:
            terms = [terms_of(size, self._limits) for size in sizes]
        if batch.timeouts_us:
            now = monotonic()
            for index, microseconds in enumerate(spread(batch.timeouts_us, len(sizes), 0, "timeouts_us")):
                if microseconds:
                    timeout = microseconds / 1e6
                    size = sizes[index] if sizes[index] >= self._limits.large_message_bytes else 0
                    terms[index] = Terms(timeout, now + timeout, size)
        waiting = zip(opened, message_ids, priorities, correlation_ids, terms, strict=True)
        self.pending.extend(list(waiting)[again:] if again else waiting)
        self._pending_bytes += new_bytes
        if self.account is not None:
            self.account.came(len(sizes) - again, new_bytes)

    def take_part(self, part: PartFrame | pb.Part) -> None:
        """Take in a part of a long body. Raises ProtocolError if it breaks the rules."""
        has_room = self._memory.has_room_for(len(part.data), self._principal)
        if not has_room:
            self._part_error = self._memory.error(part.body_bytes, self._principal)
        self._bodies.take_part(part, keep=has_room)

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages that have arrived, also in parts, and are not in the mailbox yet."""
        return self._pending_bytes + MESSAGE_BYTES * len(self.pending) + self._bodies.held_bytes

    def withdraw(self, message_ids: Iterable[bytes]) -> None:
        """Withdraw requests that the client has given up.

        Raises:
            ProtocolError: an id does not have 16 bytes.
        """
        keys = set()
        for message_id in message_ids:
            if len(message_id) != 16:
                raise ProtocolError(f"a UUID has 16 bytes, not {len(message_id)}")
            keys.add(int.from_bytes(message_id))
        if not keys:
            return
        for index, (body, waiting_id, *_) in enumerate(self.pending):
            if waiting_id is not None and waiting_id.int in keys:
                self.pending[index] = _WITHDRAWN
                self._without_room -= body.__class__ is _NoRoom
                self._pending_bytes -= len(body)
                keys.discard(waiting_id.int)
        if len(keys) == 1:
            self._kernel.mail.withdraw(uuid_from_int(keys.pop()), self._caller)
        elif keys:
            self._kernel.mail.withdraw_many(keys, self._caller)

    def places(self, keys: Collection[int]) -> dict[int, int]:
        """Return those of these requests that wait for room in the mailbox.

        Args:
            keys: the `message_id.int` of each request.

        Returns:
            For each request that waits, the number of messages before it in the mailbox and before the mailbox.
        """
        first = self._kernel.mail.inbox.depth
        waiting = enumerate(self.pending, first)
        return {each[1].int: place for place, each in waiting if each[1] is not None and each[1].int in keys}

    # -- into the mailbox ----------------------------------------------------------------------------------------------

    def put_at_once(self) -> None:
        """Put the messages that need not wait for anything into the mailbox, and give credit for them."""
        kernel, inbox = self._kernel, self._kernel.mail.inbox
        if (
            self.draining is None
            and inbox.backpressure.waits
            and may_put(kernel, self._caller, self._limits)
            and (room := inbox.room) > 0
            and kernel.gate.refusal is None
        ):
            self._put(min(self._at_once, room))
            self.grant()

    async def put_some(self) -> None:
        """Put the next messages into the mailbox, or refuse them. Wait for room if the mailbox makes senders wait."""
        kernel = self._kernel
        if self.draining is not None:
            self._refuse_pending(self.draining)
        elif self._first_is_heavy():
            await self._read_first_apart()
        elif kernel.gate.refusal is not None or not kernel.mail.inbox.backpressure.waits:
            for _ in range(min(self._at_once, len(self.pending))):
                await self._put_next()
        else:
            with suppress(PyDotComputeError):  # If the kernel takes no more messages, the next call refuses the rest.
                self._put(await kernel.mail.room_for(self._caller, min(self._at_once, len(self.pending))))

    def _first_is_heavy(self) -> bool:
        """Return True if the next message should be read apart, and was not yet."""
        body, message_id, *_ = self.pending[0]
        return self._is_heavy(body) and message_id is not None

    def _is_heavy(self, body: Opened | Read) -> bool:
        return (
            len(body) > self._bytes_at_once and not isinstance(body, Read) and self._apart.is_heavy(self._codec, body)
        )

    async def _read_first_apart(self) -> None:
        """Read the next message apart, and put the result in place of its body.

        Anything may happen meanwhile: the message may be withdrawn, the kernel may end, and the stream, which cancels
        this. The message waits in `pending` all the time, and is looked at anew afterwards.
        """
        waiting = self.pending[0]
        body, message_id, priority, correlation_id, terms = waiting
        assert message_id is not None
        assert not isinstance(body, Read)
        if (refusal := self._kernel.gate.refusal) is not None:
            read = Read(len(body), None, refusal.again())
        else:
            read = await self._apart.read(self._codec, self._decode, body, (message_id, priority, correlation_id))
        if self.pending and self.pending[0] is waiting:
            self.pending[0] = (read, message_id, priority, correlation_id, terms)

    def _light(self, waiting: Sequence[Waiting]) -> int:
        """Return how many of these messages, from the first on, may be read at once."""
        left = self._bytes_at_once
        for index, (body, *_) in enumerate(waiting):
            left -= len(body)
            if left < 0:  # A single message may be longer, if it is not heavy.
                return max(index, 0 if self._is_heavy(body) else 1)
        return len(waiting)

    def _put(self, count: int) -> None:
        """Put the next `count` messages into the mailbox, which has room for them, or fewer if they are long."""
        count = min(count, len(self.pending))
        if not count:
            return
        popleft, decode = self.pending.popleft, self._decode
        waiting = [popleft() for _ in range(count)]
        bodies, message_ids, priorities, correlation_ids, terms = zip(*waiting, strict=True)
        sizes = list(map(len, bodies))
        if sum(sizes) > self._bytes_at_once:
            count = self._light(waiting)
            self.pending.extendleft(reversed(waiting[count:]))
            del waiting[count:], sizes[count:]
            if not count:
                return
            bodies, message_ids, priorities, correlation_ids, terms = zip(*waiting, strict=True)
        self._pending_bytes -= sum(sizes)
        messages = None
        places: Sequence[int] = range(1, count + 1)
        is_plain = bodies[0].__class__ is not Read and not self._without_room
        if is_plain and max(sizes) <= self._max_message_bytes and all(message_ids):
            with suppress(MessageError):
                messages = list(map(decode, bodies, message_ids, priorities, correlation_ids))
        if messages is None:  # One was withdrawn, is malformed, or found no memory.
            messages, terms, places = self._decode_each(waiting)
        if messages:
            keys = [message.message_id.int for message in messages]
            plain = terms.count(None) == len(terms)
            for index, error in self._kernel.mail.accept(self._caller, messages, keys, () if plain else terms):
                self._refuse(messages[index].message_id, told_status(error), self.incoming.done + places[index])
        self.incoming.finish(count)

    def _decode_each(self, pending: list[Waiting]) -> tuple[list[Any], tuple[Terms | None, ...], list[int]]:
        """Return the decoded messages, their terms, and their places, counted from 1.

        Messages that were withdrawn are left out, and so are messages that are refused here.
        """
        messages, terms, places = [], [], []
        for place, (body, message_id, priority, correlation_id, each) in enumerate(pending, 1):
            self._without_room -= body.__class__ is _NoRoom
            if message_id is None:
                continue
            try:
                messages.append(self._decode_one(body, message_id, priority, correlation_id))
                terms.append(each)
                places.append(place)
            except PyDotComputeError as error:
                self._refuse(message_id, told_status(error), self.incoming.done + place)
        return messages, tuple(terms), places

    def _decode_one(self, body: Opened | Read, message_id: UUID, priority: int, correlation_id: UUID | None) -> Any:
        if isinstance(body, Read):
            return body.result()
        if isinstance(body, _NoRoom):
            raise body.error
        if len(body) > self._max_message_bytes:
            raise MessageTooLargeError(self._codec.schema.name, len(body), self._max_message_bytes)
        return self._decode(body, message_id, priority, correlation_id)

    def _refuse_pending(self, status: status_pb2.Status) -> None:
        """Refuse all messages that are not in the mailbox yet."""
        for place, (_, message_id, *_) in enumerate(self.pending, 1):
            if message_id is not None:
                self._refuse(message_id, status, self.incoming.done + place)
        self.incoming.finish(len(self.pending))
        self.pending.clear()
        self._pending_bytes = self._without_room = 0

    async def _put_next(self) -> None:
        """Put the next message into the mailbox, or refuse it.

        It is put as `RingKernel.send` does, for a mailbox that never makes senders wait.
        """
        body, message_id, priority, correlation_id, terms = self.pending.popleft()
        self._without_room -= body.__class__ is _NoRoom
        if message_id is not None:
            self._pending_bytes -= len(body)
            try:
                message = self._decode_one(body, message_id, priority, correlation_id)
                await self._kernel.mail.send_as(self._caller, message, terms=terms, checked=True)
            except PyDotComputeError as error:
                self._refuse(message_id, told_status(error), self.incoming.done + 1)
        self.incoming.finish()

    # -- credit --------------------------------------------------------------------------------------------------------

    def grant(self) -> None:
        """Give the client as much credit as the mailbox allows.

        Under `block`, the client may send as many messages as the mailbox has room for. Under the other strategies
        nobody waits for room, so the client may send as many as the mailbox can hold. The limits of the client's
        principal hold for all.
        """
        inbox = self._kernel.mail.inbox
        if not inbox.backpressure.waits:
            room = inbox.capacity
        else:
            room = inbox.room - len(self.pending)
            if (
                room <= 0
                and inbox.capacity >= self._limits.read_ahead
                and inbox.waiting_putters > (1 if self.pending else 0)  # Other senders wait, so there is no room.
            ):
                room = self._limits.read_ahead - len(self.pending)
        room_bytes = WINDOW_BYTES - self._pending_bytes
        if inbox.bytes >= self._limits.mailbox_bytes or self._memory.is_full_for(self._principal):
            room_bytes = 0
        elif self._memory.is_tight:
            room_bytes = TIGHT_BYTES - self._pending_bytes
        if self.account is not None:
            allowed, allowed_bytes = self.account.credit()
            room, room_bytes = min(room, allowed), min(room_bytes, allowed_bytes)
        self.incoming.grant(min(room, WINDOW), room_bytes)

    @property
    def wants_credit(self) -> bool:
        """True if the client has little credit left."""
        incoming = self.incoming
        left = incoming.credit.messages - incoming.received
        if incoming.credit.bytes - incoming.received_bytes < WINDOW_BYTES // 2:
            return True
        return left < self._window // 2 or left == 0

    @property
    def is_starved(self) -> bool:
        """True if the client has used up its credit."""
        incoming = self.incoming
        return incoming.credit.messages <= incoming.received or incoming.credit.bytes <= incoming.received_bytes

    # -- the end -------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Make the messages that found no room dead letters, because the session is over."""
        for body, message_id, priority, correlation_id, _ in self.pending:
            if message_id is None or body.__class__ is _NoRoom:
                continue
            if not isinstance(body, Read) and self._is_heavy(body):
                header = message_id, priority, correlation_id
                self._apart.read_later(self._codec, self._decode, body, header, self._bury)
                continue
            with suppress(PyDotComputeError):  # A malformed one is dropped: its sender, who made the mistake, is gone.
                self._bury(self._decode_one(body, message_id, priority, correlation_id))
        self.pending.clear()
        self._pending_bytes = self._without_room = 0

    def _bury(self, message: Any) -> None:
        detail = "its session ended before there was room for it"
        self._kernel.mail.bury(message, detail, DeadLetterReason.CALLER_GONE, TO_KERNEL)
