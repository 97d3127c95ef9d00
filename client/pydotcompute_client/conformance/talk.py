"""One session with a daemon, frame by frame. What every frame of a daemon has to keep to is checked as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute.wire.errors import DOMAIN
from pydotcompute_client.conformance.results import BrokenError, require

__all__ = ["LONGEST_CALL", "Incoming", "Talk", "reason_of"]

LONGEST_CALL = 20.0
"""Seconds that a case may wait for the daemon."""
PLENTY = 1 << 40
"""Bytes of credit that are never used up."""


@dataclass(frozen=True)
class Incoming:
    """One message of a daemon's batch."""

    message_id: bytes
    body: bytes
    priority: int
    answers: bytes | None
    """The id of the request that it answers; None if it has no correlation id."""
    is_output: bool


def reason_of(status: status_pb2.Status | None) -> str:
    """Return the reason in the `ErrorInfo` of a status; the name of its code if it has none."""
    if status is None:
        return "OK"
    info = error_details_pb2.ErrorInfo()
    for packed in status.details:
        if packed.Unpack(info) and info.domain == DOMAIN:
            return str(info.reason)
    return str(code_pb2.Code.Name(status.code))


class Talk:
    """A session by the frames of its streams, one after the other."""

    def __init__(self, messages: MessageServiceStub) -> None:
        self._messages = messages
        self._frames: SimpleQueue[pb.ExchangeRequest | None] = SimpleQueue()
        self._call: Any = None
        self.kernel_id = ""
        self.opened = pb.Opened()
        self.accepted = pb.Accepted()
        self.received: list[Incoming] = []
        """The messages of all streams, in order."""
        self.refused: list[pb.Refusal] = []
        self.kinds: list[str] = []
        """The kinds of the daemon's frames, in order."""
        self.seen = 0
        """The last sequence that has come."""
        self.sent = 0
        """The last sequence that was sent."""
        self._acks = 0
        self._through = 0
        self._credit = pb.Credit()
        self._parts = b""
        self._accepted_before = 0  # What was accepted when the stream began.

    # -- to the daemon -------------------------------------------------------------------------------------------------

    def begin(self, kernel_id: str, *, credit: int = 1_000, credit_bytes: int = PLENTY, **fields: Any) -> pb.Opened:
        """Begin a session, and return what the daemon says to that."""
        self.kernel_id = kernel_id
        self._credit = pb.Credit(messages=credit, bytes=credit_bytes)
        return self.stream(kernel_id=kernel_id, **fields)

    def resume(self, **fields: Any) -> pb.Opened:
        """Go on with the session on another stream. The arguments are fields of `Open` that are to be otherwise."""
        going_on = {
            "kernel_id": self.kernel_id,
            "session_token": self.opened.session_token,
            "received_through": self.seen,
        }
        return self.stream(**{**going_on, **fields})

    def take_over(self, other: Talk) -> pb.Opened:
        """Go on with the session of another client, whose token this one has."""
        self.kernel_id, self.opened, self.sent = other.kernel_id, other.opened, other.sent
        self._credit = pb.Credit(messages=1_000, bytes=PLENTY)
        return self.resume(received_through=other.seen)

    def stream(self, **opening: Any) -> pb.Opened:
        """Open a stream, and return what the daemon says to that."""
        self.seen = opening.get("received_through", self.seen)
        self.say_first(open=pb.Open(**{"credit": self._credit, **opening}))
        self.opened = self.hear("opened")
        self.accepted.credit.CopyFrom(self.opened.credit)
        return self.opened

    def say_first(self, **frame: Any) -> None:
        """Open a stream with this frame."""
        self._frames, self._parts, self._accepted_before = SimpleQueue(), b"", self.accepted.through
        self.say(**frame)
        # The queue ends the iterator of this stream, even if another stream has a queue of its own by then.
        self._call = self._messages.Exchange(iter(self._frames.get, None), timeout=LONGEST_CALL)

    def say(self, **frame: Any) -> None:
        """Send a frame."""
        self._frames.put(pb.ExchangeRequest(**frame))

    def say_bytes(self, frame: bytes) -> None:
        """Send a frame that is given as bytes, with fields that this program may not know."""
        self._frames.put(pb.ExchangeRequest.FromString(frame))

    def send(self, *bodies: bytes, first: int | None = None, ids: Iterable[bytes] = (), **columns: Any) -> list[bytes]:
        """Send messages in one batch, and return their ids.

        Args:
            first: the sequence of the first; None for the next one.
            columns: further columns of the batch.
        """
        first = self.sent + 1 if first is None else first
        message_ids = [*ids] or [uuid4().bytes for _ in bodies]
        self.say(batch=pb.Batch(first_sequence=first, message_ids=b"".join(message_ids), bodies=bodies, **columns))
        self.sent = max(self.sent, first + len(bodies) - 1)
        return message_ids

    def ack(self, through: int | None = None, **fields: Any) -> None:
        """Acknowledge."""
        self._acks += 1
        self._through = self._through if through is None else through
        if "credit" in fields:
            self._credit = pb.Credit(messages=fields.pop("credit"), bytes=PLENTY)
        self.say(ack=pb.Ack(**{"number": self._acks, "through": self._through, "credit": self._credit, **fields}))

    def half_close(self) -> None:
        """End the client's side of the stream."""
        self._frames.put(None)

    def cut(self) -> None:
        """End the stream, and not the session."""
        if self._call is not None:
            self._call.cancel()
            self.half_close()

    # -- from the daemon -----------------------------------------------------------------------------------------------

    def hear(self, *kinds: str) -> Any:
        """Return the next frame of one of these kinds, `accepted` also where it is beside another. Others are noted."""
        while True:
            frame = self._next()
            if frame is None:
                status = self.status() or status_pb2.Status()
                why = f"{reason_of(status)}: {status.message}" if status.message else reason_of(status)
                raise BrokenError(f"there is no {' or '.join(kinds)}, and the stream ends with {why}")
            kind = self._take(frame)
            if kind in kinds:
                return getattr(frame, kind)
            if "accepted" in kinds and frame.HasField("accepted"):
                return frame.accepted

    def hear_messages(self, count: int) -> list[Incoming]:
        """Return the messages of the session, once there are so many. Raises BrokenError if a request is refused."""
        while len(self.received) < count:
            if self.hear("batch", "refused") is not None and self.kinds[-1] == "refused":
                status = self.refused[-1].status
                raise BrokenError(f"a request is refused with {reason_of(status)}: {status.message}")
        return self.received

    def hear_refusals(self, count: int) -> list[pb.Refusal]:
        """Return the refusals of the session, once there are so many."""
        while len(self.refused) < count:
            self.hear("refused")
        return self.refused

    def until_accepted(self, through: int) -> None:
        """Wait until the daemon has accepted the messages through this sequence."""
        while self.accepted.through < through:
            self.hear("accepted")

    def until_acknowledged(self) -> None:
        """Wait until the daemon has all Acks."""
        while self.accepted.acks_received < self._acks:
            self.hear("accepted")

    def ending(self) -> str:
        """Return how the daemon ends the stream: a reason, or the name of a code. Frames before that are noted."""
        status = self.status()
        return reason_of(status)

    def status(self) -> status_pb2.Status | None:
        """Return the status with which the daemon ends the stream; None if it is OK. Frames before that are noted."""
        while (frame := self._next()) is not None:
            self._take(frame)
        if self._call.code() is grpc.StatusCode.OK:
            return None
        known = rpc_status.from_call(self._call)
        return known or status_pb2.Status(code=self._call.code().value[0], message=self._call.details())

    def _next(self) -> pb.ExchangeResponse | None:
        try:
            frame: pb.ExchangeResponse | None = next(self._call, None)
            return frame
        except grpc.RpcError as error:
            if self._call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise BrokenError(f"nothing came within {LONGEST_CALL:g} s") from None
            if self._call.code() is grpc.StatusCode.CANCELLED:
                raise BrokenError("the case has cut the stream") from error
            return None

    def _take(self, frame: pb.ExchangeResponse) -> str:
        kind = frame.WhichOneof("frame") or ""
        require(kind or frame.HasField("accepted"), "a frame with nothing in it that v1 knows")
        self.kinds.append(kind or "accepted")
        if kind == "batch":
            self._count(frame.batch.first_sequence, len(frame.batch.bodies), "batch")
            self._take_batch(frame.batch)
        elif kind == "refused":
            self._count(frame.refused.first_sequence, len(frame.refused.refusals), "refused")
            self.refused += frame.refused.refusals
            for each in frame.refused.refusals:
                accepted = self._accepted_before < each.sequence <= self.accepted.through
                require(not accepted, f"sequence {each.sequence} is refused after it was accepted")
        elif kind == "part":
            part = frame.part
            self._parts = self._parts if part.offset else b""
            require(part.offset == len(self._parts), f"a part at {part.offset}, after {len(self._parts)} bytes")
            self._parts += part.data
        if frame.HasField("accepted"):
            now, before = frame.accepted, self.accepted
            require(now.through >= before.through, "`accepted.through` falls")
            require(now.through <= self.sent, f"accepted through {now.through}, and only {self.sent} were sent")
            require(now.acks_received >= before.acks_received, "`accepted.acks_received` falls")
            require(now.acks_received <= self._acks, "an Ack is said to have come that was not sent")
            require(now.credit.messages >= before.credit.messages, "credit in messages falls")
            require(now.credit.bytes >= before.credit.bytes, "credit in bytes falls")
            self.accepted = now
        return kind

    def _count(self, first: int, count: int, kind: str) -> None:
        require(count, f"an empty `{kind}`")
        require(first == self.seen + 1, f"a `{kind}` begins with sequence {first} after {self.seen}")
        self.seen += count

    def _take_batch(self, batch: pb.Batch) -> None:
        require(self.seen <= self._credit.messages, f"sequence {self.seen}, and the credit is {self._credit.messages}")
        bodies = [self._parts] if batch.body_in_parts else list(batch.bodies)
        ids, answers = _ids(batch.message_ids, len(bodies)), [None] * len(bodies)
        known = _ids(batch.correlation_ids, len(bodies)) if batch.correlation_ids else answers
        for index, (message_id, body) in enumerate(zip(ids, bodies, strict=True)):
            require(_each(batch.types, len(bodies), index, 0) < len(self.opened.types), "a type that was not named")
            self.received.append(
                Incoming(
                    message_id,
                    body,
                    _each(batch.priorities, len(bodies), index, 128),
                    None if index in batch.uncorrelated else known[index],
                    index in batch.outputs,
                )
            )


def _ids(column: bytes, count: int) -> list[Any]:
    require(len(column) == 16 * count, f"{len(column)} bytes of ids for {count} messages")
    return [column[start : start + 16] for start in range(0, len(column), 16)]


def _each(column: Any, count: int, index: int, default: int) -> int:
    require(len(column) in (0, 1, count), f"a column of {len(column)} values for {count} messages")
    return int(column[index if len(column) > 1 else 0]) if column else default
