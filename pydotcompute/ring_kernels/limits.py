"""The limits of a runtime, in one place."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, fields
from math import isfinite

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["DEFAULT_LIMITS", "RuntimeLimits"]


@dataclass(frozen=True)
class RuntimeLimits:
    """The limits on what a runtime keeps, and for how long.

    Raises:
        InvalidConfigurationError: a runtime cannot work with this limit.
    """

    # Counts.
    max_kernels: int = 10_000
    """Kernels that are launched and not terminated. One more is refused with `LIMIT_EXCEEDED`."""
    max_threads: int = 512
    """Threads of actors that are plain functions: one for each such kernel, and one for each that does not end though
    its kernel has ended. The launch of one more is refused with `LIMIT_EXCEEDED`."""
    max_queue_size: int = 1 << 20
    """The longest mailbox. The launch of a kernel with a longer `input_queue_size` or `output_queue_size` is refused
    with `LIMIT_EXCEEDED`."""
    names_told: int = 30
    """Ids of kernels that the error about an unknown kernel lists, and as many names of kernel types."""
    ended_at_once: int = 256
    """Kernels that a shutdown asks to end before other tasks have their turn."""
    # What is kept.
    terminated_kernels: int = 1_000
    """Terminated kernels that are kept, so that their last messages can still be received. The oldest go first."""
    dead_letters: int = 1_000
    """Dead letters that a kernel keeps. The oldest go first."""
    dead_letter_bytes: int = 64 << 20
    """Estimated bytes that the dead letters of a kernel may take together.

    The oldest go first. The newest is kept whatever its size.
    """
    requests: int = 65_536
    """Requests of one kernel that may wait for a reply.

    Beyond this number, the kernel forgets the oldest requests of the principal and the caller with most of them. A
    reply to a forgotten request is treated as an output.
    """
    requests_forgotten: int = 4_096
    """Requests that are forgotten together. This costs less than to forget them one by one."""
    answers: int = 4_096
    """Answered requests that are remembered at least, so that a second reply also finds its caller.

    At most three times as many are remembered. Those of a principal with very many go first.
    """
    in_a_row: int = 256
    """Messages that an actor is handed in a row, at most, before the other tasks have their turn. It is handed fewer if
    they take it longer than a millisecond."""
    max_instances: int = 64
    """Worker processes that may share the mailbox of one kernel. More are refused with `LIMIT_EXCEEDED`. Those that
    were told to end count as long as they finish what they have in hand."""
    worker_start: float = 60.0
    """Seconds that a worker process may take to import the kernel's file and to launch the kernel."""
    max_restarts: int = 10
    """Restarts of one actor within `restart_window` seconds, unless its kernel type says otherwise. One failure more is
    that of the kernel."""
    restart_window: float = 60.0
    """Seconds within which `max_restarts` are counted, unless the kernel type says otherwise."""
    cancellation_grace: float = 1.0
    """Seconds that a cancelled actor has to end. After that the kernel goes on without the actor."""

    def __post_init__(self) -> None:
        self.check()

    def check(self, may_be_zero: Container[str] = ()) -> None:
        """Check that each limit is a number of the right kind, and more than 0 unless `may_be_zero` has its name.

        Raises:
            InvalidConfigurationError: a limit is not.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            problem = _problem(value, is_count=isinstance(field.default, int), may_be_zero=field.name in may_be_zero)
            if problem is not None:
                raise InvalidConfigurationError(field.name, value, problem)


def _problem(value: object, *, is_count: bool, may_be_zero: bool) -> str | None:
    """Return what is wrong with the value of a limit, or None if it is valid."""
    if isinstance(value, bool) or not isinstance(value, int if is_count else int | float):
        return "not a whole number" if is_count else "not a number"
    least = "it is at least 0" if may_be_zero else "it is more than 0"
    if not isfinite(value):
        return f"not finite; {least}"
    return least if value < 0 or (value == 0 and not may_be_zero) else None


DEFAULT_LIMITS = RuntimeLimits()
