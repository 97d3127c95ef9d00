"""How long a client waits before it tries again."""

from __future__ import annotations

import math
import random

__all__ = ["LONGEST_PAUSE", "pause"]

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 2.0
"""Seconds between two tries: at first, and at most. (gRPC decides how long to wait before it connects again.)"""


def pause(failures: int) -> float:
    """Return the seconds to wait, which are more after each of `failures`, the failures before the last one.

    They are not always the same, so that many clients do not come all at once.
    """
    return min(math.ldexp(SHORTEST_PAUSE, min(failures, 30)), LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311  # Nobody is to guess it, but nothing is lost if somebody does.
