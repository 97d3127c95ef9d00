"""Reads requests from bytes, within bounds that are looked at before a request is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from pydotcompute.exceptions import LimitExceededError, MessageDeserializationError, PyDotComputeError
from pydotcompute.protobuf.elements import counter
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.calls.errors import Behavior
from pydotcompute_server.limits import Limits

__all__ = ["Deserializer", "Requests", "Unread", "long_request", "read_first", "takes_messages"]

Deserializer = Callable[[bytes], Any]

MOST_FIELDS = 1_000
"""The most fields of a request around the message of a kernel. The daemon knows about ten, a newer client more."""


long_request: ContextVar[bool] = ContextVar("long_request", default=False)
"""True in a call whose request is long, so that even to copy the message's body should be done apart."""


def takes_messages(behavior: Behavior) -> Behavior:
    """Mark a handler whose requests hold messages of kernels. All other requests are short; see `Limits`."""
    behavior.takes_messages = True  # type: ignore[attr-defined]
    return behavior


class Unread:
    """A long request that is to be read apart from the event loop."""

    __slots__ = ("_data", "_read")

    def __init__(self, data: bytes, read: Deserializer) -> None:
        self._data = data
        self._read = read

    async def read(self, apart: Apart) -> Any:
        """Return the request, or the error with which it is refused."""
        return await apart.run(self._read, self._data)


class Requests:
    """Makes the deserializers of all methods.

    gRPC reads a single request before it calls the handler. So its handler gets the error in place of the request.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes_of_few_fields = limits.max_control_bytes // 16
        """The fields of a request that is not longer need not be counted."""

    def deserializer_of_one(self, read: Deserializer, name: str, behavior: Behavior) -> Deserializer:
        """Return a deserializer for a single request, which returns an error for one that is refused."""
        check = self._within(read, name, behavior)

        def deserialize(data: bytes) -> Any:
            try:
                return check(data)
            except PyDotComputeError as error:
                return error

        if not _takes_messages(behavior) or read is bytes:
            return deserialize
        longest, few = self._limits.decode_apart_bytes, self._bytes_of_few_fields

        def deserialize_or_wait(data: bytes) -> Any:
            size = len(data)
            if size >= longest:
                return Unread(data, deserialize)
            if size > few:
                return deserialize(data)
            try:
                return read(data)  # Most requests come here, so this is one function and not three.
            except DecodeError as error:
                return MessageDeserializationError(name, str(error))

        return deserialize_or_wait

    def deserializer_of_each(self, read: Deserializer, name: str, behavior: Behavior) -> Deserializer:
        """Return a deserializer for the frames of a stream, which raises an error for one that is refused."""
        return self._within(read, name, behavior)

    def _within(self, read: Deserializer, name: str, behavior: Behavior) -> Deserializer:
        def checked(data: bytes) -> Any:
            try:
                return read(data)
            except DecodeError as error:
                raise MessageDeserializationError(name, str(error)) from None

        longest, most_items = self._limits.max_control_bytes, self._limits.max_control_items

        def short(data: bytes) -> Any:
            if len(data) > longest:
                raise LimitExceededError("max_control_bytes", longest, len(data))
            request = checked(data)
            for field in _repeated(request):
                if (found := len(getattr(request, field))) > most_items:
                    raise LimitExceededError("max_control_items", most_items, found)
            return request

        if not _takes_messages(behavior):
            return short
        if (descriptor := _type_read_by(read)) is None:
            return checked
        count, few = counter(descriptor), self._bytes_of_few_fields

        def bounded(data: bytes) -> Any:
            if len(data) > few and count(data, MOST_FIELDS) > MOST_FIELDS:
                raise MessageDeserializationError(name, f"more than {MOST_FIELDS} fields around the message")
            return checked(data)

        return bounded


def _takes_messages(behavior: Behavior) -> bool:
    return getattr(behavior, "takes_messages", False)


_REPEATED: dict[type, tuple[str, ...]] = {}


def _repeated(request: Any) -> tuple[str, ...]:
    """Return the names of the repeated fields of a request, which are looked up once for each type."""
    cls = type(request)
    names = _REPEATED.get(cls)
    if names is None:
        descriptor: Descriptor | None = getattr(cls, "DESCRIPTOR", None)
        fields = () if descriptor is None else descriptor.fields
        names = _REPEATED[cls] = tuple(field.name for field in fields if field.is_repeated)
    return names


def _type_read_by(read: Deserializer) -> Descriptor | None:
    """Return the type of the requests that a generated deserializer reads, or None for any other function."""
    return getattr(getattr(read, "__self__", None), "DESCRIPTOR", None)


def read_first(behavior: Behavior, apart: Apart, *, hands_errors_on: bool) -> Behavior:
    """Return a handler that reads a long request apart before it calls `behavior`.

    Args:
        hands_errors_on: True if `behavior` takes an error in place of a request that is refused.
    """

    async def read_and_call(unread: Unread, context: Any) -> Any:
        request = await unread.read(apart)
        del unread
        long_request.set(True)
        if isinstance(request, PyDotComputeError) and not hands_errors_on:
            raise request
        return await behavior(request, context)

    def call(request: Any, context: Any) -> Awaitable[Any]:
        return read_and_call(request, context) if request.__class__ is Unread else behavior(request, context)

    return call
