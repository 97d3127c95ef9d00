"""Reads and writes long messages apart from the event loop, in threads, so that the daemon answers others meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar
from uuid import UUID

from pydotcompute.exceptions import (
    LimitExceededError,
    MessageDeserializationError,
    MessageSerializationError,
    MessageTooLargeError,
    PyDotComputeError,
)
from pydotcompute.protobuf.codec import Codec, Decode
from pydotcompute.protobuf.runtime_helpers import text_of
from pydotcompute_server.limits import Limits

__all__ = ["Apart", "Read"]

T = TypeVar("T")

PARTS_SHARE = 16
"""The share of `decode_apart_bytes` (one in so many) that is enough if a message has messages or texts in lists."""
FEW_ELEMENTS = 64
"""A message of so few elements is read and written in the event loop, however long it is. That is hardly more than a
copy of its bytes, during which a thread would stop the event loop too."""


class Read:
    """A message that was read apart, or the error that reading it met. It stands in the place of the body."""

    __slots__ = ("_error", "_message", "_size")

    def __init__(self, size: int, message: Any, error: PyDotComputeError | None = None) -> None:
        self._size = size
        self._message = message
        self._error = error

    def __len__(self) -> int:
        return self._size

    def result(self) -> Any:
        """Return the message. Raise the error if there is one."""
        if self._error is not None:
            raise self._error
        return self._message


class _CollectorPaused:
    """Pauses Python's garbage collector while many objects are made, none of which is garbage.

    Otherwise it looks at all objects several times meanwhile, which takes half of the time and stops all threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._count = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._count:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if not self._count and self._was_enabled:
                gc.enable()


class Apart:
    """The daemon's threads for long messages. What they do has no effect until the event loop takes its result."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.least_bytes = min(limits.decode_apart_bytes // PARTS_SHARE, limits.max_message_elements)
        """No message of so many bytes, or fewer, needs to be read apart."""
        self.heavy_weight = limits.decode_apart_bytes
        """The weight from which on a message should be written apart."""
        self._collector = _CollectorPaused()
        self._pool = ThreadPoolExecutor(limits.decode_threads, "long-messages")

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Return a future of the function's result, which is called in a thread.

        If the future is cancelled, the function is not called, or its result is dropped.
        """
        return asyncio.get_running_loop().run_in_executor(self._pool, self._run, function, *arguments)

    def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        with self._collector:
            return function(*arguments)

    # -- reading -------------------------------------------------------------------------------------------------------

    def reads_apart(self, codec: Codec[Any], type_url: str, size: int) -> bool:
        """Return True if the body of a single call should be read apart.

        It is of the codec's type, or of another that takes longer to read.
        """
        if size <= self.least_bytes:
            return False
        return size > self.bytes_at_once(codec) or not type_url.endswith(codec.descriptor.full_name)

    def bytes_at_once(self, codec: Codec[Any]) -> int:
        """Return how many bytes of messages of this codec may be read at once in the event loop.

        A message of so many bytes cannot have more elements than the limit allows.
        """
        limits = self._limits
        return min(limits.decode_apart_bytes, limits.max_message_elements) if codec.is_plain else self.least_bytes

    def is_heavy(self, codec: Codec[Any], body: bytes | memoryview) -> bool:
        """Return True if this body should be read apart. It must be if it may have too many elements."""
        if len(body) <= self.bytes_at_once(codec):
            return False
        few = min(FEW_ELEMENTS, self._limits.max_message_elements)
        return codec.count(body, few) > few

    async def read(
        self,
        codec: Codec[Any],
        decode: Decode[Any],
        body: bytes | memoryview,
        header: tuple[UUID, int, UUID | None],
    ) -> Read:
        """Read a heavy body apart. The result has the error if the body is malformed or has too many elements."""
        size, longest = len(body), self._limits.max_message_bytes
        if size > longest:
            return Read(size, None, MessageTooLargeError(codec.schema.name, size, longest))
        return await self.run(self._read, codec, decode, body, header)

    def read_later(
        self,
        codec: Codec[Any],
        decode: Decode[Any],
        body: bytes | memoryview,
        header: tuple[UUID, int, UUID | None],
        take: Callable[[Any], None],
    ) -> None:
        """Read a heavy body apart, and hand the message to `take` later. A malformed one is dropped."""

        def done(future: asyncio.Future[Read]) -> None:
            if not future.cancelled():
                with suppress(PyDotComputeError):
                    take(future.result().result())

        self.run(self._read, codec, decode, body, header).add_done_callback(done)

    def _read(
        self, codec: Codec[Any], decode: Decode[Any], body: bytes | memoryview, header: tuple[UUID, int, UUID | None]
    ) -> Read:
        try:
            self.check_elements(codec.count(body, self._limits.max_message_elements))
            return Read(len(body), decode(body, *header))
        except PyDotComputeError as error:
            return Read(len(body), None, error)
        except BaseException as error:
            return Read(len(body), None, MessageDeserializationError(codec.schema.name, text_of(error)))

    def check_elements(self, found: int) -> None:
        """Raise LimitExceededError if a message has more elements than the limit allows."""
        most = self._limits.max_message_elements
        if found > most:
            raise LimitExceededError("max_message_elements", most, found)

    # -- writing -------------------------------------------------------------------------------------------------------

    def is_weighty(self, codec: Codec[T], message: T) -> bool:
        """Return True if a message of a single call should be written apart: it has many elements or long texts."""
        weigh = codec.weigh
        return weigh is not None and weigh(message, self.heavy_weight) >= self.heavy_weight

    def write(self, codec: Codec[T], message: T, *, aligned: bool) -> asyncio.Future[bytes]:
        """Return a future of the message's bytes, by `encode_aligned` or `encode`. Its error is a MessageError."""
        return self.run(_write, codec, codec.encode_aligned if aligned else codec.encode, message)


def _write(codec: Codec[T], encode: Callable[[T], bytes], message: T) -> bytes:
    try:
        return encode(message)
    except RuntimeError as error:  # The actor changes a dict of the message meanwhile.
        raise MessageSerializationError(codec.schema.name, text_of(error)) from error
