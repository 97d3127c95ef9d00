"""Writes messages in protobuf's JSON form for people to read."""

from __future__ import annotations

import base64
import math
from typing import Any, cast

from google.protobuf import any_pb2, json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.conventions import is_map, message_type
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.basic import EXACT_INTEGER

__all__ = ["as_document", "type_inside", "unpacked", "whole_number"]

_ANY = any_pb2.Any.DESCRIPTOR.full_name
_GOOGLE = "google.protobuf."
_LEAST_WITH_EXPONENT = 1e16
"""Python writes a double with an exponent from this number on."""


def as_document(message: Message, types: TypePool | None = None) -> Any:
    """Returns a message in protobuf's JSON form, in the order of declaration.

    Unlike protobuf's own, 64-bit integers are numbers as long as a double holds them.

    Fields without presence are written even if they are zero or empty. A message that is packed in an Any is written as
    JSON if `types` has its type. Otherwise its bytes are written in base64.
    """
    descriptor = cast(Descriptor, message.DESCRIPTOR)
    name = descriptor.full_name
    if name == _ANY:
        return _any(cast(any_pb2.Any, message), types)
    if name.startswith(_GOOGLE):  # Some of protobuf's own types have special forms in JSON.
        return json_format.MessageToDict(message)
    return {
        field.json_name: _field(field, getattr(message, field.name), types)
        for field in descriptor.fields
        if not field.has_presence or message.HasField(field.name)
    }


def type_inside(packed: any_pb2.Any) -> str:
    """Returns the full name of the type of the message that is packed in an Any."""
    return packed.type_url.rpartition("/")[2]


def unpacked(packed: any_pb2.Any, types: TypePool) -> Message | None:
    """Returns the message that is packed in an Any. None if the pool lacks its type, or if the bytes are invalid."""
    try:
        return types.message_class(type_inside(packed)).FromString(packed.value)
    except (MessageTypeError, DecodeError):
        return None


def _any(packed: any_pb2.Any, types: TypePool | None) -> dict[str, Any]:
    if not packed.type_url:
        return {}
    inside = None if types is None else unpacked(packed, types)
    if inside is None:
        return {"@type": packed.type_url, "value": base64.b64encode(packed.value).decode()}
    document = as_document(inside, types)
    if inside.DESCRIPTOR.full_name.startswith(_GOOGLE):
        return {"@type": packed.type_url, "value": document}
    return {"@type": packed.type_url, **document}


def _field(field: FieldDescriptor, value: Any, types: TypePool | None) -> Any:
    if is_map(field):
        each = message_type(field).fields_by_name["value"]
        # Maps have no order. Sorted keys are the order in which Go prints maps.
        return {_key(key): _single(each, value[key], types) for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, each, types) for each in value]
    return _single(field, value, types)


def _key(key: str | int | bool) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _single(field: FieldDescriptor, value: Any, types: TypePool | None) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return as_document(value, types)
        case FieldDescriptor.CPPTYPE_ENUM:
            assert field.enum_type is not None
            known = field.enum_type.values_by_number.get(value)
            return value if known is None else known.name
        case FieldDescriptor.CPPTYPE_INT64 | FieldDescriptor.CPPTYPE_UINT64:
            return whole_number(value)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return _number(value)
        case _:
            return base64.b64encode(value).decode() if field.type == FieldDescriptor.TYPE_BYTES else value


def whole_number(value: int) -> int | str:
    """Returns an integer as a value for `json.dumps`: as a text, as protobuf has it, if a double may not hold it."""
    return value if abs(value) < EXACT_INTEGER else str(value)


def _number(value: float) -> float | int | str:
    """Returns a double as a value for `json.dumps`. A double without a fraction becomes an int."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    is_minus_zero = value == 0 and math.copysign(1, value) < 0  # -0.0 would lose its sign as an int.
    if not value.is_integer() or is_minus_zero or abs(value) >= _LEAST_WITH_EXPONENT:
        return value
    return int(value)
