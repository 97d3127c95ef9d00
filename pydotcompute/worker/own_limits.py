"""Limits that a worker process gives itself, and its sign of life."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path
from typing import Any

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.worker.marks import Marks

__all__ = ["limit_memory", "settle_in", "show_life"]


def settle_in(cpus: list[int] | None, nice: int | None) -> None:
    """Give this process its CPUs and its niceness. Raises InvalidConfigurationError if it cannot have them."""
    try:
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise _cannot("cpus", cpus, error) from error
    try:
        if nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as error:
        raise _cannot("nice", nice, error) from error


def _cannot(name: str, value: Any, error: OSError) -> InvalidConfigurationError:
    return InvalidConfigurationError(name, value, f"the worker process cannot have that: {error.strerror}")


def limit_memory(most: int) -> None:
    """Let this process allocate at most so many bytes, so that Python raises MemoryError for more.

    What is reserved now and not used yet, such as the stacks of threads, does not count.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    data, used = (int(status[name].split()[0]) << 10 for name in ("VmData", "RssAnon"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = most + max(0, data - used)
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def show_life(marks: Marks, interval: float) -> None:
    """Change a number in memory every `interval` seconds, from a thread of its own, until the process ends."""
    never: Any = threading.Event()

    def beat() -> None:
        while not never.wait(interval):
            marks.beat += 1

    threading.Thread(target=beat, name="sign of life", daemon=True).start()
