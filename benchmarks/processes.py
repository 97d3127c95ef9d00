"""What Linux tells of a process: its CPU time and its memory."""

import os
from collections import defaultdict
from pathlib import Path

MAIN_THREAD = "main thread"

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _stat_fields(file: Path) -> tuple[str, list[str]]:
    """The name, and the fields after it; a name may hold spaces and parentheses."""
    before, _, after = file.read_text().rpartition(")")
    return before.partition("(")[2], after.split()


def cpu_seconds(process_id: int) -> float:
    """What all threads of a process have used, in user and kernel mode."""
    _, fields = _stat_fields(Path(f"/proc/{process_id}/stat"))
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def cpu_seconds_by_thread(process_id: int) -> dict[str, tuple[float, float]]:
    """The same for each thread, in user and in kernel mode; threads of one name together, but for the main thread."""
    seconds: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for task in Path(f"/proc/{process_id}/task").iterdir():
        try:
            name, fields = _stat_fields(task / "stat")
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        name = MAIN_THREAD if int(task.name) == process_id else name
        user, system = seconds[name]
        seconds[name] = (user + int(fields[11]) / _TICKS_A_SECOND, system + int(fields[12]) / _TICKS_A_SECOND)
    return dict(seconds)


def resident_bytes(process_id: int) -> int:
    """How much of a process is in memory."""
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * _PAGE_BYTES


def proportional_bytes(process_id: int) -> int:
    """How much of a process is in memory, where what several processes share is divided among them."""
    for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not say how much memory is shared")
