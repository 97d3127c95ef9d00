"""Says when a worker process takes too much time or memory, or shows no life. Here is no I/O: others look at it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from pydotcompute.device.settings import text_of_bytes

__all__ = ["Look", "Overuse", "Verdict"]

SHORTEST, LONGEST = 0.01, 1.0
"""The seconds between two looks are within these."""
LOOKS = 8
"""How often a worker is looked at within a time limit, about."""
MEMORY_INTERVAL = 0.25
"""The seconds between two looks at the memory."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of a worker at one moment."""

    now: float
    """The time of `time.monotonic()`."""
    beat: int = 0
    """A number that the process changes all the time as long as it lives."""
    allocated: int = 0
    """The bytes of memory that the process has allocated."""
    in_hand: Hashable = None
    """Stands for what the actor has in hand: it changes with each message that is taken or done. None is nothing."""
    is_waiting: bool = False
    """True if the actor waits until others receive what it has sent. That is no time of its own."""


class Verdict(NamedTuple):
    """Why a worker process is to be ended."""

    cause_type: str
    """The name for it: the `cause_type` of the error that callers get."""
    text: str
    is_urgent: bool
    """True if the process must not have time to end by itself."""


class Overuse:
    """The rules for one worker process. A limit of None is no limit.

    Args:
        time_limit: the most seconds that the actor may have the same message in hand.
        hang_timeout: the most seconds that the process may show no life.
        memory_limit: the most bytes that it may allocate.
    """

    def __init__(self, time_limit: float | None, hang_timeout: float | None, memory_limit: int | None) -> None:
        self._time_limit, self._hang_timeout, self._memory_limit = time_limit, hang_timeout, memory_limit
        self._last: Look | None = None
        self._silent = 0.0  # The seconds for which `beat` is known to have stood still.
        self._held = 0.0  # The seconds for which the actor is known to have had the same in hand.

    @property
    def interval(self) -> float | None:
        """The seconds from one look to the next; None if there is no limit, and so nothing to look at."""
        wanted = [limit / LOOKS for limit in (self._time_limit, self._hang_timeout) if limit is not None]
        if self._memory_limit is not None:
            wanted.append(MEMORY_INTERVAL)
        return max(SHORTEST, min(LONGEST, *wanted, LONGEST)) if wanted else None

    def judge(self, look: Look) -> Verdict | None:
        """Return why the worker is to be ended, after one more look at it; None if it may go on."""
        interval, last, self._last = self.interval, self._last, look
        if interval is None:
            return None
        if last is not None:
            # After a long time without a look this process has stood still, and the worker perhaps too.
            passed = min(look.now - last.now, 2 * interval)
            self._silent = self._silent + passed if look.beat == last.beat else 0.0
            is_same = look.in_hand is not None and look.in_hand == last.in_hand
            if not is_same:
                self._held = 0.0
            elif not look.is_waiting:
                self._held += passed
        return self._verdict(look.allocated)

    def _verdict(self, allocated: int) -> Verdict | None:
        if self._memory_limit is not None and allocated > self._memory_limit:
            held, limit = text_of_bytes(allocated), text_of_bytes(self._memory_limit)
            return Verdict("MemoryLimitExceeded", f"had {held} of memory, and its memory_limit is {limit}", True)
        if self._time_limit is not None and self._held > self._time_limit:
            text = f"had a message in hand for more than its time_limit of {self._time_limit:g} seconds"
            return Verdict("TimeLimitExceeded", text, False)
        if self._hang_timeout is not None and self._silent > self._hang_timeout:
            text = f"showed no life for more than its hang_timeout of {self._hang_timeout:g} seconds"
            return Verdict("HangTimeoutExceeded", text, False)
        return None
