"""Small messages that take the way without protobuf become the same bytes, and the same messages, as with it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, fields, make_dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pydotcompute import message
from pydotcompute.exceptions import MessageDeserializationError, MessageError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.flat import layout_of
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.introspect import FieldNumber
from pydotcompute.schema.nodes import HEADER_FIELDS
from tests.properties import examples

HEADER = (UUID(int=1), 7, UUID(int=2))


@message
class Reading:
    """Every kind of field that has a place in a layout, with and without presence, in no helpful order."""

    name: str
    value: float
    note: str | None
    valid: bool
    raw: bytes
    unit: Literal["m", "s"] = "m"
    scale: float = 1.0
    checked: bool = True
    blob: bytes | None = None


@message
class Numbers:
    """No text."""

    low: float = 0.0
    high: float = -0.0
    open: bool = False


@message
class Remark:
    """Nothing that is always there."""

    text: str | None = None
    author: str | None = None


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["x" * 127, "x" * 128, "ä" * 64]
)
BYTES = st.binary(max_size=20) | st.sampled_from([b"x" * 127, b"x" * 128])
FLOATS = st.floats(width=64)
READINGS = st.builds(
    Reading,
    name=TEXTS,
    value=FLOATS,
    note=TEXTS | st.none(),
    valid=st.booleans(),
    raw=BYTES,
    unit=TEXTS,
    scale=FLOATS,
    checked=st.booleans(),
    blob=BYTES | st.none(),
)
NUMBERS = st.builds(Numbers, low=FLOATS, high=FLOATS, open=st.booleans())
REMARKS = st.builds(Remark, text=TEXTS | st.none(), author=TEXTS | st.none())
MESSAGES = READINGS | NUMBERS | REMARKS
CODECS: dict[type, Codec[Any]] = {cls: Codec(cls, TypePool()) for cls in (Reading, Numbers, Remark)}


def values(made: object) -> list[object]:
    """The fields of a message, to be compared bit for bit and type for type."""
    found = [getattr(made, each.name) for each in fields(made)]  # type: ignore[arg-type]
    return [(type(value), struct.pack("<d", value) if isinstance(value, float) else value) for value in found]


def outcome(codec: Codec[Any], read: Any, data: object) -> object:
    """What reading gives: the fields of a message, or what is said against it."""
    try:
        return values(read(data, *HEADER))
    except MessageError as error:
        return str(error)


def through_protobuf(codec: Codec[Any]) -> Any:
    """`decode` by way of protobuf's object."""

    def read(data: bytes, *header: Any) -> Any:
        try:
            pb = codec.message_class.FromString(data)
        except Exception as error:
            raise MessageDeserializationError(codec.schema.name, str(error)) from error
        return codec.from_proto(pb, *header)

    return read


def assert_read_alike(codec: Codec[Any], data: bytes) -> None:
    assert outcome(codec, codec.decode, data) == outcome(codec, through_protobuf(codec), data)


@pytest.mark.parametrize("cls", [Reading, Numbers, Remark])
def test_classes_of_floats_bools_texts_and_bytes_have_a_layout(cls: type) -> None:
    assert layout_of(CODECS[cls].schema, CODECS[cls].descriptor) is not None


@pytest.mark.parametrize(
    "annotation", [int, float | None, bool | None, UUID, list[float], Numbers, Annotated[float, FieldNumber(16)]]
)
def test_classes_with_anything_else_have_none(annotation: Any) -> None:
    codec: Codec[Any] = Codec(make_dataclass("Other", [("value", annotation)]), TypePool())
    assert layout_of(codec.schema, codec.descriptor) is None


@given(MESSAGES)
def test_protobuf_reads_what_is_written_as_the_same_message(made: Any) -> None:
    codec = CODECS[type(made)]
    pb = codec.message_class.FromString(codec.encode(made))
    assert pb.SerializeToString(deterministic=True) == codec.to_proto(made).SerializeToString(deterministic=True)


@given(MESSAGES)
def test_a_message_comes_back_bit_for_bit_from_either_form(made: Any) -> None:
    codec = CODECS[type(made)]
    made.message_id, made.priority, made.correlation_id = HEADER
    for data in (codec.encode(made), codec.to_proto(made).SerializeToString()):
        assert values(codec.decode(data, *HEADER)) == values(made)
        assert_read_alike(codec, data)


KINDS = ["set", "insert", "delete", "repeat", "cut"]
EDITS = st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0, 1), st.integers(0, 255)), max_size=4)


@settings(max_examples=examples(500))
@given(MESSAGES, EDITS)
def test_bytes_that_are_tampered_with_are_read_as_protobuf_reads_them(made: Any, edits: list[Any]) -> None:
    codec = CODECS[type(made)]
    data = bytearray(codec.encode(made))
    for kind, where, byte in edits:
        at = int(where * len(data))
        match kind:
            case "set":
                data[at : at + 1] = [byte]
            case "insert":
                data.insert(at, byte)
            case "delete":
                del data[at : at + 1]
            case "repeat":
                data += data[at:]
            case "cut":
                del data[at:]
    assert_read_alike(codec, bytes(data))


@pytest.mark.parametrize(
    "made",
    [Reading("name", 1.5, "note", True, b"raw", blob=b""), Numbers(1.5, -2.5, True), Remark("text"), Remark("a", "b")],
)
def test_bytes_of_which_any_one_is_changed_are_read_as_protobuf_reads_them(made: Any) -> None:
    codec = CODECS[type(made)]
    data = codec.encode(made)
    for at in range(len(data)):
        for byte in range(256):
            assert_read_alike(codec, data[:at] + bytes([byte]) + data[at + 1 :])


@given(st.sampled_from([Reading, Numbers, Remark]), st.binary(max_size=40))
@example(Numbers, b"\x09" + bytes(8) + b"\x11" + bytes(8) + b"\x18\x02")  # a bool of 2
@example(Numbers, b"\x09" + bytes(8) + b"\x11" + bytes(8) + b"\x18\x81\x00")  # a bool of two bytes
@example(Remark, b"\x0a\x02\xc3\x28")  # no UTF-8
@example(Remark, b"\x0a\x03\xed\xa0\x80")  # a surrogate
@example(Remark, b"\x0a\x81\x00a")  # a length of two bytes
@example(Remark, b"\x0a\xc8\x01" + b"a" * 199)  # one byte of the length taken for all of it, it would fit
@example(Remark, b"\x0a\x01a\x0a\x01b")  # twice the same field
@example(Remark, b"\x12\x01b\x0a\x01a")  # in another order
@example(Remark, b"\x0a\x05a")  # cut short
def test_any_bytes_are_read_as_protobuf_reads_them(cls: type, data: bytes) -> None:
    assert_read_alike(CODECS[cls], data)


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("value", "1", "$.value"),
        ("valid", "yes", "$.valid"),
        ("name", None, "$.name"),
        ("name", "\ud800", "$.name"),
        ("raw", "text", "$.raw"),
        ("blob", 7, "$.blob"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_path(name: str, value: object, path: str) -> None:
    made = Reading("a", 1.0, None, True, b"")
    setattr(made, name, value)
    with pytest.raises(MessageError) as refused:
        CODECS[Reading].encode(made)
    assert refused.value.path == path


@pytest.mark.parametrize("number", [0, 1, 2, 200, 1000])
def test_a_number_in_a_bool_field_is_written_as_protobuf_writes_it(number: Any) -> None:
    codec, made = CODECS[Numbers], Numbers(open=number)
    assert codec.message_class.FromString(codec.encode(made)) == codec.to_proto(made)


def test_bytes_come_back_as_bytes_whatever_they_were_received_in() -> None:
    codec = CODECS[Reading]
    data = codec.encode(Reading("a", 1.0, None, True, b"raw"))
    assert type(codec.decode(bytearray(data), *HEADER).raw) is bytes


# -- the constructor ---------------------------------------------------------------------------------------------------


@message
class PostInit:
    x: float = 0.0

    def __post_init__(self) -> None:
        self.x += 1


@message
class New:
    x: float = 0.0

    def __new__(cls, *_: Any, **__: Any) -> Any:
        made: Any = super().__new__(cls)
        made.made = True
        return made


@message
class SetAttr:
    x: float = 0.0

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, math.floor(value) if name == "x" else value)


@message
@dataclass(frozen=True)
class Frozen:
    x: float = 0.0


@message
@dataclass(slots=True, kw_only=True)
class Slotted:
    x: float = 0.0


@message
class Inherited(Numbers):
    x: float = 0.0


@dataclass
class Undecorated(Numbers):
    x: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        self.x += 1


@pytest.mark.parametrize("cls", [PostInit, New, SetAttr, Frozen, Slotted, Inherited, Undecorated])
def test_what_is_read_is_what_the_constructor_makes(cls: Any) -> None:
    codec: Codec[Any] = Codec(cls, TypePool())
    pb: Any = codec.message_class(x=2.5)
    made = cls(x=2.5, **dict(zip(HEADER_FIELDS, HEADER, strict=True)))
    for back in (codec.decode(pb.SerializeToString(), *HEADER), codec.from_proto(pb, *HEADER)):
        assert values(back) == values(made)
        assert vars(back) == vars(made)
