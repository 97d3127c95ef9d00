"""The turns in which new sessions are opened."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic

__all__ = ["SESSIONS_PER_SECOND", "Openings"]

SESSIONS_PER_SECOND = 100
"""How many sessions a principal may open in a second if nothing else is said."""

MOST_IDLE = 1_024
"""How many principals are remembered that open no session now."""


class _Line:
    """The calls of one principal that wait to open a session."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.length = 0
        self.next = 0.0  # When the next one may be opened.


class Openings:
    """Gives each principal its turns to open sessions, one by one.

    A session costs the daemon far more than a message. So whoever opens very many waits, and not those who have one.

    Args:
        rate: how many new sessions one principal may open in a second; 0 for any number.
    """

    def __init__(self, rate: int) -> None:
        self._every = 1 / rate if rate else 0.0
        self._lines: dict[str, _Line] = {}
        self._closed = asyncio.Event()

    async def turn(self, principal: str) -> None:
        """Wait until a session may be opened for the principal of this name. A caller that is cancelled leaves."""
        if not self._every or self._closed.is_set():
            return
        line = self._lines.get(principal)
        if line is None:
            if len(self._lines) >= MOST_IDLE:
                self._forget_idle()
            line = self._lines[principal] = _Line()
        line.length += 1
        try:
            async with line.turn:
                if (left := line.next - monotonic()) > 0:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            await self._closed.wait()
                line.next = monotonic() + self._every
        finally:
            line.length -= 1

    def close(self) -> None:
        """Let nobody wait any more, because no sessions are opened."""
        self._closed.set()

    def _forget_idle(self) -> None:
        now = monotonic()
        self._lines = {name: line for name, line in self._lines.items() if line.length or line.next > now}
