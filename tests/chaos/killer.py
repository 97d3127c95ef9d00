"""Kills the workers of a daemon, in the ways in which a process may die."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["WAYS", "Killer", "descendants", "is_worker"]

STOPPED_SECONDS = 0.02, 0.2
"""How long a worker is stopped before it is killed."""
ANY_SHARE = 0.1
"""How often the victim may be any process, one that only starts too, and not one that serves."""


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have started."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                for child in map(int, (task / "children").read_text().split()):
                    yield child
                    yield from descendants(child)


def is_worker(pid: int) -> bool:
    """Whether this is a living worker or template. One whose template has died is nobody's descendant any more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and b"pydotcompute.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _killed(pid: int, dice: random.Random) -> None:
    os.kill(pid, signal.SIGKILL)


def _crashed(pid: int, dice: random.Random) -> None:
    os.kill(pid, signal.SIGSEGV)


def _stopped(pid: int, dice: random.Random) -> None:
    """It may be in the middle of anything, and others go on talking to it."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(dice.uniform(*STOPPED_SECONDS))
    os.kill(pid, signal.SIGKILL)


def _starved(pid: int, dice: random.Random) -> None:
    """It gets no more memory than it has. What it does then is for it to know; later it is killed like others."""
    resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))


WAYS: dict[str, Callable[[int, random.Random], None]] = {
    "SIGKILL": _killed,
    "SIGSEGV": _crashed,
    "SIGSTOP": _stopped,
    "memory": _starved,
}


class Killer:
    """Kills one process after the other.

    Args:
        daemon: the process whose workers these are.
        serving: returns a worker that serves at this moment, if one is known.
        dice: says who is next, and how.
    """

    def __init__(self, daemon: int, serving: Callable[[], int | None], dice: random.Random) -> None:
        self._daemon, self._serving, self._dice = daemon, serving, dice
        self.done: Counter[str] = Counter()
        """How often each way was taken."""

    def kill(self) -> None:
        """Harm one process of those that there are."""
        there = sorted(descendants(self._daemon))
        victim = self._serving()
        if there and self._dice.random() < ANY_SHARE:
            victim = self._dice.choice(there)
        if victim is None or not is_worker(victim):  # It is dead, and the next one has not begun to serve.
            return
        way = self._dice.choice([*WAYS])
        with suppress(ProcessLookupError, PermissionError):
            WAYS[way](victim, self._dice)
            self.done[way] += 1
