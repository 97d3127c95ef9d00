"""A coroutine whose steps run inside a context manager, which is left whenever the coroutine waits.

CUDA has one current device, stream and allocator for each thread. All kernels share the thread of the event loop. If
one kernel kept its device current while it waits, the other kernels would work on that device, too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

__all__ = ["Steps"]

T = TypeVar("T")


class Steps(Coroutine[Any, Any, T]):
    """A coroutine that runs each step of `coroutine`, from one wait to the next, inside `current()`.

    If `current()` raises an error when it is entered, for example because the device has failed, that error is raised
    inside the coroutine, at the place where it waits. So the coroutine can clean up.
    """

    __slots__ = ("_coroutine", "_current")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], current: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._coroutine = coroutine
        self._current = current

    def send(self, value: Any) -> Any:
        """Runs the next step inside `current()`. Returns the object that the coroutine waits for."""
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
        """Runs the next step inside `current()`, which begins with this error raised where the coroutine waits."""
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
        """Ends the coroutine. Its clean-up runs inside `current()`, or outside if that cannot be entered."""
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
        return self  # `Steps` has all methods of a generator that `await` needs.

    def __iter__(self) -> Steps[T]:
        return self

    def __next__(self) -> Any:
        return self.send(None)
