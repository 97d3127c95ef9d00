"""The calls that are under way: they end when the one who calls may not go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import time

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute_server.calls.pipeline import Call

__all__ = ["LiveCall", "LiveCalls"]


class LiveCall:
    """A call that is under way, in the task that makes this.

    Args:
        until: when its token expires, as `time.time()` counts; None for never.
    """

    __slots__ = ("_task", "call", "refusal", "until")

    def __init__(self, call: Call, until: float | None) -> None:
        self.call = call
        self.until = until
        self.refusal: PyDotComputeError | None = None
        """Why the call may not go on. None while it may."""
        self._task = asyncio.current_task()

    def end(self, refusal: PyDotComputeError) -> None:
        """Cancel the call's task."""
        if self.refusal is None and self._task is not None:
            self.refusal = refusal
            self._task.cancel()


class LiveCalls:
    """Ends calls that go on for longer than they may: streams, and calls that wait for a message.

    Args:
        check: raises the error with which a call is refused now.
    """

    def __init__(self, check: Callable[[Call], Awaitable[object]]) -> None:
        self._check = check
        self._live: set[LiveCall] = set()

    def begin(self, call: Call, until: float | None) -> LiveCall:
        """Return a call that is under way until `over` is called."""
        live = LiveCall(call, until)
        self._live.add(live)
        return live

    def over(self, live: LiveCall) -> None:
        """Forget a call."""
        self._live.discard(live)

    async def review(self, *, changed: bool) -> None:
        """End the calls that may not go on.

        Args:
            changed: True if any call may be one of them; False if only those may whose tokens have expired.
        """
        now = time()
        for live in list(self._live):
            if changed or (live.until is not None and live.until <= now):
                try:
                    await self._check(live.call)
                except PyDotComputeError as error:
                    live.end(error)
