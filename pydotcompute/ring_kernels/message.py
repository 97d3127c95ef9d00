"""Message classes: a body of the user's fields, and the header fields that the runtime reads."""

from __future__ import annotations

import dataclasses
import os
import struct
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, TypeVar, cast, dataclass_transform, overload
from uuid import UUID, SafeUUID, uuid4

from pydotcompute.exceptions import MessageSerializationError, MessageTypeError
from pydotcompute.schema.model import HEADER_FIELDS, door_check, normalizer

__all__ = [
    "DEFAULT_PRIORITY",
    "MAX_PRIORITY",
    "RingKernelMessage",
    "check_header",
    "door",
    "is_message_class",
    "message",
    "message_classes",
    "new_message_id",
]

DEFAULT_PRIORITY = 128
MAX_PRIORITY = 255

T = TypeVar("T")

# `uuid4()` asks the operating system for 16 bytes and runs a constructor made for every kind of input: 1.7 µs, a
# quarter of a whole request and reply. These ids come from the same source, `os.urandom`, 256 at a time: 0.25 µs
# (`python -m timeit -s "from pydotcompute.ring_kernels.message import new_message_id as f" "f()"`).
_IDS_AT_ONCE = 256
_CLEAR_VARIANT_AND_VERSION = int.from_bytes(
    _IDS_AT_ONCE * (~((0xC000 << 48) | (0xF000 << 64)) % 2**128).to_bytes(16, "big")
)
_VARIANT_AND_VERSION_4 = int.from_bytes(_IDS_AT_ONCE * ((0x8000 << 48) | (4 << 76)).to_bytes(16, "big"))
_new_uuid = object.__new__
_unknown = SafeUUID.unknown
_split = struct.Struct("16s" * _IDS_AT_ONCE)
_set_int = UUID.int.__set__  # type: ignore[attr-defined, misc]  # slots; UUID forbids assignment
_set_is_safe = UUID.is_safe.__set__  # type: ignore[attr-defined, misc]


def uuid_from_int(value: int) -> UUID:
    """The UUID with this 128-bit value, without the checks of the constructor."""
    uuid = _new_uuid(UUID)
    _set_int(uuid, value)
    _set_is_safe(uuid, _unknown)
    return uuid


_pool: list[UUID] = []
# A child process must not draw from the pool it inherited: it would repeat its parent's ids.
os.register_at_fork(after_in_child=_pool.clear)


def new_message_id() -> UUID:
    """A random UUID of version 4, as `uuid.uuid4()`, at a quarter of its cost."""
    try:
        return _pool.pop()
    except IndexError:
        return _refill()


def _refill() -> UUID:
    random = int.from_bytes(os.urandom(_split.size)) & _CLEAR_VARIANT_AND_VERSION | _VARIANT_AND_VERSION_4
    fresh = list(map(_new_uuid, repeat(UUID, _IDS_AT_ONCE)))
    deque(map(_set_int, fresh, map(int.from_bytes, _split.unpack(random.to_bytes(_split.size)))), maxlen=0)
    deque(map(_set_is_safe, fresh, repeat(_unknown)), maxlen=0)
    first = fresh.pop()
    _pool.extend(fresh)
    return first


@dataclass
class RingKernelMessage:
    """The header fields, for message classes that prefer to inherit them: `@message class Ping(RingKernelMessage):
    …`.
    """

    message_id: UUID = field(default_factory=new_message_id, kw_only=True)
    """Names this message; a reply carries it as its `correlation_id`."""
    priority: int = field(default=DEFAULT_PRIORITY, kw_only=True)
    """0 to 255; higher is handled first."""
    correlation_id: UUID | None = field(default=None, kw_only=True)
    """The `message_id` of the request that this message answers."""


_header = {f.name: f for f in dataclasses.fields(RingKernelMessage)}
_annotations: dict[str, object] = {"message_id": UUID, "priority": int, "correlation_id": UUID | None}
_classes: weakref.WeakSet[type] = weakref.WeakSet()


@overload
def message(cls: type[T], /) -> type[T]: ...
@overload
def message() -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(field_specifiers=(field,))
def message(cls: type[T] | None = None, /) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class a message class.

    The class becomes a dataclass if it is none yet, and gets those of the header fields `message_id`, `priority` and
    `correlation_id` that it lacks, as keyword arguments. Making an instance turns numbers in float fields into floats,
    and refuses a header that no mailbox could take.

    Raises (when an instance is made):
        MessageSerializationError: `priority` is outside 0 to 255.
        MessageTypeError: a header field is of the wrong type.
    """
    if cls is None:
        return message
    if "__dataclass_fields__" not in cls.__dict__:
        cls = dataclass(cls)
    return _with_header(cls)


def _with_header(cls: type[T]) -> type[T]:
    """A subclass of the same name whose generated constructor knows the header and ends in `_check`.

    A dataclass decides when it is made whether its constructor calls `__post_init__`; hence a subclass, not a patch.
    """
    declared = {f.name: f for f in dataclasses.fields(cast(Any, cls))}
    namespace: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__annotations__": {},
        "__post_init__": _first_check,
    }
    for name in HEADER_FIELDS:
        own = declared.get(name)
        if own is None:
            header = _header[name]
            namespace[name] = field(default=header.default, default_factory=header.default_factory, kw_only=True)
        elif own.default_factory is uuid4:
            namespace[name] = field(
                default_factory=new_message_id, kw_only=own.kw_only, repr=own.repr, compare=own.compare
            )
        else:
            continue
        namespace["__annotations__"][name] = _annotations[name]
    params = cls.__dataclass_params__  # type: ignore[attr-defined]
    if cast(Any, cls).__init__.__code__.co_filename != "<string>":
        raise MessageTypeError("a class with the __init__ that dataclass makes (use __post_init__)", cls.__name__)
    make: Any = type(cls)
    derived = make(cls.__name__, (cls,), namespace)
    made = cast(type[T], dataclass(repr=False, eq=False, frozen=params.frozen)(derived))
    _classes.add(made)
    return made


def _first_check(self: Any) -> None:
    """The `__post_init__` of a class with no instance yet: replaces itself by the one for that class.

    Not done when the class is declared, because its annotations may name classes that are declared after it.
    """
    cls = type(self)
    owner: Any = next(c for c in cls.__mro__ if c.__dict__.get("__post_init__") is _first_check)
    # Looked up anew each time: further up there may be another `_first_check`, which replaces itself too.
    inherits = hasattr(super(owner, self), "__post_init__")
    try:
        normalize = normalizer(owner)
    except MessageTypeError:
        normalize = None  # Not a type for the wire: refused when a kernel declares it; in-process it may serve.

    def __post_init__(self: Any) -> None:
        if inherits:
            super(owner, self).__post_init__()
        if normalize is not None:
            normalize(self)
        correlation_id = self.correlation_id
        if (
            self.priority.__class__ is not int
            or not 0 <= self.priority <= 255
            or self.message_id.__class__ is not UUID
            or (correlation_id is not None and correlation_id.__class__ is not UUID)
        ):
            check_header(self)

    owner.__post_init__ = __post_init__
    __post_init__(self)


def check_header(message: Any) -> None:
    """Refuse a header that no mailbox could take.

    Raises:
        MessageSerializationError: `priority` is outside 0 to 255.
        MessageTypeError: a header field is of the wrong type.
    """
    priority = message.priority
    if (
        priority.__class__ is int
        and 0 <= priority <= MAX_PRIORITY
        and message.message_id.__class__ is UUID
        and (message.correlation_id is None or message.correlation_id.__class__ is UUID)
    ):
        return
    if not isinstance(message.message_id, UUID):
        raise MessageTypeError("UUID", type(message.message_id).__name__, "$.message_id")
    if not isinstance(message.priority, int) or isinstance(message.priority, bool):
        raise MessageTypeError("int", type(message.priority).__name__, "$.priority")
    if not 0 <= message.priority <= MAX_PRIORITY:
        problem = f"{message.priority} is outside 0 to {MAX_PRIORITY}"
        raise MessageSerializationError(type(message).__name__, problem, "$.priority")
    if message.correlation_id is not None and not isinstance(message.correlation_id, UUID):
        raise MessageTypeError("UUID or None", type(message.correlation_id).__name__, "$.correlation_id")


def door(*classes: type | None) -> Callable[[object], None]:
    """A function that lets in messages of these classes: it turns numbers in float fields into floats, and refuses the
    rest.

    If the first class is None, it lets in any message.

    Raises (the function):
        MessageTypeError: the message is of another class, or a value in it of the wrong type.
        MessageSerializationError: a value is out of range.
    """
    if classes[0] is None:
        return _check_any
    checks = {cls: door_check(cls) for cls in classes if cls is not None}
    if len(checks) == 1:
        return checks[classes[0]]
    names = " or ".join(dict.fromkeys(cls.__name__ for cls in checks))

    def check(message: object) -> None:
        check_body = checks.get(type(message))
        if check_body is None:
            raise MessageTypeError(names, type(message).__name__)
        check_body(message)

    return check


def _check_any(message: object) -> None:
    if not is_message_class(type(message)):
        raise MessageTypeError("an instance of a @message class", type(message).__name__)


def is_message_class(cls: object) -> bool:
    """Whether `cls` is a class made by `@message`, or inherits from one."""
    return isinstance(cls, type) and all(name in getattr(cls, "__dataclass_fields__", ()) for name in HEADER_FIELDS)


def message_classes() -> list[type]:
    """The message classes that are declared in this process."""
    return list(_classes)
