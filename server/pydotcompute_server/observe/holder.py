"""Finds what code an event loop is running, from another thread."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pydotcompute
from pydotcompute.ring_kernels.kernel import kernel_id_of

__all__ = ["Holder", "find_holder"]

_OURS = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep for file in (pydotcompute.__file__, os.path.dirname(__file__))
)
_SITES = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Holder:
    """The code that an event loop is running."""

    task: str
    """The name of the task; empty if the code is that of a callback."""
    kernel_id: str | None
    """The kernel whose code it is, if that is known."""
    place: str
    """File and line, as `rk.py:57`; empty if no Python code is running."""
    is_users: bool
    """True if the file is a user's, and not one of the daemon or of a library."""

    def __str__(self) -> str:
        if self.kernel_id is not None:
            return f"kernel {self.kernel_id!r}"
        return "code of a kernel" if self.is_users else "the daemon itself"


def find_holder(loop: asyncio.AbstractEventLoop, thread_id: int, sources: Iterable[str]) -> Holder:
    """Return what the event loop of another thread is running at this moment.

    Args:
        loop: the event loop.
        thread_id: the `ident` of its thread.
        sources: the files of the users' kernels. The place is the innermost call in such a file, or in a file of the
            same directory or below. If there is none, it is the innermost call of all.
    """
    task: asyncio.Task[Any] | None = asyncio.current_task(loop)
    frames = list(_frames(sys._current_frames().get(thread_id)))  # noqa: SLF001  # It is documented.
    roots = {_root(source) for source in sources}
    users = next((frame for frame in frames if _is_users(frame.f_code.co_filename, roots)), None)
    frame = users or next(iter(frames), None)
    return Holder(
        task="" if task is None else task.get_name(),
        kernel_id=None if task is None else kernel_id_of(task),
        place="" if frame is None else f"{_short(frame.f_code.co_filename)}:{frame.f_lineno}",
        is_users=users is not None,
    )


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the calls of a stack, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _root(source: str) -> str:
    directory = os.path.dirname(os.path.abspath(source))
    return source if os.path.basename(directory) in _SITES else directory + os.sep


def _is_users(file: str, roots: Iterable[str]) -> bool:
    # Below a user's directory there may be an environment, with the libraries that the kernels use.
    return not file.startswith(_OURS) and any(
        file.startswith(root) and not any(f"{site}{os.sep}" in file.removeprefix(root) for site in _SITES)
        for root in roots
    )


def _short(file: str) -> str:
    """Return the path of a file relative to the working directory, if it is there or below."""
    here = os.getcwd() + os.sep
    return file.removeprefix(here)
