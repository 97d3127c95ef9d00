"""Tells an interrupt of the program from an exception of a message class."""

from __future__ import annotations

import threading

__all__ = ["pass_interrupt"]


def pass_interrupt(error: BaseException) -> None:
    """Raise `error` again if it is Ctrl-C. Call this where code of a message class may have raised anything.

    Such code may raise KeyboardInterrupt, SystemExit and the like too, as by calling `sys.exit` in `__post_init__`.
    That must cost the message, and not the program. Python raises Ctrl-C in the main thread only.
    """
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error
