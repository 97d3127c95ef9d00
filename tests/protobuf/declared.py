"""Classes of every kind, for the tests of their protobuf types."""

import enum
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np

from pydotcompute.schema.introspect import FieldNumber


@dataclass
class CalculationRequest:
    """Two numbers, and what to do with them."""

    __proto_package__ = "calculator.v1"

    a: float = 0.0
    b: float = 0.0
    operation: Literal["add", "sub", "mul", "div"] = "add"
    message_id: UUID = field(default_factory=uuid.uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


@dataclass
class CalculationResponse:
    """What came of it."""

    __proto_package__ = "calculator.v1"

    result: float = field(default=0.0, metadata={"doc": "Only if it was a success."})
    success: bool = True
    error: str | None = None
    message_id: UUID = field(default_factory=uuid.uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


class Color(enum.Enum):
    """Belongs to the package of its module."""

    RED = "r"
    DARK_RED = "dr"


@dataclass
class Circle:
    radius: float


@dataclass
class Square:
    side: float


@dataclass
class Even:
    """Contains Odd, which contains Even."""

    odd: "Odd | None" = None


@dataclass
class Odd:
    even: "Even | None" = None


@dataclass
class Everything:
    """One field of each kind.

    A second paragraph, with "quotes" and */ signs.
    """

    real: float
    whole: int
    flag: bool
    text: str
    data: bytes
    unique: UUID
    color: Color
    word: Literal["a", "b"]
    moment: datetime
    duration: timedelta
    array: np.ndarray[Any, Any]
    maybe: float | None
    maybe_list: list[int] | None
    maybe_map: dict[str, Circle] | None
    items: list[Circle]
    grid: list[list[float | None]]
    pair: tuple[float, float]
    scores: dict[str, float]
    shapes: dict[int, list[Circle | Square]]
    shape: Circle | Square
    maybe_shape: Circle | Square | None
    colors: list[Color]
    even: Even
    pinned: Annotated[int, FieldNumber(100)] = 5
