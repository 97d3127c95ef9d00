"""Attacks a daemon, and measures what a client beside the attack notices, and what memory the daemon takes.

    python -m tests.chaos.under_attack [ATTACK ...] [--memory-bytes N] [--attempts N]

Each attack has a daemon of its own. An attack that is beyond a bound is repeated, and is a finding if it is beyond a
bound in every attempt. The exit code is 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from tests.chaos.attacks import ATTACKS, KERNELS
from tests.chaos.neighbour import Waits
from tests.chaos.processes import Daemon, Process, Processes

__all__ = ["Figures", "measure"]

WORST = 100
"""How many times its quiet median the client beside the attack may wait for an answer, while the daemon works. Time in
which the daemon does not run does not count, because other programs on the machine may take it."""
STUCK = 10.0
"""Seconds that an answer may take whatever the daemon does meanwhile."""
QUIET = 3.0
"""Seconds in which the client beside is alone."""
AFTER = 3.0
"""Seconds between the attacker's end and the last look at the daemon's memory."""
PATIENCE = 400.0
MIB = 1 << 20


@dataclass(frozen=True)
class Figures:
    """What one attack did. Times are in seconds, memory is in bytes."""

    attack: str
    answer: str
    seconds: float
    quiet: Waits
    during: Waits
    before: int
    peak: int
    after: int
    exit_code: int
    ending: float
    """Seconds from SIGTERM to the end of the daemon."""

    @property
    def ratio(self) -> float:
        """The longest answer during the attack, without time in which the daemon did not run, in quiet medians."""
        return self.during.longest_work / self.quiet.median

    def problems(self, most_bytes: int) -> list[str]:
        """What is beyond the bounds. The daemon may gain so much memory, if that is not 0."""
        found = []
        if self.ratio > WORST:
            found.append(f"{self.attack}: the client beside it waited {self.ratio:.0f} times its quiet median")
        if self.during.worst > STUCK:
            found.append(f"{self.attack}: the client beside it waited {self.during.worst:.1f} s")
        if self.during.wrong:
            found.append(f"{self.attack}: {self.during.wrong} answers to the client beside it were wrong")
        if 0 < most_bytes < self.peak - self.before:
            found.append(f"{self.attack}: the daemon took {(self.peak - self.before) / MIB:.0f} MiB more")
        if self.exit_code:
            found.append(f"{self.attack}: the daemon ended with {self.exit_code}")
        return found

    def __str__(self) -> str:
        return (
            f"{self.attack:20} p50 {self.quiet.median * 1e3:6.1f} ms, then p50 {self.during.median * 1e3:7.1f}, "
            f"worst {self.during.worst * 1e3:8.1f} ms, {self.during.longest_work * 1e3:.1f} of them the daemon's work "
            f"({self.ratio:.0f} times; {self.quiet.longest_work * 1e3:.1f} ms before); "
            f"RSS {self.before / MIB:.0f} -> {self.peak / MIB:.0f} -> {self.after / MIB:.0f} MiB; "
            f"{self.seconds:.1f} s; ends in {self.ending:.1f} s with {self.exit_code}\n{'':20} {self.answer}"
        )


class _Peak:
    """The most memory of a process while the block runs."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._over = threading.Event()
        self.bytes = process.resident_bytes

    def __enter__(self) -> _Peak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            try:
                self.bytes = max(self.bytes, self._process.resident_bytes)
            except (OSError, IndexError):  # It has ended.
                return

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def measure(attack: str, processes: Processes, arguments: Sequence[str] = ()) -> Figures:
    """Start a daemon and a client, attack the daemon, and return what came of it."""
    launches = [word for kernel in KERNELS for word in ("--launch", kernel)]
    kernels = str(Path(__file__).with_name("attack_kernels.py"))
    daemon: Daemon
    daemon, target = processes.daemon(*launches, *arguments, kernels=kernels)
    neighbour = processes.run("neighbour", "tests.chaos.neighbour", target, str(daemon.pid))
    assert neighbour.line() == "under way"

    def waits() -> Waits:
        return Waits(**json.loads(neighbour.order("", PATIENCE)))

    sleep(0.5)
    waits()
    sleep(QUIET)
    quiet, before = waits(), daemon.resident_bytes
    with _Peak(daemon) as peak:
        begin = monotonic()
        attacker = processes.run("attacker", "tests.chaos.attacks", attack, target)
        answer = attacker.line(PATIENCE)
        attacker.wait(PATIENCE)
        seconds = monotonic() - begin
        during = waits()
    sleep(AFTER)
    after = daemon.resident_bytes
    neighbour.kill()
    begin = monotonic()
    daemon.signal(15)
    exit_code = daemon.wait(60.0)
    ending = monotonic() - begin
    return Figures(attack, answer, seconds, quiet, during, before, peak.bytes, after, exit_code, ending)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.under_attack", description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}; all if there is none")
    parser.add_argument("--memory-bytes", type=int, default=512 * MIB, help="the daemon's own option; 0 for none")
    parser.add_argument("--attempts", type=int, default=1, help="repeat what is beyond a bound, up to so many attempts")
    given = parser.parse_args()
    arguments = ["--memory-bytes", str(given.memory_bytes)] if given.memory_bytes else []
    problems: list[str] = []
    print(f"{os.cpu_count()} cores; the daemon's budget for messages: {given.memory_bytes / MIB:.0f} MiB")
    for attack in given.attacks or ATTACKS:
        found: list[str] = []
        for _ in range(given.attempts):
            found = problems_of(attack, arguments, given.memory_bytes)
            if not found:
                break
        problems += found
    print("\n".join(problems) or "all within the bounds")
    sys.exit(1 if problems else 0)


def problems_of(attack: str, arguments: Sequence[str], memory_bytes: int) -> list[str]:
    """Attack once, print the figures, and return what is beyond the bounds."""
    try:
        with Processes(1) as processes:
            figures = measure(attack, processes, arguments)
    except AssertionError as error:
        print(f"{attack:20} {error}", flush=True)
        return [f"{attack}: {error}"]
    print(figures, flush=True)
    return figures.problems(memory_bytes)


if __name__ == "__main__":
    main()
