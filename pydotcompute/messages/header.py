"""The header of a message: the fields that the runtime reads."""

from __future__ import annotations

import operator
from numbers import Integral
from typing import Any, Protocol
from uuid import UUID

from pydotcompute.exceptions import MessageSerializationError, MessageTypeError

__all__ = ["DEFAULT_PRIORITY", "MAX_PRIORITY", "Header", "check_header"]

DEFAULT_PRIORITY = 128
MAX_PRIORITY = 255


class Header(Protocol):
    """The fields of a message that the runtime reads."""

    @property
    def message_id(self) -> UUID:
        """The id of this message. A reply carries it as its `correlation_id`."""

    @property
    def priority(self) -> int:
        """The priority, from 0 to 255. A mailbox hands out higher priorities first."""

    @property
    def correlation_id(self) -> UUID | None:
        """The `message_id` of the request that this message answers, or None."""


def _settle_priority(message: Any) -> None:
    """Makes an int of a priority that is one of NumPy's integers, as in a field of the body."""
    priority = message.priority
    if isinstance(priority, Integral) and not isinstance(priority, int):
        object.__setattr__(message, "priority", operator.index(priority))  # The class may be frozen.


def check_header(message: Any) -> None:
    """Raises an error if the header of the message is invalid.

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
    _settle_priority(message)
    if not isinstance(message.priority, int) or isinstance(message.priority, bool):
        raise MessageTypeError("int", type(message.priority).__name__, "$.priority")
    if not 0 <= message.priority <= MAX_PRIORITY:
        problem = f"{message.priority} is outside 0 to {MAX_PRIORITY}"
        raise MessageSerializationError(type(message).__name__, problem, "$.priority")
    if message.correlation_id is not None and not isinstance(message.correlation_id, UUID):
        raise MessageTypeError("UUID or None", type(message.correlation_id).__name__, "$.correlation_id")
