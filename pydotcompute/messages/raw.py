"""Messages whose bodies are bytes: those of a kernel whose actor runs elsewhere, on their way between others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from pydotcompute.exceptions import MessageTypeError

__all__ = ["Raw", "door_of_raw", "opened", "raw_class", "stands_for"]

Decode = Callable[..., Any]


@dataclass(slots=True, eq=False)
class Raw:
    """A message with its body as bytes. Each message class has a subclass of this one; see `raw_class`."""

    body: bytes | memoryview
    message_id: UUID
    priority: int
    correlation_id: UUID | None

    message_class: ClassVar[type]
    """The message class."""
    decode: ClassVar[Decode]
    """Makes a message of that class, of the four fields. It raises if the body is none of the class."""


def raw_class(cls: type, decode: Decode) -> type[Raw]:
    """Return the subclass of `Raw` for a message class. There is one for each.

    Args:
        cls: the message class.
        decode: makes a message of the class, of the fields of a `Raw`.
    """
    known: type[Raw] | None = cls.__dict__.get("__raw__")
    if known is None:
        namespace = {
            "__slots__": (),
            "__module__": cls.__module__,
            "message_class": cls,
            "decode": staticmethod(decode),
        }
        known = type(cls.__name__, (Raw,), namespace)
        cls.__raw__ = known  # type: ignore[attr-defined]
    return known


def stands_for(cls: type) -> type:
    """Return the message class of a subclass of `Raw`; of another class, itself."""
    return cls.message_class if issubclass(cls, Raw) else cls


def opened(message: Any) -> Any:
    """Return the message of which this is the `Raw` one. Another message is returned as it is.

    Raises:
        MessageError: the body is none of the message class.
    """
    if not isinstance(message, Raw):
        return message
    return message.decode(message.body, message.message_id, message.priority, message.correlation_id)


def door_of_raw(check: Callable[[object], None], *classes: type | None) -> Callable[[object], None]:
    """Return a function that lets the `Raw` messages of these classes pass. What is not `Raw` goes to `check`.

    As for `door`: if the first class is None, messages of all classes pass.

    Raises (when the function is called):
        MessageTypeError: the message is of another class.
    """

    def check_either(message: object) -> None:
        if not isinstance(message, Raw):
            check(message)
        elif classes[0] is not None and message.message_class not in classes:
            names = " or ".join(dict.fromkeys(cls.__name__ for cls in classes if cls is not None))
            raise MessageTypeError(names, message.message_class.__name__)

    return check_either
