"""Counts how many of something there are, and refuses those over a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from pydotcompute.exceptions import LimitExceededError

__all__ = ["Places"]


class Places:
    """The places for things of one kind. Whoever adds such a thing takes a place, and leaves it afterwards.

    Args:
        name: the name of the setting that limits all of them together.
        most: how many places there are.
        share: the name of the setting that limits those of one owner, and how many one owner may have; None if an owner
            may have all.
    """

    def __init__(self, name: str, most: int, share: tuple[str, int] | None = None) -> None:
        self._name, self._share = name, share
        self.most = most
        """How many places there are."""
        self.taken = 0
        """How many of them are taken."""
        self._owners: Counter[Hashable] = Counter()

    def full(self) -> LimitExceededError:
        """Return the error for one more when there is no place left."""
        return LimitExceededError(self._name, self.most, self.taken + 1)

    def take(self, owner: Hashable = None) -> None:
        """Take a place.

        Raises:
            LimitExceededError: there is none left, or this owner has as many as one may have.
        """
        if self.taken >= self.most:
            raise self.full()
        if self._share is not None:
            name, most = self._share
            if self._owners[owner] >= most:
                raise LimitExceededError(name, most, self._owners[owner] + 1)
            self._owners[owner] += 1
        self.taken += 1

    def leave(self, owner: Hashable = None) -> None:
        """Leave a place that was taken for this owner."""
        self.taken -= 1
        if self._share is not None:
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
