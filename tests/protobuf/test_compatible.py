"""Whether messages of a class can travel as the other side's type."""

import enum
from dataclasses import make_dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.compatible import compatible
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.introspect import introspect
from tests.protobuf.declared import (
    CalculationRequest,
    Circle,
    Color,
    Even,
    Odd,
    Square,
)


def mismatch(ours: list[tuple[str, Any]], theirs: list[tuple[str, Any]]) -> MessageTypeError:
    descriptor = TypePool().add(make_dataclass("Theirs", theirs))
    with pytest.raises(MessageTypeError) as caught:
        compatible(introspect(make_dataclass("Ours", ours)), descriptor)
    with pytest.raises(MessageTypeError):
        Codec(make_dataclass("Ours", ours), TypePool(), descriptor)
    return caught.value


def test_the_same_structure_under_other_names_fits() -> None:
    theirs = TypePool().add(CalculationRequest)
    ours = make_dataclass("Mine", [("a", float), ("b", float), ("operation", str)])
    codec: Codec[Any] = Codec(ours, TypePool(), theirs)
    assert codec.descriptor.full_name == "calculator.v1.CalculationRequest"
    message = ours(1.0, 2.0, "")
    assert codec.decode(codec.encode(message), message_id=None, priority=0, correlation_id=None) == message  # type: ignore[arg-type]


def test_an_enum_of_another_name_fits() -> None:
    compatible(introspect(make_dataclass("A", [("x", OtherName)])), TypePool().add(make_dataclass("B", [("x", Color)])))


def test_recursive_types_are_compared_once_around() -> None:
    mine = make_dataclass("Mine", [("odd", Odd | None)])
    compatible(introspect(mine), TypePool().add(Even))
    wrong = make_dataclass("Wrong", [("odd", Even | None)])
    with pytest.raises(MessageTypeError) as caught:
        compatible(introspect(wrong), TypePool().add(Even))
    assert caught.value.path == "$.odd.odd"


class OtherMembers(enum.Enum):
    RED = 1
    BLUE = 2


class OtherNumbers(enum.Enum):
    RED = 5
    DARK_RED = 6


class OtherName(enum.Enum):
    RED = 1
    DARK_RED = 2


@pytest.mark.parametrize(
    ("ours", "theirs", "path", "expected", "actual"),
    [
        ([("x", int)], [("x", float)], "$.x", "double", "int64"),
        ([("x", int)], [("x", list[int])], "$.x", "repeated int64", "int64"),
        ([("x", int)], [("x", str | None)], "$.x", "optional string", "int64"),
        ([("x", int | None)], [("x", int)], "$.x", "int64", "optional int64"),
        ([], [("x", int)], "$.x", "int64", "no such field"),
        ([("x", int)], [], "$.x", "no such field", "int64"),
        ([("y", int)], [("x", int)], "$.y", "no such field", "int64"),
        (
            [("y", int), ("x", int)],
            [("x", int), ("y", int)],
            "$.y",
            "field number 2",
            "field number 1",
        ),
        ([("x", Circle)], [("x", Square)], "$.x.radius", "no such field", "double"),
        ([("x", list[Circle])], [("x", list[Square])], "$.x[].radius", "no such field", "double"),
        ([("x", dict[str, Circle])], [("x", dict[str, Square])], "$.x[].radius", "no such field", "double"),
        ([("x", dict[str, int])], [("x", dict[int, int])], "$.x[]", "int64", "string"),
        ([("x", list[list[int]])], [("x", list[list[str]])], "$.x[]", "repeated string", "repeated int64"),
        ([("x", list[int | None])], [("x", list[int])], "$.x", "repeated int64", None),
        ([("x", datetime)], [("x", timedelta)], "$.x", "google.protobuf.Duration", "google.protobuf.Timestamp"),
        ([("x", Circle | Square)], [("x", Circle | Even)], "$.x.square", "no such field", None),
        ([("x", OtherMembers)], [("x", Color)], "$.x", "an enum of RED = 1, DARK_RED = 2", "one of RED = 1, BLUE = 2"),
        (
            [("x", OtherNumbers)],
            [("x", Color)],
            "$.x",
            "an enum of RED = 1, DARK_RED = 2",
            "one of RED = 5, DARK_RED = 6",
        ),
    ],
)
def test_a_mismatch_names_the_field_and_both_sides(
    ours: Any, theirs: Any, path: str, expected: str, actual: str | None
) -> None:
    error = mismatch(ours, theirs)
    assert (error.path, error.expected) == (path, expected)
    if actual is not None:
        assert error.actual == actual


def test_a_default_on_one_side_alone_does_no_harm() -> None:
    """The other side may leave the field out only where we have a value to put there."""
    with_default, without = make_dataclass("A", [("x", str, "add")]), make_dataclass("B", [("x", str)])
    header: Any = {"message_id": None, "priority": 0, "correlation_id": None}
    for ours, theirs in [(with_default, without), (without, with_default)]:
        near: Codec[Any] = Codec(ours, TypePool(), TypePool().add(theirs))
        far: Codec[Any] = Codec(theirs, TypePool())
        for text in ("", "sub"):
            assert far.decode(near.encode(ours(text)), **header).x == text
            assert near.decode(far.encode(theirs(text)), **header).x == text
