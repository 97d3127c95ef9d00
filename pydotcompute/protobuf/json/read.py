"""Messages from JSON: every mistake is told, each with its place, what was expected and what was there.

The JSON is protobuf's own mapping, as grpcurl takes it, too. Where that is lenient at the cost of the
message (base64 with foreign characters, an int beyond 2**53 that has come as a double), this is strict.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import google.protobuf.message
from google.protobuf import message_factory, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pydotcompute.exceptions import MessageDeserializationError, Violation
from pydotcompute.protobuf.conventions import BOX_FIELD, ONEOF, TENSOR, is_map, message_type
from pydotcompute.protobuf.json.values import (
    WELL_KNOWN,
    WrongError,
    conversion,
    convert_key,
    did_you_mean,
    kind_of,
    quoted,
    shown,
    step,
)
from pydotcompute.protobuf.runtime_helpers import ABSENT, UnreadableError, read_array, wrong_length
from pydotcompute.schema import nodes

__all__ = ["MOST_VIOLATIONS", "document_of", "load", "read_json"]

Proto: TypeAlias = google.protobuf.message.Message

MOST_VIOLATIONS = 100
"""How many mistakes are told of one document; what comes behind them is not read."""
MOST_DIGITS = 400
"""Characters of an integer; a double has 310 at most."""


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
    they have no order.
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
        reader.read(message, None if schema is None else nodes.Message(schema.cls), document, "$", 1)
    if violations := reader.violations:
        first = violations[0]
        raise MessageDeserializationError(descriptor.name, first.problem, first.path, violations)
    return message


class _Object(dict[str, Any]):
    """A JSON object that remembers which names it was given more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated = [] if len(self) == len(pairs) else [n for n, _ in pairs if n in seen or seen.add(n)]  # type: ignore[func-returns-value]


class _EnoughError(Exception):
    """There are as many violations as are told."""


class _Inside(NamedTuple):
    """What the class says of a message type."""

    node_of: dict[str, nodes.Node]
    required: dict[str, str]
    """The fields that a message cannot be without, each with the problem if it is."""
    may_be_empty: frozenset[str] = frozenset()
    """The tuples of a length that get their default if there are no elements."""


class _Reader:
    """Reads one document. Paths are made only of what is wrong, but for those of messages."""

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
        """Reads a message, whose class or box `node` is, if that is known."""
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
            elif each is not None:
                # Of a union only one member can be set, and of two spellings of a name only one.
                only = (
                    ONEOF if field.containing_oneof is not None and field.containing_oneof.name == ONEOF else field.name
                )
                if (other := given.setdefault(only, name)) is not name:
                    self._report(
                        path + step(name), f"there is {json.dumps(other)} already, and only one of them can be"
                    )
                elif each != [] or field.name not in inside.may_be_empty:
                    self._field(pb, field, inside.node_of.get(field.name), each, path + step(name), depth)
        for name, problem in inside.required.items():
            if name not in given:
                self._report(path + step(name), problem)
        if ONEOF in descriptor.oneofs_by_name and all(each is None for each in value.values()):
            self._report(path, f"expected one of {quoted(descriptor.fields_by_name)}, and there is none")

    def _fields(self, descriptor: Descriptor) -> dict[str, FieldDescriptor]:
        """The fields by their names in JSON: those of the `.proto`, and the same in camelCase."""
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
            self._report(f"{path}[{json.dumps(name)}]", "the key is there more than once")
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        item = node.value if isinstance(node, nodes.Map) else None
        convert = None if value_field.message_type is not None else conversion(value_field, item)
        for name, each in value.items():
            try:
                key = convert_key(key_field, name)
                if convert is not None:
                    into[key] = convert(each)
            except WrongError as wrong:
                self._report(f"{path}[{json.dumps(name)}]", str(wrong))
            else:
                if convert is None:
                    self._message(into[key], value_field, item, each, f"{path}[{json.dumps(name)}]", depth)

    def _message(
        self, part: Any, field: FieldDescriptor, node: nodes.Node | None, value: Any, path: str, depth: int
    ) -> None:
        name = message_type(field).full_name
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
    """The problem with a message in which a field is absent; empty if there is none."""
    match field.node:
        case nodes.Optional():
            return ""
        case nodes.Tuple(_, length):  # Absent is empty.
            return wrong_length(length, 0) if length and not field.has_default else ""
        case _:
            return ABSENT if field.has_presence and not field.has_default else ""


def _parsed(message: Any, value: str) -> bool:
    """Sets a message of a well-known type to this text. Returns True if the type takes it."""
    try:
        message.FromJsonString(value)
    except (ValueError, OverflowError):
        return False
    return True


def _unknown(name: str, descriptor: Descriptor) -> str:
    names = [*descriptor.fields_by_name]
    known = f"{descriptor.name} has {quoted(names)}" if names else f"{descriptor.name} has none"
    return f"no such field{did_you_mean(name, names)}; {known}"
