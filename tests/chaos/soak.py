"""Hours of bad connections: nothing may be lost or doubled, and no process may grow.

    python -m tests.chaos.soak --minutes 30
    python -m tests.chaos.soak --requests 200000

Eight clients talk to the ledger through a proxy that mistreats a connection every 50 to 300 ms; a ninth reads slowly;
more come, are killed, and are replaced. The exit code says whether all was well.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from tests.chaos.checks import nothing_lost_nothing_doubled
from tests.chaos.memory import MIB, Memory
from tests.chaos.processes import Client, Process, Processes

__all__ = ["soak"]

CLIENTS = 8
STORM = "cut=6,reset=3,stall=3,halve=1,trickle=1,half_open=1"
SESSION_TIMEOUT = 15.0
"""Longer than a client takes to notice that a connection is silent, and to come back."""
A_LIFE = 5.0
"""Seconds after which a client is killed and replaced."""
SAMPLES = 120
WARM_UP_SHARE = 0.2
LAST_REPLIES = 120.0
"""Seconds in which a client has what is under way, when it is told to end."""


class Soak:
    """One run."""

    def __init__(self, processes: Processes, seconds: float, requests: int) -> None:
        self._processes = processes
        self._seconds = seconds
        daemon, self._target = processes.daemon(session_timeout=SESSION_TIMEOUT)
        self._proxy, through = processes.proxy(self._target, "--every", "50-300", "--faults", STORM)
        each = -(-requests // CLIENTS)
        self._clients = [processes.client(through, count=each, keepalive=1) for _ in range(CLIENTS)]
        self._slow = processes.client(self._target, pause=10, padding=1_000)
        self._memory: list[tuple[Process, Memory]] = [
            (process, Memory(process.name)) for process in (daemon, *self._clients)
        ]
        self._dead: list[int] = []

    def run(self) -> None:
        """Run to the end. AssertionError if anything was wrong."""
        for client in (*self._clients, self._slow):
            client.under_way()
        started = time.monotonic()
        next_sample = 0.0
        victim = self._victim()
        born = started
        while (now := time.monotonic() - started) < self._seconds and any(map(_lives, self._clients)):
            if now >= next_sample:
                self._sample(now)
                next_sample += self._seconds / SAMPLES
            if time.monotonic() - born > A_LIFE:
                victim.signal(signal.SIGKILL)
                self._processes.forget(victim)
                self._dead.append(victim.number)
                victim, born = self._victim(), time.monotonic()
            if any(client.popen.poll() for client in (*self._clients, self._slow)):
                break  # It says why in its report.
            time.sleep(0.05)
        victim.stop(LAST_REPLIES)
        self._judge(time.monotonic() - started)

    def _victim(self) -> Client:
        victim = self._processes.client(self._target, window=256, padding=1_000, pause=1)
        victim.under_way()
        return victim

    def _sample(self, now: float) -> None:
        for process, memory in self._memory:
            if _lives(process):
                memory.add(now, process.resident_bytes)

    def _judge(self, seconds: float) -> None:
        for client in (*self._clients, self._slow):
            if _lives(client):
                client.signal(signal.SIGTERM)
        reports = [client.last_words(LAST_REPLIES) for client in (*self._clients, self._slow)]
        answered = sum(report.answered for report in reports)
        slowest = max(report.slowest for report in reports)
        print(f"{answered} requests in {seconds:.0f} s, {answered / seconds:.0f} a second, the slowest {slowest:.1f} s")
        print(f"{len(self._dead)} clients were killed; the proxy: {self._proxy.statistics()}")
        warm_up = WARM_UP_SHARE * seconds
        for _, memory in self._memory:
            print(f"{memory}\n  grew by {memory.growth(warm_up) / MIB:.1f} MiB after the first {warm_up:.0f} s")
        nothing_lost_nothing_doubled(self._target, reports, self._dead)
        growing = [memory.name for _, memory in self._memory if memory.grows(warm_up)]
        assert not growing, f"memory grows: {', '.join(growing)}"


def _lives(process: Process) -> bool:
    return process.popen.poll() is None


def soak(seed: int, minutes: float, requests: int = 0) -> None:
    """Run for so long, or until so many requests have been answered. AssertionError if anything was wrong."""
    with Processes(seed) as processes:
        Soak(processes, minutes * 60, requests).run()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="the longest that it takes")
    parser.add_argument("--requests", type=int, default=0, help="of all clients together; 0: as many as there is time")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    try:
        soak(given.seed, given.minutes, given.requests)
    except AssertionError as error:
        sys.exit("\n".join([f"wrong: {error}", *getattr(error, "__notes__", [])]))


if __name__ == "__main__":
    main()
