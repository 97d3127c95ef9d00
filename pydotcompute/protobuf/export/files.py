"""The files of an export of a daemon's types: `.proto` files that protoc and buf accept, and the lock."""

from __future__ import annotations

import re

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from pydotcompute.protobuf.export.render import render
from pydotcompute.protobuf.pool import in_order
from pydotcompute.schema.lock import Lock, Numbers
from pydotcompute.schema.names import json_name

__all__ = ["BUF_YAML", "compiled", "laid_over", "lock_of", "sources"]

BUF_YAML = """\
# Written once, by `pydotcompute proto export`; it is yours from then on.
version: v2
lint:
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


def compiled(files: FileDescriptorSet, go_prefix: str = "") -> FileDescriptorSet:
    """Returns the files as protoc would compile them from their sources, including the JSON names.

    With a `go_prefix` such as `example.com/shop`, the Go package of `calculator.v1` is
    `example.com/shop/calculator/v1;calculatorv1`.
    """
    made = FileDescriptorSet()
    made.CopyFrom(files)
    for file in made.file:
        for message in file.message_type:
            _name_in_json(message)
        if not _is_theirs(file):
            file.options.ClearField("go_package")
            if go_prefix:
                file.options.go_package = f"{go_prefix}/{file.package.replace('.', '/')};{_go_name(file.package)}"
    return made


def _name_in_json(message: DescriptorProto) -> None:
    for field in message.field:
        field.json_name = json_name(field.name)
    for nested in message.nested_type:
        _name_in_json(nested)


def _go_name(package: str) -> str:
    *parents, last = package.split(".")
    return parents[-1] + last if parents and re.fullmatch(r"v\d\w*", last) else last


def sources(files: FileDescriptorSet) -> dict[str, str]:
    """Returns the source of each file, by name. Protobuf's own files are left out: every compiler has them."""
    return {file.name: render([file]) for file in files.file if not _is_theirs(file)}


def laid_over(before: FileDescriptorSet, now: FileDescriptorSet) -> FileDescriptorSet:
    """Returns the files of both sets, each after its imports. If both have a file, the one of `now` is used.

    An older file is left out if all its types have moved to other files.

    Raises:
        ValueError: some types of an older file have moved to other files, and some have not.
    """
    places = {name: file.name for file in now.file for name in _types(file)}
    kept = {file.name: file for file in now.file}
    for file in before.file:
        moved = [name for name in _types(file) if places.get(name, file.name) != file.name]
        if not moved:
            kept.setdefault(file.name, file)
        elif file.name not in kept and len(moved) < len(_types(file)):
            raise ValueError(f"{file.name} has {moved[0]} too, which is in {places[moved[0]]} now")
    return FileDescriptorSet(file=in_order(kept))


def _types(file: FileDescriptorProto) -> list[str]:
    """Returns the full names of all messages, enums and services that a file defines."""
    names = [
        *(message.name for message in file.message_type),
        *(enum.name for enum in file.enum_type),
        *(service.name for service in file.service),
    ]
    return [f"{file.package}.{name}" for name in names]


def lock_of(files: FileDescriptorSet, before: Lock) -> Lock:
    """Returns the lock `before`, with the numbers in the files added.

    Where the files contradict the lock, the files are right: the name that had the number before is removed.
    """
    messages, enums = dict(before.messages), dict(before.enums)
    for file in files.file:
        if _is_theirs(file) or file.package == "pydotcompute.v1":
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


def _is_theirs(file: FileDescriptorProto) -> bool:
    return file.package == "google.protobuf"
