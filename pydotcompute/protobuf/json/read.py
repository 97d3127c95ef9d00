"""Reads messages from JSON and reports every mistake, with its place, what was expected and what was there.

The JSON is protobuf's own mapping, which grpcurl also uses. Protobuf's parser accepts some values that damage the
message, such as base64 with foreign characters, or an int beyond 2**53 that was rounded to a double. This reader
refuses them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import google.protobuf.message
from google.protobuf import message_factory, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pydotcompute.exceptions import MessageDeserializationError, MessageSerializationError, Violation
from pydotcompute.protobuf import basics
from pydotcompute.protobuf.conventions import BASICS, BOX_FIELD, ONEOF, TENSOR, is_map, message_type
from pydotcompute.protobuf.json.values import (
    WELL_KNOWN,
    WrongError,
    conversion,
    convert_key,
    did_you_mean,
    key_step,
    kind_of,
    quoted,
    shown,
    step,
)
from pydotcompute.protobuf.runtime_helpers import ABSENT, UnreadableError, read_array, wrong_length
from pydotcompute.schema import basic, nodes

__all__ = ["MOST_VIOLATIONS", "document_of", "load", "read_json"]

Proto: TypeAlias = google.protobuf.message.Message

MOST_VIOLATIONS = 100
"""The largest number of mistakes that are reported for one document. The rest of the document is not read."""
MOST_DIGITS = 400
"""The largest number of characters in an integer. The longest double that is an integer has 310."""


def load(text: str | bytes) -> Any:
    """Returns the document of a JSON text, for `read_json`. It remembers which names an object has twice.

    Raises:
        ValueError: the text is not valid JSON. The text of the error says why.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}") from None
    try:
        # Some programs write a byte order mark at the beginning of a file.
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_Object, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} characters is too long, {MOST_DIGITS} can be read")
    return int(digits)


def document_of(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Returns the document that a Struct holds.

    All numbers are floats, as in the Struct. The names are sorted, because they have no order in a Struct.
    """
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


def read_json(document: Any, descriptor: Descriptor, schema: nodes.MessageSchema | None = None) -> Proto:
    """Returns the message that a JSON document stands for.

    Args:
        document: the result of `json.loads`, `load` or `document_of`.
        descriptor: the type of the message.
        schema: the schema of the class that the type was made from, if it is known. It is needed to check which values
            are required, which texts are UUIDs, and how long a tuple is.

    Raises:
        MessageDeserializationError: the document has mistakes. `violations` has all of them, in the order of the
            document, but at most `MOST_VIOLATIONS`. A path says where a mistake is in the JSON, such as
            `$.shapes[0].circle.radius`.
    """
    reader = _Reader()
    message = message_factory.GetMessageClass(descriptor)()
    with suppress(_EnoughError):
        reader.read(message, None if schema is None else nodes.Message(schema.cls), document, "$", 1)
    if violations := reader.violations:
        first = violations[0]
        raise MessageDeserializationError(descriptor.name, first.problem, first.path, violations)
    return message


_KINDS: dict[str, basic.Kind] = {message.full_name: kind for kind, message in BASICS.items()}


def _is_any(field: FieldDescriptor) -> bool:
    """Returns True if null is a value of the field, and does not stand for its absence."""
    return (
        not field.is_repeated and field.message_type is not None and _KINDS.get(field.message_type.full_name) == "Any"
    )


def _repeated(value: Any, path: str) -> Iterator[str]:
    """Yields the path of each name in a value, at any depth, that its object has twice."""
    if isinstance(value, _Object):
        yield from (f"{path}[{json.dumps(name)}]" for name in value.repeated)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _repeated(item, f"{path}[{json.dumps(key)}]")


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its names were there more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated = [] if len(self) == len(pairs) else [n for n, _ in pairs if n in seen or seen.add(n)]  # type: ignore[func-returns-value]


class _EnoughError(Exception):
    """The number of violations has reached `MOST_VIOLATIONS`."""


class _Inside(NamedTuple):
    """The knowledge about a message type that comes from its class."""

    node_of: dict[str, nodes.Node]
    required: dict[str, str]
    """The required fields, each with the problem, in words, if it is absent."""
    may_be_empty: frozenset[str] = frozenset()
    """The fields with a tuple of a fixed length that get their default if there are no elements."""


class _Reader:
    """Reads one document. To be fast, it makes paths only for messages and for mistakes."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._names: dict[str, dict[str, FieldDescriptor]] = {}
        self._insides: dict[nodes.Node | None, _Inside] = {}

    def _report(self, path: str, problem: str) -> None:
        self.violations.append(Violation(path, problem))
        if len(self.violations) == MOST_VIOLATIONS:
            raise _EnoughError

    # -- messages ------------------------------------------------------------------------------------------------------

    def read(
        self, pb: Any, node: nodes.Node | None, value: Any, path: str, depth: int, expected: str = "an object"
    ) -> None:
        """Reads the document `value` into the message `pb`.

        `node` is the class of the message, or the node in it if it is a box, or None if the class is not known.
        `expected` describes the right kind of value, for the text of a violation.
        """
        if not isinstance(value, dict):
            self._report(path, f"expected {expected}, got {shown(value)}")
            return
        if depth > nodes.MAX_DEPTH:
            self._report(path, f"messages are nested more than {nodes.MAX_DEPTH} deep")
            return
        for name in value.repeated if isinstance(value, _Object) else ():
            self._report(path + step(name), "the name is there more than once")
        descriptor = pb.DESCRIPTOR
        fields, inside = self._fields(descriptor), self._inside(node)
        given: dict[str, str] = {}
        for name, each in value.items():
            field = fields.get(name)
            if field is None:
                self._report(path + step(name), _unknown(name, descriptor))
            elif each is not None or _is_any(field):
                # Only one member of a union can be set, and only one of the two spellings of a name.
                only = (
                    ONEOF if field.containing_oneof is not None and field.containing_oneof.name == ONEOF else field.name
                )
                if (other := given.setdefault(only, name)) is not name:
                    self._report(path + step(name), f"there is {shown(other)} already, and only one of them can be")
                elif each != [] or field.name not in inside.may_be_empty:
                    self._field(pb, field, inside.node_of.get(field.name), each, path + step(name), depth)
        for name, problem in inside.required.items():
            if name not in given:
                self._report(path + step(name), problem)
        if ONEOF in descriptor.oneofs_by_name and all(each is None for each in value.values()):
            self._report(path, f"expected one of {quoted(descriptor.fields_by_name)}, and there is none")

    def _fields(self, descriptor: Descriptor) -> dict[str, FieldDescriptor]:
        """Returns the fields by their names in JSON. Each has its name in the `.proto`, and the same in camelCase."""
        names = self._names.get(descriptor.full_name)
        if names is None:
            by_json_name = {field.json_name: field for field in descriptor.fields}
            names = self._names[descriptor.full_name] = {**by_json_name, **dict(descriptor.fields_by_name)}
        return names

    def _inside(self, node: nodes.Node | None) -> _Inside:
        inside = self._insides.get(node)
        if inside is None:
            inside = self._insides[node] = _inside(node)
        return inside

    # -- fields --------------------------------------------------------------------------------------------------------

    def _field(
        self, pb: Proto, field: FieldDescriptor, node: nodes.Node | None, value: Any, path: str, depth: int
    ) -> None:
        if isinstance(node, nodes.Optional):
            node = node.item
        if is_map(field):
            self._map(getattr(pb, field.name), message_type(field), node, value, path, depth)
        elif field.is_repeated:
            self._list(getattr(pb, field.name), field, node, value, path, depth)
        elif field.message_type is not None:
            part = getattr(pb, field.name)
            part.SetInParent()
            self._message(part, field, node, value, path, depth)
        else:
            try:
                setattr(pb, field.name, conversion(field, node)(value))
            except WrongError as wrong:
                self._report(path, str(wrong))

    def _list(
        self, into: Any, field: FieldDescriptor, node: nodes.Node | None, value: Any, path: str, depth: int
    ) -> None:
        if not isinstance(value, list):
            self._report(path, f"expected a list, got {shown(value)}")
            return
        item = node.item if isinstance(node, nodes.List | nodes.Tuple) else None
        if isinstance(node, nodes.Tuple) and node.length is not None and node.length != len(value):
            self._report(path, wrong_length(node.length, len(value)))
        if field.message_type is not None:
            for index, each in enumerate(value):
                self._message(into.add(), field, item, each, f"{path}[{index}]", depth)
            return
        convert = conversion(field, item)
        for index, each in enumerate(value):
            try:
                into.append(convert(each))
            except WrongError as wrong:
                self._report(f"{path}[{index}]", str(wrong))

    def _map(self, into: Any, entry: Descriptor, node: nodes.Node | None, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, dict):
            self._report(path, f"expected an object, got {shown(value)}")
            return
        for name in value.repeated if isinstance(value, _Object) else ():
            self._report(f"{path}{key_step(name)}", "the key is there more than once")
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        item = node.value if isinstance(node, nodes.Map) else None
        convert = None if value_field.message_type is not None else conversion(value_field, item)
        for name, each in value.items():
            try:
                key = convert_key(key_field, name)
                if convert is not None:
                    into[key] = convert(each)
            except WrongError as wrong:
                self._report(f"{path}{key_step(name)}", str(wrong))
            else:
                if convert is None:
                    self._message(into[key], value_field, item, each, f"{path}{key_step(name)}", depth)

    def _message(
        self, part: Any, field: FieldDescriptor, node: nodes.Node | None, value: Any, path: str, depth: int
    ) -> None:
        name = message_type(field).full_name
        if (kind := _KINDS.get(name)) is not None:
            self._basic(part, kind, value, path, depth)
            return
        if name in WELL_KNOWN:
            if not (isinstance(value, str) and _parsed(part, value)):
                self._report(path, f"expected {WELL_KNOWN[name]}, got {shown(value)}")
            return
        before = len(self.violations)
        self.read(part, node, value, path, depth + 1, kind_of(field))
        if name == TENSOR.full_name and len(self.violations) == before:
            try:
                read_array(part, None)
            except UnreadableError as error:
                self._report(path, error.problem)

    def _basic(self, part: Any, kind: basic.Kind, value: Any, path: str, depth: int) -> None:
        if kind != "Any" and not isinstance(value, list if kind == "list" else dict):
            self._report(path, f"expected {WELL_KNOWN[part.DESCRIPTOR.full_name]}, got {shown(value)}")
            return
        plain = basic.settled(value, depth)
        try:
            basic.explain("", kind, plain, path, depth)
        except MessageSerializationError as error:
            self._report(error.path, error.problem)
            return
        for place in _repeated(value, path):
            self._report(place, "the name is there more than once")
        basics.WRITERS[kind](part, plain)


def _inside(node: nodes.Node | None) -> _Inside:
    match node:
        case None:
            return _Inside({}, {})
        case nodes.Message():
            fields = node.schema.fields
            return _Inside(
                {f.name: f.node for f in fields},
                {f.name: problem for f in fields if (problem := _need(f))},
                frozenset(f.name for f in fields if f.is_absent_if_empty),
            )
        case nodes.Union():
            return _Inside(dict(node.named()), {})
        case _:
            return _Inside({BOX_FIELD: node}, {})


def _need(field: nodes.Field) -> str:
    """Returns the problem, in words, if this field is absent. Empty if the field may be absent."""
    if not field.is_required:
        return ""
    # An absent tuple is an empty tuple.
    return wrong_length(field.node.length or 0, 0) if isinstance(field.node, nodes.Tuple) else ABSENT


def _parsed(message: Any, value: str) -> bool:
    """Sets a message of a well-known type to the value of a text. Returns True if the text is valid."""
    try:
        message.FromJsonString(value)
    except (ValueError, OverflowError):
        return False
    return True


def _unknown(name: str, descriptor: Descriptor) -> str:
    names = [*descriptor.fields_by_name]
    known = f"{descriptor.name} has {quoted(names)}" if names else f"{descriptor.name} has none"
    return f"no such field{did_you_mean(name, names)}; {known}"
