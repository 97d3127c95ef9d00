"""Values of a `list`, a `dict` or `Any` without arguments: what JSON has, and nothing else.

Those are None, bools, numbers, texts, lists of these, and dicts of these whose keys are texts. On the wire all numbers
are doubles. So an int is at most 2**53, and a float without a fraction is an int, in-process as well as over the wire.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, TypeAlias

from pydotcompute.exceptions import MessageSerializationError, MessageTypeError
from pydotcompute.schema.names import type_name
from pydotcompute.schema.nodes import MAX_DEPTH

__all__ = [
    "EXACT_INTEGER",
    "TESTS",
    "Kind",
    "as_number",
    "explain",
    "is_encodable",
    "is_too_large",
    "settled",
    "shown_int",
]

Kind: TypeAlias = Literal["list", "dict", "Any"]

EXACT_INTEGER = 2**53
"""A double holds every integer up to this one exactly."""
_BASIC = "None, a bool, an int, a float, a str, or a list or dict of these"
_IN_LIST, _IN_DICT = 2, 3
"""The depth that a list and a dict add in protobuf: list, value; and struct, entry, value."""


def is_encodable(text: str) -> bool:
    """Returns True if UTF-8 can encode the text, which means that it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_number(value: float) -> int | float:
    """Returns the number that a double stands for: an int if it is whole, but not minus zero, and exact."""
    if value.is_integer() and -EXACT_INTEGER <= value <= EXACT_INTEGER and (value or math.copysign(1, value) > 0):
        return int(value)
    return value


def is_too_large(value: Any) -> bool:
    """Returns True if `value` is a number that a float cannot hold, such as 10**400."""
    if not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:
        return True
    return False


def shown_int(value: object) -> str:
    """Returns a number as errors show it: by its length if it is long."""
    return f"an int of {value.bit_length()} bits" if isinstance(value, int) and value.bit_length() > 128 else str(value)


def _fits(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        return is_encodable(value)
    if value is None or kind is bool:
        return True
    if kind is int:
        return abs(value) <= EXACT_INTEGER  # type: ignore[no-any-return]
    if kind is float:
        return math.isfinite(value) and type(as_number(value)) is float
    if depth > MAX_DEPTH:
        return False
    if kind is list:
        return all(_fits(item, depth + _IN_LIST) for item in value)
    return kind is dict and all(
        type(key) is str and is_encodable(key) and _fits(item, depth + _IN_DICT) for key, item in value.items()
    )


TESTS: dict[Kind, Callable[[Any, int], bool]] = {
    "list": lambda value, depth: type(value) is list and _fits(value, depth),
    "dict": lambda value, depth: type(value) is dict and _fits(value, depth),
    "Any": lambda value, depth: _fits(value, depth + 1),
}
"""For each kind, a function that returns True if a value is as `settled` leaves it, and `explain` accepts it."""


class _TooDeepError(Exception):
    """The value is nested too deep, or even contains itself."""


def settled(value: Any, depth: int) -> Any:
    """Returns `value` with NumPy's numbers, and floats without a fraction, as plain numbers.

    Instances of subclasses of str, list and dict become plain ones. What `explain` refuses is returned as it is.
    """
    try:
        return value if _fits(value, depth) else _settled(value, depth)
    except _TooDeepError:
        return value


def _settled(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise _TooDeepError
    if getattr(value, "dtype", None) is not None and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return as_number(float(value)) if math.isfinite(value) else value
    if isinstance(value, list):
        return [_settled(item, depth + _IN_LIST) for item in value]
    if isinstance(value, dict):
        return {_settled(key, depth): _settled(item, depth + _IN_DICT) for key, item in value.items()}
    return value


def explain(message_type: str, kind: Kind, value: Any, path: str, depth: int) -> None:
    """Raises an error about the first mistake in a settled value of this kind. Returns if there is none.

    Raises:
        MessageTypeError: a value inside is none that JSON has.
        MessageSerializationError: a value is out of range, or nested too deep.
    """
    if kind != "Any" and type(value).__name__ != kind:
        raise MessageTypeError(kind, type_name(type(value)), path)
    _explain(message_type, value, path, depth)


def _explain(message_type: str, value: Any, path: str, depth: int) -> None:
    def refuse(problem: str) -> MessageSerializationError:
        return MessageSerializationError(message_type, problem, path)

    if depth > MAX_DEPTH:
        raise refuse(f"values nest more than {MAX_DEPTH} deep")
    match value:
        case None | bool():
            pass
        case str():
            if not is_encodable(value):
                raise refuse("the text has a lone surrogate, which UTF-8 cannot hold")
        case int():
            if type(value) is not int:
                raise MessageTypeError(_BASIC, type_name(type(value)), path)
            if not -EXACT_INTEGER <= value <= EXACT_INTEGER:
                raise refuse(f"{shown_int(value)} is beyond 2**53, up to which a double is exact; declare an int field")
        case float():
            if not math.isfinite(value):
                raise refuse(f"{value} is no number of JSON; declare a float field")
        case list():
            for index, item in enumerate(value):
                _explain(message_type, item, f"{path}[{index}]", depth + _IN_LIST)
        case dict():
            for key, item in value.items():
                inside = f"{path}[{json.dumps(key) if isinstance(key, str) else ascii(key)}]"
                if not isinstance(key, str):
                    raise MessageTypeError("str as the key of a dict", type_name(type(key)), inside)
                _explain(message_type, key, inside, depth)
                _explain(message_type, item, inside, depth + _IN_DICT)
        case _:
            raise MessageTypeError(_BASIC, type_name(type(value)), path)
