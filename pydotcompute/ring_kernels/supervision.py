"""What happens after an actor has ended or its worker process has died: the settings, and the rules without I/O."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from math import isfinite
from time import monotonic
from typing import Any, Literal, get_args

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.ring_kernels.limits import RuntimeLimits

__all__ = ["LONGEST_PAUSE", "OnCrash", "Restart", "Restarts", "Supervision", "check_seconds"]

Restart = Literal["never", "on_failure", "always"]
"""When an actor is started again: never, after a failure, or also after a return."""
OnCrash = Literal["dead_letter", "redeliver"]
"""What becomes of the messages that an actor has in hand when it fails: dead letters, or they are given again."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before an actor is started again: none after its first failure, then these, doubled each time."""


@dataclass(frozen=True)
class Supervision:
    """Says what happens after an actor has ended.

    Raises:
        InvalidConfigurationError: a setting is not valid, or can have no effect beside the others.
    """

    restart: Restart = "never"
    """When the actor is started again."""
    max_restarts: int | None = None
    """The most restarts within `restart_window` seconds. One failure more, and the kernel becomes FAILED.

    None leaves it to `RuntimeLimits.max_restarts`. With several instances, each has its own count.
    """
    restart_window: float | None = None
    """Seconds within which restarts are counted. None leaves it to `RuntimeLimits.restart_window`."""
    on_crash: OnCrash = "dead_letter"
    """What becomes of the messages in hand when the actor fails."""
    max_deliveries: int = 3
    """How often a message is given to the actor at most, if the actor fails each time. Only for `redeliver`."""

    def __post_init__(self) -> None:
        if self.restart not in get_args(Restart):
            raise InvalidConfigurationError("restart", self.restart, "choose never, on_failure or always")
        if self.on_crash not in get_args(OnCrash):
            raise InvalidConfigurationError("on_crash", self.on_crash, "choose dead_letter or redeliver")
        if self.max_restarts is not None:
            _check_count("max_restarts", self.max_restarts, 1)
        if self.restart_window is not None:
            check_seconds("restart_window", self.restart_window)
        _check_count("max_deliveries", self.max_deliveries, 1)
        if self.restart == "never":
            needs = 'only an actor that is started again can have it; say restart="on_failure" or restart="always" too'
            for name in ("max_restarts", "restart_window"):
                if getattr(self, name) is not None:
                    raise InvalidConfigurationError(name, getattr(self, name), needs)
            if self.on_crash == "redeliver":
                raise InvalidConfigurationError("on_crash", self.on_crash, needs)

    def gives_again(self, deliveries: int) -> bool:
        """Return True if a message is given again that the actor has had this many times and has failed each time."""
        return self.on_crash == "redeliver" and deliveries < self.max_deliveries


class Restarts:
    """Says whether an actor is started again after a failure, and when.

    Args:
        most: the most restarts within `window` seconds.
        window: see `most`.
    """

    def __init__(self, most: int, window: float) -> None:
        self._most, self._window = most, window
        self._times: deque[float] = deque()
        self._in_a_row = 0  # Restarts since the actor has last done a message.

    @classmethod
    def of(cls, supervision: Supervision, limits: RuntimeLimits) -> Restarts:
        """Return the rule of the restarts of one actor, in a runtime with these limits."""
        most, window = supervision.max_restarts, supervision.restart_window
        return cls(limits.max_restarts if most is None else most, limits.restart_window if window is None else window)

    def next_pause(self, *, has_progressed: bool = False, now: float | None = None) -> float | None:
        """Return the seconds to wait before the next restart; None if there were too many.

        Args:
            has_progressed: True if the actor has done a message since it was started. Then it is started again at once.
            now: the time of `time.monotonic()`; None asks the clock.
        """
        if now is None:
            now = monotonic()
        while self._times and self._times[0] <= now - self._window:
            self._times.popleft()
        if len(self._times) >= self._most:
            return None
        self._times.append(now)
        if len(self._times) == 1:
            self._in_a_row = 0
        return self.pause_after_return(has_progressed=has_progressed)

    def pause_after_return(self, *, has_progressed: bool) -> float:
        """Return the seconds to wait before a restart after the actor has returned, which does not count as a failure.

        Args:
            has_progressed: see `next_pause`.
        """
        self._in_a_row = 1 if has_progressed else self._in_a_row + 1
        if self._in_a_row == 1:
            return 0.0
        # A power of two that is too large for a float cannot be compared.
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._in_a_row - 2, 20))
        return pause * random.uniform(0.75, 1.25)  # noqa: S311  # It only spreads the load.


def _check_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidConfigurationError(name, value, f"must be a whole number of at least {least}")


def check_seconds(name: str, value: Any) -> None:
    """Raise InvalidConfigurationError unless this setting is a finite number of seconds, more than 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or value <= 0:
        raise InvalidConfigurationError(name, value, "must be a number of seconds, more than 0")
