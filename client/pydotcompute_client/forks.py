"""Refuses the use of gRPC in a process that was forked from one that uses it.

gRPC has threads and locks, which do not survive a fork: calls in the child hang, and what the child closes breaks the
connection of its parent.
"""

from __future__ import annotations

import ctypes
import os
from typing import Protocol
from weakref import WeakSet

from pydotcompute.exceptions import MisuseError

__all__ = ["require_no_fork", "survives_no_fork"]

_in_use: WeakSet[Inherited] = WeakSet()
_has_connected = _is_child = False


class Inherited(Protocol):
    """Something that a child process has from its parent, and must not touch."""

    def let_go(self) -> object:
        """Forget all connections without closing them, and return them with their event loop."""


def survives_no_fork(inherited: Inherited) -> None:
    """Have each process that is forked from now on let go of this, and refuse to connect."""
    global _has_connected
    _has_connected = True
    _in_use.add(inherited)


def require_no_fork() -> None:
    """Raise MisuseError if this process was forked from one that had connected."""
    if _is_child:
        raise MisuseError(
            "this process was forked from one that had called `connect`, and gRPC does not survive a fork: start "
            "processes by `multiprocessing.get_context('spawn')` or 'forkserver', or fork before the first `connect`"
        )


def _after_fork() -> None:
    global _is_child
    _is_child = _has_connected
    for each in list(_in_use):
        # Nothing may ever free the connections in this process, not even its end, for that would close the parent's.
        # The same holds for the event loop, with which the process shares an epoll.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each.let_go()))


os.register_at_fork(after_in_child=_after_fork)
