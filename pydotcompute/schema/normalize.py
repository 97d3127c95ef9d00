"""Converts numbers and arrays in messages to the types that the annotations ask for."""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy

from pydotcompute.schema import basic, nodes
from pydotcompute.schema.codegen import Source
from pydotcompute.schema.fits import FieldTests, compiled, has_numbers
from pydotcompute.schema.foreign_arrays import as_numpy, is_cupy
from pydotcompute.schema.introspect import introspect

__all__ = ["emit_normalizing", "normalizer", "settle", "settled"]


def normalizer(cls: type) -> Callable[[object], None] | None:
    """Returns a function that converts numbers and arrays in an instance to the types that the annotations ask for.

    Returns None if no field of the class can need a conversion. The function converts

    - to float: ints, NumPy scalars and other values with `__float__` or `__index__`, but no str, bool or complex;
    - to int: bools and other values with `__index__`;
    - to bool: NumPy's bools;
    - to an array: values that `as_numpy` accepts.

    The function also converts inside nested messages and inside containers. A container with a converted value is
    replaced by a new container. All other values stay as they are, and the function never raises.
    """
    schema = introspect(cls)
    if not has_numbers(nodes.Message(cls)):
        return None
    key = "__pydotcompute_normalizer__"
    return nodes.kept_on_class(cls, key) or nodes.keep_on_class(cls, key, _make_normalizer(schema))


def _make_normalizer(schema: nodes.MessageSchema) -> Callable[[object], None]:
    # The function does not check the class of the instance: an inherited `__post_init__` serves the subclass as well.
    return compiled(schema, lambda message: settle(schema, message), numbers_only=True)


def emit_normalizing(source: Source, schema: nodes.MessageSchema, message: str) -> None:
    """Adds lines to the end of a generated function that normalize `message`.

    Each field of the message must also be in a variable of its name.
    """
    normalize = normalizer(schema.cls)
    if normalize is None:
        return
    otherwise = f"return {source.bind(normalize, 'normalize')}({message})"
    inside = [node for field in schema.fields if has_numbers(field.node) for node in nodes.walk(field.node)]
    if any(isinstance(node, nodes.Message | nodes.Union) for node in inside):
        source.line(otherwise)  # Only the normalizer has the functions that test nested messages.
    else:
        FieldTests(source, {}, otherwise, numbers_only=True).emit(schema, "0", in_variables=True)


def settled(node: nodes.Node, value: Any, depth: int = 0) -> Any:
    """Returns `value` with its numbers and arrays converted, or the very same object if nothing had to change."""
    match node:
        case nodes.Float() if type(value) is not float:
            return _as_float(value)
        case nodes.Int() if type(value) is not int:
            # In NumPy 1, a boolean has `__index__` too.
            is_number = hasattr(value, "__index__") and not isinstance(value, numpy.bool_) and not _is_array_like(value)
            return operator.index(value) if is_number else value
        case nodes.Bool() if getattr(getattr(value, "dtype", None), "kind", "") == "b" and not _is_array_like(value):
            return bool(value)
        case nodes.Array(on_device=on_device) if not (on_device and is_cupy(type(value))):
            with suppress(TypeError):  # The check will refuse the value.
                return as_numpy(value)
        case nodes.Basic():
            return basic.settled(value, depth)
        case nodes.Optional(item) if value is not None:
            return settled(item, value, depth)
        case nodes.List(item) if isinstance(value, list):
            new = [settled(item, old, depth) for old in value]
            return value if _same(new, value) else new
        case nodes.Tuple(item) if isinstance(value, tuple):
            new = [settled(item, old, depth) for old in value]
            return value if _same(new, value) else tuple(new)
        case nodes.Map(key, item) if isinstance(value, dict):
            pairs = [(settled(key, k, depth), settled(item, v, depth)) for k, v in value.items()]
            same = _same([k for k, _ in pairs], list(value)) and _same([v for _, v in pairs], list(value.values()))
            return value if same else dict(pairs)
        case nodes.Message(cls) if type(value) is cls:
            _settle_fields(node.schema, value, depth + 1)
        case nodes.Union(members):
            for member in members:
                settled(member, value, depth)
        case _:
            pass
    return value


class _TooDeepError(Exception):
    """The message is nested too deep, or even contains itself. It is left as it is, and the check refuses it."""


def settle(schema: nodes.MessageSchema, message: object) -> None:
    """Converts the numbers and arrays in the message to the types that the annotations ask for, in place."""
    with suppress(_TooDeepError):
        _settle_fields(schema, message, 0)


def _settle_fields(schema: nodes.MessageSchema, message: object, depth: int) -> None:
    if depth > nodes.MAX_DEPTH:
        raise _TooDeepError
    for field in schema.fields:
        old = getattr(message, field.name)
        new = settled(field.node, old, depth)
        if new is not old:
            object.__setattr__(message, field.name, new)  # The class may be frozen.


def _same(new: list[Any], old: Any) -> bool:
    return all(map(operator.is_, new, old))


def _is_array_like(value: Any) -> bool:
    """Returns True if `value` is an array with dimensions, which is not a number even if it has only one element."""
    return getattr(value, "ndim", 0) != 0


def _as_float(value: Any) -> Any:
    if not hasattr(value, "__float__") and not hasattr(value, "__index__"):
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    if isinstance(value, bool | str) or kind not in "iuf" or _is_array_like(value):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return value  # The check will refuse the value, for example an int of 400 digits.
