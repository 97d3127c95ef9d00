"""The states of a kernel."""

from __future__ import annotations

import enum

__all__ = ["ENDED", "OPEN", "KernelState"]


class KernelState(enum.Enum):
    """What a kernel is doing."""

    CREATED = "CREATED"
    """Made, with nothing set up."""
    LAUNCHED = "LAUNCHED"
    """Set up; not yet active."""
    ACTIVE = "ACTIVE"
    """Handles messages."""
    DEACTIVATED = "DEACTIVATED"
    """Paused: takes messages, handles none."""
    TERMINATING = "TERMINATING"
    """Finishes what is in its hands; takes no messages."""
    TERMINATED = "TERMINATED"
    """Ended as asked, or by itself."""
    FAILED = "FAILED"
    """Ended by an exception."""


OPEN = (KernelState.ACTIVE, KernelState.DEACTIVATED)
"""Those in which a kernel takes messages."""
ENDED = (KernelState.TERMINATED, KernelState.FAILED)
"""Those in which it will send nothing more."""
