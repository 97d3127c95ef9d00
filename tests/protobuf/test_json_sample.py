"""Sample messages."""

import enum
import json
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import numpy as np
import pytest
from google.protobuf import json_format

from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.json.sample import sample_json
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.introspect import introspect


class Color(enum.Enum):
    RED = "r"


@dataclass
class Point:
    x: float = 0.5
    y: float = 1.0


@dataclass
class Circle:
    radius: float


@dataclass
class Tree:
    label: str
    children: "list[Tree]"
    best: "Tree | None"
    named: "dict[str, Tree]"
    either: "Tree | Circle"


@dataclass
class CalculationRequest:
    a: float = 0.0
    b: float = 0.0
    operation: Literal["add", "sub", "mul", "div"] = "add"
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


def test_the_sample_of_a_request_is_its_defaults_without_the_header() -> None:
    assert json.dumps(sample_json(introspect(CalculationRequest))) == '{"a": 0, "b": 0, "operation": "add"}'


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (float, 0.25, 0.25),
        (float, float("nan"), "NaN"),
        (float, float("-inf"), "-Infinity"),
        (float, 1e300, 1e300),
        (int, -5, -5),
        (bytes, b"ab", "YWI="),
        (UUID, UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Color, Color.RED, "COLOR_RED"),
        (datetime, datetime(2000, 1, 2, 3, 4, 5, 600000, tzinfo=UTC), "2000-01-02T03:04:05.600000Z"),
        (timedelta, timedelta(seconds=-1.5), "-1.5s"),
        (timedelta, timedelta(seconds=10), "10s"),
        (timedelta, timedelta(0), "0s"),
        (str | None, None, None),
        (tuple[int, ...], (1, 2), [1, 2]),
        (list[int] | None, [1], {"value": [1]}),
        (dict[bool, float], {True: 1.0}, {"true": 1}),
        (dict[str, list[int]], {"a": [1]}, {"a": {"value": [1]}}),
        (Point, Point(1.5), {"x": 1.5, "y": 1}),
        (Point | Circle, Circle(1.0), {"circle": {"radius": 1}}),
        (Any, [1, {"a": None}], [1, {"a": None}]),
        (list, [1.5], [1.5]),
        (dict, {"a": "b"}, {"a": "b"}),
        (np.ndarray, np.array([1], "|u1"), {"dtype": "|u1", "shape": [1], "data": "AQ=="}),
    ],
)
def test_a_default_is_shown_as_json_and_read_back_as_itself(annotation: Any, default: Any, expected: Any) -> None:
    cls = make_dataclass("One", [("x", annotation, field(default_factory=lambda: default))])
    sample = sample_json(introspect(cls))
    assert sample == {"x": expected}
    codec: Codec[Any] = Codec(cls, TypePool())
    pb = json_format.Parse(json.dumps(sample), codec.message_class())
    back = codec.from_proto(pb, message_id=None, priority=0, correlation_id=None)  # type: ignore[arg-type]
    assert repr(back.x) == repr(default)


def test_a_message_inside_itself_is_left_out() -> None:
    sample = sample_json(introspect(Tree))
    assert sample == {
        "label": "text",
        "children": [],
        "best": None,
        "named": {},
        "either": {"circle": {"radius": 1.5}},
    }


def test_a_field_without_default_has_an_example_of_its_type() -> None:
    cls = make_dataclass("M", [("word", Literal["first", "second"]), ("point", Point), ("pair", tuple[int, int])])
    assert sample_json(introspect(cls)) == {"word": "first", "point": {"x": 0.5, "y": 1}, "pair": [1, 1]}
