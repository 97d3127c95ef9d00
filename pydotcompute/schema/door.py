"""What a message must pass on its way into a mailbox: its values fit its annotations.

Nearly every message fits as it is, so for each class there is one generated function that only tells whether it does
(`_compile`). A message that does not is walked node by node: first to make its numbers and arrays those of the
annotations (`settled`), then to say exactly what is wrong, and where (`_Checker`).
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, assert_never
from uuid import UUID

import numpy

from pydotcompute.exceptions import MessageSerializationError, MessageTypeError
from pydotcompute.schema import arrays
from pydotcompute.schema.nodes import (
    INT64_MAX,
    INT64_MIN,
    MAX_DEPTH,
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
    keep_on_class,
    kept_on_class,
    reachable,
    type_name,
    walk,
)
from pydotcompute.schema.source import Source

__all__ = ["EPOCH", "checker", "door_check", "emit_normalizing", "normalizer", "settled"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime.min.replace(tzinfo=UTC) - EPOCH
_LATEST = datetime.max.replace(tzinfo=UTC) - EPOCH
_LONGEST = timedelta(seconds=315_576_000_000)  # google.protobuf.Duration's range, both ways


def checker(schema: MessageSchema) -> Callable[[object], None]:
    """See `model.checker`."""
    key = "__pydotcompute_checker__"
    return kept_on_class(schema.cls, key) or keep_on_class(schema.cls, key, _make_checker(schema))


def normalizer(schema: MessageSchema) -> Callable[[object], None] | None:
    """See `model.normalizer`."""
    if not _has_numbers(Message(schema.cls)):
        return None
    key = "__pydotcompute_normalizer__"
    return kept_on_class(schema.cls, key) or keep_on_class(schema.cls, key, _make_normalizer(schema))


def door_check(schema: MessageSchema) -> Callable[[object], None]:
    """See `model.door_check`."""
    key = "__pydotcompute_door__"
    return kept_on_class(schema.cls, key) or keep_on_class(schema.cls, key, _make_door(schema))


def emit_normalizing(source: Source, schema: MessageSchema, message: str) -> None:
    """Adds the end of a function: it normalizes `message`, whose fields are also in variables of their names."""
    normalize = normalizer(schema)
    if normalize is None:
        return
    otherwise = f"return {source.bind(normalize, 'normalize')}({message})"
    nodes = [node for field in schema.fields if _has_numbers(field.node) for node in walk(field.node)]
    if any(isinstance(node, Message | Union) for node in nodes):
        source.line(otherwise)  # The tests of these are functions of the normalizer's own.
    else:
        _emit_fields(source, schema, {}, otherwise, "0", numbers_only=True, in_variables=True)


def _make_checker(schema: MessageSchema) -> Callable[[object], None]:
    node = Message(schema.cls)

    def check(message: object) -> None:
        if type(message) is not schema.cls:
            raise MessageTypeError(schema.name, type(message).__name__)
        _Checker(schema.name).check(node, message, "$", 0)

    return _compile(schema, check, numbers_only=False)


def _make_normalizer(schema: MessageSchema) -> Callable[[object], None]:
    # The class of the instance is not looked at: an inherited `__post_init__` serves the subclass as well.
    return _compile(schema, lambda message: _settle(schema, message), numbers_only=True)


def _make_door(schema: MessageSchema) -> Callable[[object], None]:
    check = checker(schema)

    def settle_and_check(message: object) -> None:
        if type(message) is schema.cls:
            _settle(schema, message)
        check(message)

    return _compile(schema, settle_and_check, numbers_only=False)


def _has_numbers(node: Node) -> bool:
    """Whether normalizing can change anything in a value of this node."""
    inside = list(walk(node))
    for message in [item for item in inside if isinstance(item, Message)]:
        inside += [item for schema in reachable(message.schema) for f in schema.fields for item in walk(f.node)]
    return any(isinstance(item, Float | Int | Bool | Array) for item in inside)


def _has_named_lengths(schema: MessageSchema) -> bool:
    inside = [node for found in reachable(schema) for field in found.fields for node in walk(field.node)]
    return any(isinstance(length, str) for node in inside if isinstance(node, Array) for length in node.shape or ())


# The generated test: does the message fit as it is?


def _compile(
    schema: MessageSchema, otherwise: Callable[[object], None], *, numbers_only: bool
) -> Callable[[object], None]:
    """A function that returns if the message fits as it is, and else returns `otherwise(message)`.

    With `numbers_only` it looks at nothing but the types of numbers, and at what it meets on the way to them. It may
    take a message that fits for one that does not (a `str` of a subclass, say), but never the reverse.
    """
    source = Source(f"door of {schema.full_name}")
    fits = {found.cls: f"fits_{position}" for position, found in enumerate(reachable(schema))}
    # The lengths of the arrays' dimensions that have names: the same in all of the message.
    lengths = ", lengths" if not numbers_only and _has_named_lengths(schema) else ""
    for found in reachable(schema):
        with source.block(f"def {fits[found.cls]}(message, depth{lengths}):"):
            source.line(f"if depth > {MAX_DEPTH}: return False")
            _emit_fields(source, found, fits, "return False", "depth", numbers_only, lengths=lengths)
            source.line("return True")
    failure = f"return {source.bind(otherwise, 'otherwise')}(message)"
    with source.block("def door(message):"):
        if not numbers_only:
            source.line(f"if type(message) is not {source.bind(schema.cls, 'cls')}: {failure}")
        if lengths:
            source.line("lengths = {}")
        _emit_fields(source, schema, fits, failure, "0", numbers_only, lengths=lengths)
        source.line("return None")
    door: Callable[[object], None] = source.run()["door"]
    return door


def _emit_fields(
    source: Source,
    schema: MessageSchema,
    fits: dict[type, str],
    failure: str,
    depth: str,
    numbers_only: bool,
    in_variables: bool = False,
    lengths: str = "",
) -> None:
    def emit(node: Node, value: str, depth: str) -> None:
        if numbers_only and not _has_numbers(node):
            return
        match node:
            case Float():
                source.line(f"if type({value}) is not float: {failure}")
            case Int():
                in_range = "" if numbers_only else f" or not {INT64_MIN} <= {value} <= {INT64_MAX}"
                source.line(f"if type({value}) is not int{in_range}: {failure}")
            case Bool():
                source.line(f"if {value} is not True and {value} is not False: {failure}")
            case Str() | Literal():
                encodable = source.bind(_is_encodable, "is_encodable")
                fits_utf8 = f"({value}.isascii() or {encodable}({value}))"
                source.line(f"if type({value}) is not str or not {fits_utf8}: {failure}")
            case Bytes():
                source.line(f"if type({value}) is not bytes: {failure}")
            case Uuid():
                source.line(f"if type({value}) is not {source.bind(UUID, 'UUID')}: {failure}")
            case EnumNode(cls):
                source.line(f"if type({value}) is not {source.bind(cls, 'enum')}: {failure}")
            case Timestamp():
                types, utc = source.bind(datetime, "datetime"), source.bind(UTC, "UTC")
                source.line(f"if type({value}) is not {types} or {value}.tzinfo is not {utc}: {failure}")
            case Duration():
                types, longest = source.bind(timedelta, "timedelta"), source.bind(_LONGEST, "longest")
                source.line(f"if type({value}) is not {types} or not -{longest} <= {value} <= {longest}: {failure}")
            case Array():
                if numbers_only:
                    source.line(f"if type({value}) is not {source.bind(numpy.ndarray, 'ndarray')}: {failure}")
                else:
                    fits_array = source.bind(arrays.tester(node), "fits_array")
                    source.line(f"if not {fits_array}({value}, {lengths.strip(', ') or '{}'}): {failure}")
            case Optional(item):
                with source.block(f"if {value} is not None:"):
                    emit(item, value, f"{depth} + 1" if is_boxed(item) else depth)
            case List(item) | Tuple(item):
                wanted = "list" if isinstance(node, List) else "tuple"
                length = node.length if isinstance(node, Tuple) else None
                wrong_length = "" if length is None else f" or len({value}) != {length}"
                source.line(f"if type({value}) is not {wanted}{wrong_length}: {failure}")
                each = source.fresh("item")
                with source.block(f"for {each} in {value}:"):
                    emit(item, each, f"{depth} + 1" if is_boxed(item) else depth)
            case Map(key, item):
                source.line(f"if type({value}) is not dict: {failure}")
                each = source.fresh("item")
                with source.block(f"for {each}_key, {each} in {value}.items():"):
                    source.line("pass")
                    emit(key, f"{each}_key", depth)
                    emit(item, each, f"{depth} + 2" if is_boxed(item) else f"{depth} + 1")
            case Message(cls):
                test = (
                    f"type({value}) is not {source.bind(cls, 'cls')} or not {fits[cls]}({value}, {depth} + 1{lengths})"
                )
                source.line(f"if {test}: {failure}")
            case Union(members):
                tests = [
                    f"(type({value}) is {source.bind(member.cls, 'cls')}"
                    f" and {fits[member.cls]}({value}, {depth} + 2{lengths}))"
                    for member in members
                ]
                source.line(f"if not ({' or '.join(tests)}): {failure}")
            case _:
                assert_never(node)

    for field in schema.fields:
        if not numbers_only or _has_numbers(field.node):
            value = field.name if in_variables else source.fresh("value")
            if not in_variables:
                source.line(f"{value} = message.{field.name}")
            emit(field.node, value, depth)


# The walks.


def settled(node: Node, value: Any, depth: int = 0) -> Any:
    """`value` with its numbers made those of the annotation; the very same object if there was nothing to change."""
    match node:
        case Float() if type(value) is not float:
            return _as_float(value)
        case Int() if type(value) is not int:
            # NumPy 1 takes its booleans for an index.
            is_number = hasattr(value, "__index__") and not isinstance(value, numpy.bool_) and not _is_array_like(value)
            return operator.index(value) if is_number else value
        case Bool() if getattr(getattr(value, "dtype", None), "kind", "") == "b" and not _is_array_like(value):
            return bool(value)
        case Array(on_device=on_device) if not (on_device and arrays.is_cupy(type(value))):
            with suppress(TypeError):  # Left for the check to refuse.
                return arrays.as_numpy(value)
        case Optional(item) if value is not None:
            return settled(item, value, depth)
        case List(item) if isinstance(value, list):
            new = [settled(item, old, depth) for old in value]
            return value if _same(new, value) else new
        case Tuple(item) if isinstance(value, tuple):
            new = [settled(item, old, depth) for old in value]
            return value if _same(new, value) else tuple(new)
        case Map(key, item) if isinstance(value, dict):
            pairs = [(settled(key, k, depth), settled(item, v, depth)) for k, v in value.items()]
            same = _same([k for k, _ in pairs], list(value)) and _same([v for _, v in pairs], list(value.values()))
            return value if same else dict(pairs)
        case Message(cls) if type(value) is cls:
            _settle_fields(node.schema, value, depth + 1)
        case Union(members):
            for member in members:
                settled(member, value, depth)
        case _:
            pass
    return value


class _TooDeepError(Exception):
    """The message may even contain itself. Normalizing leaves it alone, and the check refuses it."""


def _settle(schema: MessageSchema, message: object) -> None:
    with suppress(_TooDeepError):
        _settle_fields(schema, message, 0)


def _settle_fields(schema: MessageSchema, message: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _TooDeepError
    for field in schema.fields:
        old = getattr(message, field.name)
        new = settled(field.node, old, depth)
        if new is not old:
            object.__setattr__(message, field.name, new)  # The class may be frozen.


def _same(new: list[Any], old: Any) -> bool:
    return all(map(operator.is_, new, old))


def _is_array_like(value: Any) -> bool:
    """Whether `value` is an array with dimensions: even one that has a single element is no number."""
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
        return value  # Left for the check to refuse: an int of 400 digits, for one.


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Checker:
    """Finds what is wrong in one value, and raises. Being slow, it is asked only about values that seem wrong."""

    def __init__(self, message_type: str) -> None:
        self._message_type = message_type
        self._lengths: dict[str, tuple[int, str]] = {}

    def check(self, node: Node, value: Any, path: str, depth: int) -> None:
        match node:
            case Float():
                self._expect(type(value) is float, node, value, path)
            case Int():
                self._expect(type(value) is int, node, value, path)
                if not INT64_MIN <= value <= INT64_MAX:
                    shown = value if value.bit_length() <= 128 else f"an int of {value.bit_length()} bits"
                    self._refuse(f"{shown} is outside the range of int64", path)
            case Bool():
                self._expect(type(value) is bool, node, value, path)
            case Str() | Literal():
                self._expect(isinstance(value, str), node, value, path)
                if not _is_encodable(value):
                    self._refuse("the text has a lone surrogate, which UTF-8 cannot hold", path)
            case Bytes():
                self._expect(isinstance(value, bytes), node, value, path)
            case Uuid():
                self._expect(isinstance(value, UUID), node, value, path)
            case EnumNode(cls):
                self._expect(isinstance(value, cls), node, value, path)
            case Timestamp():
                self._expect(isinstance(value, datetime), node, value, path)
                if value.utcoffset() is None:
                    raise MessageTypeError(str(node), "datetime without one", path)
                if not _EARLIEST <= value - EPOCH <= _LATEST:
                    self._refuse(f"{value} is outside the years 1 to 9999 in UTC", path)
            case Duration():
                self._expect(isinstance(value, timedelta), node, value, path)
                if not -_LONGEST <= value <= _LONGEST:
                    self._refuse(f"{value} is longer than 10,000 years", path)
            case Array():
                problem = arrays.misfit(node, value, self._lengths, path)
                if problem is not None:
                    raise MessageTypeError(*problem, path)
            case Optional(item):
                if value is not None:
                    self.check(item, value, path, depth + is_boxed(item))
            case List(item):
                self._expect(isinstance(value, list), node, value, path)
                for index, element in enumerate(value):
                    self.check(item, element, f"{path}[{index}]", depth + is_boxed(item))
            case Tuple(item, length):
                self._expect(isinstance(value, tuple), node, value, path)
                if length is not None and len(value) != length:
                    raise MessageTypeError(str(node), f"a tuple of {len(value)}", path)
                for index, element in enumerate(value):
                    self.check(item, element, f"{path}[{index}]", depth + is_boxed(item))
            case Map(key, item):
                self._expect(isinstance(value, dict), node, value, path)
                for name, element in value.items():
                    # As JSON, whose escapes keep the path itself free of what UTF-8 cannot hold.
                    inside = f"{path}[{json.dumps(name) if isinstance(name, str) else ascii(name)}]"
                    self.check(key, name, inside, depth)
                    self.check(item, element, inside, depth + 1 + is_boxed(item))
            case Message(cls):
                self._expect(type(value) is cls, node, value, path)
                if depth > MAX_DEPTH:
                    self._refuse(f"messages nest more than {MAX_DEPTH} deep", path)
                for field in node.schema.fields:
                    self.check(field.node, getattr(value, field.name), f"{path}.{field.name}", depth + 1)
            case Union(members):
                member = next((member for member in members if type(value) is member.cls), None)
                if member is None:
                    raise MessageTypeError(str(node), type_name(type(value)), path)
                self.check(member, value, path, depth + 1)
            case _:
                assert_never(node)

    def _expect(self, fits: bool, node: Node, value: object, path: str) -> None:
        if not fits:
            raise MessageTypeError(str(node), type_name(type(value)), path)

    def _refuse(self, problem: str, path: str) -> NoReturn:
        raise MessageSerializationError(self._message_type, problem, path)
