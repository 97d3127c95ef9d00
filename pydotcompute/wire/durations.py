"""Seconds as `google.protobuf.Duration`, and back."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

__all__ = ["duration", "seconds"]


def duration(seconds: float) -> Duration:
    """Return seconds as a `Duration`, rounded to nanoseconds."""
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def seconds(duration: Duration) -> float:
    """Return a `Duration` in seconds. A value outside the range of protobuf's own conversions is converted too."""
    return duration.seconds + duration.nanos / 1e9
