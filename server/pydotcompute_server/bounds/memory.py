"""The daemon's budget of memory for messages, wherever they wait.

Nothing is charged or paid back, because every place where messages wait knows how many bytes it has. So nothing can be
forgotten, and a message that moves from one place to the next costs nothing. `Memory` looks at the places when it must
know, and between two looks adds up what has come. That is never less than what waits, except for what kernels have sent
since the last look, which is at most `LOOK_AFTER` seconds ago. Before anything is refused, `Memory` looks again.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, thread_time

from pydotcompute.exceptions import MemoryExhaustedError
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute_server.bounds.trim import trim

__all__ = ["MESSAGE_BYTES", "TIGHT_BYTES", "Memory", "default_budget", "resident_bytes"]

LOOK_AFTER = 1.0
"""Seconds after which the places are looked at again, even if little has come: kernels may have sent much."""
LOOK_PAUSE = 4
"""A look that took long is followed by a pause of so many times that length before the next look."""
LONG_LOOK = 0.001
"""A look that took more seconds than this took long."""
REPORT_PAUSE = 50
"""A report for a client is followed by a pause of so many times its length before the next one."""
TIGHT_SHARE = 0.75
"""The share of the budget at which clients are no longer allowed to send much ahead."""
ROOM_SHARE = 15 / 16
"""The share of the budget at which actors wait that send much. What is left is for requests of others."""
HOG_SHARE = 0.5
"""The share of the budget that one principal may hold while memory is tight. So there is always room for others."""
USE_SECONDS = 0.05
"""Seconds for which it is taken as known what a principal holds, beside what comes from it."""
TIGHT_BYTES = 64 << 10
"""The bytes that a session may send ahead while memory is tight."""
MESSAGE_BYTES = 256
"""Bytes that a message takes beside its body, where only the bodies are counted."""
POLL_SECONDS = 0.05
"""Seconds between two looks while somebody waits for memory."""
MANY = 1_000
"""Principals of which it is remembered what they hold."""
MUCH = 32 << 20
"""When so many bytes have come or gone, memory that is free by then is given back to the operating system."""
BUSY = 8 << 20
"""If so many bytes come within `TIDY_SECONDS`, the daemon is busy, and gives memory back later."""
TIDY_SECONDS = 1.0
BUSY_AT_MOST = 10
"""After so many seconds memory is given back even if the daemon is busy."""


class Memory:
    """The one budget for the bodies of messages, wherever they wait in the daemon.

    Args:
        budget: the most bytes that messages may take.
        clock: returns the time in seconds.
    """

    def __init__(self, budget: int, clock: Callable[[], float] = monotonic) -> None:
        self.budget = budget
        """The most bytes that messages may take."""
        self._clock = clock
        self._places: dict[str, Callable[[], int]] = {}
        self._give_way: Callable[[int], int] | None = None
        self._held_by: Callable[[str], int] | None = None
        self._uses: dict[str, tuple[int, float]] = {}  # What principals hold, and until when that is known.
        self._bound = 0  # At least the bytes in use: those of the last look, and what has come since.
        self._tight_bound = int(TIGHT_SHARE * budget)
        self._look_again_at = 0.0
        self._not_before = 0.0
        self._reported: dict[str, int] = {}
        self._report_again_at = 0.0
        self._freed = Signal()
        self._told = 0  # The bytes in use when tasks were last woken, or more if it has become more since.
        self._poll: asyncio.TimerHandle | None = None
        self._came = 0  # Bytes that have come since `_tidy` has counted them.
        self._moved = 0  # Bytes that have come or gone since memory was last given back.
        self._used_before = 0  # The bytes in use when `_tidy` last looked.
        self._busy_for = 0
        self._tidying: asyncio.TimerHandle | None = None

    def add_place(self, name: str, held_bytes: Callable[[], int]) -> None:
        """Add a place where messages wait. `held_bytes` returns the bytes that they take there now."""
        self._places[name] = held_bytes

    def let_give_way(self, discard: Callable[[int], int]) -> None:
        """Let messages be discarded when memory becomes tight.

        `discard` is called with the bytes that are needed, and returns the bytes that it has freed.
        """
        self._give_way = discard

    def tell_apart(self, held_by: Callable[[str], int]) -> None:
        """Keep the rest of the memory, from where it is tight, for principals that do not hold half of all.

        `held_by` returns the bytes that a principal holds.
        """
        self._held_by = held_by

    # -- asking --------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, int]:
        """Return the bytes that messages take now, by the name of the place."""
        return {name: held_bytes() for name, held_bytes in self._places.items()}

    def last_report(self) -> dict[str, int]:
        """Return what `report` does, or did a moment ago. With very many sessions, a report takes some milliseconds."""
        if self._clock() >= self._report_again_at:
            began = thread_time()
            self._reported = self.report()
            self._report_again_at = self._clock() + REPORT_PAUSE * (thread_time() - began)
        return self._reported

    @property
    def used(self) -> int:
        """The bytes that messages take now."""
        return sum(held_bytes() for held_bytes in self._places.values())

    def has_room_for(self, size: int, principal: str = "") -> bool:
        """Return True if a message, or a part of one, of `size` bytes may come from a principal; note that it comes."""
        if self._bound + size > self._tight_bound or self._clock() > self._look_again_at:
            self._look(size)
        if self._bound + size > self.budget:
            return False
        if self._bound > self._tight_bound and self._held_by is not None:
            if self._use_of(principal) + size > HOG_SHARE * self.budget:
                return False
            use, until = self._uses[principal]
            self._uses[principal] = use + size, until
        self._bound += size
        self._came += size
        if self._came > MUCH and self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(TIDY_SECONDS, self._tidy)
        return True

    def require(self, size: int, principal: str = "") -> None:
        """Note that `size` bytes come from a principal. Raise MemoryExhaustedError if there is no room for them."""
        if not self.has_room_for(size, principal):
            raise self.error(size, principal)

    def error(self, size: int, principal: str = "") -> MemoryExhaustedError:
        """Return the error for `size` bytes of a principal for which there is no room."""
        if self._held_by is not None and self._bound + size <= self.budget:
            return MemoryExhaustedError(int(HOG_SHARE * self.budget), self._use_of(principal), size)
        return MemoryExhaustedError(self.budget, self._bound, size)

    def is_full_for(self, principal: str) -> bool:
        """Return True if nothing more may come from this principal now."""
        if self._bound >= self.budget and self._look(0) >= self.budget:
            return True
        return self._held_by is not None and self.is_tight and self._use_of(principal) >= HOG_SHARE * self.budget

    def _use_of(self, principal: str) -> int:
        """Return how many bytes a principal holds, or a little more."""
        began = self._clock()
        use, until = self._uses.get(principal, (0, 0.0))
        if began >= until:
            assert self._held_by is not None
            use = self._held_by(principal)
            now = self._clock()
            if len(self._uses) >= MANY:
                self._uses.clear()
            self._uses[principal] = use, now + USE_SECONDS + LOOK_PAUSE * (now - began)
        return use

    @property
    def is_tight(self) -> bool:
        """True if so much is in use that clients should send little ahead."""
        return self._bound > self._tight_bound and self._look(0) > self._tight_bound

    def missing(self) -> int:
        """Look how much is in use, and return how many bytes are missing until actors must wait; 0 if they must."""
        self._not_before = 0.0
        return max(0, int(ROOM_SHARE * self.budget) - self._look(0))

    def freed(self) -> Signal:
        """Return a signal for tasks that wait until memory is tight no more, or at least less so."""
        if self._poll is None:
            self._poll = asyncio.get_running_loop().call_later(POLL_SECONDS, self._wake)
        return self._freed

    def _wake(self) -> None:
        self._poll = None
        if not self._freed.waiters:
            self._told = 0
            return
        used = self._look(0)
        if used < self._told or used <= self._tight_bound:
            self._freed.notify_all()
        else:
            self.freed()
        self._told = used

    def _look(self, asked: int) -> int:
        """Look how much is in use, unless the last look was too short a time ago. Return the bound after that."""
        began = self._clock()
        if began < self._not_before:
            return self._bound
        self._bound = self.used
        over = self._bound + (asked if asked <= self.budget else 0) - self._tight_bound
        if over > 0 and self._give_way is not None:
            self._bound -= self._give_way(over)
        now = self._clock()
        took = now - began
        self._not_before = now + LOOK_PAUSE * took if took > LONG_LOOK else now
        self._look_again_at = now + LOOK_AFTER
        return self._bound

    # -- giving back ---------------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Give memory back to the operating system after much was released, when the daemon is not busy."""
        used = self.used
        came, self._came = self._came, 0
        self._moved += came + max(0, self._used_before - used)
        self._used_before = used
        self._busy_for += 1
        if self._moved >= MUCH and (came < BUSY or self._busy_for > BUSY_AT_MOST):
            self._moved = self._busy_for = 0
            gc.collect(1)  # Of what is younger: all would take too long in a program with many objects.
            asyncio.get_running_loop().run_in_executor(None, trim)
        if used >= MUCH or self._moved >= MUCH or came >= MUCH:
            self._tidying = asyncio.get_running_loop().call_later(TIDY_SECONDS, self._tidy)
        else:
            self._tidying = None
            self._used_before = self._busy_for = 0

    def close(self) -> None:
        """Stop the timers, because the daemon ends."""
        for timer in (self._poll, self._tidying):
            if timer is not None:
                timer.cancel()


# -- how much there is -------------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def default_budget(root: Path = Path("/")) -> int:
    """Return half of the memory of the machine, or of the limit of this process's cgroup if that is less.

    Args:
        root: the directory in which `proc` and `sys` are.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(root)]) // 2


def _cgroup_limits(root: Path) -> list[int]:
    """Return the limits, if any, on this process's cgroup and on those above it, of cgroup v1 or v2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    limits = []
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            base, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be one of the host, which is not there: then the limit is that of the mount.
        inside = base / path.lstrip("/")
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(base):
                limits += _limit_in(folder / name)
    return limits


def _limit_in(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdecimal() else []  # "max" if there is no limit.
