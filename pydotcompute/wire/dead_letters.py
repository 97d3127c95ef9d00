"""Dead letters as protobuf, and back; the bodies of their messages are converted elsewhere."""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

from pydotcompute.ring_kernels.mail.dead_letters import DeadLetter, DeadLetterDirection, DeadLetterReason
from pydotcompute.v1 import dead_letter_service_pb2 as pb
from pydotcompute.v1 import message_service_pb2 as message_pb

__all__ = [
    "dead_letter_from_proto",
    "dead_letter_to_proto",
    "direction_from_proto",
    "direction_to_proto",
    "header_to_proto",
    "reason_from_proto",
    "reason_to_proto",
]

_REASON = "DEAD_LETTER_REASON_"
_DIRECTION = "DEAD_LETTER_DIRECTION_"


def reason_to_proto(reason: DeadLetterReason) -> pb.DeadLetterReason:
    """A reason as its number on the wire."""
    return cast(pb.DeadLetterReason, pb.DeadLetterReason.Value(f"{_REASON}{reason.name}"))


def reason_from_proto(reason: pb.DeadLetterReason) -> DeadLetterReason:
    """The reason of a number on the wire."""
    return DeadLetterReason[pb.DeadLetterReason.Name(reason).removeprefix(_REASON)]


def direction_to_proto(direction: DeadLetterDirection) -> pb.DeadLetterDirection:
    """A direction as its number on the wire."""
    return cast(pb.DeadLetterDirection, pb.DeadLetterDirection.Value(f"{_DIRECTION}{direction.name}"))


def direction_from_proto(direction: pb.DeadLetterDirection) -> DeadLetterDirection:
    """The direction of a number on the wire."""
    return DeadLetterDirection[pb.DeadLetterDirection.Name(direction).removeprefix(_DIRECTION)]


def header_to_proto(message: Any) -> message_pb.Message:
    """A message without its body."""
    return message_pb.Message(
        message_id=str(message.message_id),
        priority=message.priority,
        correlation_id="" if message.correlation_id is None else str(message.correlation_id),
    )


def dead_letter_to_proto(letter: DeadLetter, message: message_pb.Message, problem: str = "") -> pb.DeadLetter:
    """A dead letter for the wire, with its message; `problem` is why that has no body."""
    return pb.DeadLetter(
        id=letter.id,
        message=message,
        problem=problem,
        reason=reason_to_proto(letter.reason),
        detail=letter.detail,
        time=_timestamp(letter.time),
        direction=direction_to_proto(letter.direction),
    )


def dead_letter_from_proto(letter: pb.DeadLetter, message: Any) -> DeadLetter:
    """A dead letter from the wire, with its message."""
    return DeadLetter(
        id=letter.id,
        message=message,
        reason=reason_from_proto(letter.reason),
        detail=letter.detail,
        time=letter.time.ToNanoseconds() / 1e9,
        direction=direction_from_proto(letter.direction),
    )


def _timestamp(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromNanoseconds(int(seconds * 1e9))
    return timestamp
