"""Counts how many of something there are, and refuses those over a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from pydotcompute.exceptions import LimitExceededError

__all__ = ["COME_AGAIN", "Places", "Share"]

COME_AGAIN = 1.0
"""The seconds after which it makes sense to ask again for a place: by then another may have been left."""


class Share(NamedTuple):
    """How many places one owner may have."""

    name: str
    """The name of the setting."""
    most: int
    """How many."""


class Places:
    """The places for things of one kind. Whoever adds such a thing takes a place, and leaves it afterwards.

    Whoever adds a thing may be of several kinds, such as a principal and a connection. Each kind may have a share.

    Args:
        name: the name of the setting that limits all of them together.
        most: how many places there are.
        shares: the share of each kind of owner, in the order in which `take` and `leave` name the owners. Without any,
            an owner may have all places.
    """

    def __init__(self, name: str, most: int, *shares: Share) -> None:
        self._name, self._shares = name, shares
        self.most = most
        """How many places there are."""
        self.taken = 0
        """How many of them are taken."""
        self._owners: list[Counter[Hashable]] = [Counter() for _ in shares]

    def full(self) -> LimitExceededError:
        """Return the error for one more when there is no place left."""
        return LimitExceededError(self._name, self.most, self.taken + 1, COME_AGAIN)

    def take(self, owners: Sequence[Hashable] = (), most: int = 0) -> None:
        """Take a place.

        Args:
            owners: who takes it, one for each of the shares.
            most: how many places the first of these owners may have, instead of the first share; 0 for that share.

        Raises:
            LimitExceededError: there is none left, or one of these owners has as many as one may have.
        """
        if self.taken >= self.most:
            raise self.full()
        for share, counts, owner in zip(self._shares, self._owners, owners, strict=True):
            allowed, most = most or share.most, 0
            if counts[owner] >= allowed:
                raise LimitExceededError(share.name, allowed, counts[owner] + 1, COME_AGAIN)
        for counts, owner in zip(self._owners, owners, strict=True):
            counts[owner] += 1
        self.taken += 1

    def leave(self, owners: Sequence[Hashable] = ()) -> None:
        """Leave a place that was taken for these owners."""
        self.taken -= 1
        for counts, owner in zip(self._owners, owners, strict=True):
            counts[owner] -= 1
            if not counts[owner]:
                del counts[owner]
