"""Tables that several clients share. One client that fills such a table displaces its own entries, not another's."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import grpc

__all__ = ["SharedTable", "owner_of"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def owner_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return who has the things that a call adds: its connection, by the address of the other end.

    A client with several connections has several shares. All clients of a Unix socket, or behind one proxy, have one.
    """
    return context.peer()


class SharedTable(Generic[K, V]):
    """Entries, each of one owner. If there are too many, the oldest entry goes of the owner who has most of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[K, tuple[V, Hashable]] = {}
        self._shares: dict[Hashable, dict[K, None]] = {}

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

    def put(self, key: K, value: V, owner: Hashable) -> V | None:
        """Add an entry as the newest, or make it the newest. Return the value of the entry that went; None if none."""
        self.pop(key)
        self._entries[key] = value, owner
        self._shares.setdefault(owner, {})[key] = None
        if len(self._entries) <= self._most:
            return None
        largest = max(self._shares.values(), key=len)
        return self.pop(next(iter(largest)))

    def pop(self, key: K) -> V | None:
        """Remove an entry, and return its value; None if there is no such entry."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        value, owner = entry
        share = self._shares[owner]
        del share[key]
        if not share:
            del self._shares[owner]
        return value
