"""What a worker process may use: the settings of a kernel type that only a process of its own can have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.ring_kernels.supervision import check_seconds

__all__ = ["WorkerLimits"]


@dataclass(frozen=True)
class WorkerLimits:
    """What a worker process may use. None means no limit.

    Raises:
        InvalidConfigurationError: a setting is not valid.
    """

    time_limit: float | None = None
    """The most seconds that the actor may have a message in hand. Then its process is ended."""
    hang_timeout: float | None = None
    """The most seconds that the process may show no life: it is stopped, or C code holds Python's lock all the time."""
    cpus: tuple[int, ...] | None = None
    """The numbers of the CPUs that the process may run on."""
    nice: int | None = None
    """The niceness of the process, from -20 to 19: the higher it is, the sooner others come first."""

    def __post_init__(self) -> None:
        for name in ("time_limit", "hang_timeout"):
            if getattr(self, name) is not None:
                check_seconds(name, getattr(self, name))
        if self.cpus is not None:
            object.__setattr__(self, "cpus", _cpus(self.cpus))
        if self.nice is not None and not (_is_whole(self.nice) and -20 <= self.nice <= 19):
            raise InvalidConfigurationError("nice", self.nice, "must be a whole number from -20 to 19")

    def refuse_here(self) -> None:
        """Raise InvalidConfigurationError if anything is set: the actor is to run in the process of its runtime."""
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                problem = 'only a worker process can have it; declare the kernel with isolation="process" too'
                raise InvalidConfigurationError(field.name, value, problem)


def _cpus(value: Any) -> tuple[int, ...]:
    cpus = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else ()
    if not cpus or not all(_is_whole(cpu) and cpu >= 0 for cpu in cpus):
        raise InvalidConfigurationError("cpus", value, "must be the numbers of CPUs, such as (0, 1)")
    return tuple(sorted(set(cpus)))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
