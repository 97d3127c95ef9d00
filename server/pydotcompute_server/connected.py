"""The clients that use the daemon now, and what ends their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Any, Protocol
from weakref import WeakSet

import grpc

from pydotcompute.exceptions import SessionLostError
from pydotcompute_server.bounds.accounts import Account, Accounts
from pydotcompute_server.bounds.shares import Owner, SharedTable
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import current

__all__ = ["Calling", "Connected", "ConnectedClient", "Traffic", "kicked"]

Context = grpc.aio.ServicerContext[Any, Any]

LISTED_AFTER = 60.0
"""Seconds for which a client is listed after its last call."""
LONGEST_USER_AGENT = 200
"""The most characters of a client's user agent that are kept."""


class Traffic(Protocol):
    """A session or a stream, as the list of clients sees it."""

    is_session: bool
    """True for a session."""

    @property
    def under_way(self) -> tuple[int, int]:
        """How many messages of the client wait, and the bytes that are kept for it."""

    @property
    def traffic(self) -> tuple[int, int, int, int]:
        """The messages received from the client and their bytes, and the messages sent to it and theirs."""


class ConnectedClient:
    """One principal at one address."""

    def __init__(self, number: int, owner: Owner, user_agent: str = "") -> None:
        self.number = number
        """Counts up from 1 in the order in which the clients came."""
        self.owner = owner
        self.account: Account | None = None
        """The account of its principal; None if the principal has no limits."""
        self.user_agent = user_agent
        """The program and its version."""
        self.since = self.seen = time()
        """When its first call came, and when one last began or ended, in seconds since the epoch."""
        self.calls: dict[asyncio.Task[Any], None] = {}
        """The tasks of its calls that run now."""
        self.talks: WeakSet[Traffic] = WeakSet()
        """Its sessions and streams."""
        self.in_calls = 0
        """The bytes of the messages in its unary calls."""
        self.ended: dict[asyncio.Task[Any], str] = {}
        """Why an operator ends calls, by their tasks. The task of a call is taken out when it ends."""
        self.received_messages = self.received_bytes = self.sent_messages = self.sent_bytes = 0

    def received(self, messages: int, size: int) -> None:
        """Count messages from the client that came in none of its `talks`."""
        self.received_messages += messages
        self.received_bytes += size

    def sent(self, messages: int, size: int) -> None:
        """Count messages to the client that went in none of its `talks`."""
        self.sent_messages += messages
        self.sent_bytes += size

    @property
    def traffic(self) -> tuple[int, int, int, int]:
        """The messages received from the client and their bytes, and the messages sent to it and theirs."""
        own = (self.received_messages, self.received_bytes, self.sent_messages, self.sent_bytes)
        received, received_bytes, sent, sent_bytes = zip(own, *(each.traffic for each in self.talks), strict=True)
        return sum(received), sum(received_bytes), sum(sent), sum(sent_bytes)

    @property
    def under_way(self) -> tuple[int, int]:
        """How many messages of the client wait, and the bytes that are kept for its sessions and streams."""
        all_of_them = [talk.under_way for talk in self.talks]
        return sum(messages for messages, _ in all_of_them), sum(size for _, size in all_of_them)

    @property
    def sessions(self) -> list[Traffic]:
        """Its sessions. They change to another client when they are resumed on another connection."""
        return [talk for talk in self.talks if talk.is_session]

    def leave(self, talk: Traffic) -> None:
        """Take a session or stream away, because it has ended. What it has received and sent still counts."""
        if talk in self.talks:
            self.talks.discard(talk)
            received, received_bytes, sent, sent_bytes = talk.traffic
            self.received(received, received_bytes)
            self.sent(sent, sent_bytes)

    def calling(self) -> Calling:
        """Return a context manager that counts the call of the current task as one of the client.

        It raises SessionLostError if the call was ended by `kick`.
        """
        return Calling(self)

    def kick(self, reason: str) -> int:
        """End all calls of the client. Return how many there are."""
        for task in self.calls:
            self.ended[task] = reason
            task.cancel()
        return len(self.calls)


class Calling:
    """Counts the call of the current task as one of its client. It is used in a `with` statement.

    It is no generator, because every unary call has one.
    """

    __slots__ = ("_task", "client")

    def __init__(self, client: ConnectedClient) -> None:
        self.client = client
        """Whose call it is."""

    def __enter__(self) -> ConnectedClient:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self.client.calls[task] = None
        return self.client

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        client, task = self.client, self._task
        del client.calls[task]
        client.seen = time()
        reason = client.ended.pop(task, None) if client.ended else None
        if reason is not None and isinstance(error, asyncio.CancelledError):
            task.uncancel()
            raise kicked(reason) from None


def kicked(reason: str) -> SessionLostError:
    """Return the error for those who are ended by an operator."""
    return SessionLostError("", f"an operator has ended it{f': {reason}' if reason else ''}")


class Connected:
    """The clients that use the daemon, or did until lately.

    If there are more than connections allowed, those of the principal with most of them are not listed.

    Args:
        limits: the limits of the daemon.
        accounts: the accounts of the principals.
    """

    def __init__(self, limits: Limits, accounts: Accounts) -> None:
        self._accounts = accounts
        self._clients: SharedTable[Owner, ConnectedClient] = SharedTable(limits.max_connections)
        self._known: WeakSet[ConnectedClient] = WeakSet()
        self._count = 0

    def client(self, context: Context) -> ConnectedClient:
        """Return the client whose call this is. Call this in the task of the call."""
        principal = current()
        owner = Owner(principal.name, context.peer())
        client = self._clients.get(owner)
        if client is None:
            self._count += 1
            client = ConnectedClient(self._count, owner, _user_agent(context))
            self._clients.put(owner, client, owner)
            self._known.add(client)
            self._forget_old()
        if self._accounts.in_use or principal.limits:
            client.account = self._accounts.of(principal)
        return client

    def _forget_old(self) -> None:
        """Forget the oldest clients if they have gone, so that the table holds few that have."""
        while (oldest := self._clients.oldest()) is not None and not _is_listed(oldest[1]):
            self._clients.pop(oldest[0])

    def listed(self, after: int = 0, which: Callable[[Owner], bool] = lambda _: True) -> list[ConnectedClient]:
        """Return the clients whose number is larger, in the order in which they came."""
        found = [each for each in self._known if each.number > after and which(each.owner) and _is_listed(each)]
        return sorted(found, key=lambda client: client.number)


def _is_listed(client: ConnectedClient) -> bool:
    return bool(client.calls or len(client.talks)) or time() - client.seen < LISTED_AFTER


def _user_agent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "user-agent":
            return str(value)[:LONGEST_USER_AGENT]
    return ""
