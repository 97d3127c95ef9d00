"""The files of an export of a daemon's types: `.proto` files that protoc and buf accept, and the lock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet

from pydotcompute.protobuf.export.render import render
from pydotcompute.protobuf.packages import is_reserved, is_version
from pydotcompute.schema.lock import Lock, Numbers
from pydotcompute.schema.names import json_name

__all__ = ["BUF_YAML", "Prefixes", "compiled", "lock_of", "sources"]

BUF_YAML = """\
# Written once, by `pydotcompute proto export`; it is yours from then on.
version: v2
lint:
  ignore:
    - google
  use:
    - STANDARD
  except:
    # A service is named after its kernel, as `service=` says.
    - SERVICE_SUFFIX
    # A kernel has one type that it takes and one that it sends, and each method of its service is about these. What one
    # method receives was sent by another: types of their own would be copies.
    - RPC_REQUEST_RESPONSE_UNIQUE
    - RPC_REQUEST_STANDARD_NAME
    - RPC_RESPONSE_STANDARD_NAME
breaking:
  use:
    # `pydotcompute proto check` has buf hold these against the daemon's types. Beside them, it refuses that services,
    # methods or messages go.
    - WIRE_JSON
"""


@dataclass(frozen=True)
class Prefixes:
    """What the packages of other languages begin with. Without a prefix, the files do not name such packages."""

    go: str = ""
    """With `example.com/shop`, the Go package of `calculator.v1` is `example.com/shop/calculator/v1;calculatorv1`."""
    java: str = ""
    """With `com.example`, the Java package of `calculator.v1` is `com.example.calculator.v1`."""


def compiled(files: FileDescriptorSet, prefixes: Prefixes | None = None) -> FileDescriptorSet:
    """Returns the files as protoc would compile them from their sources, including the JSON names and the options."""
    prefixes = prefixes or Prefixes()
    made = FileDescriptorSet()
    made.CopyFrom(files)
    for file in made.file:
        for message in file.message_type:
            _name_in_json(message)
        if file.HasField("source_code_info"):
            _locate(file)
        if is_reserved(file.package):
            if file.package.startswith("pydotcompute."):
                file.options.go_package = _go_package(prefixes.go, file.package)
            continue
        file.ClearField("options")
        # Without it, the name of each class in Java would begin with that of an outer class for the file. Nobody can
        # change that later without breaking programs, so it is not left to an option.
        file.options.java_multiple_files = True
        if prefixes.go:
            file.options.go_package = _go_package(prefixes.go, file.package)
        if prefixes.java:
            file.options.java_package = f"{prefixes.java}.{file.package}"
    return made


def _name_in_json(message: DescriptorProto) -> None:
    for field in message.field:
        field.json_name = json_name(field.name)
    for nested in message.nested_type:
        _name_in_json(nested)


def _locate(file: FileDescriptorProto) -> None:
    """Adds the locations that a file lacks. A compiler gives one to each element, and prost does not do without."""
    info = file.source_code_info
    known = {tuple(location.path) for location in info.location}
    for path in _paths(file):
        if path not in known:
            info.location.add(path=path, span=[0, 0, 0])
    info.location.sort(key=lambda location: tuple(location.path))


def _paths(file: FileDescriptorProto) -> Iterator[tuple[int, ...]]:
    for index, message in enumerate(file.message_type):
        yield from _paths_in(message, (4, index))
    for index, enum in enumerate(file.enum_type):
        yield from _paths_of_enum(enum, (5, index))
    for index, service in enumerate(file.service):
        yield (6, index)
        yield from ((6, index, 2, each) for each in range(len(service.method)))


def _paths_in(message: DescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield path
    yield from ((*path, 2, each) for each in range(len(message.field)))
    yield from ((*path, 8, each) for each in range(len(message.oneof_decl)))
    for index, nested in enumerate(message.nested_type):
        yield from _paths_in(nested, (*path, 3, index))
    for index, enum in enumerate(message.enum_type):
        yield from _paths_of_enum(enum, (*path, 4, index))


def _paths_of_enum(enum: EnumDescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield path
    yield from ((*path, 2, each) for each in range(len(enum.value)))


def _go_package(prefix: str, package: str) -> str:
    *parents, last = package.split(".")
    name = parents[-1] + last if parents and is_version(last) else last
    path = package.replace(".", "/")
    return f"{prefix}/{path};{name}" if prefix else f"{path};{name}"


def sources(files: FileDescriptorSet) -> dict[str, str]:
    """Returns the source of each file, by name. Protobuf's own files are left out: every compiler has them."""
    return {file.name: render(file) for file in files.file if file.package != "google.protobuf"}


def lock_of(files: FileDescriptorSet, before: Lock) -> Lock:
    """Returns the lock `before`, with the numbers in the files added.

    Where the files contradict the lock, the files are right: the name that had the number before is removed.
    """
    messages, enums = dict(before.messages), dict(before.enums)
    for file in files.file:
        if is_reserved(file.package):
            continue
        for message in file.message_type:
            numbers = {field.name: field.number for field in message.field}
            # Each reserved range has one number, and stands at the same position as its name.
            was = zip(message.reserved_name, (area.start for area in message.reserved_range), strict=True)
            name = f"{file.package}.{message.name}"
            messages[name] = _merged(messages.get(name, {}), {**numbers, **dict(was)})
        for enum in file.enum_type:
            numbers = {value.name: value.number for value in enum.value if value.number != 0}
            was = zip(enum.reserved_name, (area.start for area in enum.reserved_range), strict=True)
            name = f"{file.package}.{enum.name}"
            enums[name] = _merged(enums.get(name, {}), {**numbers, **dict(was)})
    return Lock(messages, enums)


def _merged(before: Numbers, now: Numbers) -> Numbers:
    taken = set(now.values())
    return {**{name: number for name, number in before.items() if number not in taken}, **now}
