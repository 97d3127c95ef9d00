"""Makes example messages in JSON for people to edit."""

from __future__ import annotations

import base64
import math
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

import numpy

from pydotcompute.protobuf import tensors
from pydotcompute.schema import nodes
from pydotcompute.schema.dtypes import as_sent, dtype_named
from pydotcompute.v1 import tensor_pb2

__all__ = ["sample_json"]

_MOST_ELEMENTS = 64


def sample_json(schema: nodes.MessageSchema) -> dict[str, Any]:
    """Returns the body of an example in protobuf's JSON form, ready for `json.dumps` and for `grpcurl -d`.

    Each field has its default or, if it has none, an example of its type. A message inside itself is left out. An array
    that has to be large has no elements. A class that was made from the description of another one may have an example
    as its `__sample_json__`.
    """
    described: dict[str, Any] | None = schema.cls.__dict__.get("__sample_json__")
    return _message(schema, ()) if described is None else described


def _message(schema: nodes.MessageSchema, outer: tuple[nodes.MessageSchema, ...]) -> dict[str, Any]:
    """Returns an example of a message that stands inside messages of the schemas `outer`."""
    return {
        field.name: _json(field.node, field.make_default())
        if field.has_default
        else _example(field.node, (*outer, schema))
        for field in schema.fields
    }


def _boxed(node: nodes.Node, value: Any) -> Any:
    """Returns the JSON `value` as it stands in a list, a map or an optional field: in a box, if the node needs one."""
    return {"value": value} if nodes.is_boxed(node) else value


def _json(node: nodes.Node, value: Any) -> Any:
    """Returns the JSON of one value of `node`."""
    if value is None:
        return None
    match node:
        case nodes.Float():
            number = float(value)
            if not math.isfinite(number):
                return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case nodes.Int() | nodes.Bool() | nodes.Str() | nodes.Literal() | nodes.Basic():
            return value
        case nodes.Bytes():
            return _base64(value)
        case nodes.Uuid():
            return str(value)
        case nodes.EnumNode():
            return next(name for member, name, _ in node.values() if member is value)
        case nodes.Timestamp():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case nodes.Duration():
            seconds, rest = divmod(abs(value), timedelta(seconds=1))
            sign = "-" if value < timedelta() else ""
            return f"{sign}{seconds}.{rest.microseconds:06}".rstrip("0").rstrip(".") + "s"
        case nodes.Array():
            return _tensor(value)
        case nodes.Optional(item):
            return _boxed(item, _json(item, value))
        case nodes.List(item) | nodes.Tuple(item):
            return [_boxed(item, _json(item, element)) for element in value]
        case nodes.Map(_, item):
            return {_key(key): _boxed(item, _json(item, element)) for key, element in value.items()}
        case nodes.Message():
            return {field.name: _json(field.node, getattr(value, field.name)) for field in node.schema.fields}
        case nodes.Union():
            return {name: _json(member, value) for name, member in node.named() if type(value) is member.cls}
        case _:
            assert_never(node)


def _example(node: nodes.Node, outer: tuple[nodes.MessageSchema, ...]) -> Any:
    """Returns the JSON of an example of `node`. It is empty if it would repeat a message of `outer` inside itself."""
    repeats = any(isinstance(inner, nodes.Message) and inner.schema in outer for inner in nodes.walk(node))
    match node:
        case nodes.Float():
            return 1.5
        case nodes.Int():
            return 1
        case nodes.Bool():
            return True
        case nodes.Str():
            return "text"
        case nodes.Literal(values):
            return values[0]
        case nodes.Bytes():
            return _json(node, b"bytes")
        case nodes.Uuid():
            return "00000000-0000-4000-8000-000000000000"
        case nodes.EnumNode():
            return node.values()[0][1]
        case nodes.Timestamp():
            return _json(node, datetime(2000, 1, 1, tzinfo=UTC))
        case nodes.Duration():
            return _json(node, timedelta(seconds=1.5))
        case nodes.Array():
            return _example_tensor(node)
        case nodes.Basic(kind):
            return {"list": [1, "text"], "dict": {"name": "text"}, "Any": {"name": ["text", 1]}}[kind]
        case nodes.Optional(item):
            return None if repeats else _boxed(item, _example(item, outer))
        case nodes.List(item):
            return [] if repeats else [_boxed(item, _example(item, outer))]
        case nodes.Tuple(item, length):
            return [] if repeats else [_boxed(item, _example(item, outer))] * (1 if length is None else length)
        case nodes.Map(key, item):
            return {} if repeats else {_key(_example(key, outer)): _boxed(item, _example(item, outer))}
        case nodes.Message():
            return {} if node.schema in outer else _message(node.schema, outer)
        case nodes.Union():
            name, member = next(((n, m) for n, m in node.named() if m.schema not in outer), node.named()[0])
            return {name: _example(member, outer)}
        case _:
            assert_never(node)


def _tensor(value: Any) -> dict[str, Any]:
    pb = tensor_pb2.Tensor()
    tensors.write_tensor(pb, value)
    name = "fortran_data" if pb.fortran_data else "data"
    return {"dtype": pb.dtype, "shape": list(pb.shape), name: _base64(getattr(pb, name))}


def _example_tensor(node: nodes.Array) -> dict[str, Any]:
    """Returns the JSON of an array that fits the node. Each dimension with a name or without a length has length 2."""
    shape = (2,) if node.shape is None else tuple(length if isinstance(length, int) else 2 for length in node.shape)
    dtype = dtype_named(node.dtype or "float32")
    if math.prod(shape) > _MOST_ELEMENTS:
        return {"dtype": as_sent(dtype)[0], "shape": list(shape), "data": ""}
    return _tensor(numpy.arange(1, math.prod(shape) + 1).reshape(shape).astype(dtype))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
