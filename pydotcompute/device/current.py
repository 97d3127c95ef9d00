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
    """`coroutine`, each step of which, from one wait to the next, runs inside of `current()`.

    If that cannot be entered, for its device has failed, the coroutine is told where it waits, and may clean up.
    """

    __slots__ = ("_coroutine", "_current")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], current: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._coroutine = coroutine
        self._current = current

    def send(self, value: Any) -> Any:
        entered = False
        try:
            with self._current():
                entered = True
                return self._coroutine.send(value)
        except Exception as error:
            if entered:
                raise
            return self._coroutine.throw(error)

    def throw(self, *error: Any) -> Any:
        entered = False
        try:
            with self._current():
                entered = True
                return self._coroutine.throw(*error)
        except Exception:
            if entered:
                raise
            return self._coroutine.throw(*error)

    def close(self) -> None:
        entered = False
        try:
            with self._current():
                entered = True
                self._coroutine.close()
        except Exception:
            if entered:
                raise
            self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # It has all that `await` asks of a generator.

    def __iter__(self) -> Steps[T]:
        return self

    def __next__(self) -> Any:
        return self.send(None)
