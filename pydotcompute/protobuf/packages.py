"""Puts the types of each package into one file, as people and programs in other languages want them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

from pydotcompute.protobuf.conventions import RESERVED_PACKAGES
from pydotcompute.protobuf.pool import in_order

__all__ = ["by_package", "file_name", "is_reserved", "is_version", "laid_over"]

_Path: TypeAlias = tuple[int, ...]
_Descriptor: TypeAlias = DescriptorProto | EnumDescriptorProto | ServiceDescriptorProto
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
"""The numbers of the fields of FileDescriptorProto that hold types."""


class _Type(NamedTuple):
    """One message, enum or service of a file."""

    full_name: str
    package: str
    file_name: str
    """The name of the file that it is from."""
    kind: int
    descriptor: _Descriptor
    comments: list[tuple[_Path, str]]
    """The comments, each with the path of what it is about. The path begins in the type, not in the file."""


def by_package(files: Iterable[FileDescriptorProto]) -> list[FileDescriptorProto]:
    """Returns files with the same types, one file for each package, each file after its imports.

    The files of the daemon and of Google stay as they are. So do those of packages that need each other, because
    protobuf does not allow files that import each other.
    """
    return laid_over([], files)


def laid_over(before: Iterable[FileDescriptorProto], now: Iterable[FileDescriptorProto]) -> list[FileDescriptorProto]:
    """Returns the types of both, as `by_package` does. If both have a type, the one of `now` is used.

    Raises:
        ValueError: a package of `before` is in a file of its own, and cannot be any more, since it and another one need
            each other now.
    """
    before, now = list(before), list(now)
    types = {each.full_name: each for file in before for each in _types(file)}
    replaced = {each.full_name: each for file in now for each in _types(file)}
    types.update(replaced)
    owners = {name: each.package for name, each in types.items()}
    needs: dict[str, set[str]] = {each.package: set() for each in types.values()}
    for each in types.values():
        needs[each.package] |= {owners[name] for name in _referred(each.descriptor, owners)} - {each.package}
    apart = _in_circles(needs)

    made = {file.name: file for file in [*before, *now] if is_reserved(file.package)}
    homes = {name: file.name for file in made.values() for name in _names(file)}
    grouped: dict[str, list[_Type]] = {}
    for name, each in sorted(types.items()):
        if each.package not in apart:
            homes[name] = file_name(each.package)
        elif name in replaced:
            homes[name] = each.file_name
        else:
            raise ValueError(f"{name} is of a package that is in a circle of packages now: {', '.join(sorted(apart))}")
        grouped.setdefault(homes[name], []).append(each)
    made.update((name, _file(name, group, homes)) for name, group in grouped.items())
    return in_order(made)


def file_name(package: str) -> str:
    """Returns the name of the file of a package: `calculator/v1/calculator.proto` for `calculator.v1`."""
    *parents, last = parts = package.split(".")
    name = parents[-1] if parents and is_version(last) else last
    return f"{'/'.join(parts)}/{name}.proto"


def is_version(part: str) -> bool:
    """Returns True if the last part of a package's name is a version, such as `v1` or `v1beta1`."""
    return re.fullmatch(r"v\d\w*", part) is not None


def is_reserved(package: str) -> bool:
    """Returns True for the packages of the daemon's own types and services, and for those of Google and gRPC."""
    return package.partition(".")[0] in RESERVED_PACKAGES


def _names(file: FileDescriptorProto) -> Iterator[str]:
    descriptors: tuple[_Descriptor, ...] = (*file.message_type, *file.enum_type, *file.service)
    for each in descriptors:
        yield f"{file.package}.{each.name}"


def _types(file: FileDescriptorProto) -> Iterator[_Type]:
    """Yields the types of a file. Yields nothing if the file stays as it is."""
    if is_reserved(file.package):
        return
    comments: dict[_Path, list[tuple[_Path, str]]] = {}
    for location in file.source_code_info.location:
        if not location.leading_comments:
            continue
        path = tuple(location.path)
        comments.setdefault(path[:2], []).append((path[2:], location.leading_comments))
    lists: dict[int, Sequence[_Descriptor]] = {
        _MESSAGE: file.message_type,
        _ENUM: file.enum_type,
        _SERVICE: file.service,
    }
    for kind, descriptors in lists.items():
        for index, descriptor in enumerate(descriptors):
            full_name = f"{file.package}.{descriptor.name}"
            own = comments.get((kind, index), [])
            yield _Type(full_name, file.package, file.name, kind, descriptor, own)


def _file(name: str, types: list[_Type], homes: dict[str, str]) -> FileDescriptorProto:
    """Returns a file with these types. `homes` has the name of the file of every type."""
    file = FileDescriptorProto(name=name, package=types[0].package, syntax="proto3")
    lists: dict[int, Any] = {_MESSAGE: file.message_type, _ENUM: file.enum_type, _SERVICE: file.service}
    imports: set[str] = set()
    for each in types:
        for path, text in each.comments:
            path = (each.kind, len(lists[each.kind]), *path)
            file.source_code_info.location.add(path=path, span=[0, 0, 0], leading_comments=text)
        lists[each.kind].append(each.descriptor)
        imports |= {homes[referred] for referred in _referred(each.descriptor, homes)}
    file.dependency.extend(sorted(imports - {name}))
    return file


def _referred(descriptor: _Descriptor, known: Container[str]) -> Iterator[str]:
    """Yields the full names of the types that a type refers to, as far as they are known. Nested types do not count."""
    for name in _references(descriptor):
        full_name = name.removeprefix(".")
        while full_name and full_name not in known:
            full_name = full_name.rpartition(".")[0]
        if full_name:
            yield full_name


def _references(descriptor: _Descriptor) -> Iterator[str]:
    match descriptor:
        case DescriptorProto():
            yield from (field.type_name for field in descriptor.field if field.type_name)
            for nested in descriptor.nested_type:
                yield from _references(nested)
        case ServiceDescriptorProto():
            for method in descriptor.method:
                yield from (method.input_type, method.output_type)


def _in_circles(needs: dict[str, set[str]]) -> set[str]:
    """Returns the packages that need themselves, by way of others."""
    found = set()
    for package, needed in needs.items():
        reached: set[str] = set()
        left = [*needed]
        while left:
            if (name := left.pop()) not in reached:
                reached.add(name)
                left += needs[name]
        if package in reached:
            found.add(package)
    return found
