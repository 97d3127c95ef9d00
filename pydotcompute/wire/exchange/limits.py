"""The limits that hold on both sides of `Exchange`. To *tell* the other side is to acknowledge messages to it."""

__all__ = [
    "LARGEST_BATCH",
    "LARGEST_BATCH_BYTES",
    "TELL_AFTER",
    "TELL_BESIDE",
    "TELL_WITHIN",
    "WINDOW",
    "WINDOW_BYTES",
]

LARGEST_BATCH = 1_024
"""The most messages in one frame."""
LARGEST_BATCH_BYTES = 1 << 20
"""Bytes of bodies at which a frame is full and is sent."""
WINDOW = 4_096
"""The most messages that may be under way at once in one direction."""
WINDOW_BYTES = 16 << 20
"""The most bytes of messages that may be under way at once in one direction, not counting the last message."""
TELL_AFTER = 512
"""Acknowledge accepted or received messages at once when there are this many: the other side may be out of credit."""
TELL_BESIDE = 64
"""Acknowledge messages together with the next batch when there are this many. To do it for each costs too much."""
TELL_WITHIN = 0.2
"""Acknowledge messages after this many seconds, even if there are fewer."""
