"""Values that JSON has, between Python and the types of google/protobuf/struct.proto. See `schema.basic`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydotcompute.protobuf.runtime_helpers import UnreadableError
from pydotcompute.schema.basic import Kind, as_number

__all__ = ["READERS", "WRITERS"]


def _write_list(pb: Any, value: list[Any]) -> None:
    add = pb.values.add
    for item in value:
        _write_value(add(), item)


def _write_struct(pb: Any, value: dict[str, Any]) -> None:
    fields = pb.fields
    for key, item in value.items():
        _write_value(fields[key], item)


def _write_value(pb: Any, value: Any) -> None:
    kind = type(value)
    if kind is str:
        pb.string_value = value
    elif kind is bool:
        pb.bool_value = value
    elif kind is int or kind is float:
        pb.number_value = value
    elif value is None:
        pb.null_value = 0
    elif kind is list:
        pb.list_value.SetInParent()
        _write_list(pb.list_value, value)
    elif kind is dict:
        pb.struct_value.SetInParent()
        _write_struct(pb.struct_value, value)
    else:
        raise TypeError(kind)


def _read_list(pb: Any, path: Any) -> list[Any]:
    return [_read_value(value, (path, None, index)) for index, value in enumerate(pb.values)]


def _read_struct(pb: Any, path: Any) -> dict[str, Any]:
    return {key: _read_value(value, (path, None, key)) for key, value in pb.fields.items()}


def _read_value(pb: Any, path: Any) -> Any:
    match pb.WhichOneof("kind"):
        case "number_value":
            if not math.isfinite(pb.number_value):
                raise UnreadableError(f"{pb.number_value} is no number of JSON", path)
            return as_number(pb.number_value)
        case "list_value":
            return _read_list(pb.list_value, path)
        case "struct_value":
            return _read_struct(pb.struct_value, path)
        case "string_value" | "bool_value" as kind:
            return getattr(pb, kind)
        case _:
            return None


WRITERS: dict[Kind, Callable[[Any, Any], None]] = {"list": _write_list, "dict": _write_struct, "Any": _write_value}
"""For each kind, a function that fills an empty message of its type with a value that has been checked."""
READERS: dict[Kind, Callable[[Any, Any], Any]] = {"list": _read_list, "dict": _read_struct, "Any": _read_value}
"""For each kind, a function that returns the value of a message.

They raise UnreadableError, with the path, if a number is NaN or infinite.
"""
