"""The limits of a runtime, in one place."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["DEFAULT_LIMITS", "RuntimeLimits"]


@dataclass(frozen=True)
class RuntimeLimits:
    """What a runtime keeps, and for how long.

    Raises:
        InvalidConfigurationError: a limit is not above zero.
    """

    terminated_kernels: int = 1_000
    """Terminated kernels that are remembered for what can still be received from them; the oldest go first."""
    dead_letters: int = 1_000
    """Dead letters that a kernel keeps; the oldest go first."""
    dead_letter_bytes: int = 64 << 20
    """Bytes that the dead letters of a kernel may take together, as estimated. The oldest go first; the newest is kept
    whatever its size."""
    requests: int = 65_536
    """Requests of one kernel that may wait for a reply. Beyond that the oldest of the caller that has most of them are
    forgotten: their replies would be outputs."""
    requests_forgotten: int = 4_096
    """Requests that are forgotten together, which costs less than one by one."""
    answers: int = 4_096
    """Answered requests that are remembered at least, so that a second reply to one finds its caller too; at most twice
    as many are."""
    in_a_row: int = 256
    """Messages that an actor is handed in a row before the other tasks have their turn."""
    cancellation_grace: float = 1.0
    """Seconds that a cancelled actor has to end before the kernel goes on without it."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise InvalidConfigurationError(field.name, value, "must be above zero")


DEFAULT_LIMITS = RuntimeLimits()
