"""Gives free memory back to the operating system."""

from __future__ import annotations

import ctypes

__all__ = ["trim"]


def trim() -> None:
    """Give the memory back that the C library keeps for later. This does nothing without the GNU C library.

    It may take some milliseconds, in which the interpreter goes on.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
