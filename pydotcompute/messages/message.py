"""Message classes: each has a body of the user's fields, and the header fields that the runtime reads."""

from __future__ import annotations

import dataclasses
import inspect
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast, dataclass_transform, overload
from uuid import UUID, uuid4

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.messages.constructor import first_check, is_generated
from pydotcompute.messages.header import DEFAULT_PRIORITY
from pydotcompute.messages.ids import new_message_id
from pydotcompute.schema.check import door_check
from pydotcompute.schema.introspect import introspect, package_of
from pydotcompute.schema.names import type_name
from pydotcompute.schema.nodes import HEADER_FIELDS

__all__ = ["RingKernelMessage", "classes_declared", "door", "is_message_class", "message", "message_classes"]

T = TypeVar("T")


@dataclass
class RingKernelMessage:
    """The header fields, for message classes that want to inherit them.

    Such a class is written `@message class Ping(RingKernelMessage): …`.
    """

    message_id: UUID = field(default_factory=new_message_id, kw_only=True)
    """The id of this message. A reply carries it as its `correlation_id`."""
    priority: int = field(default=DEFAULT_PRIORITY, kw_only=True)
    """The priority, from 0 to 255. A mailbox hands out higher priorities first."""
    correlation_id: UUID | None = field(default=None, kw_only=True)
    """The `message_id` of the request that this message answers, or None."""


_header = {f.name: f for f in dataclasses.fields(RingKernelMessage)}
_annotations: dict[str, object] = {"message_id": UUID, "priority": int, "correlation_id": UUID | None}
_classes: weakref.WeakValueDictionary[int, type] = weakref.WeakValueDictionary()
_declared = 0


@overload
def message(cls: type[T], /) -> type[T]: ...
@overload
def message(*, package: str | None = None) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(field_specifiers=(field,))
def message(cls: type[T] | None = None, /, *, package: str | None = None) -> type[T] | Callable[[type[T]], type[T]]:
    """Makes a class a message class. To be used as a decorator, with or without arguments.

    The class becomes a dataclass if it is not one yet. It also gets the header fields `message_id`, `priority` and
    `correlation_id`, unless it has them already. These fields are keyword arguments of the constructor. The constructor
    converts numbers to the annotated types, for example an int in a float field to a float, and refuses an invalid
    header.

    Args:
        cls: the class.
        package: the protobuf package of the message type, such as `shop.v1`. By default it is made from the name of the
            module.

    Raises:
        MessageTypeError: `package` is not a valid package name, or the class has an `__init__` of its own.

    Raises (when an instance is made):
        MessageSerializationError: `priority` is outside 0 to 255.
        MessageTypeError: a header field is of the wrong type.
    """
    if cls is None:
        return partial(_message_class, package=package)
    return _message_class(cls, package)


def _message_class(cls: type[T], package: str | None) -> type[T]:
    _refuse_foreign_init(cls)
    if "__dataclass_fields__" not in cls.__dict__:
        cls = dataclass(cls)
    if package is not None:
        cls.__proto_package__ = package  # type: ignore[attr-defined]
        package_of(cls, "$")
    return _with_header(cls)


def _with_header(cls: type[T]) -> type[T]:
    """Returns a subclass of the same name, whose generated constructor takes the header fields and checks them.

    A dataclass calls `__post_init__` only if the method existed when the class was made. So the class cannot be changed
    afterwards, and a subclass is needed.
    """
    declared = {f.name: f for f in dataclasses.fields(cast(Any, cls))}
    namespace: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__annotations__": {},
        "__post_init__": first_check,
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
    parameters = getattr(cls, "__parameters__", ())
    if parameters:  # A subclass of a generic class is generic only if it says so.
        namespace["__orig_bases__"] = (cast(Any, cls)[parameters],)
    params = cls.__dataclass_params__  # type: ignore[attr-defined]
    if not is_generated(cast(Any, cls).__init__):
        raise MessageTypeError("a class with the __init__ that dataclass makes (use __post_init__)", cls.__name__)
    make: Any = type(cls)
    derived = make(cls.__name__, (cls,), namespace)
    made = cast(type[T], dataclass(repr=False, eq=False, frozen=params.frozen)(derived))
    global _declared
    _declared += 1
    _classes[_declared] = made
    if "<locals>" in made.__qualname__:  # Only now are the classes of the function to be found for sure.
        with suppress(MessageTypeError):
            introspect(made)
    return made


def _refuse_foreign_init(cls: type) -> None:
    """Refuses a class that inherits an `__init__`, which the one that dataclass makes would replace."""
    for base in cls.__mro__[1:]:
        init = base.__dict__.get("__init__")
        if inspect.isfunction(init) and init.__module__ != "typing" and not is_generated(init):
            what = "a pydantic model" if base.__module__.partition(".")[0] == "pydantic" else "one"
            raise MessageTypeError(
                "a class without an __init__, also in its bases (write a dataclass with the same fields)",
                f"{what} with that of {type_name(base)}",
                cls.__name__,
            )


def door(*classes: type | None) -> Callable[[object], None]:
    """Returns a function that normalizes and checks messages of these classes, and refuses all other messages.

    If the first class is None, the function accepts a message of any class, as it is.

    Raises (when the function is called):
        MessageTypeError: the message is of another class, or a value in it is of the wrong type.
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
    """Returns True if `cls` is a class that `@message` made, or a subclass of one."""
    return isinstance(cls, type) and all(name in getattr(cls, "__dataclass_fields__", ()) for name in HEADER_FIELDS)


def message_classes(after: int = 0) -> list[type]:
    """Returns the message classes that were declared in this process and still exist, in the order of declaration.

    Args:
        after: what `classes_declared` has returned, to get only those that were declared after that.
    """
    return [cls for number, cls in _classes.items() if number > after]


def classes_declared() -> int:
    """Returns how many message classes were declared so far. If it has grown, one may have been declared again."""
    return _declared
