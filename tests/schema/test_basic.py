"""What a `list`, a `dict` and `Any` without arguments may hold, and what becomes of it."""

import enum
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from pydotcompute.exceptions import MessageError, MessageSerializationError, MessageTypeError
from pydotcompute.schema.nodes import MAX_DEPTH
from tests.schema.doors import Item, passed, refusal


class Word(str):
    """A text of another class."""


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Any, None),
        (Any, True),
        (Any, 2**53),
        (Any, 1.5),
        (Any, "\U0001f600"),
        (Any, [1, [None, {"": {}}]]),
        (Any | None, None),
        (list, []),
        (list, [1, "a", None, [2.5]]),
        (dict, {}),
        (dict, {"a": 1, "b": [{"c": False}]}),
        (list[Any], [None, 1]),
        (dict[int, dict], {1: {"a": 1}}),  # type: ignore[type-arg]
    ],
)
def test_what_json_has_passes_as_the_same_object(annotation: Any, value: Any) -> None:
    assert passed(annotation, value) is value


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (2.0, 2),
        (-(2.0**53), -(2**53)),
        (-0.0, -0.0),
        (2.0**60, 2.0**60),
        (np.int64(5), 5),
        (np.float32(0.5), 0.5),
        (np.float64(3), 3),
        (np.True_, True),
        (np.array(4), 4),
        (np.str_("a"), "a"),
        (Word("a"), "a"),
        (OrderedDict(a=1.0), {"a": 1}),
        (defaultdict(list, {"a": [np.int8(1)]}), {"a": [1]}),
    ],
)
def test_numbers_and_subclasses_become_plain_at_any_depth(value: Any, result: Any) -> None:
    for annotation, wrapped, expected in ((Any, value, result), (list, ["x", {"k": value}], ["x", {"k": result}])):
        settled = passed(annotation, wrapped)
        assert (settled, repr(settled)) == (expected, repr(expected))


@pytest.mark.parametrize(
    ("annotation", "value", "error", "path"),
    [
        (list, {}, MessageTypeError, "$.x"),
        (list, (1,), MessageTypeError, "$.x"),
        (list, None, MessageTypeError, "$.x"),
        (dict, [], MessageTypeError, "$.x"),
        (Any, (1,), MessageTypeError, "$.x"),
        (Any, b"bytes", MessageTypeError, "$.x"),
        (Any, {1}, MessageTypeError, "$.x"),
        (Any, Item(), MessageTypeError, "$.x"),
        (Any, Level.LOW, MessageTypeError, "$.x"),
        (Any, datetime.now(UTC), MessageTypeError, "$.x"),
        (Any, np.zeros(3), MessageTypeError, "$.x"),
        (Any, 1j, MessageTypeError, "$.x"),
        (dict, {1: "a"}, MessageTypeError, "$.x[1]"),
        (dict, {"a": [0, {"b": 1j}]}, MessageTypeError, '$.x["a"][1]["b"]'),
        (Any, 2**53 + 1, MessageSerializationError, "$.x"),
        (Any, -(10**400), MessageSerializationError, "$.x"),
        (Any, float("nan"), MessageSerializationError, "$.x"),
        (list, [float("inf")], MessageSerializationError, "$.x[0]"),
        (Any, "\ud800", MessageSerializationError, "$.x"),
        (Any, {"\ud800": 1}, MessageSerializationError, '$.x["\\ud800"]'),
        (list[Any], [1, b""], MessageTypeError, "$.x[1]"),
        (dict[str, dict], {"a": {"b": b""}}, MessageTypeError, '$.x["a"]["b"]'),  # type: ignore[type-arg]
    ],
)
def test_anything_else_is_refused_with_its_path(
    annotation: Any, value: Any, error: type[MessageError], path: str
) -> None:
    assert refusal(annotation, value, error).path == path


@pytest.mark.parametrize("wrap", [lambda inner: [inner, inner], lambda inner: {"a": inner, "b": inner}])
def test_what_contains_itself_is_refused_at_once(wrap: Callable[[Any], Any]) -> None:
    value = wrap(None)
    for key in list(value) if isinstance(value, dict) else range(2):
        value[key] = value
    assert f"more than {MAX_DEPTH} deep" in refusal(Any, value, MessageSerializationError).problem
