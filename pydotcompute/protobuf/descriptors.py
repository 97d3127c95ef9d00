"""Message classes as protobuf types, and protobuf types as message classes."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import inspect
import json
import operator
import types
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, assert_never

import google.protobuf.message
from google.protobuf import duration_pb2, message_factory, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    SourceCodeInfo,
)
from google.protobuf.descriptor_pool import DescriptorPool

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.schema.introspect import FieldNumber, introspect
from pydotcompute.schema.names import camel, snake, type_name
from pydotcompute.schema.nodes import (
    Array,
    Bool,
    Bytes,
    Duration,
    EnumNode,
    Field,
    Float,
    Int,
    List,
    Literal,
    Map,
    Message,
    MessageSchema,
    Node,
    Optional,
    Str,
    Timestamp,
    Tuple,
    Union,
    Uuid,
    reachable,
    walk,
)
from pydotcompute.v1 import tensor_pb2

__all__ = ["BOX_FIELD", "ONEOF", "TypePool", "comment", "compatible", "dataclass_from", "in_order", "message_type"]

BOX_FIELD = "value"
"""The one field of a box: the message that holds a list inside a list, an optional element, and the like."""
ONEOF = "one_of"
"""The name of the oneof in the message that stands for a union."""

_STATIC_FILES = [module.DESCRIPTOR for module in (timestamp_pb2, duration_pb2, tensor_pb2)]
_TIMESTAMP, _DURATION, _TENSOR = (
    message.DESCRIPTOR for message in (timestamp_pb2.Timestamp, duration_pb2.Duration, tensor_pb2.Tensor)
)


class TypePool:
    """Protobuf types made at run time, in a descriptor pool of their own.

    Each class has a file to itself, such as `calculator/v1/calculation_request.proto`; so does each enum, and classes
    that contain each other share one. So a type that two messages use is defined once, whatever is added first.
    """

    def __init__(self) -> None:
        self._files: dict[str, FileDescriptorProto] = {}
        self.pool = DescriptorPool()
        """What `json_format` and reflection take. Add to it only through this object."""
        for file in _STATIC_FILES:
            proto = FileDescriptorProto()
            file.CopyToProto(proto)
            self._add(proto)

    def add(self, cls: type) -> Descriptor:
        """The type of a message class, added with whatever it refers to, unless it is there already.

        Raises:
            MessageTypeError: the class cannot be a protobuf type (see `introspect`), or the pool has a different type
                of the same name.
        """
        schema = introspect(cls)
        self.add_files(_files(schema))
        return self.descriptor(schema.full_name)

    def add_files(self, files: bytes | Iterable[FileDescriptorProto]) -> None:
        """Adds files, given in any order or as a serialized FileDescriptorSet, unless they are there already.

        Raises:
            MessageTypeError: a type contradicts one of the same name in the pool, or an imported file is missing.
        """
        if isinstance(files, bytes):
            try:
                files = FileDescriptorSet.FromString(files).file
            except google.protobuf.message.DecodeError as error:
                raise MessageTypeError("a serialized FileDescriptorSet", str(error)) from error
        for file in in_order({file.name: file for file in files}):
            self._add(file)

    def _add(self, file: FileDescriptorProto) -> None:
        known = self._files.get(file.name)
        if known is not None:
            if _without_comments(known) != _without_comments(file):
                defined = [*(message.name for message in file.message_type), *(enum.name for enum in file.enum_type)]
                names = ", ".join(f"{file.package}.{name}" for name in defined)
                raise MessageTypeError(f"the structure that {names} already has here", "another one of the same name")
            return
        try:
            self.pool.Add(file)
        except TypeError as error:
            raise MessageTypeError("types that fit together", str(error)) from error
        self._files[file.name] = file

    def descriptor(self, full_name: str) -> Descriptor:
        """The message type of this name, such as `calculator.v1.CalculationRequest`.

        Raises:
            MessageTypeError: there is none.
        """
        try:
            return self.pool.FindMessageTypeByName(full_name)
        except KeyError as error:
            raise MessageTypeError("a known message type", full_name) from error

    def message_class(self, full_name: str) -> type[google.protobuf.message.Message]:
        """Protobuf's own class for the message type of this name. Raises as `descriptor` does."""
        return message_factory.GetMessageClass(self.descriptor(full_name))

    def file_set(self, full_name: str) -> FileDescriptorSet:
        """The file of a message type or a service and all that it imports, each after its imports, comments included.

        Raises:
            MessageTypeError: there is none.
        """
        try:
            last = self.pool.FindFileContainingSymbol(full_name).name
        except KeyError as error:
            raise MessageTypeError("a known type or service", full_name) from error
        return FileDescriptorSet(file=self.with_imports(last))

    def with_imports(self, name: str) -> list[FileDescriptorProto]:
        """The file of this name after all that it imports, comments included. KeyError if there is none."""
        return in_order(self._files, [self._files[name].name])

    def services(self) -> list[str]:
        """The full names of all services in the pool, in order."""
        return sorted(f"{file.package}.{each.name}" for file in self._files.values() for each in file.service)


def in_order(files: dict[str, FileDescriptorProto], roots: list[str] | None = None) -> list[FileDescriptorProto]:
    """The roots (without any, all) and what they import, imports first. An import not in `files` is passed over."""
    ordered: dict[str, FileDescriptorProto] = {}
    visited: set[str] = set()

    def visit(name: str) -> None:
        if name in files and name not in visited:
            visited.add(name)
            for dependency in files[name].dependency:
                visit(dependency)
            ordered[name] = files[name]

    for root in files if roots is None else roots:
        visit(root)
    return list(ordered.values())


def _without_comments(file: FileDescriptorProto) -> FileDescriptorProto:
    bare = FileDescriptorProto()
    bare.CopyFrom(file)
    bare.ClearField("source_code_info")
    for message in _all_messages(bare.message_type):
        for field in message.field:
            field.ClearField("json_name")  # Protoc and some reflection servers fill it in, others do not.
    return bare


def _all_messages(messages: Iterable[DescriptorProto]) -> Iterator[DescriptorProto]:
    for message in messages:
        yield message
        yield from _all_messages(message.nested_type)


# Nodes → descriptors.


def _files(schema: MessageSchema) -> list[FileDescriptorProto]:
    """A file for each group of types that `schema` needs, itself included."""
    messages = {found.cls: found for found in reachable(schema)}
    names: dict[str, type] = {}
    enums: dict[type, EnumNode] = {}
    for found in messages.values():
        enums.update((node.cls, node) for node in _inside(found) if isinstance(node, EnumNode))
    named: list[MessageSchema | EnumNode] = [*messages.values(), *enums.values()]
    for item in named:
        other = names.setdefault(item.full_name, item.cls)
        if other is not item.cls:
            raise MessageTypeError(f"one class for {item.full_name}", f"{type_name(other)} and {type_name(item.cls)}")

    # Classes that reach each other contain each other; protobuf imports have no cycles, so these share a file.
    reach = {cls: {found.cls for found in reachable(message)} for cls, message in messages.items()}
    file_names: dict[str, str] = {enum.full_name: _file_name(enum.full_name) for enum in enums.values()}
    groups: dict[str, list[MessageSchema]] = {}
    for cls, message in messages.items():
        group = [messages[other] for other in reach[cls] if cls in reach[other]]
        packages = sorted({member.package for member in group})
        if len(packages) > 1:
            raise MessageTypeError("messages of one package where they contain each other", " and ".join(packages))
        file_name = file_names[message.full_name] = _file_name(min(member.full_name for member in group))
        groups.setdefault(file_name, []).append(message)

    files = [_message_file(name, group, file_names) for name, group in groups.items()]
    return [*(_enum_file(enum) for enum in enums.values()), *files]


def _inside(schema: MessageSchema) -> Iterator[Node]:
    for field in schema.fields:
        yield from walk(field.node)


def _file_name(full_name: str) -> str:
    package, _, name = full_name.rpartition(".")
    return f"{package.replace('.', '/')}/{snake(name)}.proto"


def comment(info: SourceCodeInfo, path: list[int], text: str) -> None:
    """Put a comment before what is at this path; none if the text is empty."""
    if text:
        # Where in a file, there is none to say; but Go programs take no location without it.
        info.location.add(
            path=path,
            span=[0, 0, 0],
            leading_comments="".join(f" {line}".rstrip() + "\n" for line in text.splitlines()),
        )


def _enum_file(node: EnumNode) -> FileDescriptorProto:
    file = FileDescriptorProto(name=_file_name(node.full_name), package=node.package, syntax="proto3")
    enum = file.enum_type.add(name=node.name)
    comment(file.source_code_info, [5, 0], inspect.cleandoc(node.cls.__dict__.get("__doc__") or ""))
    enum.value.add(name=node.prefix + "UNSPECIFIED", number=0)
    for _, name, number in node.values():
        enum.value.add(name=name, number=number)
    for name, number in node.reserved:
        enum.reserved_range.add(start=number, end=number)  # For enums, the end is inclusive.
        enum.reserved_name.append(name)
    return file


def _message_file(name: str, group: list[MessageSchema], file_names: dict[str, str]) -> FileDescriptorProto:
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
                case Message() | EnumNode():
                    referred = node.schema.full_name if isinstance(node, Message) else node.full_name
                    imports.add(file_names[referred])
                case Timestamp():
                    imports.add(_TIMESTAMP.file.name)
                case Duration():
                    imports.add(_DURATION.file.name)
                case Array():
                    imports.add(_TENSOR.file.name)
                case _:
                    pass
    file.dependency.extend(sorted(imports - {name}))
    return file


def _field_doc(field: Field) -> str:
    """What the class says of a field and its protobuf type does not."""
    lines = [field.doc] if field.doc else []
    if isinstance(field.node, Literal):
        lines.append(f"One of: {', '.join(map(repr, field.node.values))}.")
    alone = field.node.item if isinstance(field.node, Optional) else field.node
    for node in walk(field.node):
        match node:
            case Uuid():
                lines.append("A UUID." if node is alone else "Each must be a UUID.")
            case Tuple(_, length) if length is not None:
                lines.append(f"Exactly {length}." if node is alone else f"Each of exactly {length}.")
            case Array() if node.wanted:
                lines.append(f"{'Must be this' if node is alone else 'Each must be this'}: {node.wanted}.")
    if isinstance(field.node, Uuid | EnumNode) and not field.has_default:
        lines.append("Required.")  # Though it is `optional`: there is no zero that it could have.
    if field.has_default and field.has_presence and not isinstance(field.node, Optional):
        lines.append(f"If absent: {_default_text(field)}.")
    elif field.is_absent_if_empty:
        lines.append(f"If empty: {_default_text(field)}.")
    return "\n".join(lines)


def _default_text(field: Field) -> str:
    match field.default:
        case _ if field.default_factory is not None:
            return "made by the receiver"
        case enum.Enum() if isinstance(field.node, EnumNode):
            return next(name for member, name, _ in field.node.values() if member is field.default)
        case bool() | int() | float() | str():
            return json.dumps(field.default, ensure_ascii=False)
        case tuple(items) if all(isinstance(item, int | float | str) for item in items):
            return json.dumps(items, ensure_ascii=False)
        case _:
            return str(field.default)


class _MessageBuilder:
    """Adds the fields of nodes to a DescriptorProto. `scope` is the full name of its type, with a leading dot."""

    def __init__(self, message: DescriptorProto, scope: str) -> None:
        self._message = message
        self._scope = scope

    def add(self, name: str, number: int, node: Node, has_presence: bool) -> None:
        field = self._message.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        box = camel(name) + "Value"
        match node:
            case List(item) | Tuple(item):
                field.label = FieldDescriptorProto.LABEL_REPEATED
                self._set_type(field, item, box)
            case Map(key, item):
                field.label = FieldDescriptorProto.LABEL_REPEATED
                entry = self._nest(field, camel(name) + "Entry")
                entry._message.options.map_entry = True
                entry.add("key", 1, key, False)
                value = entry._message.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL)
                self._set_type(value, item, box)
            case Optional(item):
                self._set_type(field, item, box)
            case _:
                self._set_type(field, node, box)
        if has_presence and field.type != FieldDescriptorProto.TYPE_MESSAGE:
            # What `optional` means in proto3: a oneof with a single member.
            field.proto3_optional = True
            field.oneof_index = len(self._message.oneof_decl)
            self._message.oneof_decl.add(name=f"_{name}")

    def _nest(self, field: FieldDescriptorProto, name: str) -> _MessageBuilder:
        """Makes `field` of a new message type, nested in this one."""
        scope = f"{self._scope}.{name}"
        _refer(field, FieldDescriptorProto.TYPE_MESSAGE, scope)
        return _MessageBuilder(self._message.nested_type.add(name=name), scope)

    def _set_type(self, field: FieldDescriptorProto, node: Node, box: str) -> None:
        """Gives `field` the type of a single value of `node`; if that takes a box, one of this name."""
        match node:
            case Float():
                field.type = FieldDescriptorProto.TYPE_DOUBLE
            case Int():
                field.type = FieldDescriptorProto.TYPE_INT64
            case Bool():
                field.type = FieldDescriptorProto.TYPE_BOOL
            case Str() | Literal() | Uuid():
                field.type = FieldDescriptorProto.TYPE_STRING
            case Bytes():
                field.type = FieldDescriptorProto.TYPE_BYTES
            case EnumNode():
                _refer(field, FieldDescriptorProto.TYPE_ENUM, f".{node.full_name}")
            case Message():
                _refer(field, FieldDescriptorProto.TYPE_MESSAGE, f".{node.schema.full_name}")
            case Timestamp():
                _refer(field, FieldDescriptorProto.TYPE_MESSAGE, f".{_TIMESTAMP.full_name}")
            case Duration():
                _refer(field, FieldDescriptorProto.TYPE_MESSAGE, f".{_DURATION.full_name}")
            case Array():
                _refer(field, FieldDescriptorProto.TYPE_MESSAGE, f".{_TENSOR.full_name}")
            case Optional() | List() | Tuple() | Map():
                self._nest(field, box).add(BOX_FIELD, 1, node, isinstance(node, Optional))
            case Union():
                nested = self._nest(field, box)
                nested._message.oneof_decl.add(name=ONEOF)
                for number, (name, member) in enumerate(node.named(), 1):
                    nested.add(name, number, member, False)
                    nested._message.field[-1].oneof_index = 0
            case _:
                assert_never(node)


def _refer(field: FieldDescriptorProto, kind: FieldDescriptorProto.Type.ValueType, type_name: str) -> None:
    field.type = kind
    field.type_name = type_name


# Ours against theirs.


def compatible(ours: MessageSchema, theirs: Descriptor) -> None:
    """Returns if instances of our class can travel as the type of the other side; `Codec` can then encode them as it.

    The structure is compared: the names, the numbers and the kinds of the fields, at any depth, and the members of
    enums. The names of messages, modules and packages do not matter, nor do defaults, nor Literal's values.

    Raises:
        MessageTypeError: they differ; `path` is the field, such as `$.operation`, `expected` theirs and `actual` ours.
    """
    nodes = {schema.full_name: {field.name: field.node for field in schema.fields} for schema in reachable(ours)}
    _match(TypePool().add(ours.cls), theirs, "$", nodes, set())


def _match(
    ours: Descriptor, theirs: Descriptor, path: str, nodes: dict[str, dict[str, Node]], matched: set[tuple[str, str]]
) -> None:
    if (ours.full_name, theirs.full_name) in matched:
        return
    matched.add((ours.full_name, theirs.full_name))
    wanted = dict(theirs.fields_by_name)
    for field in ours.fields:
        # What is inside a map entry or a box is, to Python, the value itself.
        inside = path if ours.containing_type and field.name in ("key", BOX_FIELD) else f"{path}.{field.name}"
        other = wanted.pop(field.name, None)
        if other is None:
            raise MessageTypeError("no such field", _describe(field), inside)
        if other.number != field.number:
            raise MessageTypeError(f"field number {other.number}", f"field number {field.number}", inside)
        # A field can have presence just because it has a default; then it is always sent, and can do without.
        own = nodes.get(ours.full_name, {}).get(field.name)
        may_be_none = field.has_presence and (own is None or isinstance(own, Optional))
        if _kind(field) != _kind(other) or (may_be_none and not other.has_presence):
            raise MessageTypeError(_describe(other), _describe(field), inside)
        if field.enum_type is not None and other.enum_type is not None:
            _match_enums(field.enum_type, other.enum_type, inside)
        elif field.message_type is not None and field.message_type.full_name not in _STATIC:
            inside += "[]" if field.is_repeated else ""
            _match(field.message_type, message_type(other), inside, nodes, matched)
    for missing in wanted.values():
        raise MessageTypeError(_describe(missing), "no such field", f"{path}.{missing.name}")


def message_type(field: FieldDescriptor) -> Descriptor:
    """The message type of a field that has one."""
    assert field.message_type is not None
    return field.message_type


def _kind(field: FieldDescriptor) -> tuple[object, ...]:
    """What has to be equal for two fields to hold the same values, but for what is inside messages and enums."""
    message = field.message_type
    static = message.full_name if message is not None and message.full_name in _STATIC else None
    in_union = field.containing_oneof is not None and field.containing_oneof.name == ONEOF
    return field.type, field.is_repeated, _is_map(field), static, in_union


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _describe(field: FieldDescriptor) -> str:
    """The type of a field as its `.proto` says it."""
    if _is_map(field):
        entry = message_type(field).fields_by_name
        return f"map<{_describe(entry['key'])}, {_describe(entry['value'])}>"
    kind = _KINDS[field.type]
    if field.message_type is not None:
        kind = field.message_type.full_name
    elif field.enum_type is not None:
        kind = f"enum {field.enum_type.full_name}"
    if field.is_repeated:
        return f"repeated {kind}"
    return f"optional {kind}" if field.has_presence and field.message_type is None else kind


_KINDS: dict[int, str] = {
    number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()
}


def _match_enums(ours: EnumDescriptor, theirs: EnumDescriptor, path: str) -> None:
    if _members(ours) != _members(theirs):
        raise MessageTypeError(f"an enum of {_members_text(theirs)}", f"one of {_members_text(ours)}", path)


def _members_text(enum_type: EnumDescriptor) -> str:
    return ", ".join(f"{name} = {number}" for name, number in _members(enum_type).items())


def _members(enum_type: EnumDescriptor) -> dict[str, int]:
    """The values but the zero, without the prefix of their names."""
    prefix = snake(enum_type.name).upper() + "_"
    return {value.name.removeprefix(prefix): value.number for value in enum_type.values if value.number != 0}


# Descriptors → classes.

_PYTHON_TYPES: dict[int, type] = {
    FieldDescriptor.TYPE_DOUBLE: float,
    FieldDescriptor.TYPE_INT64: int,
    FieldDescriptor.TYPE_BOOL: bool,
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_BYTES: bytes,
}


def dataclass_from(descriptor: Descriptor, decorate: Callable[[type], type] = lambda cls: cls) -> type:
    """A message class for a type that was made of one: the inverse of `TypePool.add`, for programs without the source.

    The class has the header fields and takes the body's by position or name. All have defaults: protobuf's zero, or
    None where absent differs from zero, so that the other side's own default then holds. Texts that were UUIDs or
    Literals are `str`, and tuples are lists. Every call makes new classes. `decorate` (such as `message`) is applied to
    the class before anything refers to it.

    Raises:
        MessageTypeError: a field is of a kind that no annotation makes, such as int32.
    """
    messages: dict[str, Descriptor] = {}
    _collect(descriptor, "$", messages)
    made: dict[str, type] = {}
    usable: dict[str, type] = {}
    for full_name, message in messages.items():
        header = _header_fields() if message is descriptor else []
        body = [(field.name, Any, dataclasses.field(**_default(field))) for field in message.fields]
        namespace = {"__module__": message.file.package, "__proto_package__": message.file.package, "__doc__": ""}
        made[full_name] = dataclasses.make_dataclass(message.name, [*body, *header], namespace=namespace)
        usable[full_name] = decorate(made[full_name]) if message is descriptor else made[full_name]
    # Only now, when all classes are there, can the fields be annotated with them.
    enums: dict[str, type[enum.Enum]] = {}
    for full_name, cls in made.items():
        for position, field in enumerate(messages[full_name].fields, 1):
            annotation = _annotation(field, usable, enums)
            pinned = annotation if field.number == position else Annotated[annotation, FieldNumber(field.number)]
            cls.__annotations__[field.name] = pinned
    return usable[descriptor.full_name]


def _header_fields() -> list[tuple[str, Any, Any]]:
    return [
        ("message_id", uuid.UUID, dataclasses.field(default_factory=uuid.uuid4, kw_only=True)),
        ("priority", int, dataclasses.field(default=128, kw_only=True)),
        ("correlation_id", uuid.UUID | None, dataclasses.field(default=None, kw_only=True)),
    ]


def _collect(message: Descriptor, path: str, messages: dict[str, Descriptor]) -> None:
    """Puts `message` and what it contains into `messages`, but for boxes, map entries and the static types."""
    is_class = message.containing_type is None
    if message.full_name in messages or message.full_name in _STATIC:
        return
    if is_class:
        messages[message.full_name] = message
    for field in message.fields:
        inside = f"{path}.{field.name}" if is_class else path
        inside += "[]" if field.is_repeated else ""
        if field.message_type is not None:
            _collect(field.message_type, inside, messages)
        elif field.enum_type is None and field.type not in _PYTHON_TYPES:
            raise MessageTypeError("a kind of field that annotations make", _describe(field), inside)


def _default(field: FieldDescriptor) -> dict[str, Any]:
    if field.is_repeated:
        return {"default_factory": dict if _is_map(field) else list}
    return {"default": None if field.has_presence else field.default_value}


def _annotation(field: FieldDescriptor, classes: dict[str, type], enums: dict[str, type[enum.Enum]]) -> Any:
    if _is_map(field):
        entry = message_type(field).fields_by_name
        return types.GenericAlias(dict, tuple(_single(entry[name], classes, enums) for name in ("key", "value")))
    single = _single(field, classes, enums)
    if field.is_repeated:
        return types.GenericAlias(list, (single,))
    return single | None if field.has_presence else single


def _single(field: FieldDescriptor, classes: dict[str, type], enums: dict[str, type[enum.Enum]]) -> Any:
    """The annotation of one value of the field: of the field itself, or of its elements."""
    message = field.message_type
    if field.enum_type is not None:
        return _enum_class(field.enum_type, enums)
    if message is None:
        return _PYTHON_TYPES[field.type]
    if message.full_name in _STATIC:
        return _STATIC[message.full_name]()
    if message.containing_type is None:
        return classes[message.full_name]
    if ONEOF in message.oneofs_by_name:
        return functools.reduce(operator.or_, [_single(member, classes, enums) for member in message.fields])
    return _annotation(message.fields_by_name[BOX_FIELD], classes, enums)


def _enum_class(enum_type: EnumDescriptor, enums: dict[str, type[enum.Enum]]) -> type[enum.Enum]:
    if enum_type.full_name not in enums:
        made = enum.Enum(enum_type.name, _members(enum_type), module=enum_type.file.package)  # type: ignore[misc]
        made.__proto_package__ = enum_type.file.package  # type: ignore[attr-defined]
        enums[enum_type.full_name] = made
    return enums[enum_type.full_name]


def _ndarray() -> type:
    import numpy

    return numpy.ndarray


_STATIC: dict[str, Callable[[], type]] = {
    _TIMESTAMP.full_name: lambda: datetime.datetime,
    _DURATION.full_name: lambda: datetime.timedelta,
    _TENSOR.full_name: _ndarray,
}
