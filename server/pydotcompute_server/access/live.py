"""The calls that are under way: they end when the one who calls may not go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import time

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute_server.access.identity import Identified
from pydotcompute_server.calls.pipeline import Call

__all__ = ["LiveCall", "LiveCalls"]


class LiveCall:
    """A call that is under way, in the task that makes this.

    Args:
        identified: who the call is from, as it was found at its begin.
    """

    __slots__ = ("_task", "call", "identified", "refusal")

    def __init__(self, call: Call, identified: Identified) -> None:
        self.call = call
        self.identified = identified
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
        check: raises the error with which a call ends now. It is given the call, and who it was from at its begin.
    """

    def __init__(self, check: Callable[[Call, Identified], Awaitable[object]]) -> None:
        self._check = check
        self._live: set[LiveCall] = set()

    def begin(self, call: Call, identified: Identified) -> LiveCall:
        """Return a call that is under way until `over` is called."""
        live = LiveCall(call, identified)
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
            until = live.identified.until
            if changed or (until is not None and until <= now):
                try:
                    await self._check(live.call, live.identified)
                except PyDotComputeError as error:
                    live.end(error)
