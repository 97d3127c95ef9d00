"""Ends a process with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["end_with"]

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Let this process be killed when its parent ends, whatever it does then.

    Args:
        parent: the number of the parent's process. If that has ended already, this process ends at once.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
