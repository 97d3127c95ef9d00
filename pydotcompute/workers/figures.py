"""What the system knows of a worker process: its memory and its CPU time, and processes that ran out of memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["Figures", "allocated_bytes", "figures_of", "oom_kills"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_CGROUPS = Path("/sys/fs/cgroup")


class Figures(NamedTuple):
    """The figures of a process."""

    resident_bytes: int
    cpu_seconds: float


def figures_of(pid: int, proc: Path = Path("/proc")) -> Figures | None:
    """Return the figures of a process; None if it is gone."""
    try:
        resident = int((proc / str(pid) / "statm").read_text().split()[1])
        # The name of the program, in parentheses, may contain anything. The times are the 14th and 15th field.
        ticks = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[11:13]
    except (OSError, IndexError):
        return None
    return Figures(resident * _PAGE, sum(map(int, ticks)) / _TICKS)


def allocated_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the bytes of memory that a process has allocated: not those of files that it maps. 0 if it is gone."""
    try:
        status = (proc / str(pid) / "status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:")))
    return sum(int(words[1]) << 10 for words in lines)


def oom_kills(cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return how many processes of this process's control group were ended because memory ran out; None if unknown."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return None
    for number, controllers, group in lines:
        if number == "0":
            root, name = cgroups, "memory.events"
        elif "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.oom_control"
        else:
            continue
        # Inside a container, the group's own files may stand at the root.
        for folder in (root / group.lstrip("/"), root):
            try:
                words = [line.split() for line in (folder / name).read_text().splitlines()]
                return next(int(count) for key, count in words if key == "oom_kill")
            except (OSError, ValueError, StopIteration):
                continue
    return None
