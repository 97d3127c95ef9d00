"""The limits of a runtime, in one place."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["DEFAULT_LIMITS", "RuntimeLimits"]


@dataclass(frozen=True)
class RuntimeLimits:
    """The limits on what a runtime keeps, and for how long.

    Raises:
        InvalidConfigurationError: a limit is not above zero.
    """

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

    Beyond this number, the kernel forgets the oldest requests of the caller that has most of them. A reply to a
    forgotten request is treated as an output.
    """
    requests_forgotten: int = 4_096
    """Requests that are forgotten together. This costs less than to forget them one by one."""
    answers: int = 4_096
    """Answered requests that are remembered at least, so that a second reply also finds its caller.

    At most twice as many are remembered.
    """
    in_a_row: int = 256
    """Messages that an actor is handed in a row before the other tasks have their turn."""
    cancellation_grace: float = 1.0
    """Seconds that a cancelled actor has to end. After that the kernel goes on without the actor."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise InvalidConfigurationError(field.name, value, "must be above zero")


DEFAULT_LIMITS = RuntimeLimits()
