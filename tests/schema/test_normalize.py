"""What normalizing makes of numbers, and what it leaves alone."""

from dataclasses import dataclass, make_dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pydotcompute.exceptions import MessageSerializationError, MessageTypeError
from pydotcompute.schema.check import door_check
from pydotcompute.schema.normalize import normalizer
from tests.schema.doors import Crate, Item, Level, Tree, one, passed, refusal


def test_an_int_in_a_float_field_becomes_a_float() -> None:
    message = one(float, 10)
    normalize = normalizer(type(message))
    assert normalize is not None
    normalize(message)
    assert repr(message.x) == "10.0"


@pytest.mark.parametrize(
    "value", [3, np.float32(3), np.float64(3), np.int8(3), np.array(3), Decimal(3), Fraction(3), Level.LOW + 2]
)
def test_any_real_number_becomes_a_float(value: Any) -> None:
    result = passed(float, value)
    assert type(result) is float
    assert result == 3.0


@pytest.mark.parametrize("value", [True, "3", np.True_, 3j, np.complex64(3), np.array([3.0]), None, b"3", "nan"])
def test_what_is_no_real_number_is_refused_in_a_float_field(value: Any) -> None:
    error = refusal(float, value, MessageTypeError)
    assert (error.expected, error.path) == ("float", "$.x")


@pytest.mark.parametrize("value", [10**400, -(10**400), Fraction(10**400)])
def test_a_number_beyond_all_floats_is_refused_with_the_range(value: Any) -> None:
    error = refusal(float, value, MessageSerializationError)
    assert error.path == "$.x"
    assert error.problem.endswith("is outside the range of float")
    assert len(error.problem) < 500


@pytest.mark.parametrize(("value", "result"), [(True, 1), (np.int64(5), 5), (np.array(5), 5), (Level.LOW, 1)])
def test_any_integer_becomes_an_int(value: Any, result: int) -> None:
    settled = passed(int, value)
    assert type(settled) is int
    assert settled == result


@pytest.mark.parametrize("value", [3.0, "3", np.float64(3), np.array([3]), np.True_, None])
def test_what_is_no_integer_is_refused_in_an_int_field(value: Any) -> None:
    assert refusal(int, value, MessageTypeError).expected == "int"


def test_numpys_bools_become_bools_and_ints_do_not() -> None:
    assert passed(bool, np.True_) is True
    assert refusal(bool, 1, MessageTypeError).actual == "int"


def test_numbers_inside_containers_are_normalized_too() -> None:
    assert repr(passed(list[float], [1, 2.0])) == "[1.0, 2.0]"
    assert repr(passed(tuple[float, ...], (1, 2.0))) == "(1.0, 2.0)"
    assert repr(passed(dict[str, float], {"a": 1})) == "{'a': 1.0}"
    assert repr(passed(dict[int, bool], {True: np.True_})) == "{1: True}"
    assert repr(passed(float | None, 1)) == "1.0"
    assert repr(passed(list[list[float | None]], [[1, None]])) == "[[1.0, None]]"
    assert repr(passed(Item, Item(1)).weight) == "1.0"
    assert repr(passed(list[Item], [Item(1)])[0].weight) == "1.0"
    assert repr(passed(Item | Crate, Item(1)).weight) == "1.0"


def test_a_container_is_replaced_only_if_something_changed() -> None:
    unchanged, changed = [1.0, 2.0], [1.0, 2]
    assert passed(list[float], unchanged) is unchanged
    assert passed(list[float], changed) is not changed
    assert changed == [1.0, 2]
    assert type(changed[1]) is int


def test_frozen_messages_are_normalized() -> None:
    frozen: Any = dataclass(frozen=True, slots=True)(type("Frozen", (), {"__annotations__": {"x": float}}))
    message = frozen(1)
    door_check(frozen)(message)
    assert type(message.x) is float


def test_normalizing_never_raises_and_leaves_the_wrong_alone() -> None:
    message = one(list[float], ["a", None, 1])
    normalize = normalizer(type(message))
    assert normalize is not None
    normalize(message)
    assert message.x == ["a", None, 1.0]
    message.x = None
    normalize(message)
    assert message.x is None


def test_a_class_without_numbers_needs_no_normalizing() -> None:
    assert normalizer(make_dataclass("M", [("s", str), ("items", list[str]), ("when", datetime)])) is None
    assert normalizer(make_dataclass("M", [("tree", Tree)])) is not None


def test_an_inherited_normalizer_serves_the_subclass() -> None:
    derived: Any = dataclass(type("Derived", (Item,), {}))
    message = derived(1)
    normalize = normalizer(Item)
    assert normalize is not None
    normalize(message)
    assert type(message.weight) is float
