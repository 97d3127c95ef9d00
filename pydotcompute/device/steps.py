"""A coroutine with something current at each of its steps, and only then.

What is current in CUDA (the device, the stream, the allocator) is so for a thread. Kernels share the event loop's: what
one makes current before it waits would be so for all the others, until it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

__all__ = ["Steps"]

T = TypeVar("T")


class Steps(Coroutine[Any, Any, T]):
    """`coroutine`, each step of which, from one wait to the next, runs inside of `current()`."""

    __slots__ = ("_coroutine", "_current")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], current: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._coroutine = coroutine
        self._current = current

    def send(self, value: Any) -> Any:
        with self._current():
            return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        with self._current():
            return self._coroutine.throw(*error)

    def close(self) -> None:
        with self._current():
            self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # It has all that `await` asks of a generator.

    def __iter__(self) -> Steps[T]:
        return self

    def __next__(self) -> Any:
        return self.send(None)
