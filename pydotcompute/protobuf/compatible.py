"""The rule for which messages of a class can be sent as a type of the other side, and be received as one.

A program and a daemon may have two versions of one message. A field that one side lacks does no harm if absent means
something to the side that has it: a default, None, or protobuf's zero. So such a field is left out while it has that
value, and filled with it on receipt. The same holds for the members of enums and unions: they do no harm until they are
sent. `Codec` refuses what has no place at the other side.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.conventions import BOX_FIELD, ONEOF, STATIC, describe, is_map, members, message_type
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema import nodes
from pydotcompute.schema.names import type_name

__all__ = ["compatible", "lacks_theirs"]


def compatible(ours: nodes.MessageSchema, theirs: Descriptor, required: Collection[str] = ()) -> int:
    """Checks that instances of our class can be sent as the type of the other side, and received as such.

    The function compares the fields, at any depth: what both sides have must have the same number and type, and what
    one side lacks must not be required by the other. It ignores the names of messages, modules and packages, as well as
    defaults and the values of Literals.

    Args:
        ours: the schema of our class.
        theirs: the type of the other side.
        required: the full names of fields that the other side requires: see `conventions.required_fields`.

    Returns:
        The number of fields and members that one of the two sides lacks.

    Raises:
        MessageTypeError: the types differ. `path` is the place of the field, such as `$.operation`. If a side lacks the
            field, `expected` says so in a sentence; otherwise it is the field of the other side, and `actual` is ours.
    """
    comparison = _Comparison({schema.full_name: schema for schema in nodes.reachable(ours)}, required)
    comparison.match(TypePool().add(ours.cls), theirs, "$")
    return comparison.lacking


def lacks_theirs(ours: nodes.MessageSchema, field: nodes.Field, theirs: Descriptor) -> str:
    """Returns the sentence that says that the other side lacks a field of our class."""
    own = f"your {type_name(ours.cls)}"
    return f"the daemon's {theirs.full_name} lacks '{field.name}: {field.node}', which {own} has"


class _Pair(NamedTuple):
    """Two types that are being compared, and the place where they are."""

    ours: Descriptor
    theirs: Descriptor
    path: str


class _Comparison:
    def __init__(self, schemas: dict[str, nodes.MessageSchema], required: Collection[str]) -> None:
        self._schemas = schemas
        self._required = required
        self._matched: set[tuple[str, str]] = set()
        self.lacking = 0

    def match(self, ours: Descriptor, theirs: Descriptor, path: str) -> None:
        if (ours.full_name, theirs.full_name) in self._matched:
            return
        self._matched.add((ours.full_name, theirs.full_name))
        pair = _Pair(ours, theirs, path)
        wanted = dict(theirs.fields_by_name)
        for field in ours.fields:
            other = wanted.pop(field.name, None)
            if other is None:
                self._match_missing(pair, field)
            else:
                self._match_fields(pair, field, other)
        for missing in wanted.values():
            if missing.full_name in self._required:
                schema = self._schemas[ours.full_name]
                lacks = f"your {type_name(schema.cls)} lacks '{missing.name}: {_in_python(missing)}'"
                problem = f"{lacks}, which the daemon's {theirs.full_name} has, and requires"
                raise MessageTypeError(problem, "", f"{path}.{missing.name}")
            self.lacking += 1

    def _match_missing(self, pair: _Pair, field: FieldDescriptor) -> None:
        """Checks a field of ours that the other side lacks."""
        path = f"{pair.path}.{field.name}"
        same_number = pair.theirs.fields_by_number.get(field.number)
        if same_number is not None:
            numbered = f"field {field.number} to be '{same_number.name}', as in the daemon's {pair.theirs.full_name}"
            raise MessageTypeError(numbered, f"'{field.name}'", path)
        schema = self._schemas.get(pair.ours.full_name)
        if schema is not None:
            own = next(each for each in schema.fields if each.name == field.name)
            if own.is_required:
                problem = f"{lacks_theirs(schema, own, pair.theirs)}, without a default"
                raise MessageTypeError(problem, "", path)
        self.lacking += 1

    def _match_fields(self, pair: _Pair, field: FieldDescriptor, other: FieldDescriptor) -> None:
        # In Python there are no map entries and boxes. So the path of a value in one is the path of the outer field.
        is_inner = pair.ours.containing_type and field.name in ("key", BOX_FIELD)
        inside = pair.path if is_inner else f"{pair.path}.{field.name}"
        if other.number != field.number:
            raise MessageTypeError(f"field number {other.number}", f"field number {field.number}", inside)
        if _kind(field) != _kind(other):
            raise MessageTypeError(describe(other), describe(field), inside)
        if field.enum_type is not None and other.enum_type is not None:
            self._match_enums(field.enum_type, other.enum_type, inside)
        elif field.message_type is not None and field.message_type.full_name not in STATIC:
            inside += "[]" if field.is_repeated else ""
            self.match(field.message_type, message_type(other), inside)

    def _match_enums(self, ours: EnumDescriptor, theirs: EnumDescriptor, path: str) -> None:
        own, others = members(ours), members(theirs)
        names = {number: name for name, number in others.items()}
        if any(others.get(name, number) != number or names.get(number, name) != name for name, number in own.items()):
            raise MessageTypeError(f"an enum of {_members_text(theirs)}", f"one of {_members_text(ours)}", path)
        self.lacking += len(own.keys() ^ others.keys())


def _kind(field: FieldDescriptor) -> tuple[object, ...]:
    """Returns the properties that must be equal in compatible fields, apart from the insides of messages and enums."""
    message = field.message_type
    static = message.full_name if message is not None and message.full_name in STATIC else None
    form = None
    if message is not None and message.containing_type is not None:  # A box, a map's entry or a union.
        form = "union" if ONEOF in message.oneofs_by_name else "box"
    return field.type, field.is_repeated, is_map(field), static, form


def _members_text(enum_type: EnumDescriptor) -> str:
    return ", ".join(f"{name} = {number}" for name, number in members(enum_type).items())


_IN_PYTHON = {"double": "float", "int64": "int", "string": "str"}


def _in_python(field: FieldDescriptor) -> str:
    """Returns the type of a field about as its annotation in Python is."""
    if field.is_repeated or is_map(field):
        return describe(field)
    kind = describe(field).removeprefix("optional ").removeprefix("enum ")
    return _IN_PYTHON.get(kind, kind)
