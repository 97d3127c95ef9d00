"""Whether messages of a class can travel as the other side's type."""

import copy
import enum
import pickle
import types
from dataclasses import field, make_dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from pydotcompute.exceptions import MessageDeserializationError, MessageSerializationError, MessageTypeError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.compatible import compatible
from pydotcompute.protobuf.conventions import required_fields
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
from tests.versions import CASES, CIRCLE, SQUARE, THIRD, A, Case, files, kind, made


def mismatch(ours: list[tuple[str, Any]], theirs: list[tuple[str, Any]]) -> MessageTypeError:
    descriptor = TypePool().add(make_dataclass("Theirs", theirs, namespace={"__proto_package__": "test_compatible.v1"}))
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


CLASH = "field 1 to be 'side', as in the daemon's declared.v1.Square"


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
        ([("y", int)], [("x", int)], "$.y", "field 1 to be 'x', as in the daemon's test_compatible.v1.Theirs", "'y'"),
        (
            [("y", int), ("x", int)],
            [("x", int), ("y", int)],
            "$.y",
            "field number 2",
            "field number 1",
        ),
        ([("x", Circle)], [("x", Square)], "$.x.radius", CLASH, "'radius'"),
        ([("x", list[Circle])], [("x", list[Square])], "$.x[].radius", CLASH, "'radius'"),
        ([("x", dict[str, Circle])], [("x", dict[str, Square])], "$.x[].radius", CLASH, "'radius'"),
        ([("x", dict[str, int])], [("x", dict[int, int])], "$.x[]", "int64", "string"),
        ([("x", list[list[int]])], [("x", list[list[str]])], "$.x[]", "repeated string", "repeated int64"),
        ([("x", list[int | None])], [("x", list[int])], "$.x", "repeated int64", None),
        ([("x", datetime)], [("x", timedelta)], "$.x", "google.protobuf.Duration", "google.protobuf.Timestamp"),
        (
            [("x", Circle | Square)],
            [("x", Circle | Even)],
            "$.x.square",
            "field 2 to be 'even', as in the daemon's test_compatible.v1.Theirs.XValue",
            "'square'",
        ),
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


# -- two versions of one message ---------------------------------------------------------------------------------------

HEADER: Any = {"message_id": None, "priority": 0, "correlation_id": None}


def between(ours: Any, theirs: Any) -> Codec[Any]:
    """The codec of a client that has the class `ours`, with a daemon that has `theirs`."""
    pool = TypePool()
    pool.add_files(files(theirs).file)
    descriptor = pool.descriptor(introspect(theirs).full_name)
    return Codec(ours, pool, descriptor, required_fields(files(theirs).file))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_versions_fit_whichever_of_them_the_client_has_or_neither_way(case: Case) -> None:
    with case.classes() as versions:
        for ours, theirs in (versions, reversed(versions)):
            if case.fits:
                between(ours, theirs)
            else:
                with pytest.raises(MessageTypeError):
                    between(ours, theirs)


@pytest.mark.parametrize(
    ("before", "now", "old_says", "new_says"),
    [
        (
            [],
            [("b", UUID)],
            "$.b: your pairs.M lacks 'b: str', which the daemon's pairs.v1.M has, and requires",
            "$.b: the daemon's pairs.v1.M lacks 'b: UUID', which your pairs.M has, without a default",
        ),
        (
            [("p", made("P"))],
            [("p", made("P", ("b", CIRCLE)))],
            "$.p.b: your pairs.P lacks 'b: pairs.v1.Circle', which the daemon's pairs.v1.P has, and requires",
            "$.p.b: the daemon's pairs.v1.P lacks 'b: pairs.Circle', which your pairs.P has, without a default",
        ),
    ],
)
def test_the_error_says_which_side_lacks_what(before: Any, now: Any, old_says: str, new_says: str) -> None:
    old, new = made("M", *before), made("M", *now)
    for ours, theirs, text in ((old, new, old_says), (new, old, new_says)):
        with pytest.raises(MessageTypeError) as caught:
            between(ours, theirs)
        assert str(caught.value) == text
        assert pickle.loads(pickle.dumps(caught.value)) == caught.value


ADDED: list[tuple[Any, Any, Any]] = [
    (int, 3, 5),
    (float, float("nan"), 0.0),
    (float, -0.0, 1.0),
    (str, "add", ""),
    (bool, True, False),
    (bytes, b"a", b""),
    (int | None, None, 0),
    (Color, Color.RED, Color.DARK_RED),
    (UUID, UUID(int=1), UUID(int=2)),
    (list[int], [], [1]),
    (dict[str, float], {"a": float("nan")}, {"a": 1.0}),
    (tuple[int, int], (1, 2), (2, 1)),
    (Circle, Circle(1.0), Circle(2.0)),
    (list[Circle], [Circle(1.0)], [Circle(1.0), Circle(1.0)]),
    (Circle | Square, Circle(1.0), Square(1.0)),
    (np.ndarray, np.array([1.0, 2.0]), np.array([1.0, 3.0])),
    (list[np.ndarray], [np.array([1])], [np.array([1, 1])]),
    (Any, {"a": [1, None]}, {"a": [1, 0]}),
]


@pytest.mark.parametrize(("annotation", "default", "other"), ADDED, ids=str)
def test_a_field_that_the_daemon_lacks_is_left_out_while_it_has_its_default(
    annotation: Any, default: Any, other: Any
) -> None:
    old = made("M", ("a", float), ("z", np.ndarray, field(default_factory=lambda: np.zeros(1))))
    new = made("M", ("a", float), ("z", np.ndarray, field(default_factory=lambda: np.zeros(1))),
               ("b", annotation, field(default_factory=lambda: copy.deepcopy(default))))  # fmt: skip
    codec, daemons = between(new, old), Codec(old, TypePool())
    arrived = daemons.decode(codec.encode(new(1.0)), **HEADER)
    assert arrived.a == 1.0
    answer = codec.decode(daemons.encode(arrived), **HEADER)
    assert repr(answer) == repr(new(1.0)), "it is filled"
    assert codec.gather is not None
    for encode in (codec.encode, codec.gather, codec.to_proto):
        with pytest.raises(MessageSerializationError) as caught:
            encode(new(1.0, b=other))
        assert caught.value.path == "$.b"
        assert caught.value.problem.startswith("the daemon's pairs.v1.M lacks 'b: ")
    old_client = between(old, new)
    newest = Codec(new, TypePool())
    if not isinstance(default, list | dict) or not default:  # In protobuf, no elements are no elements.
        assert repr(newest.decode(old_client.encode(old(2.0)), **HEADER)) == repr(new(2.0))
    assert old_client.decode(newest.encode(new(3.0, b=other)), **HEADER).a == 3.0


def test_a_default_that_is_another_each_time_is_left_out() -> None:
    new = made("M", ("a", float), ("b", UUID, field(default_factory=uuid4)))
    codec = between(new, made("M", ("a", float)))
    back = codec.decode(codec.encode(new(1.0)), **HEADER)
    assert (back.a, type(back.b)) == (1.0, UUID)


def test_none_is_refused_where_the_daemon_has_none_and_zero_is_not_taken_for_it() -> None:
    for annotation, zero in ((int, 0), (str, ""), (float, 0.0)):
        ours, theirs = made("M", ("a", annotation | None)), made("M", ("a", annotation))
        codec, daemons = between(ours, theirs), Codec(theirs, TypePool())
        assert codec.decode(daemons.encode(theirs(zero)), **HEADER).a == zero
        assert daemons.decode(codec.encode(ours(zero)), **HEADER).a == zero
        with pytest.raises(MessageSerializationError, match="has no None here") as caught:
            codec.encode(ours(None))
        assert caught.value.path == "$.a"


FORMS: dict[str, Any] = {
    "alone": (lambda cls: cls, lambda member: member),
    "in a list": (lambda cls: types.GenericAlias(list, (cls,)), lambda member: [member]),
    "in a map": (lambda cls: types.GenericAlias(dict, (str, cls)), lambda member: {"k": member}),
}


@pytest.mark.parametrize(("form", "whole"), FORMS.values(), ids=FORMS)
def test_a_member_of_an_enum_does_no_harm_until_it_is_sent(form: Any, whole: Any) -> None:
    small, large = kind(X=1), kind(X=1, Y=2)
    old, new = made("M", ("a", form(small))), made("M", ("a", form(large)))
    daemons = Codec(old, TypePool())
    assert daemons.decode(between(new, old).encode(new(whole(large.X))), **HEADER) == old(whole(small.X))
    with pytest.raises(MessageSerializationError) as refused:
        between(new, old).encode(new(whole(large.Y)))
    assert refused.value.problem == "the daemon's pairs.v1.Kind lacks the member Y, which your pairs.Kind has"
    with pytest.raises(MessageDeserializationError, match="Y = 2, which the other side has, is none of the enum's"):
        between(old, new).decode(Codec(new, TypePool()).encode(new(whole(large.Y))), **HEADER)


def test_a_member_of_a_union_does_no_harm_until_it_is_sent() -> None:
    old, new = made("M", ("a", CIRCLE | SQUARE)), made("M", ("a", CIRCLE | SQUARE | THIRD))
    daemons = Codec(old, TypePool())
    assert daemons.decode(between(new, old).encode(new(SQUARE(1.0))), **HEADER) == old(SQUARE(1.0))
    with pytest.raises(MessageSerializationError, match=r"Third: the daemon's union has only circle, square"):
        between(new, old).encode(new(THIRD(1.0)))
    with pytest.raises(MessageDeserializationError, match="third, which the other side has, is none of the union's"):
        between(old, new).decode(Codec(new, TypePool()).encode(new(THIRD(1.0))), **HEADER)


def test_of_two_classes_that_fit_the_nearer_one_is_known_by_what_is_lacking() -> None:
    theirs = TypePool().add(made("M", ("a", int), ("b", int)))
    lacking = [compatible(introspect(made("M", *fields)), theirs) for fields in ([A, ("b", int)], [A], [])]
    assert lacking == [0, 1, 2]
