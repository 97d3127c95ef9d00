"""Makes descriptors of protobuf types from message classes."""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Iterator
from typing import assert_never

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, SourceCodeInfo

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.conventions import BASICS, BOX_FIELD, DURATION, ONEOF, REQUIRED, TENSOR, TIMESTAMP
from pydotcompute.schema import nodes
from pydotcompute.schema.names import camel, snake, type_name

__all__ = ["comment", "files_of"]


def files_of(schema: nodes.MessageSchema) -> list[FileDescriptorProto]:
    """Returns descriptors of the files with all types that `schema` needs, including its own.

    Each type has a file of its own, except that messages which contain each other share one.

    Raises:
        MessageTypeError: two classes have the same full name, or messages of different packages contain each other.
    """
    messages = nodes.reachable(schema)
    names: dict[str, nodes.MessageSchema | type] = {}
    enums: dict[type, nodes.EnumNode] = {}
    for found in messages:
        enums.update((node.cls, node) for node in _inside(found) if isinstance(node, nodes.EnumNode))
    named: list[nodes.MessageSchema | nodes.EnumNode] = [*messages, *enums.values()]
    for item in named:
        own = item if isinstance(item, nodes.MessageSchema) else item.cls
        other = names.setdefault(item.full_name, own)
        if other is not own:
            cls = other.cls if isinstance(other, nodes.MessageSchema) else other
            raise MessageTypeError(f"one class for {item.full_name}", f"{type_name(cls)} and {type_name(item.cls)}")

    # Protobuf does not allow cycles of imports. So classes that contain each other share a file.
    reach = {message: nodes.reachable(message) for message in messages}
    file_names: dict[str, str] = {enum.full_name: _file_name(enum.full_name) for enum in enums.values()}
    groups: dict[str, list[nodes.MessageSchema]] = {}
    for message in messages:
        group = [other for other in reach[message] if message in reach[other]]
        packages = sorted({member.package for member in group})
        if len(packages) > 1:
            raise MessageTypeError("messages of one package where they contain each other", " and ".join(packages))
        file_name = file_names[message.full_name] = _file_name(min(member.full_name for member in group))
        groups.setdefault(file_name, []).append(message)

    files = [_message_file(name, group, file_names) for name, group in groups.items()]
    return [*(_enum_file(enum) for enum in enums.values()), *files]


def _inside(schema: nodes.MessageSchema) -> Iterator[nodes.Node]:
    for field in schema.fields:
        yield from nodes.walk(field.node)


def _file_name(full_name: str) -> str:
    package, _, name = full_name.rpartition(".")
    return f"{package.replace('.', '/')}/{snake(name)}.proto"


def comment(info: SourceCodeInfo, path: list[int], text: str) -> None:
    """Adds a comment for the element at this path of SourceCodeInfo. Does nothing if the text is empty."""
    if text:
        # There is no source file that the span could refer to, but Go programs refuse a location without a span.
        info.location.add(
            path=path,
            span=[0, 0, 0],
            leading_comments="".join(f" {line}".rstrip() + "\n" for line in text.splitlines()),
        )


def _enum_file(node: nodes.EnumNode) -> FileDescriptorProto:
    file = FileDescriptorProto(name=_file_name(node.full_name), package=node.package, syntax="proto3")
    enum = file.enum_type.add(name=node.name)
    comment(file.source_code_info, [5, 0], inspect.cleandoc(node.cls.__dict__.get("__doc__") or ""))
    enum.value.add(name=node.prefix + "UNSPECIFIED", number=0)
    for _, name, number in node.values():
        enum.value.add(name=name, number=number)
    for name, number in node.reserved:
        enum.reserved_range.add(start=number, end=number)  # The end of a range is inclusive in enums.
        enum.reserved_name.append(name)
    return file


def _message_file(name: str, group: list[nodes.MessageSchema], file_names: dict[str, str]) -> FileDescriptorProto:
    file = FileDescriptorProto(name=name, package=group[0].package, syntax="proto3")
    imports: set[str] = set()
    for index, schema in enumerate(sorted(group, key=lambda member: member.full_name)):
        comment(file.source_code_info, [4, index], schema.doc)
        message = file.message_type.add(name=schema.name)
        builder = _MessageBuilder(message, f".{schema.full_name}")
        for position, field in enumerate(schema.fields):
            builder.add(field.name, field.number, field.node, field.has_presence)
            comment(file.source_code_info, [4, index, 2, position], _field_doc(field))
        for reserved, number in schema.reserved:
            message.reserved_range.add(start=number, end=number + 1)
            message.reserved_name.append(reserved)
        for node in _inside(schema):
            match node:
                case nodes.Message() | nodes.EnumNode():
                    referred = node.schema.full_name if isinstance(node, nodes.Message) else node.full_name
                    imports.add(file_names[referred])
                case nodes.Timestamp():
                    imports.add(TIMESTAMP.file.name)
                case nodes.Duration():
                    imports.add(DURATION.file.name)
                case nodes.Basic(kind):
                    imports.add(BASICS[kind].file.name)
                case nodes.Array():
                    imports.add(TENSOR.file.name)
                case _:
                    pass
    file.dependency.extend(sorted(imports - {name}))
    return file


def _field_doc(field: nodes.Field) -> str:
    """Returns the comment of a field: its documentation, and the rules that its protobuf type does not express."""
    lines = [field.doc] if field.doc else []
    if isinstance(field.node, nodes.Literal):
        lines.append(f"One of: {', '.join(map(repr, field.node.values))}.")
    alone = field.node.item if isinstance(field.node, nodes.Optional) else field.node
    for node in nodes.walk(field.node):
        match node:
            case nodes.Uuid():
                lines.append("A UUID." if node is alone else "Each must be a UUID.")
            case nodes.Tuple(_, length) if length is not None:
                lines.append(f"Exactly {length}." if node is alone else f"Each of exactly {length}.")
            case nodes.Array() if node.wanted:
                lines.append(f"{'Must be this' if node is alone else 'Each must be this'}: {node.wanted}.")
    if field.is_required:
        lines.append(REQUIRED)
    if field.has_default and field.has_presence and not isinstance(field.node, nodes.Optional):
        lines.append(f"If absent: {_default_text(field)}.")
    elif field.is_absent_if_empty:
        lines.append(f"If empty: {_default_text(field)}.")
    return "\n".join(lines)


def _default_text(field: nodes.Field) -> str:
    match field.default:
        case _ if field.default_factory is not None:
            return "made by the receiver"
        case enum.Enum() if isinstance(field.node, nodes.EnumNode):
            return next(name for member, name, _ in field.node.values() if member is field.default)
        case bool() | int() | float() | str():
            return json.dumps(field.default, ensure_ascii=False)
        case tuple(items) if all(isinstance(item, int | float | str) for item in items):
            return json.dumps(items, ensure_ascii=False)
        case _:
            return str(field.default)


class _MessageBuilder:
    """Adds fields to the descriptor `message`. `scope` is the full name of the message type, with a leading dot."""

    def __init__(self, message: DescriptorProto, scope: str) -> None:
        self.message = message
        self._scope = scope

    def add(self, name: str, number: int, node: nodes.Node, has_presence: bool) -> None:
        field = self.message.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        box = camel(name) + "Value"
        match node:
            case nodes.List(item) | nodes.Tuple(item):
                field.label = FieldDescriptorProto.LABEL_REPEATED
                self._set_type(field, item, box)
            case nodes.Map(key, item):
                field.label = FieldDescriptorProto.LABEL_REPEATED
                entry = self._nest(field, camel(name) + "Entry")
                entry.message.options.map_entry = True
                entry.add("key", 1, key, False)
                value = entry.message.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL)
                self._set_type(value, item, box)
            case nodes.Optional(item):
                self._set_type(field, item, box)
            case _:
                self._set_type(field, node, box)
        if has_presence and field.type != FieldDescriptorProto.TYPE_MESSAGE:
            # In proto3, an `optional` field is a oneof with a single member.
            field.proto3_optional = True
            field.oneof_index = len(self.message.oneof_decl)
            self.message.oneof_decl.add(name=f"_{name}")

    def _nest(self, field: FieldDescriptorProto, name: str) -> _MessageBuilder:
        """Gives `field` a new message type, nested in this one. Returns the builder of the new type."""
        scope = f"{self._scope}.{name}"
        _refer(field, FieldDescriptorProto.TYPE_MESSAGE, scope)
        return _MessageBuilder(self.message.nested_type.add(name=name), scope)

    def _set_type(self, field: FieldDescriptorProto, node: nodes.Node, box: str) -> None:
        """Gives `field` the type of a single value of `node`. If the value needs a box, the box has the name `box`."""
        match node:
            case nodes.Float():
                field.type = FieldDescriptorProto.TYPE_DOUBLE
            case nodes.Int():
                field.type = FieldDescriptorProto.TYPE_INT64
            case nodes.Bool():
                field.type = FieldDescriptorProto.TYPE_BOOL
            case nodes.Str() | nodes.Literal() | nodes.Uuid():
                field.type = FieldDescriptorProto.TYPE_STRING
            case nodes.Bytes():
                field.type = FieldDescriptorProto.TYPE_BYTES
            case nodes.EnumNode():
                _refer(field, FieldDescriptorProto.TYPE_ENUM, f".{node.full_name}")
            case nodes.Message():
                _refer(field, FieldDescriptorProto.TYPE_MESSAGE, f".{node.schema.full_name}")
            case nodes.Timestamp():
                _refer(field, FieldDescriptorProto.TYPE_MESSAGE, f".{TIMESTAMP.full_name}")
            case nodes.Duration():
                _refer(field, FieldDescriptorProto.TYPE_MESSAGE, f".{DURATION.full_name}")
            case nodes.Array():
                _refer(field, FieldDescriptorProto.TYPE_MESSAGE, f".{TENSOR.full_name}")
            case nodes.Basic(kind):
                _refer(field, FieldDescriptorProto.TYPE_MESSAGE, f".{BASICS[kind].full_name}")
            case nodes.Optional() | nodes.List() | nodes.Tuple() | nodes.Map():
                self._nest(field, box).add(BOX_FIELD, 1, node, isinstance(node, nodes.Optional))
            case nodes.Union():
                nested = self._nest(field, box)
                nested.message.oneof_decl.add(name=ONEOF)
                for number, (name, member) in enumerate(node.named(), 1):
                    nested.add(name, number, member, False)
                    nested.message.field[-1].oneof_index = 0
            case _:
                assert_never(node)


def _refer(field: FieldDescriptorProto, kind: FieldDescriptorProto.Type.ValueType, type_name: str) -> None:
    field.type = kind
    field.type_name = type_name
