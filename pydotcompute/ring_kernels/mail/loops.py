"""The rule that a runtime is used in one event loop only."""

from __future__ import annotations

import asyncio

from pydotcompute.exceptions import MisuseError

__all__ = ["require_loop"]


def require_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    """Raise MisuseError if the running event loop is not `loop`, the one of the runtime. None allows any."""
    if loop is None or asyncio.get_running_loop() is loop:
        return
    what_else = (
        "that loop is closed, so start a runtime in this one"
        if loop.is_closed()
        else "from here, use `asyncio.run_coroutine_threadsafe(…, loop)` with that loop, or a runtime of your own"
    )
    raise MisuseError(f"a runtime may be used only in the event loop in which it was started: {what_else}")
