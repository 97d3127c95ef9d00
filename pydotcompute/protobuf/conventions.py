"""The conventions of all protobuf types that are made from classes, and functions that read these types."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from pydotcompute.schema.basic import Kind
from pydotcompute.schema.names import snake
from pydotcompute.v1 import tensor_pb2

__all__ = [
    "BASICS",
    "BOX_FIELD",
    "DURATION",
    "ONEOF",
    "REQUIRED",
    "RESERVED_PACKAGES",
    "STATIC",
    "TENSOR",
    "TIMESTAMP",
    "comments_of_fields",
    "describe",
    "is_map",
    "members",
    "message_type",
    "required_fields",
]

BOX_FIELD = "value"
"""The only field of a box. A box is a message that holds, for example, a list inside a list or an optional element."""
ONEOF = "one_of"
"""The name of the oneof in the message that stands for a union."""

TIMESTAMP = timestamp_pb2.Timestamp.DESCRIPTOR
DURATION = duration_pb2.Duration.DESCRIPTOR
TENSOR = tensor_pb2.Tensor.DESCRIPTOR
BASICS: dict[Kind, Descriptor] = {
    "list": struct_pb2.ListValue.DESCRIPTOR,
    "dict": struct_pb2.Struct.DESCRIPTOR,
    "Any": struct_pb2.Value.DESCRIPTOR,
}
"""The types of a `list`, a `dict` and `Any` without arguments."""
STATIC = {each.full_name: each for each in (TIMESTAMP, DURATION, TENSOR, *BASICS.values())}
"""The types that are not made from classes, by full name."""

RESERVED_PACKAGES = ("google", "grpc", "pydotcompute")
"""The packages of the daemon's own types and services begin with one of these."""

REQUIRED = "Required."
"""The line in the comment of a field that must have a value. Protobuf itself has no word for it."""

_KINDS: dict[int, str] = {
    number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()
}


def message_type(field: FieldDescriptor) -> Descriptor:
    """Returns the message type of a field, which must have one."""
    assert field.message_type is not None
    return field.message_type


def is_map(field: FieldDescriptor) -> bool:
    """Returns True if the field is a map, which protobuf holds as a list of entries."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def describe(field: FieldDescriptor) -> str:
    """Returns the type of a field as it is written in a `.proto` file."""
    if is_map(field):
        entry = message_type(field).fields_by_name
        return f"map<{describe(entry['key'])}, {describe(entry['value'])}>"
    kind = _KINDS[field.type]
    if field.message_type is not None:
        kind = field.message_type.full_name
    elif field.enum_type is not None:
        kind = f"enum {field.enum_type.full_name}"
    if field.is_repeated:
        return f"repeated {kind}"
    return f"optional {kind}" if field.has_presence and field.message_type is None else kind


def members(enum_type: EnumDescriptor) -> dict[str, int]:
    """Returns the names of an enum's values, without their prefix, and their numbers. The zero is left out."""
    prefix = snake(enum_type.name).upper() + "_"
    return {value.name.removeprefix(prefix): value.number for value in enum_type.values if value.number != 0}


def comments_of_fields(files: Iterable[FileDescriptorProto]) -> dict[str, str]:
    """Returns the comment of each field that has one, by the full name of the field."""
    found = {}
    for file in files:
        for location in file.source_code_info.location:
            match list(location.path):
                # 4 is the number of `message_type` in FileDescriptorProto, and 2 that of `field` in DescriptorProto.
                case [4, index, 2, position]:
                    message = file.message_type[index]
                    name = f"{file.package}.{message.name}.{message.field[position].name}"
                    found[name] = location.leading_comments
                case _:
                    pass
    return found


def required_fields(files: Iterable[FileDescriptorProto]) -> set[str]:
    """Returns the full names of the fields that must have a value, as their comments say."""
    comments = comments_of_fields(files).items()
    return {name for name, text in comments if REQUIRED in map(str.strip, text.splitlines())}
