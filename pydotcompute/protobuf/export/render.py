"""Writes protobuf descriptors as `.proto` source."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message

__all__ = ["render"]

_Path = tuple[int, ...]
_PACKAGE: _Path = (2,)


def render(file: FileDescriptorProto) -> str:
    """Returns the source of a file, with its comments. Protoc accepts the source.

    The file must be proto3, with no extensions but options, and with no options but `map_entry` and those of the file
    and of methods. Of its comments, those in front of something are written.
    """
    # Protobuf looks up the first part of a name in the message, or among the methods of the service, before elsewhere.
    hidden = {nested.name for message in file.message_type for nested in _nested(message)}
    hidden |= {method.name for service in file.service for method in service.method}
    renderer = _Renderer(file, hidden)
    lines = ['syntax = "proto3";', "", *renderer.package()]
    if file.dependency:
        lines += ["", *(f'import "{name}";' for name in sorted(file.dependency))]
    if options := [*_options(file.options)]:
        lines += ["", *options]
    for index, service in enumerate(file.service):
        lines += ["", *renderer.service(service, (6, index))]
    for index, message in enumerate(file.message_type):
        lines += ["", *renderer.message(message, (4, index))]
    for index, enum in enumerate(file.enum_type):
        lines += ["", *renderer.enum(enum, (5, index))]
    for index, extension in enumerate(file.extension):
        lines += ["", *renderer.extension(extension, (7, index))]
    return "\n".join(lines) + "\n"


def _options(options: Message, name: Callable[[FieldDescriptor], str] = lambda field: field.name) -> Iterator[str]:
    """Yields the lines with the options of something, in the order of their names."""
    for field, value in sorted(options.ListFields(), key=lambda each: each[0].name):
        if field.enum_type is not None:
            text = field.enum_type.values_by_number[value].name
        else:
            text = json.dumps(value, ensure_ascii=False)
        yield f"option {name(field)} = {text};"


def _nested(message: DescriptorProto) -> Iterator[DescriptorProto]:
    for nested in message.nested_type:
        yield nested
        yield from _nested(nested)


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" if line else "" for line in lines]


def _reserved(ranges: Iterable[tuple[int, int]], names: Iterable[str]) -> list[str]:
    """Returns the lines that reserve numbers and names. The ranges of numbers include their ends."""
    numbers = [f"{start}" if start == end else f"{start} to {end}" for start, end in ranges]
    quoted = [f'"{name}"' for name in names]
    lines = [f"reserved {', '.join(items)};" for items in (numbers, quoted) if items]
    return [*lines, ""] if lines else []


class _Renderer:
    """Writes the types of one file. A `path` is the place of a type or a field, as in SourceCodeInfo.

    Args:
        file: the file.
        hidden: the names that mean something else inside a message or a service. A type name that begins with one of
            them is written in full.
    """

    def __init__(self, file: FileDescriptorProto, hidden: set[str]) -> None:
        self._package = file.package
        self._hidden = hidden
        locations = file.source_code_info.location
        self._comments = {tuple(location.path): location.leading_comments for location in locations}

    def package(self) -> list[str]:
        """Returns the lines that name the package."""
        return [*self._comment(_PACKAGE), f"package {self._package};"]

    def enum(self, enum: EnumDescriptorProto, path: _Path) -> list[str]:
        """Returns the lines of an enum."""
        values = [
            line
            for index, value in enumerate(enum.value)
            for line in [*self._comment((*path, 2, index)), f"{value.name} = {value.number};"]
        ]
        # The ranges of an enum include their ends. Those of a message do not.
        reserved = _reserved([(area.start, area.end) for area in enum.reserved_range], enum.reserved_name)
        return [*self._comment(path), f"enum {enum.name} {{", *_indented([*reserved, *values]), "}"]

    def service(self, service: ServiceDescriptorProto, path: _Path) -> list[str]:
        """Returns the lines of a service."""
        body: list[str] = []
        for index, method in enumerate(service.method):
            body += ["", *self._comment((*path, 2, index)), *self._method(method)]
        return [*self._comment(path), f"service {service.name} {{", *_indented(body[1:]), "}"]

    def extension(self, extension: FieldDescriptorProto, path: _Path) -> list[str]:
        """Returns the lines of an extension: an option of one's own."""
        field = [*self._comment(path), self._field(extension, {})]
        return [f"extend {self._name(extension.extendee)} {{", *_indented(field), "}"]

    def _method(self, method: MethodDescriptorProto) -> list[str]:
        taken, given = (self._name(name) for name in (method.input_type, method.output_type))
        taken = f"stream {taken}" if method.client_streaming else taken
        given = f"stream {given}" if method.server_streaming else given
        head = f"rpc {method.name}({taken}) returns ({given})"
        options = [*_options(method.options, self._option)]
        return [f"{head} {{", *_indented(options), "}"] if options else [f"{head};"]

    def _option(self, field: FieldDescriptor) -> str:
        return f"({self._name(f'.{field.full_name}')})" if field.is_extension else field.name

    def message(self, message: DescriptorProto, path: _Path) -> list[str]:
        """Returns the lines of a message, with the messages nested in it."""
        entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
        reserved = [(area.start, area.end - 1) for area in message.reserved_range]
        body = _reserved(reserved, message.reserved_name)
        for index, nested in enumerate(message.nested_type):
            if nested.name not in entries:
                body += [*self.message(nested, (*path, 3, index)), ""]
        in_oneof: dict[int, list[str]] = {}
        for index, field in enumerate(message.field):
            lines = [*self._comment((*path, 2, index)), self._field(field, entries)]
            if field.HasField("oneof_index") and not field.proto3_optional:
                in_oneof.setdefault(field.oneof_index, []).extend(lines)
            else:
                body += lines
        for index, lines in in_oneof.items():
            head = [*self._comment((*path, 8, index)), f"oneof {message.oneof_decl[index].name} {{"]
            body += [*head, *_indented(lines), "}"]
        if not body:
            return [*self._comment(path), f"message {message.name} {{}}"]
        return [*self._comment(path), f"message {message.name} {{", *_indented(body), "}"]

    def _field(self, field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
        kind = self._type(field)
        entry = entries.get(field.type_name.rpartition(".")[2])
        if entry is not None and field.label == field.LABEL_REPEATED:
            key, value = entry.field
            kind = f"map<{self._type(key)}, {self._type(value)}>"
        elif field.label == field.LABEL_REPEATED:
            kind = f"repeated {kind}"
        elif field.proto3_optional:
            kind = f"optional {kind}"
        return f"{kind} {field.name} = {field.number};"

    def _type(self, field: FieldDescriptorProto) -> str:
        if not field.type_name:
            return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        return self._name(field.type_name)

    def _name(self, full_name: str) -> str:
        name = full_name.removeprefix(f".{self._package}.").removeprefix(".")
        return full_name if name.partition(".")[0] in {*self._hidden, *self._package.split(".")} else name

    def _comment(self, path: _Path) -> list[str]:
        return [f"//{line}" for line in self._comments.get(path, "").splitlines()]
