"""Functions that the generated code of codecs calls: conversions between Python and protobuf, and errors."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeAlias
from uuid import UUID

import google.protobuf.message

from pydotcompute.exceptions import MessageDeserializationError, MessageError, MessageSerializationError
from pydotcompute.interrupts import pass_interrupt
from pydotcompute.messages.ids import uuid_from_text
from pydotcompute.protobuf import tensors
from pydotcompute.schema.check import checker
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.names import shortened, type_name
from pydotcompute.schema.nodes import EPOCH, LONGEST_DURATION, MessageSchema

__all__ = [
    "ABSENT",
    "UnreadableError",
    "absent",
    "enum_number",
    "explain_reading",
    "explain_writing",
    "no_member",
    "of_length",
    "read_array",
    "read_duration",
    "read_enum",
    "read_timestamp",
    "read_uuid",
    "refuse",
    "same",
    "text_of",
    "write_duration",
    "write_timestamp",
    "wrong_length",
]

_Path: TypeAlias = "tuple[Any, ...] | None"
"""The place of a value: None for the message itself, `(parent, field_name)`, or `(parent, None, index_or_key)`."""


_LONGEST_SECONDS = LONGEST_DURATION // timedelta(seconds=1)

ABSENT = "a value is required, and there is none"
"""The problem with a message without a required field, in words."""


def wrong_length(wanted: int, actual: int) -> str:
    """Returns the problem, in words, with a tuple that has another length than its annotation says."""
    return f"{wanted} elements are required, and there are {actual}"


class UnreadableError(Exception):
    """A received value does not fit its annotation. The codec turns this error into a MessageDeserializationError."""

    def __init__(self, problem: str, path: _Path) -> None:
        self.problem = problem
        self.path = path


def _path_text(path: _Path) -> str:
    if path is None:
        return "$"
    parent, name, *key = path
    # A key is written as JSON, as in the paths of `schema.explain`.
    return _path_text(parent) + (_key_text(key[0]) if name is None else f".{name}")


def _key_text(key: Any) -> str:
    return f"[{json.dumps(shortened(key) if isinstance(key, str) else key)}]"


def text_of(error: BaseException) -> str:
    """Returns an exception as text: its type and its message. If it has no message, because that raises: its type."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException as broken:
        pass_interrupt(broken)
        return type(error).__name__


def explain_writing(schema: MessageSchema, message: object, error: BaseException) -> NoReturn:
    """Raises the error that says best why an instance could not be encoded.

    Raises:
        MessageTypeError: a value is of the wrong type.
        MessageSerializationError: a value is out of range, the other side has no place for it, or `error` has another
            reason.
    """
    pass_interrupt(error)
    try:
        checker(schema.cls)(message)
    except MessageError:
        raise
    except BaseException as broken:  # A field's own code raises it again.
        pass_interrupt(broken)
    if isinstance(error, MessageError):
        raise error
    raise MessageSerializationError(schema.name, text_of(error)) from error


def explain_reading(schema: MessageSchema, error: BaseException) -> NoReturn:
    """Raises the error that says best why bytes could not be decoded.

    Raises:
        MessageError: `error` itself, if it is one.
        MessageDeserializationError: the same problem as `error`.
    """
    pass_interrupt(error)
    match error:
        case MessageError():
            raise error
        case UnreadableError():
            raise MessageDeserializationError(schema.name, error.problem, _path_text(error.path)) from error.__cause__
        case google.protobuf.message.DecodeError():
            raise MessageDeserializationError(schema.name, str(error)) from error
        case _:
            raise MessageDeserializationError(schema.name, text_of(error)) from error


def absent(path: _Path) -> NoReturn:
    """Raises UnreadableError for a required field that is absent."""
    raise UnreadableError(ABSENT, path)


def of_length(elements: tuple[Any, ...], length: int, path: _Path) -> tuple[Any, ...]:
    """Returns `elements`. Raises UnreadableError if there are not exactly `length` of them."""
    if len(elements) != length:
        raise UnreadableError(wrong_length(length, len(elements)), path)
    return elements


def read_uuid(text: str, path: _Path) -> UUID:
    """Returns the UUID in a string. Raises UnreadableError if it is not in the form of 36 characters."""
    try:
        return uuid_from_text(text)
    except ValueError:
        raise UnreadableError(f"{shortened(text)!r} is no UUID in its form of 36 characters", path) from None


def read_enum(members: dict[int, Any], number: int, path: _Path, names: dict[int, str]) -> Any:
    """Returns the enum member with this number. Raises UnreadableError if there is none.

    `names` are the members' names at the other side, which may have more of them.
    """
    try:
        return members[number]
    except KeyError:
        shown = f"{names[number]} = {number}, which the other side has," if number in names else str(number)
        raise UnreadableError(f"{shown} is none of the enum's members", path) from None


def no_member(name: str | None, path: _Path) -> NoReturn:
    """Raises UnreadableError for a union whose value is of no known class. `name` is that of the member, if known."""
    problem = ABSENT if name is None else f"{name}, which the other side has, is none of the union's members"
    raise UnreadableError(problem, path)


def refuse(message_type: str, problem: str, path: str) -> NoReturn:
    """Raises MessageSerializationError for a value for which the other side has no place."""
    raise MessageSerializationError(message_type, problem, path)


def enum_number(numbers: dict[Any, int], member: Any, message_type: str, other: str, path: str) -> int:
    """Returns the number of an enum's member. Raises MessageSerializationError if the other side has no such member."""
    try:
        return numbers[member]
    except KeyError:
        problem = f"{other} lacks the member {member.name}, which your {type_name(type(member))} has"
        raise MessageSerializationError(message_type, problem, path) from None


def same(value: Any, default: Any) -> bool:
    """Returns True if a value is certainly equal to a default, also if it is a NaN or has arrays."""
    if value is default:
        return True
    if type(value) is not type(default):
        return False
    if isinstance(value, list | tuple):
        return len(value) == len(default) and all(map(same, value, default))
    if isinstance(value, dict):
        return value.keys() == default.keys() and all(same(item, default[key]) for key, item in value.items())
    if hasattr(value, "__dataclass_fields__"):
        schema = introspect(type(value))
        return all(same(getattr(value, field.name), getattr(default, field.name)) for field in schema.fields)
    if hasattr(value, "dtype"):
        return (value.dtype, value.shape) == (default.dtype, default.shape) and bool((value == default).all())
    return bool(value == default) or (value != value and default != default)


def write_timestamp(pb: Any, value: datetime) -> None:
    """Sets the Timestamp `pb` to a datetime with a time zone."""
    since = value - EPOCH
    pb.seconds = since.days * 86_400 + since.seconds
    pb.nanos = since.microseconds * 1000


def read_timestamp(pb: Any, path: _Path) -> datetime:
    """Returns a Timestamp as a datetime in UTC, rounded down to microseconds.

    Raises:
        UnreadableError: the time is outside the years 1 to 9999, or the nanoseconds are not 0 to 999,999,999.
    """
    try:
        if 0 <= pb.nanos < 1_000_000_000:
            return EPOCH + timedelta(seconds=pb.seconds, microseconds=pb.nanos // 1000)
    except OverflowError:
        pass
    raise UnreadableError(f"{pb.seconds} s and {pb.nanos} ns are no time of the years 1 to 9999", path)


def write_duration(pb: Any, value: timedelta) -> None:
    """Sets the Duration `pb` to a timedelta."""
    # The microseconds of a timedelta are never negative. In protobuf, seconds and nanoseconds have the same sign.
    seconds, microseconds = value.days * 86_400 + value.seconds, value.microseconds
    if seconds < 0 and microseconds:
        seconds, microseconds = seconds + 1, microseconds - 1_000_000
    pb.seconds = seconds
    pb.nanos = microseconds * 1000


def read_duration(pb: Any, path: _Path) -> timedelta:
    """Returns a Duration as a timedelta, rounded toward zero to microseconds.

    Raises:
        UnreadableError: the Duration is longer than 10,000 years, or its two parts do not fit together.
    """
    if abs(pb.seconds) > _LONGEST_SECONDS or abs(pb.nanos) >= 1_000_000_000 or pb.seconds * pb.nanos < 0:
        raise UnreadableError(f"{pb.seconds} s and {pb.nanos} ns are no duration", path)
    return timedelta(seconds=pb.seconds, microseconds=int(pb.nanos / 1000))


def read_array(pb: Any, path: _Path) -> Any:
    """Returns the array in a Tensor as a read-only view of its bytes. Raises UnreadableError if it is not an array."""
    try:
        return tensors.read_tensor(pb)
    except ValueError as error:
        raise UnreadableError(str(error), path) from None
