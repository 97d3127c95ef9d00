"""The check that messages of a class can be sent as a type of the other side."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.conventions import BOX_FIELD, ONEOF, STATIC, describe, is_map, members, message_type
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema import nodes

__all__ = ["compatible"]


def compatible(ours: nodes.MessageSchema, theirs: Descriptor) -> None:
    """Checks that instances of our class can be sent as the type of the other side, so that `Codec` can encode them.

    The function compares the names, numbers and types of the fields, at any depth, and the members of enums. It ignores
    the names of messages, modules and packages, as well as defaults and the values of Literals.

    Raises:
        MessageTypeError: the types differ. `path` is the place of the field, such as `$.operation`. `expected` is the
            field of the other side, in words, and `actual` is ours.
    """
    own = {schema.full_name: {field.name: field.node for field in schema.fields} for schema in nodes.reachable(ours)}
    _match(TypePool().add(ours.cls), theirs, "$", own, set())


def _match(
    ours: Descriptor,
    theirs: Descriptor,
    path: str,
    own: dict[str, dict[str, nodes.Node]],
    matched: set[tuple[str, str]],
) -> None:
    if (ours.full_name, theirs.full_name) in matched:
        return
    matched.add((ours.full_name, theirs.full_name))
    wanted = dict(theirs.fields_by_name)
    for field in ours.fields:
        # In Python there are no map entries and boxes. So the path of a value in one is the path of the outer field.
        inside = path if ours.containing_type and field.name in ("key", BOX_FIELD) else f"{path}.{field.name}"
        other = wanted.pop(field.name, None)
        if other is None:
            raise MessageTypeError("no such field", describe(field), inside)
        if other.number != field.number:
            raise MessageTypeError(f"field number {other.number}", f"field number {field.number}", inside)
        # A field may have presence only because it has a default. Such a field is always sent, so the other side's
        # field does not need presence.
        node = own.get(ours.full_name, {}).get(field.name)
        may_be_none = field.has_presence and (node is None or isinstance(node, nodes.Optional))
        if _kind(field) != _kind(other) or (may_be_none and not other.has_presence):
            raise MessageTypeError(describe(other), describe(field), inside)
        if field.enum_type is not None and other.enum_type is not None:
            _match_enums(field.enum_type, other.enum_type, inside)
        elif field.message_type is not None and field.message_type.full_name not in STATIC:
            inside += "[]" if field.is_repeated else ""
            _match(field.message_type, message_type(other), inside, own, matched)
    for missing in wanted.values():
        raise MessageTypeError(describe(missing), "no such field", f"{path}.{missing.name}")


def _kind(field: FieldDescriptor) -> tuple[object, ...]:
    """Returns the properties that must be equal in compatible fields, apart from the insides of messages and enums."""
    message = field.message_type
    static = message.full_name if message is not None and message.full_name in STATIC else None
    in_union = field.containing_oneof is not None and field.containing_oneof.name == ONEOF
    return field.type, field.is_repeated, is_map(field), static, in_union


def _match_enums(ours: EnumDescriptor, theirs: EnumDescriptor, path: str) -> None:
    if members(ours) != members(theirs):
        raise MessageTypeError(f"an enum of {_members_text(theirs)}", f"one of {_members_text(ours)}", path)


def _members_text(enum_type: EnumDescriptor) -> str:
    return ", ".join(f"{name} = {number}" for name, number in members(enum_type).items())
