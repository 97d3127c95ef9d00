"""The sessions of a daemon."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from pydotcompute.exceptions import SessionLostError
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.ring_kernels.places import Places
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute_server.bounds.shares import Owner, SharedTable, shares_of
from pydotcompute_server.epoch import Epoch
from pydotcompute_server.exchange.session import Session
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import own_most

__all__ = ["Sessions"]


class Sessions:
    """The sessions of a daemon, by their tokens."""

    def __init__(self, limits: Limits, epoch: Epoch) -> None:
        self.epoch = epoch
        self._timeout = limits.session_timeout
        self._places = Places("max_sessions", limits.max_sessions, *shares_of("max_sessions", limits))
        self._sessions: dict[bytes, Session] = {}
        self._owners: dict[bytes, Owner] = {}
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

    def held_by(self, principal: str) -> int:
        """Return the bytes of `held_bytes` that are this principal's."""
        owners = self._owners
        own = (each for token, each in self._sessions.items() if owners[token].principal == principal)
        return sum(session.held_bytes for session in own)

    def open(self, make: Callable[[], Session], owner: Owner) -> Session:
        """Add the session that `make` returns, and return it.

        Raises:
            LimitExceededError: there are too many sessions, together or of this owner.
        """
        self._places.take(owner, own_most("max_sessions"))
        try:
            session = make()
        except BaseException:
            self._places.leave(owner)
            raise
        self._sessions[session.token] = session
        self._owners[session.token] = owner
        return session

    def find(self, token: bytes, kernel_id: str, principal: str) -> Session:
        """Return the session of this token, which this principal has opened.

        Raises:
            SessionLostError: there is none, or it has ended.
            ProtocolError: it is a session with another kernel. It goes on.
        """
        session = self._sessions.get(token)
        if session is None or self._owners[token].principal != principal:
            raise SessionLostError("", f"the daemon has no such session: {self.epoch.why_unknown(token)}", kernel_id)
        if session.kernel.kernel_id != kernel_id:
            named = f"names kernel {kernel_id!r}" if kernel_id else "names no kernel"
            raise ProtocolError(
                f"`open` {named}, and the session of its token is with kernel {session.kernel.kernel_id!r}; "
                f"name that one to go on with it"
            )
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

    def kick(self, which: Callable[[Owner], bool]) -> int:
        """End the sessions of these clients: at once, or with their streams, which someone else ends.

        Return how many there are.
        """
        found = [each for each in self._sessions.values() if which(each.client.owner)]
        for session in found:
            session.is_kicked = True
            if session.token in self._expiries:
                self.end(session)
        return len(found)

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
