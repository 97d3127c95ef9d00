"""Dead letters as protobuf, and back. The bodies of their messages are converted elsewhere."""

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
    """Return the number of a reason on the wire."""
    return cast(pb.DeadLetterReason, pb.DeadLetterReason.Value(f"{_REASON}{reason.name}"))


def reason_from_proto(reason: pb.DeadLetterReason) -> DeadLetterReason:
    """Return the reason that a number on the wire stands for. Raises ValueError or KeyError for an unknown number."""
    return DeadLetterReason[pb.DeadLetterReason.Name(reason).removeprefix(_REASON)]


def direction_to_proto(direction: DeadLetterDirection) -> pb.DeadLetterDirection:
    """Return the number of a direction on the wire."""
    return cast(pb.DeadLetterDirection, pb.DeadLetterDirection.Value(f"{_DIRECTION}{direction.name}"))


def direction_from_proto(direction: pb.DeadLetterDirection) -> DeadLetterDirection:
    """Return the direction that a number on the wire stands for. Raises ValueError or KeyError if it is unknown."""
    return DeadLetterDirection[pb.DeadLetterDirection.Name(direction).removeprefix(_DIRECTION)]


def header_to_proto(message: Any) -> message_pb.Message:
    """Return the header of a message as a `Message` with no body."""
    return message_pb.Message(
        message_id=str(message.message_id),
        priority=message.priority,
        correlation_id="" if message.correlation_id is None else str(message.correlation_id),
    )


def dead_letter_to_proto(letter: DeadLetter, message: message_pb.Message, problem: str = "") -> pb.DeadLetter:
    """Return a dead letter as protobuf.

    Args:
        letter: the dead letter.
        message: the message of the letter as protobuf.
        problem: the reason why `message` has no body; empty if it has one.
    """
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
    """Return the dead letter that a protobuf message holds; `message` is its message, already converted."""
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
