"""The sessions of a daemon."""

from __future__ import annotations

import asyncio

from pydotcompute.exceptions import SessionLostError
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute_server.exchange.session import Session
from pydotcompute_server.limits import Limits

__all__ = ["Sessions"]


class Sessions:
    """The sessions of a daemon, by their tokens."""

    def __init__(self, limits: Limits) -> None:
        self._timeout, self._kept = limits.session_timeout, limits.sessions_kept
        self._sessions: dict[bytes, Session] = {}
        self._expiries: dict[bytes, asyncio.TimerHandle] = {}

        self.ended = Signal()
        """Notified when a session has ended."""

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages of all sessions that are not in a mailbox."""
        return sum(session.held_bytes for session in self._sessions.values())

    def add(self, session: Session) -> None:
        """Add a new session."""
        self._sessions[session.token] = session

    def find(self, token: bytes, kernel_id: str) -> Session:
        """Return the session of this token. SessionLostError if there is none, or if it has ended."""
        session = self._sessions.get(token)
        if session is None or session.kernel.kernel_id != kernel_id:
            problem = "the daemon has no such session: it has restarted, or the session was too long without a stream"
            raise SessionLostError("", problem, kernel_id)
        return session

    def keep(self, session: Session) -> None:
        """Keep a session whose stream has ended, until the time-out."""
        loop = asyncio.get_running_loop()
        self._expiries[session.token] = loop.call_later(self._timeout, self.end, session)
        if len(self._expiries) > self._kept:
            self.end(self._sessions[next(iter(self._expiries))])

    def attach(self, session: Session) -> None:
        """Stop the time-out of a session, because it has a stream again."""
        expiry = self._expiries.pop(session.token, None)
        if expiry is not None:
            expiry.cancel()

    def end(self, session: Session) -> None:
        """End a session, and forget it."""
        self.attach(session)
        if self._sessions.pop(session.token, None) is not None:
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
