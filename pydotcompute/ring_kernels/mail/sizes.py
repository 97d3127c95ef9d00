"""Estimates of the bytes that messages take in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from pydotcompute.interrupts import pass_interrupt

__all__ = ["MESSAGES_LOOKED_AT", "estimated_size", "estimated_sum"]

VALUES_LOOKED_AT = 256
"""The most values of a message that the estimate of its size looks at, so that every estimate is quick."""
ITEMS_LOOKED_AT = 16
"""The most items of a list, tuple or dict that the estimate looks at. The others count as if they were like these."""

MESSAGES_LOOKED_AT = 32
"""The most messages of a queue that the estimate of their sum looks at."""

_SMALL = frozenset((int, float, bool, type(None), complex, UUID, datetime, timedelta))
_SMALL_SIZE = 64
"""Bytes of a value of one of these types, or of the object around a text, with the reference to it."""


def estimated_size(message: Any) -> int:
    """Return an estimate of the bytes that a message takes. It looks at only a part of long or deep values.

    A message whose own code raises when it is looked at takes little.
    """
    try:
        return _estimated_size(message)
    except BaseException as error:
        pass_interrupt(error)
        return _SMALL_SIZE


def _estimated_size(message: Any) -> int:
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
    """Return the estimated bytes of these values. The number beside each value is how many values it stands for."""
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
    """Return the parts of a value, or some of them, and the number of parts that each of these stands for."""
    if (fields := getattr(value, "__dataclass_fields__", None)) is not None:
        return [getattr(value, name, None) for name in fields], 1.0
    if isinstance(value, dict):
        some_items = [*islice(value.items(), ITEMS_LOOKED_AT // 2)]  # The first ones: to spread them takes too long.
        return [part for item in some_items for part in item], len(value) / max(1, len(some_items))
    if not isinstance(value, list | tuple):
        return (), 1.0
    if len(value) <= ITEMS_LOOKED_AT:
        return value, 1.0
    some = value[:: len(value) // ITEMS_LOOKED_AT][:ITEMS_LOOKED_AT]
    return some, len(value) / ITEMS_LOOKED_AT


def estimated_sum(messages: Iterable[Any], count: int, size_of: Callable[[Any], int] = estimated_size) -> int:
    """Return an estimate of the bytes that `count` messages take together.

    It looks at every message of a short queue. Of a long one it looks at some, evenly spread; the others count as if
    they were like these. So it may be wrong where a few messages are much larger than the others.
    """
    if not count:
        return 0
    step = -(-count // MESSAGES_LOOKED_AT)
    sizes = [size_of(message) for message in islice(messages, 0, None, step)]
    return sum(sizes) * count // len(sizes)
