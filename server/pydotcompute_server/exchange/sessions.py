"""The sessions of a daemon."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from pydotcompute.exceptions import SessionLostError
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.ring_kernels.places import Places
from pydotcompute_server.bounds.shares import SharedTable
from pydotcompute_server.epoch import Epoch
from pydotcompute_server.exchange.session import Session
from pydotcompute_server.limits import Limits

__all__ = ["Sessions"]


class Sessions:
    """The sessions of a daemon, by their tokens."""

    def __init__(self, limits: Limits, epoch: Epoch) -> None:
        self.epoch = epoch
        self._timeout = limits.session_timeout
        share = "max_sessions_per_connection", limits.max_sessions_per_connection
        self._places = Places("max_sessions", limits.max_sessions, share)
        self._sessions: dict[bytes, Session] = {}
        self._owners: dict[bytes, str] = {}
        self._expiries: dict[bytes, asyncio.TimerHandle] = {}
        self._kept: SharedTable[bytes, Session] = SharedTable(limits.sessions_kept)

        self.ended = Signal()
        """Notified when a session has ended."""

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages of all sessions that are not in a mailbox."""
        return sum(session.held_bytes for session in self._sessions.values())

    def add_waiting(self, to: Counter[str]) -> None:
        """Add the bytes of the messages of each kernel that clients have not acknowledged, by the kernel's id."""
        for session in self._sessions.values():
            to[session.kernel.kernel_id] += session.outbound.held_bytes

    def open(self, make: Callable[[], Session], owner: str) -> Session:
        """Add the session that `make` returns, and return it.

        Raises:
            LimitExceededError: there are too many sessions, together or of this owner.
        """
        self._places.take(owner)
        try:
            session = make()
        except BaseException:
            self._places.leave(owner)
            raise
        self._sessions[session.token] = session
        self._owners[session.token] = owner
        return session

    def find(self, token: bytes, kernel_id: str) -> Session:
        """Return the session of this token. SessionLostError if there is none, or if it has ended."""
        session = self._sessions.get(token)
        if session is None or session.kernel.kernel_id != kernel_id:
            raise SessionLostError("", f"the daemon has no such session: {self.epoch.why_unknown(token)}", kernel_id)
        return session

    def keep(self, session: Session) -> None:
        """Keep a session whose stream has ended, until the time-out."""
        loop = asyncio.get_running_loop()
        self._expiries[session.token] = loop.call_later(self._timeout, self.end, session)
        displaced = self._kept.put(session.token, session, self._owners[session.token])
        if displaced is not None:
            self.end(displaced)

    def attach(self, session: Session) -> None:
        """Stop the time-out of a session, because it has a stream again."""
        self._kept.pop(session.token)
        expiry = self._expiries.pop(session.token, None)
        if expiry is not None:
            expiry.cancel()

    def end(self, session: Session) -> None:
        """End a session, and forget it."""
        self.attach(session)
        if self._sessions.pop(session.token, None) is not None:
            self._places.leave(self._owners.pop(session.token))
            session.end()
            self.ended.notify_all()

    def end_delivered(self) -> None:
        """End the sessions without a stream whose clients have received everything that is for them."""
        for token in list(self._expiries):
            session = self._sessions[token]
            if session.outbound.all_is_acknowledged:
                self.end(session)

    def end_all(self) -> None:
        """End all sessions, because the daemon ends."""
        for session in list(self._sessions.values()):
            self.end(session)
