"""Message classes: a body of the user's fields, and the header fields that the runtime reads."""

from __future__ import annotations

import dataclasses
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, dataclass_transform, overload
from uuid import UUID, SafeUUID, uuid4

from pydotcompute.exceptions import MessageSerializationError, MessageTypeError
from pydotcompute.schema.model import HEADER_FIELDS, door_check, normalizer

__all__ = ["DEFAULT_PRIORITY", "MAX_PRIORITY", "RingKernelMessage", "check_header", "door", "is_message_class", "message", "message_classes", "new_message_id"]

DEFAULT_PRIORITY = 128
MAX_PRIORITY = 255

T = TypeVar("T")

# `uuid4()` asks the kernel for 16 bytes and runs a constructor made for every kind of input: 1.6 µs, a quarter of a whole
# request and reply. These ids come from the same source, `os.urandom`, 256 at a time: 0.5 µs (benchmarks/message_ids.py).
_POOL_BYTES = 4096
_VARIANT_AND_VERSION_CLEAR = ~((0xC000 << 48) | (0xF000 << 64))
_VARIANT_AND_VERSION_4 = (0x8000 << 48) | (4 << 76)
_new_uuid = object.__new__
_set_int = UUID.int.__set__  # type: ignore[attr-defined]  # slots; UUID forbids assignment
_set_is_safe = UUID.is_safe.__set__  # type: ignore[attr-defined]


def uuid_from_int(value: int) -> UUID:
    """The UUID with this 128-bit value, without the checks of the constructor."""
    uuid = _new_uuid(UUID)
    _set_int(uuid, value)
    _set_is_safe(uuid, SafeUUID.unknown)
    return uuid


class _RandomUUIDs(threading.local):
    """Version 4 UUIDs from a pool of random bytes, one pool a thread."""

    def __init__(self) -> None:
        self.take = self._values().__next__

    def _values(self) -> Iterator[UUID]:
        from_bytes = int.from_bytes
        while True:
            pool = os.urandom(_POOL_BYTES)
            for start in range(0, _POOL_BYTES, 16):
                value = from_bytes(pool[start : start + 16], "big")
                yield uuid_from_int(value & _VARIANT_AND_VERSION_CLEAR | _VARIANT_AND_VERSION_4)


_uuids = _RandomUUIDs()
# A child process must not draw from the pool it inherited: it would repeat its parent's ids.
os.register_at_fork(after_in_child=_uuids.__init__)  # type: ignore[misc]


def new_message_id() -> UUID:
    """A random UUID of version 4, as `uuid.uuid4()`, at a third of its cost."""
    return _uuids.take()


@dataclass
class RingKernelMessage:
    """The header fields, for message classes that prefer to inherit them: `@message class Ping(RingKernelMessage): …`."""

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
    `correlation_id` that it lacks, as keyword arguments. Making an instance turns numbers in float fields into floats, and
    refuses a header that no mailbox could take.

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
            namespace[name] = field(default=header.default, default_factory=header.default_factory, kw_only=True)  # type: ignore[call-overload]
        elif own.default_factory is uuid4:
            namespace[name] = field(default_factory=new_message_id, kw_only=own.kw_only, repr=own.repr, compare=own.compare)
        else:
            continue
        namespace["__annotations__"][name] = _annotations[name]
    params = cls.__dataclass_params__  # type: ignore[attr-defined]
    derived = type(cls)(cls.__name__, (cls,), namespace)
    made = cast(type[T], dataclass(repr=False, eq=False, frozen=params.frozen)(derived))
    _classes.add(made)
    return made


def _first_check(self: Any) -> None:
    """The `__post_init__` of a class with no instance yet: replaces itself by the one for that class.

    Not done when the class is declared, because its annotations may name classes that are declared after it.
    """
    cls = type(self)
    owner = next(c for c in cls.__mro__ if c.__dict__.get("__post_init__") is _first_check)
    users = getattr(super(owner, self), "__post_init__", None)
    users = None if users is None or users.__func__ is _first_check else users.__func__
    try:
        normalize = normalizer(owner)
    except MessageTypeError:
        normalize = None  # Not a type for the wire: refused when a kernel declares it; in-process it may serve.

    def __post_init__(self: Any) -> None:
        if users is not None:
            users(self)
        if normalize is not None:
            normalize(self)
        check_header(self)

    owner.__post_init__ = __post_init__  # type: ignore[attr-defined]
    self.__post_init__()


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
    """A function that lets in messages of these classes: it turns numbers in float fields into floats, and refuses the rest.

    If the first class is None, it lets in any message.

    Raises (the function):
        MessageTypeError: the message is of another class, or a value in it of the wrong type.
        MessageSerializationError: a value is out of range.
    """
    if classes[0] is None:
        return _check_any
    checks = {cls: door_check(cls) for cls in classes if cls is not None}
    names = " or ".join(dict.fromkeys(cls.__name__ for cls in checks))

    def check(message: object) -> None:
        check_body = checks.get(message.__class__)
        if check_body is None:
            raise MessageTypeError(names, type(message).__name__)
        check_header(message)
        check_body(message)

    return check


def _check_any(message: object) -> None:
    if not is_message_class(type(message)):
        raise MessageTypeError("an instance of a @message class", type(message).__name__)
    check_header(message)


def is_message_class(cls: object) -> bool:
    """Whether `cls` is a class made by `@message`, or inherits from one."""
    return isinstance(cls, type) and all(name in getattr(cls, "__dataclass_fields__", ()) for name in HEADER_FIELDS)


def message_classes() -> list[type]:
    """The message classes that are declared in this process."""
    return list(_classes)
