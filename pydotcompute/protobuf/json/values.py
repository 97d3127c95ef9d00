"""Reads single values from JSON, and describes in words what is wrong with one."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from pydotcompute.messages.ids import uuid_from_text
from pydotcompute.protobuf.conventions import BASICS, BOX_FIELD, DURATION, ONEOF, TIMESTAMP
from pydotcompute.schema import nodes
from pydotcompute.schema.basic import EXACT_INTEGER
from pydotcompute.schema.names import shortened, snake

__all__ = [
    "WELL_KNOWN",
    "WrongError",
    "conversion",
    "convert_key",
    "did_you_mean",
    "key_step",
    "kind_of",
    "quoted",
    "shown",
    "step",
]

LONGEST_NAME = 200
"""The largest number of characters of a wrong name for which a similar name is looked for."""
MOST_NAMES = 10
"""The largest number of field names that the text of a problem quotes."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def kind_of(field: FieldDescriptor) -> str:
    """Returns in words the kind of a field's single value in JSON. If the field is repeated, that is an element."""
    if field.enum_type is not None:
        return f"one of {quoted(_members(field.enum_type))}"
    if field.message_type is None:
        return _KINDS[field.type]
    if (well_known := WELL_KNOWN.get(field.message_type.full_name)) is not None:
        return well_known
    if ONEOF in field.message_type.oneofs_by_name:
        return f"an object with one of {quoted(field.message_type.fields_by_name)}"
    return f'an object {{"{BOX_FIELD}": …}}' if _is_box(field.message_type) else "an object"


_KINDS = {
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_INT64: "an integer",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_STRING: "a text",
    FieldDescriptor.TYPE_BYTES: "a text in base64",
}
"""The kinds of scalar values, for all types of fields that come from annotations."""
WELL_KNOWN = {
    TIMESTAMP.full_name: 'a time such as "2000-01-01T00:00:00Z"',
    DURATION.full_name: 'a duration such as "1.5s"',
    BASICS["list"].full_name: "a list of any values",
    BASICS["dict"].full_name: "any object",
    BASICS["Any"].full_name: "any value",
}
_UUID = 'a UUID such as "00000000-0000-4000-8000-000000000000"'


def _is_box(descriptor: Descriptor) -> bool:
    return descriptor.containing_type is not None and ONEOF not in descriptor.oneofs_by_name


class WrongError(Exception):
    """A value in JSON is wrong for its field. The text of the error is the problem."""


def conversion(field: FieldDescriptor, node: nodes.Node | None) -> Callable[[Any], Any]:
    """Returns a function that converts a JSON value to a value of the field or, if it is repeated, of an element.

    The function raises WrongError for a value that does not fit. The field must not be a message.
    """
    if (enum_type := field.enum_type) is not None:
        return lambda value: _enum(enum_type, value)
    return _uuid if isinstance(node, nodes.Uuid) else _CONVERSIONS[field.type]


def _wrong(expected: str, value: Any) -> WrongError:
    return WrongError(f"expected {expected}, got {shown(value)}")


def _number(value: Any) -> float:
    if isinstance(value, str) and (value in _SPECIAL or _NUMBER.fullmatch(value)):
        number = _SPECIAL.get(value)
        if number is not None:
            return number
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise WrongError(f'{shown(value)} is no number of JSON; there are the texts "NaN", "Infinity", "-Infinity"')
    return number


def _integer(value: Any) -> int:
    number = int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value
    if isinstance(number, float) and number.is_integer():
        if abs(number) > EXACT_INTEGER and nodes.INT64_MIN <= number <= nodes.INT64_MAX:
            raise WrongError(f"{shown(value)} may have been rounded: beyond 2**53, write an integer as a text")
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise _wrong("an integer", value)
    if not nodes.INT64_MIN <= number <= nodes.INT64_MAX:
        raise WrongError(f"{shown(value)} is outside {nodes.INT64_MIN} to {nodes.INT64_MAX}")
    return number


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong("true or false", value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong("a text", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WrongError(
            f"expected a text of Unicode, got {shown(value)}, which has half of a surrogate pair"
        ) from None
    return value


def _uuid(value: Any) -> str:
    try:
        if isinstance(value, str):
            uuid_from_text(value)
            return value
    except ValueError:
        pass
    raise _wrong(_UUID, value)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str) or not _BASE64.fullmatch(value) or len(value.rstrip("=")) % 4 == 1:
        raise _wrong("a text in base64", value)
    bare = value.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(bare + "=" * (-len(bare) % 4))


def _enum(enum_type: EnumDescriptor, value: Any) -> int:
    members = _members(enum_type)
    if isinstance(value, str) and value in members:
        return members[value]
    if isinstance(value, int | float) and not isinstance(value, bool) and value in members.values():
        return int(value)
    likely = did_you_mean(value, members, snake(enum_type.name) + "_")
    raise WrongError(f"expected one of {quoted(members)}, got {shown(value)}{likely}")


def _members(enum_type: EnumDescriptor) -> dict[str, int]:
    """Returns the numbers of an enum's values by name. The zero is left out, as it is not a member."""
    return {value.name: value.number for value in enum_type.values if value.number != 0}


_CONVERSIONS: dict[int, Callable[[Any], Any]] = {
    FieldDescriptor.TYPE_DOUBLE: _number,
    FieldDescriptor.TYPE_INT64: _integer,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_BYTES: _bytes,
}


def convert_key(field: FieldDescriptor, name: str) -> Any:
    """Returns the key of a map that a name in JSON stands for. Raises WrongError if the name is not valid."""
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _text(name)
        case FieldDescriptor.TYPE_BOOL if name in ("true", "false"):
            return name == "true"
        case FieldDescriptor.TYPE_BOOL:
            raise WrongError(f'expected the key "true" or "false", got {shown(name)}')
        case _ if _INTEGER.fullmatch(name):
            return _integer(name)
        case _:
            raise WrongError(f"expected a key that is an integer, got {shown(name)}")


def step(name: str) -> str:
    """Returns a name as the last step of a path: `.name`, or `["a name"]` if it is not an identifier."""
    name = shortened(name)
    return f".{name}" if _NAME.fullmatch(name) else key_step(name)


def key_step(key: Any) -> str:
    """Returns a key of a map as the last step of a path: `["a key"]`, shortened."""
    return f"[{json.dumps(shortened(key) if isinstance(key, str) else key)}]"


def shown(value: Any) -> str:
    """Returns a value as the text of a problem quotes it: shortened, and without the insides of objects and lists."""
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            return json.dumps(shortened(value), ensure_ascii=False).encode(errors="backslashreplace").decode()
        case _:
            return shortened(json.dumps(value))


def quoted(names: Iterable[str]) -> str:
    """Returns the names in quotes, separated by commas. After `MOST_NAMES` of them there is an ellipsis."""
    listed = [f'"{name}"' for name in names]
    return ", ".join(listed[:MOST_NAMES] + (["…"] if len(listed) > MOST_NAMES else []))


def did_you_mean(value: Any, names: Iterable[str], prefix: str = "") -> str:
    """Returns the text `: did you mean "…"?` with the name that is most like `value`. Empty if none is like it.

    The names are compared without the prefix that all of them have.
    """
    by_rest = {name.lower().removeprefix(prefix): name for name in names}
    if not isinstance(value, str) or len(value) > LONGEST_NAME:  # To compare a long text takes long.
        return ""
    close = get_close_matches(value.lower().removeprefix(prefix), by_rest, 1)
    return f': did you mean "{by_rest[close[0]]}"?' if close else ""
