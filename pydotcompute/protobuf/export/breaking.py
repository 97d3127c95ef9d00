"""What has changed between two sets of protobuf types, and which of it breaks programs that know the older one.

The rules are those of `buf breaking` for WIRE_JSON: a change is breaking if bytes or JSON of the one side are read as
something else, or not at all, by the other. Beside them, what goes away altogether: services, their methods, and what
they are about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

__all__ = ["Change", "compare"]

USE_THE_LOCK = "start the daemon with --proto-lock, or pin the number with FieldNumber"
RESERVE = "start the daemon with --proto-lock, which reserves its number and its name, or declare it again"
RENAME = "keep the type, or give the field another name"
KEEP_MEMBERS = "members of a union keep their order, and new ones come last; or give the field another name"
KEEP_NUMBERS = "start the daemon with --proto-lock, which keeps and reserves numbers"
KEEP_RESERVED = "start the daemon with --proto-lock; what comes back needs another name"
KEEP_SERVICE = "declare it again, under this name with service="
KEEP_TYPES = "keep the types, or name another service with service="
KEEP_MESSAGE = "declare it again, under this name"

GONE = "gone"


@dataclass(frozen=True)
class Change:
    """One difference."""

    name: str
    """The full name of what changed, such as `calculator.v1.CalculationRequest.a`."""
    was: str
    """What it was; empty if it is new."""
    now: str
    """What it is."""
    advice: str = ""
    """What can be done about it; empty if nothing need be, as nothing breaks."""

    @property
    def is_breaking(self) -> bool:
        """Whether programs that know the older types fail with the newer."""
        return bool(self.advice)

    def __str__(self) -> str:
        text = f"was {self.was}, is {self.now}" if self.was else f"new, {self.now}"
        return f"{self.name}: {text}; {self.advice}" if self.advice else f"{self.name}: {text}"


def compare(before: FileDescriptorSet, now: FileDescriptorSet) -> list[Change]:
    """The differences, in the order of their names, but for comments and options, and for protobuf's own types."""
    return sorted(_changes(_Types.of(before), _Types.of(now)), key=lambda change: change.name)


@dataclass
class _Types:
    """What a file set defines, by full name."""

    messages: dict[str, DescriptorProto] = field(default_factory=dict)
    nested: dict[str, DescriptorProto] = field(default_factory=dict)
    enums: dict[str, EnumDescriptorProto] = field(default_factory=dict)
    services: dict[str, ServiceDescriptorProto] = field(default_factory=dict)

    @classmethod
    def of(cls, files: FileDescriptorSet) -> _Types:
        types = cls()
        for file in files.file:
            if file.package != "google.protobuf":
                types.messages.update((f"{file.package}.{message.name}", message) for message in file.message_type)
                types.enums.update((f"{file.package}.{enum.name}", enum) for enum in file.enum_type)
                types.services.update((f"{file.package}.{service.name}", service) for service in file.service)
        for name, message in types.messages.items():
            types._nest(name, message)
        return types

    def _nest(self, scope: str, message: DescriptorProto) -> None:
        for nested in message.nested_type:
            self.nested[f"{scope}.{nested.name}"] = nested
            self._nest(f"{scope}.{nested.name}", nested)

    def kind(self, field: FieldDescriptorProto) -> str:
        """A field's type, as its `.proto` says it."""
        name = field.type_name.removeprefix(".")
        if name in self.nested and self.nested[name].options.map_entry:
            return f"map<{', '.join(self.kind(part) for part in self.nested[name].field)}>"
        kind = name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        return f"repeated {kind}" if field.label == FieldDescriptorProto.LABEL_REPEATED else kind

    def only_held(self) -> set[str]:
        """The messages and enums that are here because fields are of their type, and for nothing else."""
        every = [*self.messages.items(), *self.nested.items()]
        held = {
            _bare(field.type_name) for name, owner in every for field in owner.field if _bare(field.type_name) != name
        }
        methods = [method for service in self.services.values() for method in service.method]
        return held - {_bare(name) for method in methods for name in (method.input_type, method.output_type)}


def _bare(name: str) -> str:
    return name.removeprefix(".")


def _changes(before: _Types, now: _Types) -> Iterator[Change]:
    # A type that only fields held can go with them; what there is to say is said of the fields.
    needless = before.only_held()
    for name, message in {**before.messages, **before.nested}.items():
        other = now.messages.get(name) or now.nested.get(name)
        if other is not None:
            yield from _message(name, message, other, before, now)
        elif name in before.messages:
            yield Change(name, "a message", GONE, "" if name in needless else KEEP_MESSAGE)
    for name, enum in before.enums.items():
        if name in now.enums:
            yield from _enum(name, enum, now.enums[name])
        else:
            yield Change(name, "an enum", GONE, "" if name in needless else KEEP_MESSAGE)
    for name, service in before.services.items():
        if name in now.services:
            yield from _service(name, service, now.services[name])
        else:
            yield Change(name, "a service", GONE, KEEP_SERVICE)
    yield from (Change(name, "", "a message") for name in now.messages.keys() - before.messages.keys())
    yield from (Change(name, "", "an enum") for name in now.enums.keys() - before.enums.keys())
    yield from (Change(name, "", "a service") for name in now.services.keys() - before.services.keys())


def _message(name: str, was: DescriptorProto, now: DescriptorProto, before: _Types, after: _Types) -> Iterator[Change]:
    if was.options.map_entry and now.options.map_entry:
        return  # The field of the map says it.
    fields = {field.name: field for field in now.field}
    numbers = _numbers((area.start, area.end - 1) for area in now.reserved_range)
    for old in was.field:
        text, oneof = _field(old, before), _oneof(old, was)
        new = fields.pop(old.name, None)
        if new is None:
            kept = old.number in numbers and old.name in now.reserved_name
            advice = "" if kept else KEEP_MEMBERS if oneof else RENAME if name in before.nested else RESERVE
            yield Change(f"{name}.{old.name}", text, "reserved" if kept else GONE, advice)
        elif (other := _field(new, after)) != text or _oneof(new, now) != oneof:
            advice = "" if old.number == new.number else KEEP_MEMBERS if oneof else USE_THE_LOCK
            if before.kind(old) != after.kind(new) or _oneof(new, now) != oneof:
                advice = RENAME
            yield Change(f"{name}.{old.name}", text, other, advice)
    yield from (Change(f"{name}.{new.name}", "", _field(new, after)) for new in fields.values())
    yield from _reserved(
        name,
        _numbers((area.start, area.end - 1) for area in was.reserved_range) - numbers,
        set(was.reserved_name) - set(now.reserved_name),
    )


def _field(field: FieldDescriptorProto, types: _Types) -> str:
    """The field as its `.proto` says it, without its name."""
    return f"{'optional ' if field.proto3_optional else ''}{types.kind(field)} = {field.number}"


def _oneof(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """The oneof that a field is a member of; empty if it is of none."""
    is_member = field.HasField("oneof_index") and not field.proto3_optional
    return message.oneof_decl[field.oneof_index].name if is_member else ""


def _enum(name: str, was: EnumDescriptorProto, now: EnumDescriptorProto) -> Iterator[Change]:
    values = {value.name: value.number for value in now.value}
    numbers = _numbers((area.start, area.end) for area in now.reserved_range)
    for old in was.value:
        new = values.pop(old.name, None)
        if new is None:
            kept = old.number in numbers and old.name in now.reserved_name
            yield Change(f"{name}.{old.name}", f"{old.number}", "reserved" if kept else GONE, "" if kept else RESERVE)
        elif new != old.number:
            yield Change(f"{name}.{old.name}", f"{old.number}", f"{new}", KEEP_NUMBERS)
    yield from (Change(f"{name}.{new}", "", f"{number}") for new, number in values.items())
    lost = _numbers((area.start, area.end) for area in was.reserved_range) - numbers
    yield from _reserved(name, lost, set(was.reserved_name) - set(now.reserved_name))


def _numbers(ranges: Iterable[tuple[int, int]]) -> set[int]:
    """The numbers of reserved ranges, which have one number each in the types that are made of classes."""
    return {number for start, end in ranges for number in range(start, end + 1)}


def _reserved(name: str, numbers: set[int], names: set[str]) -> Iterator[Change]:
    """What is no longer reserved."""
    lost = [*map(str, sorted(numbers)), *(f'"{each}"' for each in sorted(names))]
    if lost:
        yield Change(name, f"with {', '.join(lost)} reserved", "without", KEEP_RESERVED)


def _service(name: str, was: ServiceDescriptorProto, now: ServiceDescriptorProto) -> Iterator[Change]:
    methods = {method.name: _method(method) for method in now.method}
    for old in was.method:
        new = methods.pop(old.name, None)
        if new is None:
            yield Change(f"{name}.{old.name}", _method(old), GONE, KEEP_SERVICE)
        elif new != _method(old):
            yield Change(f"{name}.{old.name}", _method(old), new, KEEP_TYPES)
    yield from (Change(f"{name}.{new}", "", text) for new, text in methods.items())


def _method(method: MethodDescriptorProto) -> str:
    """The method as its `.proto` says it, without its name."""
    taken = ("stream " if method.client_streaming else "") + _bare(method.input_type)
    given = ("stream " if method.server_streaming else "") + _bare(method.output_type)
    return f"({taken}) returns ({given})"
