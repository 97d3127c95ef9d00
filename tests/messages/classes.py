"""Message classes of every kind, for several tests."""

from __future__ import annotations  # So every annotation below is a text, as in many users' files.

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from pydotcompute import RingKernelMessage, message


@message
class Plain:
    """A class that is no dataclass yet."""

    x: float
    y: float = 0.0
    label: str = ""


@message()
@dataclass
class Declared:
    """The header written out, as PyDotCompute's examples do."""

    a: float = 0.0
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


@message
class Inheriting(RingKernelMessage):
    """The header inherited."""

    x: float = 0.0


@message
@dataclass(frozen=True)
class Frozen:
    """Cannot be changed, not even from an int to a float after it was made."""

    x: float = 0.0
    values: tuple[float, ...] = ()


@message
@dataclass(slots=True)
class Slotted:
    """With slots of its own."""

    x: float = 0.0


@message
class Outer:
    """Names classes that are declared after it."""

    part: Part | None = None
    parts: list[Part] = field(default_factory=list)


@dataclass
class Part:
    """A plain dataclass inside a message."""

    weight: float = 0.0


@message
class Validated:
    """Has a `__post_init__` of its own."""

    low: float
    high: float
    calls: int = 0

    def __post_init__(self) -> None:
        self.calls += 1
        if self.low > self.high:
            raise ValueError(f"{self.low} > {self.high}")


@message
class Narrowed(Validated):
    """Inherits a message class, and its `__post_init__`."""

    step: float = 1


ALL: list[Any] = [Plain, Declared, Inheriting, Frozen, Slotted]


def make(cls: Any, **header: Any) -> Any:
    return cls(1, **header)
