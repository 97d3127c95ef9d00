"""Limits on the length of gRPC messages."""

from pydotcompute.wire.exchange.frames import LONGEST_FRAME

__all__ = ["FRAME_OVERHEAD_BYTES", "longest_frame"]

FRAME_OVERHEAD_BYTES = 2 << 20
"""Room in a frame, in bytes, beyond its longest message: for headers and other messages."""


def longest_frame(max_message_bytes: int) -> int:
    """Return the most bytes of a gRPC message if a body has at most `max_message_bytes`."""
    return min(max_message_bytes + FRAME_OVERHEAD_BYTES, LONGEST_FRAME)
