"""Seconds as `google.protobuf.Duration`, and back."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

__all__ = ["duration", "seconds"]


def duration(seconds: float) -> Duration:
    """Seconds for the wire."""
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def seconds(duration: Duration) -> float:
    """Seconds from the wire: any that was sent, also one that is outside the range of protobuf's own conversions."""
    return duration.seconds + duration.nanos / 1e9
