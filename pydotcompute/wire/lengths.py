"""How long what crosses the wire may be."""

from pydotcompute.wire.exchange.frames import LONGEST_FRAME

__all__ = ["FRAME_OVERHEAD_BYTES", "longest_frame"]

FRAME_OVERHEAD_BYTES = 2 << 20
"""What a frame may be longer than the longest message in it: other messages, and headers."""


def longest_frame(max_message_bytes: int) -> int:
    """The longest gRPC message, in bytes, where bodies have at most so many."""
    return min(max_message_bytes + FRAME_OVERHEAD_BYTES, LONGEST_FRAME)
