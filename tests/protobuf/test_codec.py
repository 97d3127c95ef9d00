"""Messages survive the way through bytes, whatever their type, and bad bytes are refused with the path."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydotcompute.exceptions import MessageDeserializationError, MessageSerializationError, MessageTypeError
from pydotcompute.protobuf.classes import dataclass_from
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.compatible import compatible
from pydotcompute.protobuf.json.sample import sample_json
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.check import door_check
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.nodes import MAX_DEPTH
from tests.properties import examples
from tests.protobuf.kinds import ANY_MESSAGE, HEADER, Color, Crate, Item, Tree, codec_of, one, same, through_bytes

T = TypeVar("T")


@settings(max_examples=examples(200), suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_message_of_any_type_survives_bit_for_bit(data: st.DataObject) -> None:
    kind = data.draw(ANY_MESSAGE)
    message = data.draw(kind.values)
    door_check(kind.annotation)(message)
    codec = codec_of(kind.annotation)
    assert same(codec.decode(codec.encode(message), **HEADER), message)


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_type_can_be_rebuilt_from_its_descriptor_and_still_talks_to_the_original(data: st.DataObject) -> None:
    kind = data.draw(ANY_MESSAGE)
    ours = codec_of(kind.annotation)
    rebuilt = dataclass_from(ours.descriptor)
    compatible(introspect(rebuilt), ours.descriptor)
    theirs: Codec[Any] = Codec(rebuilt, TypePool(), ours.descriptor)
    message = data.draw(kind.values)
    relayed = theirs.encode(theirs.decode(ours.encode(message), **HEADER))
    assert same(ours.decode(relayed, **HEADER), message)


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_sample_of_any_type_is_a_message_of_it(data: st.DataObject) -> None:
    kind = data.draw(ANY_MESSAGE)
    codec = codec_of(kind.annotation)
    text = json.dumps(sample_json(codec.schema))
    pb = json_format.Parse(text, codec.message_class())
    door_check(kind.annotation)(codec.from_proto(pb, **HEADER))


# Single kinds, at their edges.


@dataclass
class Box:
    """A message with a field of any JSON value."""

    content: Any


def test_an_absent_value_of_any_kind_is_none() -> None:
    ours = codec_of(Box)
    assert ours.decode(b"", **HEADER) == Box(None)
    theirs: Codec[Any] = Codec(dataclass_from(ours.descriptor), TypePool(), ours.descriptor)
    relayed = theirs.encode(theirs.decode(ours.encode(Box(None)), **HEADER))
    assert ours.decode(relayed, **HEADER) == Box(None)


@dataclass
class In:
    """A class whose name is a keyword in lower case."""

    number: int = 0


def test_a_union_may_have_a_member_whose_name_is_a_keyword() -> None:
    assert through_bytes(In | Box, In(5)) == In(5)
    assert through_bytes(list[In | Box], [Box(1), In(2)]) == [Box(1), In(2)]


@pytest.mark.parametrize("value", [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308, 0.1])
def test_floats_come_back_bit_for_bit(value: float) -> None:
    assert same(through_bytes(float, value), value)


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, -(2**63), 2**53 + 1])
def test_ints_come_back_over_the_whole_range(value: int) -> None:
    assert through_bytes(int, value) == value


@pytest.mark.parametrize("value", ["", "\0", "ünïcödé", "\U0001f600", "e\u0301", "\u2028", "a" * 100_000])
def test_texts_come_back_exactly(value: str) -> None:
    assert through_bytes(str, value) == value


@pytest.mark.parametrize("value", [0, 7, -3, 2**53, 0.5, -0.0, 1e300, 5e-324, True, None])
def test_basic_values_keep_their_types(value: Any) -> None:
    for annotation, whole in ((Any, value), (list, [value, [value]]), (dict, {"a": {"b": value}})):
        assert same(through_bytes(annotation, whole), whole)


@pytest.mark.parametrize(("number", "problem"), [(math.nan, "nan"), (math.inf, "inf")])
def test_a_number_that_json_has_not_is_refused_in_a_basic_value(number: float, problem: str) -> None:
    codec = codec_of(one(list))
    pb = codec.to_proto(codec.schema.cls([1, [2]]))
    pb.x.values[1].list_value.values[0].number_value = number  # type: ignore[attr-defined]
    with pytest.raises(MessageDeserializationError, match=rf"\$\.x\[1\]\[0\]: {problem} is no number of JSON"):
        codec.decode(pb.SerializeToString(), **HEADER)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_the_deepest_basic_value_that_passes_the_door_survives(wrap: Callable[[Any], Any]) -> None:
    cls = make_dataclass("Holder", [("tree", Tree), ("x", Any)])
    codec, check = codec_of(cls), door_check(cls)
    value: Any = 1
    deepest = 0
    with suppress(MessageSerializationError):
        while True:
            message = cls(Tree(), value)
            check(message)
            assert codec.decode(codec.encode(message), **HEADER).x == value
            value, deepest = wrap(value), deepest + 1
    assert 25 < deepest < MAX_DEPTH


@dataclass
class Pair(Generic[T]):
    first: T
    second: T | None = None


def test_a_generic_class_comes_back_with_the_types_of_its_arguments() -> None:
    cls = make_dataclass("Pairs", [("ints", Pair[int]), ("texts", list[Pair[str]]), ("deep", Pair[Pair[float]])])
    codec = codec_of(cls)
    message: Any = cls(Pair(1), [Pair("a", "b")], Pair(Pair(0.5), None))
    door_check(cls)(message)
    assert same(codec.decode(codec.encode(message), **HEADER), message)
    message.texts[0].second = 2
    with pytest.raises(MessageTypeError, match=r"\$\.texts\[0\]\.second: expected str, got int"):
        door_check(cls)(message)


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (int | None, [None, 0, 1]),
        (float | None, [None, 0.0, -0.0]),
        (str | None, [None, "", "a"]),
        (bytes | None, [None, b"", b"a"]),
        (bool | None, [None, False, True]),
        (list[int] | None, [None, [], [0]]),
        (tuple[int, ...] | None, [None, (), (0,)]),
        (dict[str, int] | None, [None, {}, {"": 0}]),
        (Item | None, [None, Item(), Item(1.0)]),
        (Item | Crate | None, [None, Item(), Crate()]),
        (timedelta | None, [None, timedelta(0)]),
        (datetime | None, [None, datetime(1970, 1, 1, tzinfo=UTC)]),
        (list[int | None], [[], [None], [0], [None, 0, None]]),
        (list[list[int]], [[], [[]], [[], [0], []]]),
        (list[list[int] | None], [[None], [[]], [[0], None]]),
        (dict[str, list[int] | None], [{}, {"": None}, {"": []}]),
        (dict[str, Item], [{}, {"": Item()}]),
        (Any, [None, "", 0, False, [], {}]),
        (dict | None, [None, {}]),
        (list | None, [None, []]),
    ],
)
def test_empty_and_absent_stay_apart(annotation: Any, values: list[Any]) -> None:
    for value in values:
        assert same(through_bytes(annotation, value), value)
    codec = codec_of(one(annotation))
    assert len({codec.encode(codec.schema.cls(value)) for value in values}) == len(values)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2000, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2000, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_a_datetime_comes_back_as_the_same_instant_in_utc(value: datetime) -> None:
    back = through_bytes(datetime, value)
    assert back == value
    assert back.tzinfo is UTC


@pytest.mark.parametrize("microseconds", [0, 1, -1, 999_999, -999_999, -1_000_001, 10**15 + 1, -(10**15) - 1])
def test_a_timedelta_comes_back_to_the_microsecond(microseconds: int) -> None:
    value = timedelta(microseconds=microseconds)
    codec = codec_of(one(timedelta))
    pb: Any = codec.to_proto(codec.schema.cls(value))
    assert pb.x.ToTimedelta() == value  # protobuf reads it the same
    assert codec.from_proto(pb, **HEADER).x == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.arange(6, dtype=">i8").reshape(2, 3).T,
        np.arange(10)[::2],
        np.array(1.5),
        np.zeros((0, 3), dtype=bool),
        np.array([1 + 2j, np.nan]),
        np.array([np.nan, -0.0, np.inf], dtype=np.float16),
    ],
)
def test_an_array_comes_back_as_a_read_only_view(array: np.ndarray[Any, Any]) -> None:
    back = through_bytes(np.ndarray, array)
    assert same(back, array)
    assert not back.flags.writeable
    assert not back.flags.owndata


def test_an_array_on_a_device_is_copied_from_there() -> None:
    on_host = np.arange(3.0)
    members = {"__module__": "cupy", "dtype": on_host.dtype, "get": lambda self: on_host}
    on_device = type("ndarray", (), members)()
    assert same(through_bytes(np.ndarray, on_device), on_host)


def test_deep_nesting_survives() -> None:
    tree = Tree("leaf")
    for level in range(MAX_DEPTH // 4):
        tree = Tree(f"level {level}", [tree, Tree()], best=tree if level == 0 else None)
    for _ in range(MAX_DEPTH // 4):
        tree = Tree(best=tree)
    for _ in range(MAX_DEPTH // 4):
        tree = Tree(named={"only": tree})
    door_check(Tree)(tree)
    codec = codec_of(Tree)
    assert codec.decode(codec.encode(tree), **HEADER) == tree


def test_what_passes_the_door_is_never_too_deep_for_protobuf() -> None:
    deepest = make_dataclass("Deepest", [("next", "Deepest | None"), ("cells", list[list[list[timedelta | None]]])])
    message = deepest(None, [[[timedelta(1)]]])
    for _ in range(MAX_DEPTH):
        message = deepest(message, [])
    door_check(deepest)(message)
    codec = codec_of(deepest)
    assert codec.decode(codec.encode(message), **HEADER) == message


# Header, constructor, defaults.


@dataclass
class Request:
    a: float = 0.0
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    operation: str = "add"
    correlation_id: UUID | None = None
    b: float = field(default=0.5, kw_only=True)


def test_the_header_goes_to_the_constructor_and_not_into_the_bytes() -> None:
    codec = codec_of(Request)
    assert codec.encode(Request(1.0)) == codec.encode(Request(1.0, priority=5, correlation_id=uuid4()))
    back = codec.decode(codec.encode(Request(1.0, operation="sub", b=2.0)), **HEADER)
    assert back == Request(1.0, UUID(int=1), 7, "sub", UUID(int=2), b=2.0)


def test_a_field_left_out_by_the_sender_has_the_default_of_the_class() -> None:
    assert codec_of(Request).decode(b"", **HEADER) == Request(0.0, UUID(int=1), 7, "add", UUID(int=2), b=0.5)


def test_an_explicit_zero_is_not_taken_for_left_out() -> None:
    codec = codec_of(Request)
    back = codec.decode(codec.encode(Request(operation="", b=0.0)), **HEADER)
    assert (back.operation, back.b) == ("", 0.0)


def test_a_left_out_default_is_made_anew_and_is_of_the_annotated_type() -> None:
    codec = codec_of(one(Item, default_factory=lambda: Item(5.0)))
    first, second = codec.decode(b"", **HEADER).x, codec.decode(b"", **HEADER).x
    assert first == second == Item(5.0)
    assert first is not second
    assert type(codec_of(one(float, default=3)).decode(b"", **HEADER).x) is float


def test_a_nested_header_stays_at_home() -> None:
    cls = one(Request)
    back = codec_of(cls).decode(codec_of(cls).encode(cls(Request(1.0, priority=5))), **HEADER)
    assert (back.x.a, back.x.priority) == (1.0, 128)


def test_fields_may_be_called_like_protobufs_own_methods() -> None:
    names = ["HasField", "SetInParent", "SerializeToString", "FromString", "WhichOneof", "Clear", "DESCRIPTOR", "pb"]
    inner = make_dataclass("Inner", [(name, str, field(default="x")) for name in names])
    outer = make_dataclass("Outer", [("inner", inner), *[(name, int | None) for name in names]])
    codec = codec_of(outer)
    message = outer(inner(*names), *range(len(names)))
    assert codec.decode(codec.encode(message), **HEADER) == message


def test_frozen_slotted_keyword_only_classes_work() -> None:
    cls = make_dataclass("M", [("x", int), ("y", str)], frozen=True, slots=True, kw_only=True)
    codec = codec_of(cls)
    assert codec.decode(codec.encode(cls(x=1, y="a")), **HEADER) == cls(x=1, y="a")


def test_unknown_fields_are_ignored() -> None:
    newer, older = codec_of(make_dataclass("M", [("x", int), ("y", str)])), codec_of(make_dataclass("M", [("x", int)]))
    assert older.decode(newer.encode(newer.schema.cls(1, "a")), **HEADER).x == 1


# Errors.


@pytest.mark.parametrize(
    ("annotation", "value", "error", "path"),
    [
        (int, 2**63, MessageSerializationError, "$.x"),
        (str, "\ud800", MessageSerializationError, "$.x"),
        (float, "a", MessageTypeError, "$.x"),
        (str, None, MessageTypeError, "$.x"),
        (list[int], [1, 2**63], MessageSerializationError, "$.x[1]"),
        (dict[str, Color], {"a": 1}, MessageTypeError, '$.x["a"]'),
        (list[Item], [Item(), Crate()], MessageTypeError, "$.x[1]"),
        (Item | Crate, 5, MessageTypeError, "$.x"),
    ],
)
def test_what_protobuf_cannot_take_is_explained_by_the_check(
    annotation: Any, value: Any, error: type[Exception], path: str
) -> None:
    codec = codec_of(one(annotation))
    for write in (codec.encode, codec.to_proto):
        with pytest.raises(error) as caught:
            write(codec.schema.cls(value))
        assert caught.value.path == path  # type: ignore[attr-defined]


def test_what_the_check_cannot_explain_has_the_text_of_the_original_error() -> None:
    class ChangedMeanwhile(dict[str, int]):
        """As if another thread had added an entry, just now."""

        def items(self) -> Any:
            if "new" not in self:
                self["new"] = 1
                raise RuntimeError("dictionary changed size during iteration")
            return super().items()

    cls = one(dict[str, int])
    with pytest.raises(MessageSerializationError, match="RuntimeError: dictionary changed size"):
        codec_of(cls).encode(cls(ChangedMeanwhile()))


def decode_error(annotation: Any, edit: Callable[[Any], object]) -> MessageDeserializationError:
    """The error of decoding a message that `edit` has tampered with."""
    codec = codec_of(one(annotation))
    tampered = codec.message_class()
    edit(tampered)
    with pytest.raises(MessageDeserializationError) as caught:
        codec.decode(tampered.SerializeToString(), **HEADER)
    assert caught.value.message_type == "One"
    return caught.value


def tensor(dtype: str, shape: list[int], data: bytes = b"") -> Callable[[Any], object]:
    return lambda pb: pb.x.MergeFrom(type(pb.x)(dtype=dtype, shape=shape, data=data))


@pytest.mark.parametrize(
    ("annotation", "edit", "path"),
    [
        (UUID, lambda pb: setattr(pb, "x", "no uuid"), "$.x"),
        (UUID, lambda pb: setattr(pb, "x", "{00000000-0000-4000-8000-000000000000}"), "$.x"),
        (UUID, lambda pb: None, "$.x"),
        (list[UUID], lambda pb: pb.x.extend([str(uuid4()), ""]), "$.x[1]"),
        (dict[str, UUID], lambda pb: pb.x.update({"k": "bad"}), '$.x["k"]'),
        (UUID | None, lambda pb: setattr(pb, "x", ""), "$.x"),
        (Color, lambda pb: setattr(pb, "x", 0), "$.x"),
        (Color, lambda pb: setattr(pb, "x", 77), "$.x"),
        (Color, lambda pb: None, "$.x"),
        (Item, lambda pb: None, "$.x"),
        (Item | Crate, lambda pb: None, "$.x"),
        (Item | Crate, lambda pb: pb.x.SetInParent(), "$.x"),
        (list[Item | Crate], lambda pb: pb.x.add(), "$.x[0]"),
        (tuple[int, int], lambda pb: pb.x.extend([1, 2, 3]), "$.x"),
        (list[tuple[int, int]], lambda pb: pb.x.add().value.extend([1]), "$.x[0]"),
        (datetime, lambda pb: setattr(pb.x, "seconds", 2**60), "$.x"),
        (datetime, lambda pb: setattr(pb.x, "nanos", -1), "$.x"),
        (timedelta, lambda pb: setattr(pb.x, "seconds", 2**60), "$.x"),
        (timedelta, lambda pb: pb.x.MergeFrom(type(pb.x)(seconds=1, nanos=-1)), "$.x"),
        (np.ndarray, lambda pb: pb.x.SetInParent(), "$.x"),
        (np.ndarray, tensor("|O8", [1], b"12345678"), "$.x"),
        (np.ndarray, tensor("<f3", [1], b"123"), "$.x"),
        (np.ndarray, tensor("<f4", [2]), "$.x"),
        (np.ndarray, tensor("<f4", [-1, 0]), "$.x"),
        (np.ndarray, tensor("<f4", [0] * 100), "$.x"),
        (np.ndarray, tensor("<f4", [2**62, 2**62, 0]), "$.x"),
        (np.ndarray, tensor("<f4", [], b"12345"), "$.x"),
    ],
)
def test_a_value_that_is_none_of_its_annotation_is_refused_with_its_path(
    annotation: Any, edit: Callable[[Any], object], path: str
) -> None:
    assert decode_error(annotation, edit).path == path


def test_the_path_of_a_bad_value_leads_through_nested_messages() -> None:
    inner = make_dataclass("Inner", [("id", UUID)])
    error = decode_error(dict[int, list[inner]], lambda pb: pb.x[5].value.add())  # type: ignore[valid-type]
    assert error.path == "$.x[5][0].id"


@pytest.mark.parametrize("data", [b"\xff", b"\x08", b"\x0a\x05a", b"\x0a\x01\xff", "text", None])
def test_bytes_that_are_no_protobuf_are_refused(data: Any) -> None:
    with pytest.raises(MessageDeserializationError) as caught:
        codec_of(one(str)).decode(data, **HEADER)
    assert (caught.value.message_type, caught.value.path) == ("One", "$")


@dataclass
class Positive:
    x: int

    def __post_init__(self) -> None:
        if self.x <= 0:
            raise ValueError("not positive")


def test_what_the_constructor_refuses_is_refused() -> None:
    codec = codec_of(Positive)
    with pytest.raises(MessageDeserializationError, match="ValueError: not positive") as caught:
        codec.decode(b"", **HEADER)
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_a_nested_constructor_refuses_is_refused_with_its_path() -> None:
    error = decode_error(list[Positive], lambda pb: pb.x.add())
    assert (error.path, error.problem) == ("$.x[0]", "ValueError: not positive")


def test_an_error_about_the_header_is_the_constructors_own() -> None:
    @dataclass
    class Strict(Request):
        def __post_init__(self) -> None:
            raise MessageSerializationError("Strict", "300 is outside 0 to 255", "$.priority")

    with pytest.raises(MessageSerializationError, match=r"\$\.priority"):
        codec_of(Strict).decode(b"", **HEADER)


@pytest.mark.parametrize("count", range(24))
def test_arrays_inside_many_other_messages_are_written_as_arrays(count: int) -> None:
    others = [make_dataclass(f"Other{number}", [("field_0", int)]) for number in range(count)]
    fields = [(f"other_{number}", other) for number, other in enumerate(others)]
    kind = make_dataclass(f"WithOthers{count}", [("nested", list[list[np.ndarray]]), *fields])
    message = kind([[np.arange(3)]], *(other(7) for other in others))
    codec = codec_of(kind)
    assert same(codec.decode(codec.encode(message), **HEADER), message)
