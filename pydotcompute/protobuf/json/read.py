"""Messages from JSON: every mistake is told, each with its place, what was expected and what was there.

The JSON is protobuf's own mapping, as grpcurl takes it, too. Where that is lenient at the cost of the
message (base64 with foreign characters, an int beyond 2**53 that has come as a double), this is strict.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import google.protobuf.message
from google.protobuf import duration_pb2, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from pydotcompute.exceptions import MessageDeserializationError, Violation
from pydotcompute.protobuf.codec import UnreadableError, read_array
from pydotcompute.protobuf.descriptors import BOX_FIELD, ONEOF, message_type
from pydotcompute.schema.names import snake
from pydotcompute.schema.nodes import (
    INT64_MAX,
    INT64_MIN,
    MAX_DEPTH,
    Field,
    List,
    Map,
    Message,
    MessageSchema,
    Node,
    Optional,
    Tuple,
    Union,
    Uuid,
)
from pydotcompute.v1 import tensor_pb2

__all__ = ["MOST_VIOLATIONS", "document_of", "kind_of", "load", "read_json"]

Proto: TypeAlias = google.protobuf.message.Message

MOST_VIOLATIONS = 100
"""How many mistakes are told of one document; what comes behind them is not read."""
EXACT_INTEGER = 2**53
"""Up to here a double holds every integer."""
MOST_DIGITS = 400
"""Characters of an integer; a double has 310 at most."""
MOST_NAMES = 10
LONGEST_SHOWN = 40
"""Characters of a value, and names of fields, that a problem quotes."""

_TIMESTAMP = timestamp_pb2.Timestamp.DESCRIPTOR.full_name
_DURATION = duration_pb2.Duration.DESCRIPTOR.full_name
_TENSOR = tensor_pb2.Tensor.DESCRIPTOR.full_name
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def load(text: str | bytes) -> Any:
    """The document of a JSON text, for `read_json`, which tells of names that an object has twice.

    Raises ValueError: it is no JSON; its text says why.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}") from None
    try:
        # Some programs begin a file with a byte order mark.
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_Object, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} characters is too long, {MOST_DIGITS} can be read")
    return int(digits)


def document_of(struct: struct_pb2.Struct) -> dict[str, Any]:
    """The document that a Struct holds. Its numbers are floats, as in the Struct, and its names sorted, for in a Struct
    they have no order."""
    return {name: _plain(value) for name, value in sorted(struct.fields.items())}


def _plain(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return document_of(value.struct_value)
        case "list_value":
            return [_plain(element) for element in value.list_value.values]
        case None | "null_value":
            return None
        case kind:
            return getattr(value, kind)


def read_json(document: Any, descriptor: Descriptor, schema: MessageSchema | None = None) -> Proto:
    """The message that a JSON document means.

    Args:
        document: what `json.loads`, `load` or `document_of` gives.
        descriptor: the message's type.
        schema: the class that the type was made of, where it is known: it tells also which values are required, which
            texts are UUIDs, and how long a tuple is.

    Raises:
        MessageDeserializationError: it means none; the violations are all that is wrong, `MOST_VIOLATIONS` at most, in
            the order of the document. A path is what a reader of the JSON sees, such as `$.shapes[0].circle.radius`.
    """
    reader = _Reader()
    message = message_factory.GetMessageClass(descriptor)()
    with suppress(_EnoughError):
        reader.read(message, None if schema is None else Message(schema.cls), document, "$", 1)
    if violations := reader.violations:
        first = violations[0]
        raise MessageDeserializationError(descriptor.name, first.problem, first.path, violations)
    return message


def kind_of(field: FieldDescriptor) -> str:
    """What a single value of a field has to be in JSON, in words: of an element, if the field is repeated."""
    if field.enum_type is not None:
        return f"one of {_quoted(_members(field.enum_type))}"
    if field.message_type is None:
        return _KINDS[field.type]
    if (well_known := _WELL_KNOWN.get(field.message_type.full_name)) is not None:
        return well_known
    if ONEOF in field.message_type.oneofs_by_name:
        return f"an object with one of {_quoted(field.message_type.fields_by_name)}"
    return f'an object {{"{BOX_FIELD}": …}}' if _is_box(field.message_type) else "an object"


_KINDS = {
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_INT64: "an integer",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_STRING: "a text",
    FieldDescriptor.TYPE_BYTES: "a text in base64",
}
"""Of the kinds of fields that annotations make."""
_WELL_KNOWN = {
    _TIMESTAMP: 'a time such as "2000-01-01T00:00:00Z"',
    _DURATION: 'a duration such as "1.5s"',
}
_UUID = 'a UUID such as "00000000-0000-4000-8000-000000000000"'


def _is_box(descriptor: Descriptor) -> bool:
    return descriptor.containing_type is not None and ONEOF not in descriptor.oneofs_by_name


class _Object(dict[str, Any]):
    """A JSON object that remembers which names it was given more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated = [] if len(self) == len(pairs) else [n for n, _ in pairs if n in seen or seen.add(n)]  # type: ignore[func-returns-value]


class _EnoughError(Exception):
    """There are as many violations as are told."""


class _WrongError(Exception):
    """A value that cannot be where it is. Its text is the problem."""


class _Inside(NamedTuple):
    """What the class says of a message type."""

    nodes: dict[str, Node]
    required: dict[str, str]
    """The fields that a message cannot be without, each with the problem if it is."""
    may_be_empty: frozenset[str] = frozenset()
    """The tuples of a length that get their default if there are no elements."""


class _Reader:
    """Reads one document. Paths are made only of what is wrong, but for those of messages."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._names: dict[str, dict[str, FieldDescriptor]] = {}
        self._insides: dict[Node | None, _Inside] = {}

    def _report(self, path: str, problem: str) -> None:
        self.violations.append(Violation(path, problem))
        if len(self.violations) == MOST_VIOLATIONS:
            raise _EnoughError

    # -- messages ------------------------------------------------------------------------------------------------------

    def read(self, pb: Any, node: Node | None, value: Any, path: str, depth: int, expected: str = "an object") -> None:
        """Reads a message, whose class or box `node` is, if that is known."""
        if not isinstance(value, dict):
            self._report(path, f"expected {expected}, got {_shown(value)}")
            return
        if depth > MAX_DEPTH:
            self._report(path, f"messages are nested more than {MAX_DEPTH} deep")
            return
        for name in value.repeated if isinstance(value, _Object) else ():
            self._report(path + _step(name), "the name is there more than once")
        descriptor = pb.DESCRIPTOR
        fields, inside = self._fields(descriptor), self._inside(node)
        given: dict[str, str] = {}
        for name, each in value.items():
            field = fields.get(name)
            if field is None:
                self._report(path + _step(name), _unknown(name, descriptor))
            elif each is not None:
                # Of a union only one member can be set, and of two spellings of a name only one.
                only = (
                    ONEOF if field.containing_oneof is not None and field.containing_oneof.name == ONEOF else field.name
                )
                if (other := given.setdefault(only, name)) is not name:
                    self._report(
                        path + _step(name), f"there is {json.dumps(other)} already, and only one of them can be"
                    )
                elif each != [] or field.name not in inside.may_be_empty:
                    self._field(pb, field, inside.nodes.get(field.name), each, path + _step(name), depth)
        for name, problem in inside.required.items():
            if name not in given:
                self._report(path + _step(name), problem)
        if ONEOF in descriptor.oneofs_by_name and all(each is None for each in value.values()):
            self._report(path, f"expected one of {_quoted(descriptor.fields_by_name)}, and there is none")

    def _fields(self, descriptor: Descriptor) -> dict[str, FieldDescriptor]:
        """The fields by their names in JSON: those of the `.proto`, and the same in camelCase."""
        names = self._names.get(descriptor.full_name)
        if names is None:
            by_json_name = {field.json_name: field for field in descriptor.fields}
            names = self._names[descriptor.full_name] = {**by_json_name, **dict(descriptor.fields_by_name)}
        return names

    def _inside(self, node: Node | None) -> _Inside:
        inside = self._insides.get(node)
        if inside is None:
            inside = self._insides[node] = _inside(node)
        return inside

    # -- fields --------------------------------------------------------------------------------------------------------

    def _field(self, pb: Proto, field: FieldDescriptor, node: Node | None, value: Any, path: str, depth: int) -> None:
        if isinstance(node, Optional):
            node = node.item
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._map(getattr(pb, field.name), field.message_type, node, value, path, depth)
        elif field.is_repeated:
            self._list(getattr(pb, field.name), field, node, value, path, depth)
        elif field.message_type is not None:
            part = getattr(pb, field.name)
            part.SetInParent()
            self._message(part, field, node, value, path, depth)
        else:
            try:
                setattr(pb, field.name, _single(field, node)(value))
            except _WrongError as wrong:
                self._report(path, str(wrong))

    def _list(self, into: Any, field: FieldDescriptor, node: Node | None, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, list):
            self._report(path, f"expected a list, got {_shown(value)}")
            return
        item = node.item if isinstance(node, List | Tuple) else None
        if isinstance(node, Tuple) and node.length is not None and node.length != len(value):
            self._report(path, _of_length(node.length, len(value)))
        if field.message_type is not None:
            for index, each in enumerate(value):
                self._message(into.add(), field, item, each, f"{path}[{index}]", depth)
            return
        convert = _single(field, item)
        for index, each in enumerate(value):
            try:
                into.append(convert(each))
            except _WrongError as wrong:
                self._report(f"{path}[{index}]", str(wrong))

    def _map(self, into: Any, entry: Descriptor, node: Node | None, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, dict):
            self._report(path, f"expected an object, got {_shown(value)}")
            return
        for name in value.repeated if isinstance(value, _Object) else ():
            self._report(f"{path}[{json.dumps(name)}]", "the key is there more than once")
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        item = node.value if isinstance(node, Map) else None
        convert = None if value_field.message_type is not None else _single(value_field, item)
        for name, each in value.items():
            try:
                key = _key(key_field, name)
                if convert is not None:
                    into[key] = convert(each)
            except _WrongError as wrong:
                self._report(f"{path}[{json.dumps(name)}]", str(wrong))
            else:
                if convert is None:
                    self._message(into[key], value_field, item, each, f"{path}[{json.dumps(name)}]", depth)

    def _message(self, part: Any, field: FieldDescriptor, node: Node | None, value: Any, path: str, depth: int) -> None:
        name = message_type(field).full_name
        if name in _WELL_KNOWN:
            if not (isinstance(value, str) and _parsed(part, value)):
                self._report(path, f"expected {_WELL_KNOWN[name]}, got {_shown(value)}")
            return
        before = len(self.violations)
        self.read(part, node, value, path, depth + 1, kind_of(field))
        if name == _TENSOR and len(self.violations) == before:
            try:
                read_array(part, None)
            except UnreadableError as error:
                self._report(path, error.problem)


def _inside(node: Node | None) -> _Inside:
    match node:
        case None:
            return _Inside({}, {})
        case Message():
            fields = node.schema.fields
            return _Inside(
                {f.name: f.node for f in fields},
                {f.name: problem for f in fields if (problem := _need(f))},
                frozenset(f.name for f in fields if f.is_absent_if_empty),
            )
        case Union():
            return _Inside(dict(node.named()), {})
        case _:
            return _Inside({BOX_FIELD: node}, {})


def _need(field: Field) -> str:
    """The problem with a message in which a field is absent; empty if there is none."""
    match field.node:
        case Optional():
            return ""
        case Tuple(_, length):  # Absent is empty.
            return _of_length(length, 0) if length and not field.has_default else ""
        case _:
            return "a value is required, and there is none" if field.has_presence and not field.has_default else ""


def _of_length(wanted: int, actual: int) -> str:
    return f"{wanted} elements are required, and there are {actual}"


def _parsed(message: Any, value: str) -> bool:
    """Whether a well-known type takes this text; then `message` is set to it."""
    try:
        message.FromJsonString(value)
    except (ValueError, OverflowError):
        return False
    return True


# -- single values -----------------------------------------------------------------------------------------------------


def _single(field: FieldDescriptor, node: Node | None) -> Callable[[Any], Any]:
    """What makes a value of a field, or of its elements, of one of JSON. Raises _WrongError."""
    if (enum_type := field.enum_type) is not None:
        return lambda value: _enum(enum_type, value)
    return _uuid if isinstance(node, Uuid) else _CONVERSIONS[field.type]


def _wrong(expected: str, value: Any) -> _WrongError:
    return _WrongError(f"expected {expected}, got {_shown(value)}")


def _number(value: Any) -> float:
    if isinstance(value, str) and (value in _SPECIAL or _NUMBER.fullmatch(value)):
        number = _SPECIAL.get(value)
        if number is not None:
            return number
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _WrongError(f'{_shown(value)} is no number of JSON; there are the texts "NaN", "Infinity", "-Infinity"')
    return number


def _integer(value: Any) -> int:
    number = int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value
    if isinstance(number, float) and number.is_integer():
        if abs(number) > EXACT_INTEGER and INT64_MIN <= number <= INT64_MAX:
            raise _WrongError(f"{_shown(value)} may have been rounded: beyond 2**53, write an integer as a text")
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise _wrong("an integer", value)
    if not INT64_MIN <= number <= INT64_MAX:
        raise _WrongError(f"{_shown(value)} is outside {INT64_MIN} to {INT64_MAX}")
    return number


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong("true or false", value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong("a text", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _WrongError(
            f"expected a text of Unicode, got {_shown(value)}, which has half of a surrogate pair"
        ) from None
    return value


def _uuid(value: Any) -> str:
    try:
        # UUID() takes braces and the like, too.
        if isinstance(value, str) and str(UUID(value)) == value.lower():
            return value
    except ValueError:
        pass
    raise _wrong(_UUID, value)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str) or not _BASE64.fullmatch(value) or len(value.rstrip("=")) % 4 == 1:
        raise _wrong("a text in base64", value)
    bare = value.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(bare + "=" * (-len(bare) % 4))


def _enum(enum_type: EnumDescriptor, value: Any) -> int:
    members = _members(enum_type)
    if isinstance(value, str) and value in members:
        return members[value]
    if isinstance(value, int | float) and not isinstance(value, bool) and value in members.values():
        return int(value)
    likely = _likely(value, members, snake(enum_type.name) + "_")
    raise _WrongError(f"expected one of {_quoted(members)}, got {_shown(value)}{likely}")


def _members(enum_type: EnumDescriptor) -> dict[str, int]:
    """The values but the zero, which stands for none of the enum's members."""
    return {value.name: value.number for value in enum_type.values if value.number != 0}


_CONVERSIONS: dict[int, Callable[[Any], Any]] = {
    FieldDescriptor.TYPE_DOUBLE: _number,
    FieldDescriptor.TYPE_INT64: _integer,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_BYTES: _bytes,
}


def _key(field: FieldDescriptor, name: str) -> Any:
    """The key of a map that a name in JSON stands for."""
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _text(name)
        case FieldDescriptor.TYPE_BOOL if name in ("true", "false"):
            return name == "true"
        case FieldDescriptor.TYPE_BOOL:
            raise _WrongError(f'expected the key "true" or "false", got {_shown(name)}')
        case _ if _INTEGER.fullmatch(name):
            return _integer(name)
        case _:
            raise _WrongError(f"expected a key that is an integer, got {_shown(name)}")


# -- words -------------------------------------------------------------------------------------------------------------


def _step(name: str) -> str:
    """A name as the end of a path."""
    return f".{name}" if _NAME.fullmatch(name) else f"[{json.dumps(name)}]"


def _shown(value: Any) -> str:
    """A value as a problem quotes it."""
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            short = value if len(value) <= LONGEST_SHOWN else f"{value[: LONGEST_SHOWN - 1]}…"
            return json.dumps(short, ensure_ascii=False).encode(errors="backslashreplace").decode()
        case _:
            text = json.dumps(value)
            return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def _quoted(names: Iterable[str]) -> str:
    listed = [f'"{name}"' for name in names]
    return ", ".join(listed[:MOST_NAMES] + (["…"] if len(listed) > MOST_NAMES else []))


def _unknown(name: str, descriptor: Descriptor) -> str:
    names = [*descriptor.fields_by_name]
    known = f"{descriptor.name} has {_quoted(names)}" if names else f"{descriptor.name} has none"
    return f"no such field{_likely(name, names)}; {known}"


def _likely(value: Any, names: Iterable[str], prefix: str = "") -> str:
    """A question for the name that was probably meant, if there is one; the prefix that all have tells nothing."""
    by_rest = {name.lower().removeprefix(prefix): name for name in names}
    close = get_close_matches(value.lower().removeprefix(prefix), by_rest, 1) if isinstance(value, str) else []
    return f': did you mean "{by_rest[close[0]]}"?' if close else ""
