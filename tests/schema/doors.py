"""What the tests of checks and of normalizing share."""

import enum
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pytest

from pydotcompute.schema.check import checker, door_check


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Item:
    weight: float = 0.0


@dataclass
class Crate:
    load: int = 0


@dataclass
class Tree:
    children: "list[Tree]" = field(default_factory=list)
    size: float = 0.0


def one(annotation: Any, value: Any) -> Any:
    """An instance of a class that has this annotation alone."""
    return make_dataclass("One", [("x", annotation)])(value)


def passed(annotation: Any, value: Any) -> Any:
    """What of `value` is in the message after the door."""
    message = one(annotation, value)
    door_check(type(message))(message)
    return message.x


def refusal(annotation: Any, value: Any, error: type[Exception]) -> Any:
    """The error of the door; the mere check says the same."""
    message = one(annotation, value)
    with pytest.raises(error) as caught:
        door_check(type(message))(message)
    with pytest.raises(error) as again:
        checker(type(message))(message)
    assert again.value == caught.value
    return caught.value
