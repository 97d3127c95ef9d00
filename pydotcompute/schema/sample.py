"""Example messages, for people to edit."""

from __future__ import annotations

import base64
import math
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from pydotcompute.schema.door import as_numpy
from pydotcompute.schema.nodes import (
    Array,
    Bool,
    Bytes,
    Duration,
    EnumNode,
    Float,
    Int,
    List,
    Literal,
    Map,
    Message,
    MessageSchema,
    Node,
    Optional,
    Str,
    Timestamp,
    Tuple,
    Union,
    Uuid,
    is_boxed,
    walk,
)

__all__ = ["sample_json"]


def sample_json(schema: MessageSchema) -> dict[str, Any]:
    """A body in protobuf's JSON form, ready for `json.dumps` and for `grpcurl -d`.

    Fields have their defaults, or else an example of their type. A message inside itself is left out.
    """
    return _message(schema, ())


def _message(schema: MessageSchema, outer: tuple[type, ...]) -> dict[str, Any]:
    """An example of a message inside messages of the classes `outer`."""
    return {
        field.name: _json(field.node, field.make_default())
        if field.has_default
        else _example(field.node, (*outer, schema.cls))
        for field in schema.fields
    }


def _boxed(node: Node, value: Any) -> Any:
    """`value` as an element, or as an optional field."""
    return {"value": value} if is_boxed(node) else value


def _json(node: Node, value: Any) -> Any:
    """The JSON of one value of `node`."""
    if value is None:
        return None
    match node:
        case Float():
            number = float(value)
            if not math.isfinite(number):
                return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case Int() | Bool() | Str() | Literal():
            return value
        case Bytes():
            return _base64(value)
        case Uuid():
            return str(value)
        case EnumNode():
            return next(name for member, name, _ in node.values() if member is value)
        case Timestamp():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Duration():
            seconds, rest = divmod(abs(value), timedelta(seconds=1))
            sign = "-" if value < timedelta() else ""
            return f"{sign}{seconds}.{rest.microseconds:06}".rstrip("0").rstrip(".") + "s"
        case Array():
            array = as_numpy(value)
            return {"dtype": array.dtype.str, "shape": list(array.shape), "data": _base64(array.tobytes())}
        case Optional(item):
            return _boxed(item, _json(item, value))
        case List(item) | Tuple(item):
            return [_boxed(item, _json(item, element)) for element in value]
        case Map(_, item):
            return {_key(key): _boxed(item, _json(item, element)) for key, element in value.items()}
        case Message():
            return {field.name: _json(field.node, getattr(value, field.name)) for field in node.schema.fields}
        case Union():
            return {name: _json(member, value) for name, member in node.named() if type(value) is member.cls}
        case _:
            assert_never(node)


def _example(node: Node, outer: tuple[type, ...]) -> Any:
    """The JSON of an example of `node`; of nothing, where that would repeat a message of `outer` inside itself."""
    repeats = any(isinstance(inner, Message) and inner.cls in outer for inner in walk(node))
    match node:
        case Float():
            return 1.5
        case Int():
            return 1
        case Bool():
            return True
        case Str():
            return "text"
        case Literal(values):
            return values[0]
        case Bytes():
            return _json(node, b"bytes")
        case Uuid():
            return "00000000-0000-4000-8000-000000000000"
        case EnumNode():
            return node.values()[0][1]
        case Timestamp():
            return _json(node, datetime(2000, 1, 1, tzinfo=UTC))
        case Duration():
            return _json(node, timedelta(seconds=1.5))
        case Array():
            return {"dtype": "<f4", "shape": [2], "data": _base64(struct.pack("<2f", 1, 2))}
        case Optional(item):
            return None if repeats else _boxed(item, _example(item, outer))
        case List(item):
            return [] if repeats else [_boxed(item, _example(item, outer))]
        case Tuple(item, length):
            return [] if repeats else [_boxed(item, _example(item, outer))] * (1 if length is None else length)
        case Map(key, item):
            return {} if repeats else {_key(_example(key, outer)): _boxed(item, _example(item, outer))}
        case Message(cls):
            return {} if cls in outer else _message(node.schema, outer)
        case Union():
            name, member = next(((n, m) for n, m in node.named() if m.cls not in outer), node.named()[0])
            return {name: _example(member, outer)}
        case _:
            assert_never(node)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
