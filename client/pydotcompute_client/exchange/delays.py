"""Why requests of this program are not answered in time: what the daemon says, and if there is a way to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from pydotcompute.exceptions import TimeoutCause
from pydotcompute.ring_kernels.mail.callers import Caller
from pydotcompute.ring_kernels.mail.delays import UNKNOWN, Delay
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.limits import WINDOW

__all__ = ["Delays"]

KEPT_SECONDS = 1.0
"""How long an answer of the daemon is kept. A caller that has not given up by then was answered."""


class Delays:
    """Asks the daemon, in the session, why requests are not answered yet.

    The daemon is asked a little before the deadline of a request, and not at it. So the error is not late, and a
    request that is answered sooner costs nothing. What several callers want to know goes in one frame. If the answer is
    not there at the deadline, the error says just that.

    Args:
        stir: wakes the session's writer.
    """

    def __init__(self, stir: Callable[[], None]) -> None:
        self._stir = stir
        self._explains = False
        self._disconnected_since: float | None = None
        self._to_ask: dict[int | None, None] = {}  # By `message_id.int`; None is a `receive`.
        self._answers: dict[int | None, Delay] = {}

    def connected(self, *, explains: bool) -> None:
        """Note that the session has a stream. `explains` is True if the daemon answers inquiries."""
        self._explains = explains
        self._disconnected_since = None

    def disconnected(self) -> None:
        """Note that the stream is over."""
        self._disconnected_since = monotonic()
        self._to_ask.clear()

    # -- asking --------------------------------------------------------------------------------------------------------

    def ask(self, key: int | None) -> None:
        """Ask why there is no reply to the request of this `message_id.int`; None asks why nothing can be received."""
        if self._explains and self._disconnected_since is None:
            self._to_ask[key] = None
            self._stir()

    @property
    def wants_to_ask(self) -> bool:
        """True if there is something to ask the daemon."""
        return bool(self._to_ask)

    def fill(self, inquiry: pb.Inquiry) -> None:
        """Write into `inquiry` what there is to ask."""
        keys = list(self._to_ask)[:WINDOW]
        for key in keys:
            del self._to_ask[key]
        inquiry.message_ids = b"".join(key.to_bytes(16) for key in keys if key is not None)
        inquiry.receive = None in keys

    def take(self, explanation: pb.Explanation) -> None:
        """Keep the daemon's answer for a moment."""
        keys = []
        for delay in explanation.delays:
            key = int.from_bytes(delay.message_id) if delay.message_id else None
            self._answers[key] = Delay(delay.cause, delay.before, delay.seconds, delay.asking)
            keys.append(key)
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, keys)

    def _forget(self, keys: list[int | None]) -> None:
        for key in keys:
            self._answers.pop(key, None)

    # -- telling -------------------------------------------------------------------------------------------------------

    def of(self, key: int | None) -> Delay:
        """Return why there was no reply to the request of this `message_id.int`, as far as it is known."""
        if self._disconnected_since is not None:
            return Delay(TimeoutCause.DISCONNECTED, 0, monotonic() - self._disconnected_since)
        return self._answers.get(key, Delay(TimeoutCause.SILENT) if self._explains else UNKNOWN)

    def of_receive(self, _: Caller[Any] | None) -> Delay:
        """Return why a `receive` has found nothing, as far as it is known."""
        return self.of(None)
