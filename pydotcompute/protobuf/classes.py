"""Makes message classes from protobuf types, for programs without the source of the classes."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import keyword
import operator
import types
import uuid
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.conventions import (
    BASICS,
    BOX_FIELD,
    DURATION,
    ONEOF,
    STATIC,
    TENSOR,
    TIMESTAMP,
    describe,
    is_map,
    members,
    message_type,
)
from pydotcompute.schema.introspect import FieldNumber
from pydotcompute.schema.nodes import HEADER_FIELDS

__all__ = ["dataclass_from"]

DEEPEST = 64
"""How many messages may be inside each other. Each one takes stack wherever the class is used."""

_PYTHON_TYPES: dict[int, type] = {
    FieldDescriptor.TYPE_DOUBLE: float,
    FieldDescriptor.TYPE_INT64: int,
    FieldDescriptor.TYPE_BOOL: bool,
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_BYTES: bytes,
}


def dataclass_from(descriptor: Descriptor, decorate: Callable[[type], type] = lambda cls: cls) -> type:
    """Returns a message class for a protobuf type that was made from a message class. Every call makes new classes.

    This is the inverse of `TypePool.add`, with some loss: UUIDs and Literals become `str`, and tuples become lists. The
    class has the header fields. The constructor takes the fields of the body by position or by name. All fields have
    defaults. If absent differs from zero for a field, its default is None, so that the default of the other side
    applies. Otherwise the default is protobuf's zero.

    Args:
        descriptor: the protobuf type.
        decorate: a class decorator, such as `message`. It is applied to the class before other classes refer to it.

    Raises:
        MessageTypeError: the type of a field, such as int32, does not come from any annotation; a name cannot be that
            of a field or of an enum's member; or more than `DEEPEST` messages are inside each other.
    """
    messages: dict[str, Descriptor] = {}
    _collect(descriptor, "$", messages, DEEPEST)
    _check_names(descriptor, messages.values())
    made: dict[str, type] = {}
    usable: dict[str, type] = {}
    for full_name, message in messages.items():
        header = _header_fields() if message is descriptor else []
        body = [(field.name, Any, dataclasses.field(**_default(field))) for field in message.fields]
        namespace = {"__proto_package__": message.file.package, "__doc__": ""}
        cls = dataclasses.make_dataclass(message.name, [*body, *header], namespace=namespace)
        # The module cannot be set in the namespace: since Python 3.12, `make_dataclass` replaces it with the caller's.
        cls.__module__ = message.file.package
        made[full_name] = cls
        usable[full_name] = decorate(made[full_name]) if message is descriptor else made[full_name]
    # The annotations come last, because they need all classes to exist.
    enums: dict[str, type[enum.Enum]] = {}
    for full_name, cls in made.items():
        annotations = dict(cls.__annotations__)
        for position, field in enumerate(messages[full_name].fields, 1):
            annotation = _annotation(field, usable, enums)
            pinned = annotation if field.number == position else Annotated[annotation, FieldNumber(field.number)]
            annotations[field.name] = pinned
        cls.__annotations__ = annotations
    return usable[descriptor.full_name]


def _header_fields() -> list[tuple[str, Any, Any]]:
    return [
        ("message_id", uuid.UUID, dataclasses.field(default_factory=uuid.uuid4, kw_only=True)),
        ("priority", int, dataclasses.field(default=128, kw_only=True)),
        ("correlation_id", uuid.UUID | None, dataclasses.field(default=None, kw_only=True)),
    ]


def _check_names(descriptor: Descriptor, messages: Iterable[Descriptor]) -> None:
    """Raises MessageTypeError if a field has a name that a class needs for something else.

    The names become attributes, parameters and parts of generated source.
    """
    for message in messages:
        for field in message.fields:
            name = field.name
            is_header = message is descriptor and name in HEADER_FIELDS
            if is_header or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
                raise MessageTypeError("a name that a field of a class can have", repr(name), message.full_name)


def _collect(message: Descriptor, path: str, messages: dict[str, Descriptor], depth: int) -> None:
    """Adds `message` and all messages that it contains to `messages`, except boxes, map entries and static types."""
    is_class = message.containing_type is None
    if message.full_name in messages or message.full_name in STATIC:
        return
    if depth == 0:
        raise MessageTypeError(f"at most {DEEPEST} messages inside each other", "more", message.full_name)
    if is_class:
        messages[message.full_name] = message
    for field in message.fields:
        inside = f"{path}.{field.name}" if is_class else path
        inside += "[]" if field.is_repeated else ""
        if field.message_type is not None:
            _collect(field.message_type, inside, messages, depth - 1)
        elif field.enum_type is None and field.type not in _PYTHON_TYPES:
            raise MessageTypeError("a kind of field that annotations make", describe(field), inside)


def _default(field: FieldDescriptor) -> dict[str, Any]:
    if field.is_repeated:
        return {"default_factory": dict if is_map(field) else list}
    return {"default": None if field.has_presence else field.default_value}


def _annotation(field: FieldDescriptor, classes: dict[str, type], enums: dict[str, type[enum.Enum]]) -> Any:
    if is_map(field):
        entry = message_type(field).fields_by_name
        return types.GenericAlias(dict, tuple(_single(entry[name], classes, enums) for name in ("key", "value")))
    single = _single(field, classes, enums)
    if field.is_repeated:
        return types.GenericAlias(list, (single,))
    return single | None if field.has_presence else single


def _single(field: FieldDescriptor, classes: dict[str, type], enums: dict[str, type[enum.Enum]]) -> Any:
    """Returns the annotation of a single value: of the field itself or, if it is repeated, of its elements."""
    message = field.message_type
    if field.enum_type is not None:
        return _enum_class(field.enum_type, enums)
    if message is None:
        return _PYTHON_TYPES[field.type]
    if message.full_name in STATIC:
        return _STATIC_TYPES[message.full_name]()
    if message.containing_type is None:
        return classes[message.full_name]
    if ONEOF in message.oneofs_by_name:
        return functools.reduce(operator.or_, [_single(member, classes, enums) for member in message.fields])
    return _annotation(message.fields_by_name[BOX_FIELD], classes, enums)


def _enum_class(enum_type: EnumDescriptor, enums: dict[str, type[enum.Enum]]) -> type[enum.Enum]:
    if enum_type.full_name not in enums:
        named = members(enum_type)
        for name in named:
            # Python has an enum's `mro` and names with underscores around them for itself.
            if not name.isidentifier() or name.startswith("_") or name == "mro":
                raise MessageTypeError("a name that a member of an enum can have", repr(name), enum_type.full_name)
        made = enum.Enum(enum_type.name, named, module=enum_type.file.package)  # type: ignore[misc]
        made.__proto_package__ = enum_type.file.package  # type: ignore[attr-defined]
        enums[enum_type.full_name] = made
    return enums[enum_type.full_name]


def _ndarray() -> type:
    import numpy

    return numpy.ndarray


_STATIC_TYPES: dict[str, Callable[[], Any]] = {
    TIMESTAMP.full_name: lambda: datetime.datetime,
    DURATION.full_name: lambda: datetime.timedelta,
    TENSOR.full_name: _ndarray,
    BASICS["list"].full_name: lambda: list,
    BASICS["dict"].full_name: lambda: dict,
    BASICS["Any"].full_name: lambda: Any,
}
