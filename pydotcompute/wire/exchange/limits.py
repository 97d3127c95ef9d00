"""The figures that hold on both sides of `Exchange`."""

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
"""Messages in one frame."""
LARGEST_BATCH_BYTES = 1 << 20
"""Bytes of bodies after which a frame is sent."""
WINDOW = 4_096
"""Messages that may be under way at once in one direction."""
WINDOW_BYTES = 16 << 20
"""Bytes of messages that may be under way at once in one direction, but for the last message."""
TELL_AFTER = 512
"""Messages accepted or received that the other side must hear of at once, for it may be out of credit."""
TELL_BESIDE = 64
"""Messages of which the other side hears beside the next batch: to tell it of each would cost as much as a message."""
TELL_WITHIN = 0.2
"""Seconds after which the other side hears of fewer."""
