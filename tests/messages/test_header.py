"""The header of a message, and what no mailbox could take."""

import dataclasses
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydotcompute.exceptions import MessageSerializationError, MessageTypeError
from tests.messages.classes import (
    ALL,
    Plain,
    make,
)


@pytest.mark.parametrize("cls", ALL)
def test_every_message_has_the_header_with_its_defaults(cls: Any) -> None:
    first, second = make(cls), make(cls)
    assert first.message_id.version == 4
    assert first.message_id != second.message_id
    assert (first.priority, first.correlation_id) == (128, None)


@pytest.mark.parametrize("cls", ALL)
def test_the_header_can_be_given_by_name(cls: Any) -> None:
    header = {"message_id": uuid4(), "priority": 7, "correlation_id": uuid4()}
    made = make(cls, **header)
    assert {name: getattr(made, name) for name in header} == header
    assert dataclasses.replace(made, priority=8).message_id == header["message_id"]


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("priority", [-1, 256, 2**40])
def test_a_priority_out_of_range_is_refused(cls: Any, priority: int) -> None:
    with pytest.raises(MessageSerializationError) as refused:
        make(cls, priority=priority)
    assert (refused.value.message_type, refused.value.path) == (cls.__name__, "$.priority")


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("priority", [0, 255])
def test_the_extremes_of_priority_are_taken(cls: Any, priority: int) -> None:
    assert make(cls, priority=priority).priority == priority


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("priority", [np.int64(7), np.uint8(7)])
def test_a_priority_may_be_an_integer_of_numpy(cls: Any, priority: Any) -> None:
    for _ in range(2):  # The first instance of a class has another constructor than the next.
        made = make(cls, priority=priority)
        assert (made.priority, type(made.priority)) == (7, int)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("message_id", None),
        ("message_id", "0b9c7f4e-5d5c-4b1a-9d5c-0f3a3f3c2b1a"),
        ("priority", "high"),
        ("priority", 1.0),
        ("priority", True),
        ("priority", np.True_),
        ("priority", np.array([1])),
        ("correlation_id", 7),
    ],
)
def test_a_header_of_the_wrong_type_is_refused(cls: Any, name: str, value: object) -> None:
    with pytest.raises(MessageTypeError) as refused:
        make(cls, **{name: value})
    assert (refused.value.actual, refused.value.path) == (type(value).__name__, f"$.{name}")


@given(st.integers(0, 255), st.floats(allow_nan=False) | st.integers(-(2**53), 2**53))
def test_whatever_fits_is_taken_as_it_is(priority: int, x: float) -> None:
    made = Plain(x, priority=priority)  # type: ignore[call-arg]
    assert (made.x, made.priority) == (float(x), priority)  # type: ignore[attr-defined]
