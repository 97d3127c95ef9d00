"""A pool of protobuf types that are made at run time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import google.protobuf.message
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.conventions import STATIC
from pydotcompute.protobuf.descriptors import files_of
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.names import json_name

__all__ = ["TypePool", "in_order"]


class TypePool:
    """Holds protobuf types made at run time, in a descriptor pool of their own.

    Each class and each enum has a file of its own, such as `calculator/v1/calculation_request.proto`. Only classes that
    contain each other share a file. So a type that two messages use is defined once, in whatever order they are added.
    """

    def __init__(self) -> None:
        self._files: dict[str, FileDescriptorProto] = {}
        self.pool = DescriptorPool()
        """Protobuf's own pool, for `json_format` and reflection. Add types only through the `TypePool`."""
        for message in STATIC.values():
            proto = FileDescriptorProto()
            message.file.CopyToProto(proto)
            self._add(proto)

    def add(self, cls: type) -> Descriptor:
        """Adds the type of a message class and all types that it refers to, if missing. Returns the type.

        A class that was made from files of protobuf may have them as its `__proto_files__`. Then these are added.

        Raises:
            MessageTypeError: the class cannot be a protobuf type (see `introspect`), or the pool has a different type
                of the same name.
        """
        schema = introspect(cls)
        self.add_files(cls.__dict__.get("__proto_files__") or files_of(schema))
        return self.descriptor(schema.full_name)

    def add_files(self, files: bytes | Iterable[FileDescriptorProto]) -> None:
        """Adds the files that the pool does not have yet.

        Args:
            files: the files, in any order, or a serialized FileDescriptorSet.

        Raises:
            MessageTypeError: the bytes are not a FileDescriptorSet, a type differs from the type of the same name in
                the pool, or an imported file is missing.
        """
        if isinstance(files, bytes):
            try:
                files = FileDescriptorSet.FromString(files).file
            except google.protobuf.message.DecodeError as error:
                raise MessageTypeError("a serialized FileDescriptorSet", str(error)) from error
        for file in in_order({file.name: file for file in files}):
            self._add(file)

    def _add(self, file: FileDescriptorProto) -> None:
        for message in _all_messages(file.message_type):
            for field in message.field:
                field.json_name = json_name(field.name)  # As a compiler sets it; programs print these names.
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

    def become(self, other: TypePool) -> None:
        """Holds what another pool holds from now on, in place of what this one has held.

        What was made from the types before goes on working with them.
        """
        self._files, self.pool = other._files, other.pool

    def descriptor(self, full_name: str) -> Descriptor:
        """Returns the message type with this name, such as `calculator.v1.CalculationRequest`.

        Raises:
            MessageTypeError: the pool has no such type.
        """
        try:
            return self.pool.FindMessageTypeByName(full_name)
        except KeyError as error:
            raise MessageTypeError("a known message type", full_name) from error

    def message_class(self, full_name: str) -> type[google.protobuf.message.Message]:
        """Returns protobuf's own class for the message type with this name.

        Raises:
            MessageTypeError: the pool has no such type.
        """
        return message_factory.GetMessageClass(self.descriptor(full_name))

    def file_set(self, full_name: str) -> FileDescriptorSet:
        """Returns the file of a message type or a service, and all files that it imports, with their comments.

        Each file stands after the files that it imports.

        Raises:
            MessageTypeError: the pool has no such type or service.
        """
        try:
            last = self.pool.FindFileContainingSymbol(full_name).name
        except KeyError as error:
            raise MessageTypeError("a known type or service", full_name) from error
        return FileDescriptorSet(file=self.with_imports(last))

    def with_imports(self, name: str) -> list[FileDescriptorProto]:
        """Returns the file with this name after all files that it imports, with their comments.

        Raises:
            KeyError: the pool has no such file.
        """
        return in_order(self._files, [self._files[name].name])

    @property
    def files(self) -> list[FileDescriptorProto]:
        """All files in the pool, with their comments. None of them changes or goes, but by `become`."""
        return list(self._files.values())

    def services(self) -> list[str]:
        """Returns the full names of all services in the pool, in alphabetical order."""
        return sorted(f"{file.package}.{each.name}" for file in self._files.values() for each in file.service)


def in_order(files: dict[str, FileDescriptorProto], roots: list[str] | None = None) -> list[FileDescriptorProto]:
    """Returns the files named by `roots` and all files that they import, each after its imports.

    If `roots` is None, returns all of `files`. An import that is not in `files` is ignored.
    """
    ordered: dict[str, FileDescriptorProto] = {}
    visited: set[str] = set()

    # Not recursive: a chain of imports can be longer than the stack.
    left = list(reversed(files if roots is None else roots))
    while left:
        name = left[-1]
        file = files.get(name)
        if file is not None and name not in visited:
            visited.add(name)
            left += reversed(file.dependency)
            continue
        left.pop()
        if file is not None:
            ordered.setdefault(name, file)
    return list(ordered.values())


def _without_comments(file: FileDescriptorProto) -> FileDescriptorProto:
    bare = FileDescriptorProto()
    bare.CopyFrom(file)
    bare.ClearField("source_code_info")
    for message in _all_messages(bare.message_type):
        for field in message.field:
            field.ClearField("json_name")  # Protoc and some reflection servers set `json_name`, others do not.
    return bare


def _all_messages(messages: Iterable[DescriptorProto]) -> Iterator[DescriptorProto]:
    for message in messages:
        yield message
        yield from _all_messages(message.nested_type)
