"""Dead letters: messages that could not be delivered, kept so that a person can see them and put them back."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from time import time
from typing import Any

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.messages.raw import Raw, opened
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.sizes import estimated_size

__all__ = ["DeadLetter", "DeadLetterDirection", "DeadLetterReason", "DeadLetters"]


class DeadLetterReason(enum.Enum):
    """The reason why a message could not be delivered."""

    DROPPED = "DROPPED"
    """A request that made room for a newer one, under `drop_oldest`."""
    EXPIRED = "EXPIRED"
    """A request whose deadline had passed before the kernel took it."""
    KERNEL_ENDED = "KERNEL_ENDED"
    """The kernel ended or failed before it had handled the request, or before there was room for its output."""
    CALLER_GONE = "CALLER_GONE"
    """A reply that nobody takes: the caller has given up, is gone, or does not receive."""
    UNDELIVERABLE = "UNDELIVERABLE"
    """A reply or output that cannot cross the wire."""
    WORKER_LOST = "WORKER_LOST"
    """A request that the actor had taken when its worker process died. Nobody knows how far the actor had got."""


class DeadLetterDirection(enum.Enum):
    """The direction in which a message was going when it could not be delivered."""

    TO_KERNEL = "TO_KERNEL"
    """A request."""
    FROM_KERNEL = "FROM_KERNEL"
    """A reply or an output."""


TO_KERNEL, FROM_KERNEL = DeadLetterDirection  # Before Python 3.12, to name a member through its class costs a call.
_REASONS_FROM_KERNEL = (DeadLetterReason.CALLER_GONE, DeadLetterReason.UNDELIVERABLE)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be delivered."""

    id: int
    """A number that counts up from 1 for each kernel."""
    message: Any
    reason: DeadLetterReason
    detail: str
    """The reason in words. This is the text of the error that the caller got, if the caller got one."""
    time: float
    """The time at which the message became a dead letter, in seconds since the epoch."""
    direction: DeadLetterDirection

    def opened(self) -> DeadLetter:
        """Return this dead letter with a message of its own class, if it is `Raw` and can be decoded."""
        if not isinstance(self.message, Raw):
            return self
        with suppress(PyDotComputeError):
            return replace(self, message=opened(self.message))
        return self


class DeadLetters:
    """The last dead letters of one kernel, oldest first."""

    __slots__ = ("_kept", "_last_id", "_most", "_most_bytes", "discarded", "size")

    def __init__(self, limits: RuntimeLimits = DEFAULT_LIMITS) -> None:
        self._most, self._most_bytes = limits.dead_letters, limits.dead_letter_bytes
        self._kept: deque[tuple[DeadLetter, int]] = deque()  # Each letter with its size in bytes.
        self._last_id = 0
        self.discarded = 0
        """The number of dead letters that were thrown away to make room for newer ones."""
        self.size = 0
        """The bytes that the kept dead letters take together, as estimated."""

    def __repr__(self) -> str:
        return f"<DeadLetters: {len(self)} kept, {self.discarded} discarded>"

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter([letter.opened() for letter, _ in self._kept])

    def __getitem__(self, index: int) -> DeadLetter:
        return self._kept[index][0].opened()

    def kept(self) -> Iterator[DeadLetter]:
        """Iterate over the dead letters as they are kept, which is quicker: their messages may be `Raw`."""
        return iter([letter for letter, _ in self._kept])

    def add(
        self, message: Any, detail: str, reason: DeadLetterReason, direction: DeadLetterDirection | None = None
    ) -> None:
        """Keep a message as a dead letter.

        Args:
            message: the message.
            detail: the reason in words.
            reason: the reason.
            direction: the direction; None means the usual direction for this reason.
        """
        if direction is None:
            direction = FROM_KERNEL if reason in _REASONS_FROM_KERNEL else TO_KERNEL
        self._last_id += 1
        size = estimated_size(message)
        self._kept.append((DeadLetter(self._last_id, message, reason, detail, time(), direction), size))
        self.size += size
        while len(self._kept) > self._most or (self.size > self._most_bytes and len(self._kept) > 1):
            self.discard_oldest()

    def discard_oldest(self) -> int:
        """Throw the oldest dead letter away, and return its size in bytes, as estimated. There must be one."""
        size = self._kept.popleft()[1]
        self.size -= size
        self.discarded += 1
        return size

    def requeue(self, ids: Iterable[int] | None, put: Callable[[DeadLetter], bool]) -> list[int]:
        """Hand dead letters to `put`, oldest first, and forget each one for which `put` returns True.

        Args:
            ids: the ids of the dead letters; None means all. Unknown ids are ignored.
            put: takes a dead letter, and returns True if the letter found a place.

        Returns:
            The ids of the dead letters that `put` has taken.
        """
        wanted = None if ids is None else frozenset(ids)
        left: deque[tuple[DeadLetter, int]] = deque()
        requeued: list[int] = []
        for letter, size in self._kept:
            if (wanted is None or letter.id in wanted) and put(letter):
                requeued.append(letter.id)
                self.size -= size
            else:
                left.append((letter, size))
        self._kept = left
        return requeued
