"""The daemon's side of a session whose client is judged: it sends each request back, and notes each broken rule.

It does no I/O. It is written from docs/wire.md, and shares no code with the daemon or with the Python client, so that
it does not share their mistakes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from google.rpc import status_pb2

from pydotcompute.exceptions import QueueFullError
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.errors import to_status
from pydotcompute_client.conformance.rules import Record

__all__ = ["PART_BYTES", "JudgedSession"]

PART_BYTES = 4_096
"""The longest data of a part. It is short, so that parts come to be."""
CREDIT = 40
"""How many messages the client may have under way."""
CREDIT_BYTES = 8_192
"""How many bytes of messages, but for the last one, it may have under way."""
LARGEST_BATCH = 16
"""The most messages in one frame. It is few, so that there are many frames."""
REFUSED_EVERY = 10
"""One in so many requests is refused."""
GIVEN_UP_EVERY = 25
"""One in so many requests is accepted, and refused later."""


@dataclass(frozen=True)
class _Reply:
    """A request on its way back."""

    request_id: bytes
    message_id: bytes
    body: bytes
    priority: int


class JudgedSession:
    """One session. The streams that carry it call `open`, then `take` with each frame, and `next_frame`.

    Args:
        refuses: whether some requests are refused.
    """

    def __init__(self, kernel_id: str, record: Record, *, refuses: bool) -> None:
        self.kernel_id = kernel_id
        self.token = uuid4().bytes
        self.over = False
        """True after the client's `bye`."""
        self.credit = pb.Credit(messages=CREDIT, bytes=CREDIT_BYTES)
        """The client's credit."""
        self.withholds = False
        """True while the client gets no further credit."""
        self.closed: status_pb2.Status | None = None
        """The status that refuses all further requests; None while they are taken."""
        self.received = 0
        """The last sequence that has come."""
        self.acknowledged = 0
        """The last sequence that the client has acknowledged."""
        self._rules = record
        self._refuses = refuses
        self._full = to_status(QueueFullError(kernel_id, CREDIT))
        self._received_bytes = 0
        self._requests: list[tuple[bytes, bytes]] = []  # The id and the body of each request, by its sequence.
        self._glanced: dict[int, tuple[bytes, bytes]] = {}  # Those that were lost on their way, by their sequences.
        self._parts: tuple[int, bytes] | None = None  # The length of the body, and what has come of it.
        self._replies: deque[_Reply] = deque()
        self._refusals: deque[pb.Refusal] = deque()
        self._kept: list[_Reply | pb.Refusal] = []  # Everything that has a sequence, in order.
        self._next = 0  # The index of the next of these to send on this stream.
        self._offset = 0  # How much of the next body has gone in parts.
        self._written = 0  # The last sequence that has left on any stream.
        self._sent_bytes = 0
        self._allowed = pb.Credit()  # The daemon's credit, which the client gives.
        self._acks = 0
        self._client_parts = 0
        self._told = pb.Accepted()

    # -- from the client -----------------------------------------------------------------------------------------------

    def open(self, opening: pb.Open) -> None:
        """Begin a stream."""
        through = opening.received_through
        self._rules.require(
            "received-through",
            self.acknowledged <= through <= self._written,
            f"it is {through}, and {self.acknowledged} were acknowledged, and {self._written} sent",
        )
        self._next, self._parts, self._client_parts = through, None, opening.part_bytes
        self._offset = 0
        self._told = pb.Accepted()
        self._grant(opening.credit)

    @property
    def acks_received(self) -> int:
        """The number of the last Ack that has come."""
        return self._acks

    def take(self, frame: pb.ExchangeRequest) -> str:
        """Take a frame in, and return its kind. Raises BrokenError if it breaks a rule."""
        kind = frame.WhichOneof("frame") or ""
        self._rules.require("first-frame", kind != "open", "`open` has come again")
        self._rules.require("columns", kind or frame.HasField("ack"), "a frame with nothing in it")
        if frame.HasField("ack"):
            self._take_ack(frame.ack)
        if kind == "batch":
            self._take_batch(frame.batch)
        elif kind == "part":
            self._take_part(frame.part)
        elif kind == "bye":
            self.over = True
            problem = f"{self.acknowledged} of {self._written} are"
            self._rules.note("acknowledges", self.acknowledged == self._written, problem)
        return kind

    def glance(self, batch: pb.Batch) -> None:
        """Look at a batch that is to be lost on its way: it has to come again as it is."""
        if not batch.body_in_parts and len(batch.message_ids) == 16 * len(batch.bodies):
            for index, body in enumerate(batch.bodies):
                self._glanced[batch.first_sequence + index] = batch.message_ids[16 * index : 16 * index + 16], body

    def _take_ack(self, ack: pb.Ack) -> None:
        self._rules.require("ack-numbers", ack.number > 0, "the number is 0, or left out")
        if ack.number <= self._acks:
            return  # It comes again.
        self._acks = ack.number
        rules, through = self._rules, ack.through
        rules.require("ack-through", through >= self.acknowledged, f"{through} comes after {self.acknowledged}")
        rules.require("ack-through", through <= self._written, f"{through}, and {self._written} were sent")
        self.acknowledged = through
        self._grant(ack.credit)

    def _grant(self, credit: pb.Credit) -> None:
        self._allowed.messages = max(self._allowed.messages, credit.messages)
        self._allowed.bytes = max(self._allowed.bytes, credit.bytes)

    def _take_part(self, part: pb.Part) -> None:
        rules = self._rules
        if part.offset == 0:
            has_credit = self.received < self.credit.messages and self._received_bytes < self.credit.bytes
            rules.require("credit", has_credit, "a body in parts begins without credit for a message")
            self._parts = (part.body_bytes, b"")
        rules.require("parts", self._parts is not None, f"the first part has the offset {part.offset}")
        assert self._parts is not None
        length, body = self._parts
        rules.require("parts", part.offset == len(body), f"offset {part.offset}, after {len(body)} bytes")
        rules.require("parts", part.body_bytes == length, f"body_bytes is {part.body_bytes}, and was {length}")
        rules.require("parts", len(part.data) <= PART_BYTES, f"{len(part.data)} bytes of data, and {PART_BYTES} may be")
        self._parts = (length, body + part.data)

    def _take_batch(self, batch: pb.Batch) -> None:
        rules, first = self._rules, batch.first_sequence
        bodies: Sequence[bytes] = batch.bodies
        count = len(bodies)
        rules.require("columns", count, "a batch without a message")
        rules.require("columns", len(batch.message_ids) == 16 * count, "message_ids does not have 16 bytes for each")
        for name in ("priorities", "timeouts_us"):
            length = len(getattr(batch, name))
            rules.require("columns", length in (0, 1, count), f"{length} {name} for {count} messages")
        rules.require("columns", max(batch.priorities, default=0) <= 255, "a priority is above 255")
        answers = len(batch.correlation_ids)
        rules.require("columns", answers in (0, 16 * count), "correlation_ids does not have 16 bytes for each")
        rules.require("sequences", first >= 1, "a batch begins with sequence 0")
        rules.require("sequences", first <= self.received + 1, f"{first} comes after {self.received}")
        if batch.body_in_parts:
            whole = count == 1 and self._parts is not None and self._parts[0] == len(self._parts[1])
            rules.require("parts", whole, "a batch with `body_in_parts` comes before the last part")
            assert self._parts is not None
            bodies, self._parts = [self._parts[1]], None
        for index, body in enumerate(bodies):
            message_id = batch.message_ids[16 * index : 16 * index + 16]
            priority = batch.priorities[index if len(batch.priorities) > 1 else 0] if batch.priorities else 128
            self._take_request(first + index, message_id, body, priority)

    def _take_request(self, sequence: int, message_id: bytes, body: bytes, priority: int) -> None:
        rules = self._rules
        if sequence <= self.received:
            same = self._requests[sequence - 1] == (message_id, body)
            rules.require("again", same, f"sequence {sequence} is another message than before")
            return
        if (before := self._glanced.pop(sequence, None)) is not None:
            rules.require("again", before == (message_id, body), f"sequence {sequence} is another message than before")
        credit = self.credit
        rules.require("credit", sequence <= credit.messages, f"sequence {sequence}, and {credit.messages} is allowed")
        within = self._received_bytes < credit.bytes
        rules.require("credit", within, f"{self._received_bytes} bytes went before, and {credit.bytes} are allowed")
        self.received = sequence
        self._received_bytes += len(body)
        self._requests.append((message_id, body))
        if self.closed is not None:
            self._refuse(message_id, sequence, self.closed)
        elif self._refuses and sequence % REFUSED_EVERY == 0:
            self._refuse(message_id, sequence, self._full)
        elif self._refuses and sequence % GIVEN_UP_EVERY == 1:
            self._refuse(message_id, 0, self._full)
        else:
            self._replies.append(_Reply(message_id, uuid4().bytes, body, priority))

    def _refuse(self, message_id: bytes, sequence: int, status: status_pb2.Status) -> None:
        self._refusals.append(pb.Refusal(sequence=sequence, message_id=message_id, status=status))

    # -- to the client -------------------------------------------------------------------------------------------------

    def next_frame(self) -> pb.ExchangeResponse | None:
        """Return the next frame, or None if there is none now: `refused` first, then replies, then `accepted` alone."""
        frame = self._next_sequenced()
        if self._next < len(self._kept) or self._refusals:
            return frame
        news = self._news()
        if news is not None and (frame is None or self._next % 2):  # Beside another frame, or alone: both may be.
            frame = frame or pb.ExchangeResponse()
            frame.accepted.CopyFrom(news)
            self._told = news
        return frame

    def _news(self) -> pb.Accepted | None:
        if not self.withholds:
            under_way = len(self._replies)
            self.credit.messages = max(self.credit.messages, self.received + max(1, CREDIT - under_way))
            self.credit.bytes = max(self.credit.bytes, self._received_bytes + CREDIT_BYTES)
        news = pb.Accepted(through=self.received, credit=self.credit, acks_received=self._acks)
        return None if news == self._told else news

    def _next_sequenced(self) -> pb.ExchangeResponse | None:
        """Return the next messages or refusals: first those that were sent on an earlier stream and not received."""
        if self._next == len(self._kept):
            self._number_new()
        if self._next == len(self._kept):
            return None
        first = self._kept[self._next]
        if isinstance(first, pb.Refusal):
            return self._refused()
        if not self._client_parts or len(first.body) <= PART_BYTES:
            return self._batch()
        return self._part_of(first)

    def _number_new(self) -> None:
        """Give the next messages sequences, or the next refusals, which need no credit."""
        while self._refusals:
            self._kept.append(self._refusals.popleft())
        while self._replies and len(self._kept) < self._allowed.messages and self._sent_bytes < self._allowed.bytes:
            self._sent_bytes += len(self._replies[0].body)
            self._kept.append(self._replies.popleft())

    def _refused(self) -> pb.ExchangeResponse:
        first = self._next + 1
        refusals: list[pb.Refusal] = []
        while self._next < len(self._kept) and isinstance(refusal := self._kept[self._next], pb.Refusal):
            refusals.append(refusal)
            self._next += 1
        self._written = max(self._written, self._next)
        return pb.ExchangeResponse(refused=pb.Refused(first_sequence=first, refusals=refusals))

    def _batch(self) -> pb.ExchangeResponse:
        first = self._next + 1
        replies: list[_Reply] = []
        while self._next < len(self._kept) and len(replies) < LARGEST_BATCH:
            reply = self._kept[self._next]
            if isinstance(reply, pb.Refusal) or (self._client_parts and len(reply.body) > PART_BYTES):
                break
            replies.append(reply)
            self._next += 1
        self._written = max(self._written, self._next)
        return pb.ExchangeResponse(batch=_columns(first, replies))

    def _part_of(self, reply: _Reply) -> pb.ExchangeResponse:
        """Return the next part of a long body; after the last one, the batch that they belong to."""
        body, offset = reply.body, self._offset
        if offset < len(body):
            data = body[offset : offset + min(PART_BYTES, self._client_parts)]
            self._offset += len(data)
            return pb.ExchangeResponse(part=pb.Part(body_bytes=len(body), offset=offset, data=data))
        self._offset = 0
        self._next += 1
        self._written = max(self._written, self._next)
        batch = _columns(self._next, [reply])
        batch.bodies[0], batch.body_in_parts = b"", True
        return pb.ExchangeResponse(batch=batch)


def _columns(first: int, replies: Sequence[_Reply]) -> pb.Batch:
    return pb.Batch(
        first_sequence=first,
        message_ids=b"".join(reply.message_id for reply in replies),
        correlation_ids=b"".join(reply.request_id for reply in replies),
        bodies=[reply.body for reply in replies],
        priorities=[reply.priority for reply in replies],
    )
