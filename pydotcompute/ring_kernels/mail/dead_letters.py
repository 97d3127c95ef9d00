"""Dead letters: messages that could not be delivered, kept so that a person can see them and put them back."""

from __future__ import annotations

import enum
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import time
from typing import Any
from uuid import UUID

from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits

__all__ = ["DeadLetter", "DeadLetterDirection", "DeadLetterReason", "DeadLetters"]

VALUES_LOOKED_AT = 256
"""Of a message whose size is estimated, at most, so that it takes the same short time whatever is in it."""
ITEMS_LOOKED_AT = 16
"""Of each list, tuple or dict in it, spread over its length; the others are taken to be like these."""


class DeadLetterReason(enum.Enum):
    """Why a message could not be delivered."""

    DROPPED = "DROPPED"
    """A request that made room for a newer one, under `drop_oldest`."""
    EXPIRED = "EXPIRED"
    """A request whose deadline had passed before the kernel took it."""
    KERNEL_ENDED = "KERNEL_ENDED"
    """The kernel ended or failed before it had handled the request, or before there was room for its output."""
    CALLER_GONE = "CALLER_GONE"
    """A reply that nobody takes: its caller has given up, is gone, or does not receive."""
    UNDELIVERABLE = "UNDELIVERABLE"
    """A reply or output that cannot cross the wire."""


class DeadLetterDirection(enum.Enum):
    """Where a message was going when it could not be delivered."""

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
    """Counts up from 1, for each kernel."""
    message: Any
    reason: DeadLetterReason
    detail: str
    """The reason in words: the error that its caller got, if it got one."""
    time: float
    """When it became a dead letter, in seconds since the epoch."""
    direction: DeadLetterDirection


class DeadLetters:
    """The last dead letters of one kernel, oldest first."""

    __slots__ = ("_kept", "_last_id", "_most", "_most_bytes", "discarded", "size")

    def __init__(self, limits: RuntimeLimits = DEFAULT_LIMITS) -> None:
        self._most, self._most_bytes = limits.dead_letters, limits.dead_letter_bytes
        self._kept: deque[tuple[DeadLetter, int]] = deque()  # Each with its size.
        self._last_id = 0
        self.discarded = 0
        """How many are gone because there were too many, or too large ones, after them."""
        self.size = 0
        """How many bytes they take, as estimated."""

    def __repr__(self) -> str:
        return f"<DeadLetters: {len(self)} kept, {self.discarded} discarded>"

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter([letter for letter, _ in self._kept])

    def __getitem__(self, index: int) -> DeadLetter:
        return self._kept[index][0]

    def add(
        self, message: Any, detail: str, reason: DeadLetterReason, direction: DeadLetterDirection | None = None
    ) -> None:
        """Keep a message; without a direction it is the one that the reason tells."""
        if direction is None:
            direction = FROM_KERNEL if reason in _REASONS_FROM_KERNEL else TO_KERNEL
        self._last_id += 1
        size = estimated_size(message)
        self._kept.append((DeadLetter(self._last_id, message, reason, detail, time(), direction), size))
        self.size += size
        while len(self._kept) > self._most or (self.size > self._most_bytes and len(self._kept) > 1):
            self.size -= self._kept.popleft()[1]
            self.discarded += 1

    def requeue(self, ids: Iterable[int] | None, put: Callable[[DeadLetter], bool]) -> list[int]:
        """Hand those of these ids, or all, to `put`, oldest first, and forget those that it takes; returns their ids.

        Ids of none that is kept are passed over.
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


_SMALL = frozenset((int, float, bool, type(None), complex, UUID, datetime, timedelta))
_SMALL_SIZE = 64
"""Bytes of one of these, or of the object around a text, with what refers to it."""


def estimated_size(message: Any) -> int:
    """About how many bytes a message takes. It is cheap: of what is long or deep it looks at a part."""
    total = _SMALL_SIZE
    large: list[tuple[Any, float]] = []
    for name in message.__dataclass_fields__:
        value: Any = getattr(message, name, None)
        cls = value.__class__
        total += _SMALL_SIZE
        if cls is str or cls is bytes:
            total += len(value)
        elif cls not in _SMALL:
            large.append((value, 1.0))
    return total + _size_of(large) if large else total


def _size_of(waiting: list[tuple[Any, float]]) -> int:
    """The size of these values, each of which stands for so many."""
    total = 0.0
    looked_at = 0
    while waiting and looked_at < VALUES_LOOKED_AT:
        looked_at += 1
        value, count = waiting.pop()
        # An array that is a view of received bytes owns none of them, and yet keeps them.
        total += count * (getattr(value, "nbytes", 0) or sys.getsizeof(value, _SMALL_SIZE))
        parts, stand_for = _parts(value)
        for part in parts:
            if part.__class__ in _SMALL:
                total += count * stand_for * _SMALL_SIZE
            else:
                waiting.append((part, count * stand_for))
    return int(total)


def _parts(value: Any) -> tuple[Sequence[Any], float]:
    """What a value is made of, or some of it; and how many each of these stands for."""
    if (fields := getattr(value, "__dataclass_fields__", None)) is not None:
        return [getattr(value, name, None) for name in fields], 1.0
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    elif not isinstance(value, list | tuple):
        return (), 1.0
    if len(value) <= ITEMS_LOOKED_AT:
        return value, 1.0
    some = value[:: len(value) // ITEMS_LOOKED_AT][:ITEMS_LOOKED_AT]
    return some, len(value) / ITEMS_LOOKED_AT
