"""Tables that several clients share. Whoever fills such a table displaces its own entries, not another's.

There are two levels. Each principal has a share of every table, and inside the share each of its connections has one.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import grpc

from pydotcompute.ring_kernels.places import Share
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import current

__all__ = ["Owner", "SharedTable", "owner_of", "shares_of"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Owner(NamedTuple):
    """Who has the things that a call adds."""

    principal: str
    """The name of the principal that the call is from."""
    connection: str
    """The address of the other end. All clients of a Unix socket, or behind one proxy, have the same."""


def owner_of(context: grpc.aio.ServicerContext[Any, Any]) -> Owner:
    """Return who has the things that a call adds. Call this in the task of the call."""
    return Owner(current().name, context.peer())


def shares_of(name: str, limits: Limits) -> tuple[Share, Share]:
    """Return the shares of an `Owner` in the places that the setting `name` limits: of the principal and connection."""
    return (
        Share(f"{name}_per_principal", limits.per_principal(name)),
        Share(f"{name}_per_connection", getattr(limits, f"{name}_per_connection")),
    )


class _Connection(dict[K, None]):
    """The keys of the entries of one connection, the oldest first."""

    @property
    def size(self) -> int:
        return len(self)


class _Principal(Generic[K]):
    """The keys of the entries of one principal."""

    def __init__(self) -> None:
        self.size = 0
        self.connections: dict[str, _Connection[K]] = {}


class _Share(Protocol):
    @property
    def size(self) -> int:
        """How many entries there are."""


S = TypeVar("S", bound=_Share)


def _largest(shares: dict[str, S], newcomer: str) -> S:
    """Return the share that loses an entry. Of several that are as large, that is the newcomer's own."""
    largest = max(shares.values(), key=lambda share: share.size)
    own = shares.get(newcomer)
    return own if own is not None and own.size == largest.size > 1 else largest


class SharedTable(Generic[K, V]):
    """Entries, each of one owner.

    If there are too many, the principal that has most of them loses one: the oldest of that one of its connections
    which has most of them. So whoever has no more than its fair share loses nothing to others.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[K, tuple[V, Owner]] = {}
        self._principals: dict[str, _Principal[K]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        """Return the value of an entry; None if there is no such entry."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def oldest(self) -> tuple[K, V] | None:
        """Return the oldest entry; None if the table is empty."""
        for key, (value, _) in self._entries.items():
            return key, value
        return None

    def put(self, key: K, value: V, owner: Owner) -> V | None:
        """Add an entry as the newest, or make it the newest. Return the value of the entry that went; None if none."""
        self.pop(key)
        self._entries[key] = value, owner
        principal = self._principals.get(owner.principal)
        if principal is None:
            principal = self._principals[owner.principal] = _Principal()
        principal.size += 1
        principal.connections.setdefault(owner.connection, _Connection())[key] = None
        if len(self._entries) <= self._most:
            return None
        over = _largest(self._principals, owner.principal)
        return self.pop(next(iter(_largest(over.connections, owner.connection))))

    def pop(self, key: K) -> V | None:
        """Remove an entry, and return its value; None if there is no such entry."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        value, owner = entry
        principal = self._principals[owner.principal]
        connection = principal.connections[owner.connection]
        del connection[key]
        principal.size -= 1
        if not connection:
            del principal.connections[owner.connection]
            if not principal.size:
                del self._principals[owner.principal]
        return value
