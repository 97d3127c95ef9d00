"""What passes the door of a mailbox, and what the errors say about what does not."""

import enum
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from pydotcompute.exceptions import MessageSerializationError, MessageTypeError
from pydotcompute.schema.check import checker, door_check
from pydotcompute.schema.nodes import MAX_DEPTH
from pydotcompute.schema.normalize import normalizer
from tests.schema.doors import Crate, Item, Level, Tree, passed, refusal


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (str, 1, "$.x"),
        (bytes, "text", "$.x"),
        (bytes, bytearray(b""), "$.x"),
        (UUID, "5", "$.x"),
        (Color, 1, "$.x"),
        (Literal["a"], 1, "$.x"),
        (datetime, 1.0, "$.x"),
        (timedelta, 1.0, "$.x"),
        (np.ndarray, [1.0], "$.x"),
        (np.ndarray, np.array(["a"]), "$.x"),
        (np.ndarray, np.array([None]), "$.x"),
        (np.ndarray, np.array(["2000"], dtype="M8[s]"), "$.x"),
        (np.ndarray, np.ma.masked_array([1.0], mask=[True]), "$.x"),
        (list[int], (1,), "$.x"),
        (list[int], None, "$.x"),
        (list[int], [1, "a"], "$.x[1]"),
        (tuple[int, ...], [1], "$.x"),
        (tuple[int, int], (1, 2, 3), "$.x"),
        (dict[str, int], [], "$.x"),
        (dict[str, int], {"a": "b"}, '$.x["a"]'),
        (dict[str, int], {1: 1}, "$.x[1]"),
        (dict[int, list[Item]], {5: [Item(), Item("w")]}, "$.x[5][1].weight"),  # type: ignore[arg-type]
        (Item, Crate(), "$.x"),
        (Item, None, "$.x"),
        (Item, Item(None), "$.x.weight"),  # type: ignore[arg-type]
        (Item | Crate, Tree(), "$.x"),
        (Item | Crate, Crate("l"), "$.x.load"),  # type: ignore[arg-type]
        (list[Item], [Item(), Item(), Item(), Item("w")], "$.x[3].weight"),  # type: ignore[arg-type]
        (Tree, Tree([Tree([Tree(size="big")])]), "$.x.children[0].children[0].size"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_type_is_refused_with_its_path(annotation: Any, value: Any, path: str) -> None:
    assert refusal(annotation, value, MessageTypeError).path == path


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (int, 2**63, "$.x"),
        (int, -(2**63) - 1, "$.x"),
        (int, 10**100, "$.x"),
        (list[int], [0, 2**63], "$.x[1]"),
        (dict[int, int], {2**63: 0}, f"$.x[{2**63}]"),
        (str, "a\ud800", "$.x"),
        (Literal["a"], "\ud800", "$.x"),
        (dict[str, str], {"k": "\udfff"}, '$.x["k"]'),
        (dict[str, int], {"\ud800": 1}, '$.x["\\ud800"]'),
        (timedelta, timedelta.max, "$.x"),
        (timedelta, timedelta(days=3_652_500, microseconds=1), "$.x"),
        (timedelta, timedelta(days=-3_652_500, microseconds=-1), "$.x"),
        (timedelta, timedelta.min, "$.x"),
        (datetime, datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "$.x"),
        (datetime, datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "$.x"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_value_out_of_range_is_refused_with_its_path(annotation: Any, value: Any, path: str) -> None:
    error = refusal(annotation, value, MessageSerializationError)
    assert (error.message_type, error.path) == ("One", path)
    str(error).encode()  # can travel itself


def test_an_int_too_long_to_print_is_refused_all_the_same() -> None:
    assert "16610 bits" in refusal(int, 10**5000, MessageSerializationError).problem


def test_the_error_says_both_sides() -> None:
    error = refusal(list[float], [1.0, "a"], MessageTypeError)
    assert (error.expected, error.actual) == ("float", "str")
    error = refusal(Item, Crate(), MessageTypeError)
    assert (error.expected, error.actual) == (f"{Item.__module__}.Item", f"{Crate.__module__}.Crate")


class Pair(NamedTuple):
    a: int
    b: int


class Name(str):
    pass


class FancyDatetime(datetime):
    pass


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 2**63 - 1),
        (int, -(2**63)),
        (str, "ünïcödé \U0001f600"),
        (str, Name("subclass")),
        (Literal["a"], "unknown"),
        (Color, Color.RED),
        (Level, Level.LOW),
        (datetime, datetime(2000, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))),
        (datetime, FancyDatetime(2000, 1, 1, tzinfo=UTC)),
        (datetime, datetime.max.replace(tzinfo=UTC)),
        (timedelta, timedelta(days=-3_652_500)),
        (timedelta, timedelta(days=3_652_500)),
        (tuple[int, int], Pair(1, 2)),
        (dict[str, int], OrderedDict(a=1)),
        (np.ndarray, np.zeros((2, 0))),
        (np.ndarray, np.array(True)),
        (list[int] | None, None),
        (list[int] | None, []),
    ],
)
def test_what_fits_passes_unchanged(annotation: Any, value: Any) -> None:
    assert passed(annotation, value) is value


def test_a_naive_datetime_is_refused() -> None:
    error = refusal(datetime, datetime(2000, 1, 1), MessageTypeError)
    assert "time zone" in error.expected


@pytest.mark.parametrize("check", [checker, door_check])
def test_an_instance_of_another_class_is_refused(check: Callable[[type], Callable[[object], None]]) -> None:
    derived: Any = dataclass(type("Derived", (Item,), {}))
    for other in (Crate(), derived(), None, {"weight": 1.0}):
        with pytest.raises(MessageTypeError) as caught:
            check(Item)(other)
        assert caught.value.path == "$"


def nested(levels: int) -> Tree:
    tree = Tree()
    for _ in range(levels):
        tree = Tree([tree])
    return tree


def test_deep_nesting_passes_up_to_the_limit() -> None:
    door = door_check(Tree)
    door(nested(MAX_DEPTH))
    with pytest.raises(MessageSerializationError) as caught:
        door(nested(MAX_DEPTH + 1))
    assert caught.value.path == "$" + ".children[0]" * (MAX_DEPTH + 1)


def test_what_protobuf_needs_to_hold_a_map_of_lists_counts_as_depth() -> None:
    """Each level is a map entry, a box and a message."""
    cls = make_dataclass("Forest", [("trees", "dict[str, list[Forest]]")])
    forest = cls({})
    for _ in range(MAX_DEPTH // 3):
        forest = cls({"": [forest]})
    door_check(cls)(forest)
    with pytest.raises(MessageSerializationError, match="deep"):
        door_check(cls)(cls({"": [forest]}))


def test_a_message_that_contains_itself_is_refused() -> None:
    tree = Tree(size=1)
    tree.children = [tree, tree]
    normalize = normalizer(Tree)
    assert normalize is not None
    normalize(tree)
    with pytest.raises(MessageSerializationError, match="deep"):
        door_check(Tree)(tree)


def test_the_header_is_not_looked_at() -> None:
    header = [("message_id", UUID), ("priority", int), ("correlation_id", UUID | None)]
    message = make_dataclass("M", [("x", float), *header])(1.0, None, "high", 3)
    door_check(type(message))(message)
