"""JSON becomes the message that it means, or every mistake is told with its exact place."""

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.conventions import BASICS, STATIC
from pydotcompute.protobuf.json.read import MOST_VIOLATIONS, document_of, load, read_json
from pydotcompute.protobuf.json.sample import sample_json
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.names import shortened
from tests.properties import examples
from tests.protobuf.kinds import ANY_MESSAGE, HEADER, Tree, codec_of, one, same


class Unit(enum.Enum):
    METRE = 1
    INCH = 2


@dataclass
class Circle:
    radius: float = 1.0


@dataclass
class Rectangle:
    width: float = 1.0
    height: float = 1.0


@dataclass
class Drawing:
    name: str
    ident: UUID
    corner: tuple[int, int]
    shapes: list[Circle | Rectangle] = field(default_factory=list)
    unit: Unit = Unit.METRE
    scores: dict[str, float] = field(default_factory=dict)
    flags: dict[bool, int] = field(default_factory=dict)
    tags: list[str] | None = None
    data: bytes = b""
    pixels: np.ndarray | None = None
    made: datetime | None = None
    took: timedelta | None = None
    line_count: int = 0
    done: bool = False


CODEC = Codec(Drawing, TypePool())
IDENT = "00000000-0000-4000-8000-000000000000"
NEEDED = {"ident": IDENT, "corner": [0, 0]}


def read(document: Any, codec: Codec[Any] = CODEC) -> Any:
    """The instance that a document means."""
    return codec.from_proto(read_json(document, codec.descriptor, codec.schema), **HEADER)


def violations(document: Any, codec: Codec[Any] = CODEC, *, known: bool = True) -> list[tuple[str, str]]:
    """What is wrong with a document; `known` says whether the class is."""
    with pytest.raises(MessageDeserializationError) as refused:
        read_json(document, codec.descriptor, codec.schema if known else None)
    error = refused.value
    assert (error.path, error.problem) == error.violations[0]
    return [(violation.path, violation.problem) for violation in error.violations]


def drawing(**fields: Any) -> list[tuple[str, str]]:
    """What is wrong with a drawing that has these fields."""
    return violations({**NEEDED, **fields})


# -- any type ----------------------------------------------------------------------------------------------------------


def as_document(codec: Codec[Any], message: Any, **options: Any) -> Any:
    """What protobuf itself prints."""
    return json.loads(json_format.MessageToJson(codec.to_proto(message), **options))


ANYTHING = settings(max_examples=examples(150), suppress_health_check=list(HealthCheck))


@ANYTHING
@given(st.data())
def test_what_protobuf_prints_of_any_message_is_read_as_that_message(data: st.DataObject) -> None:
    kind = data.draw(ANY_MESSAGE)
    codec = codec_of(kind.annotation)
    message = data.draw(kind.values)
    names = {"preserving_proto_field_name": data.draw(st.booleans())}
    as_written = as_document(codec, message, **names)
    back = read(as_written, codec)
    if "NaN" in str(as_written):  # JSON has one of them, floats have many.
        assert as_document(codec, back, **names) == as_written
        return
    assert same(back, message)
    assert read_json(as_written, codec.descriptor) == codec.to_proto(message), "also where the class is not known"


@ANYTHING
@given(st.data())
def test_the_sample_of_any_type_is_read_as_protobuf_reads_it(data: st.DataObject) -> None:
    codec = codec_of(data.draw(ANY_MESSAGE).annotation)
    sample = sample_json(codec.schema)
    wanted = json_format.ParseDict(sample, codec.message_class())
    assert read_json(sample, codec.descriptor, codec.schema) == wanted
    struct = Struct.FromString(json_format.ParseDict(sample, Struct()).SerializeToString())
    assert read_json(document_of(struct), codec.descriptor, codec.schema) == wanted, "a Struct holds it as well"


def places(value: Any, path: str, message: Descriptor, into: list[tuple[Any, Any, str]]) -> None:
    """Every value in the JSON of a message: what holds it, its key there, and its path."""
    for name, each in value.items():
        found = message.fields_by_name[name]
        for holder, key, at in around(value, name, each, f"{path}.{name}", found):
            inner = holder[key]
            nested = found.message_type
            if nested is not None and nested.GetOptions().map_entry:
                nested = None if at == f"{path}.{name}" else nested.fields_by_name["value"].message_type
            is_whole = found.is_repeated and at == f"{path}.{name}"
            if nested is None or nested.full_name != BASICS["Any"].full_name or is_whole:  # There, any value is right.
                into.append((holder, key, at))
            if nested is not None and isinstance(inner, dict) and nested.full_name not in STATIC:
                places(inner, at, nested, into)


def around(holder: Any, name: str, value: Any, path: str, found: FieldDescriptor) -> Iterator[tuple[Any, Any, str]]:
    """The value of a field, and then its elements."""
    yield holder, name, path
    if found.is_repeated:
        elements = value.items() if isinstance(value, dict) else enumerate(value)
        for key, _ in elements:
            yield value, key, f"{path}[{json.dumps(shortened(key) if isinstance(key, str) else key)}]"


@ANYTHING
@given(st.data())
def test_one_wrong_value_in_any_message_is_told_with_exactly_its_path(data: st.DataObject) -> None:
    kind = data.draw(ANY_MESSAGE)
    codec = codec_of(kind.annotation)
    document = as_document(codec, data.draw(kind.values), preserving_proto_field_name=True)
    found: list[tuple[Any, Any, str]] = []
    places(document, "$", codec.descriptor, found)
    if not found:
        return
    holder, key, path = data.draw(st.sampled_from(found))
    holder[key] = "a text" if isinstance(holder[key], list) else [0]
    for known in (True, False):
        assert [at for at, _ in violations(document, codec, known=known)] == [path]


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_told_in_the_order_of_the_document() -> None:
    document = {
        "nam": "x",
        "unit": "UNIT_FOOT",
        "shapes": [{"circle": {"radius": "wide"}}, {"circle": {}, "rectangle": {}}, {"oval": {}}, {}],
        "scores": {"a b": True},
        "ident": "me",
        "corner": [1],
    }
    assert violations(document) == [
        ("$.nam", 'no such field: did you mean "name"?; Drawing has "name", "ident", "corner", "shapes", "unit", '
         '"scores", "flags", "tags", "data", "pixels", …'),
        ("$.unit", 'expected one of "UNIT_METRE", "UNIT_INCH", got "UNIT_FOOT"'),
        ("$.shapes[0].circle.radius", 'expected a number, got "wide"'),
        ("$.shapes[1].rectangle", 'there is "circle" already, and only one of them can be'),
        ("$.shapes[2].oval", 'no such field; ShapesValue has "circle", "rectangle"'),
        ("$.shapes[3]", 'expected one of "circle", "rectangle", and there is none'),
        ('$.scores["a b"]', "expected a number, got true"),
        ("$.ident", 'expected a UUID such as "00000000-0000-4000-8000-000000000000", got "me"'),
        ("$.corner", "2 elements are required, and there are 1"),
    ]  # fmt: skip


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a number for a text": ({"name": 1}, "$.name", "expected a text, got 1"),
    "a text for a number": ({"scores": {"x": "1,5"}}, '$.scores["x"]', 'expected a number, got "1,5"'),
    "a text for a bool": ({"done": "true"}, "$.done", 'expected true or false, got "true"'),
    "a bool for an integer": ({"line_count": True}, "$.line_count", "expected an integer, got true"),
    "a fraction": ({"line_count": 1.5}, "$.line_count", "expected an integer, got 1.5"),
    "underscores": ({"line_count": "1_000"}, "$.line_count", 'expected an integer, got "1_000"'),
    "camelCase": ({"lineCount": None, "line_count": "x"}, "$.line_count", 'expected an integer, got "x"'),
    "too large": ({"line_count": 2**63}, "$.line_count", f"{2**63} is outside {-(2**63)} to {2**63 - 1}"),
    "too small": ({"line_count": str(-(2**63) - 1)}, "$.line_count", f'"{-(2**63) - 1}" is outside'),
    "rounded": ({"line_count": 2.0**60}, "$.line_count", "1.152921504606847e+18 may have been rounded"),
    "beyond an integer": ({"line_count": 1e30}, "$.line_count", f"1e+30 is outside {-(2**63)} to {2**63 - 1}"),
    "no finite number": ({"scores": {"x": float("inf")}}, '$.scores["x"]', 'the texts "NaN", "Infinity", "-Infinity"'),
    "beyond a double": ({"scores": {"x": 10**400}}, '$.scores["x"]', "is no number of JSON"),
    "foreign base64": ({"data": "YWJj!"}, "$.data", 'expected a text in base64, got "YWJj!"'),
    "short base64": ({"data": "YWJjZ"}, "$.data", "expected a text in base64"),
    "a UUID in braces": ({"ident": f"{{{IDENT}}}"}, "$.ident", "expected a UUID such as"),
    "no time": ({"made": "tomorrow"}, "$.made", 'expected a time such as "2000-01-01T00:00:00Z", got "tomorrow"'),
    "a time as a number": ({"made": 0}, "$.made", "expected a time such as"),
    "no duration": ({"took": "1.5"}, "$.took", 'expected a duration such as "1.5s", got "1.5"'),
    "a member without its prefix": ({"unit": "METRE"}, "$.unit", 'got "METRE": did you mean "UNIT_METRE"?'),
    "the zero of an enum": ({"unit": "UNIT_UNSPECIFIED"}, "$.unit", 'expected one of "UNIT_METRE", "UNIT_INCH"'),
    "a number of no member": ({"unit": 3}, "$.unit", "got 3"),
    "no list": ({"shapes": {}}, "$.shapes", "expected a list, got an object"),
    "null in a list": ({"shapes": [None]}, "$.shapes[0]", 'expected an object with one of "circle", "rectangle"'),
    "null in an object": ({"scores": {"": None}}, '$.scores[""]', "expected a number, got null"),
    "no object": ({"scores": [1]}, "$.scores", "expected an object, got a list"),
    "no box": ({"tags": ["a"]}, "$.tags", 'expected an object {"value": …}, got a list'),
    "in a box": ({"tags": {"value": [1]}}, "$.tags.value[0]", "expected a text, got 1"),
    "a key that is no bool": ({"flags": {"yes": 1}}, '$.flags["yes"]', 'expected the key "true" or "false", got "yes"'),
    "a tuple that is too long": ({"corner": [1, 2, 3]}, "$.corner", "2 elements are required, and there are 3"),
    "bytes that are no array": (
        {"pixels": {"dtype": "<f4", "shape": [2], "data": "AAAA"}},
        "$.pixels",
        "3 bytes are no array of shape (2,) and dtype <f4",
    ),
    "a dtype by its name": (
        {"pixels": {"dtype": "float32", "shape": [1], "data": "AAAAAA=="}},
        "$.pixels",
        'expected a dtype in NumPy\'s array notation such as "<f4", got "float32": did you mean "<f4"?',
    ),
    "no dtype": ({"pixels": {"dtype": "real"}}, "$.pixels", 'in NumPy\'s array notation such as "<f4", got "real"'),
    "a name that is no identifier": ({"no such": 1}, '$["no such"]', "no such field; Drawing has"),
    "half a surrogate pair": ({"name": "\ud800"}, "$.name", r'got "\ud800", which has half of a surrogate pair'),
    "a long text": ({"done": "x" * 1000}, "$.done", f'got "{"x" * 39}…"'),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "path", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_told_with_its_place_and_what_belongs_there(
    fields: dict[str, Any], path: str, problem: str
) -> None:
    ((told_path, told),) = drawing(**fields)
    assert told_path == path
    assert problem in told


@pytest.mark.parametrize("document", [[], "x", None, 1], ids=repr)
def test_what_is_no_object_is_no_message(document: Any) -> None:
    ((path, problem),) = violations(document)
    assert path == "$"
    assert problem.startswith("expected an object, got ")


def test_a_required_value_is_missed_where_it_would_be() -> None:
    missed = [("$.ident", "a value is required, and there is none")]
    missed += [("$.corner", "2 elements are required, and there are 0")]
    assert violations({"name": "x"}) == missed
    assert violations({"ident": None, "corner": None}) == missed
    assert violations({"corner": []}) == missed[::-1]
    tree = codec_of(one(list[Drawing]))
    assert [path for path, _ in violations({"x": [NEEDED, {"corner": [1, 2]}]}, tree)] == ["$.x[1].ident"]


@dataclass
class Placed:
    at: tuple[float, float] = (1.0, 2.0)
    fallback: tuple[np.ndarray, np.ndarray] = (np.zeros(1), np.ones(1))


@pytest.mark.parametrize("document", [{}, {"at": None}, {"at": [], "fallback": []}], ids=repr)
def test_a_tuple_of_a_length_that_is_left_out_is_its_default(document: Any) -> None:
    placed = Codec(Placed, TypePool())
    assert read(document, placed).at == (1.0, 2.0)
    for data in (b"", bytearray()):  # The latter goes through protobuf.
        decoded = placed.decode(data, **HEADER)
        assert (decoded.at, [array.tolist() for array in decoded.fallback]) == ((1.0, 2.0), [[0.0], [1.0]])
    assert violations({"at": [1]}, placed) == [("$.at", "2 elements are required, and there are 1")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"\xff\xfe{", "it is not UTF-8: byte 0xff at 0"),
        ('{"n": ' + "1" * 5001 + "}", "an integer of 5001 characters is too long, 400 can be read"),
        ("[" * 100_000, "it is nested too deep"),
    ],
    ids=["UTF-16", "5001 digits", "too deep"],
)
def test_a_text_that_cannot_be_read_is_told_without_words_of_python(text: str | bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        load(text)


def test_a_text_may_begin_with_a_byte_order_mark() -> None:
    assert load('\ufeff{"a": 1}') == load(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_a_name_that_is_there_twice_is_told() -> None:
    text = f'{{"ident": "{IDENT}", "corner": [0, 0], "name": "a", "name": "b", "scores": {{"x": 1, "x": 2}}}}'
    assert violations(load(text)) == [
        ("$.name", "the name is there more than once"),
        ('$.scores["x"]', "the key is there more than once"),
    ]
    assert drawing(line_count=1, lineCount=2) == [
        ("$.lineCount", 'there is "line_count" already, and only one of them can be')
    ]


def test_a_document_full_of_mistakes_is_read_no_further_than_they_are_told() -> None:
    told = drawing(shapes=[1] * 100_000)
    assert [path for path, _ in told] == [f"$.shapes[{index}]" for index in range(MOST_VIOLATIONS)]


def test_a_document_that_is_too_deep_is_told() -> None:
    document: dict[str, Any] = {}
    for _ in range(200):
        document = {"best": document}
    ((path, problem),) = violations(document, codec_of(Tree))
    assert path.count(".best") == 90
    assert problem == "messages are nested more than 90 deep"


# -- what is right -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value", "path", "problem"),
    [
        (dict, [], "$.x", "expected any object, got a list"),
        (list, "a", "$.x", 'expected a list of any values, got "a"'),
        (list, None, "$.x", "a value is required, and there is none"),
        (list[dict], [{}, 1], "$.x[1]", "expected any object, got 1"),  # type: ignore[type-arg]
        (Any, {"a": [2**53 + 1]}, '$.x["a"][0]', "9007199254740993 is beyond 2**53"),
        (Any, [1, float("nan")], "$.x[1]", "nan is no number of JSON"),
    ],
)
def test_a_wrong_basic_value_is_told_with_its_place(annotation: Any, value: Any, path: str, problem: str) -> None:
    ((told_path, told),) = violations({"x": value}, codec_of(one(annotation)))
    assert told_path == path
    assert told.startswith(problem)


def test_names_that_are_there_twice_are_told_inside_basic_values_too() -> None:
    codec = codec_of(one(Any))
    document = load('{"x": {"a": [{"b": 1, "b": 2}], "c": 3, "c": 4}}')
    problem = "the name is there more than once"
    assert violations(document, codec) == [('$.x["c"]', problem), ('$.x["a"][0]["b"]', problem)]


def test_null_is_a_value_of_any() -> None:
    assert read({"x": None}, codec_of(one(Any))).x is None
    assert read({"x": [None, {"a": None}]}, codec_of(one(list))).x == [None, {"a": None}]
    assert read({"x": [None]}, codec_of(one(list[Any]))).x == [None]


def test_a_deep_basic_value_is_refused_and_does_no_harm() -> None:
    document = load('{"x": ' + "[" * 300 + "]" * 300 + "}")
    ((_, problem),) = violations(document, codec_of(one(Any)))
    assert "deep" in problem


def test_null_is_absent() -> None:
    assert read({**NEEDED, "unit": None, "shapes": None, "tags": None, "line_count": None}) == Drawing(
        "", UUID(IDENT), (0, 0)
    )


@pytest.mark.parametrize("text", ["+/8=", "+/8", "-_8=", "-_8"])
def test_bytes_are_base64_of_either_alphabet_with_padding_or_without(text: str) -> None:
    assert read({**NEEDED, "data": text}).data == b"\xfb\xff"


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_an_integer_may_be_a_text_or_a_double(value: Any) -> None:
    assert read({**NEEDED, "line_count": value}).line_count == 7


def test_integers_of_all_64_bits_are_texts_or_numbers() -> None:
    for number in (2**63 - 1, -(2**63), 2**53 + 1):
        assert read({**NEEDED, "line_count": number}).line_count == number
        assert read({**NEEDED, "line_count": str(number)}).line_count == number


def test_a_member_of_an_enum_may_be_its_number() -> None:
    assert read({**NEEDED, "unit": 2}).unit is Unit.INCH
    assert read({**NEEDED, "unit": 2.0}).unit is Unit.INCH
