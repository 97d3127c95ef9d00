"""Workers that are killed every 50 to 300 ms: whoever asks is answered once, or told that the request is lost.

    python -m tests.chaos.workers --requests 200000
    python -m tests.chaos.workers --requests 200000 --redeliver
    python -m tests.chaos.workers --minutes 30

Eight clients ask two kernels through a proxy that mistreats their connections. The workers of both are killed by
SIGKILL and SIGSEGV, are stopped and then killed, and run out of memory; somebody pauses the kernels meanwhile. The
actors write down what they are handed, so the end shows whether anything was lost, handed out twice, or out of order.
The exit code says whether all was well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pydotcompute_client import connect
from tests.chaos.killer import Killer, descendants, is_worker
from tests.chaos.memory import MIB, Memory
from tests.chaos.processes import Process, Processes, eventually
from tests.chaos.worker_client import ASK, SEND, WorkerReport
from tests.chaos.worker_kernels import JOURNAL, RECORD, records_of

__all__ = ["KERNELS", "REDELIVERS", "Attack", "run"]

STORM = "cut=6,reset=3,stall=3,halve=1,trickle=1"
EVERY_SECONDS = 0.05, 0.3
REDELIVERS = ("patient",)
KERNELS = Path(__file__).with_name("worker_kernels.py")
SAMPLES = 120
WARM_UP_SHARE = 0.2
LAST_REPLIES = 180.0
"""Seconds in which a client has what is under way, when it is told to end."""
RESTARTED_AT_ONCE = "--limit=max_restarts=1000000", "--limit=restart_window=0.001"
"""A daemon would start a worker that dies so often only after a while, and then no more."""
FILES_MORE = 16
"""Descriptors that a daemon may have at the end beyond those of a quiet moment at the start: those of connections."""


@dataclass(frozen=True)
class Attack:
    """What is done to whom."""

    requests: int = 0
    """Of all clients together; 0: as many as there is time."""
    seconds: float = 1800.0
    """The longest that it takes."""
    kernels: tuple[str, ...] = ("lonely", "several")
    clients: int = 8
    storm: bool = True
    """Whether connections are mistreated too."""
    may_lose: bool = True
    """Whether requests may be lost, if their callers are told. If not, an actor may be handed one again."""


class _Run:
    def __init__(self, processes: Processes, attack: Attack, folder: str) -> None:
        self._attack, self._folder = attack, folder
        self._dice = random.Random(processes.seed)
        launch = [part for kernel in attack.kernels for part in ("--launch", kernel)]
        self.daemon, target = processes.daemon(
            *launch, *RESTARTED_AT_ONCE, "--log-level=error", kernels=str(KERNELS), env={JOURNAL: folder}
        )
        through = target
        if attack.storm:
            self.proxy, through = processes.proxy(target, "--every", "50-300", "--faults", STORM)
        self._files = self._open_files()
        self.clients: list[tuple[str, Process]] = []
        for number in range(attack.clients):
            kernel = attack.kernels[number % len(attack.kernels)]
            way = (ASK, SEND)[number // len(attack.kernels) % 2]
            self.clients.append((kernel, processes.run(
                f"client-{number}", "tests.chaos.worker_client", through, kernel, f"--number={number}", f"--way={way}",
                f"--count={-(-attack.requests // attack.clients)}", f"--may-lose={int(attack.may_lose)}",
                f"--in-order={int(kernel != 'several')}", f"--padding={(0, 5_000)[number % 2]}",
            )))  # fmt: skip
        self._target, self._over, self._operating = target, threading.Event(), ""
        self.pauses = 0
        self._operator = threading.Thread(target=self._operate, daemon=True)
        self._killer = Killer(self.daemon.pid, self._serving, self._dice)
        self._memory = Memory("daemon")

    def _open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    def _serving(self) -> int | None:
        """Return the process that was handed something last, by one of the kernels."""
        file = Path(self._folder, self._dice.choice(self._attack.kernels))
        try:
            with file.open("rb") as journal:
                journal.seek(-RECORD.size, os.SEEK_END)
                pid: int = RECORD.unpack(journal.read(RECORD.size))[2]
                return pid
        except OSError:
            return None

    def run(self) -> None:
        """Run to the end. AssertionError if anything was wrong."""
        for _, client in self.clients:
            first = client.line()
            assert first == "under way", f"{client.name}: {first or 'has ended'}"
        self._operator.start()
        started, next_sample = time.monotonic(), 0.0
        while (now := time.monotonic() - started) < self._attack.seconds and any(self._live()):
            if now >= next_sample:
                self._memory.add(now, self.daemon.resident_bytes)
                next_sample += self._attack.seconds / SAMPLES if not self._attack.requests else 2.0
            time.sleep(self._dice.uniform(*EVERY_SECONDS))
            self._killer.kill()
        self._over.set()
        self._operator.join(LAST_REPLIES)
        for client in self._live():
            client.signal(signal.SIGTERM)
        reports = [(kernel, self._last_words(client)) for kernel, client in self.clients]
        self._judge(time.monotonic() - started, reports)

    def _operate(self) -> None:
        """Pause and resume the kernels meanwhile, over a connection of its own."""
        try:
            asyncio.run(self._pause_and_resume())
        except Exception:
            self._operating = traceback.format_exc()

    async def _pause_and_resume(self) -> None:
        dice = random.Random(0)
        async with connect(self._target) as runtime:
            while not self._over.is_set():
                kernel = dice.choice(self._attack.kernels)
                await runtime.deactivate(kernel)
                await asyncio.sleep(dice.uniform(0.0, 0.05))
                await runtime.reactivate(kernel)
                self.pauses += 1
                await asyncio.sleep(dice.uniform(*EVERY_SECONDS))

    def _live(self) -> Iterator[Process]:
        return (client for _, client in self.clients if client.popen.poll() is None)

    def _last_words(self, client: Process) -> WorkerReport:
        last = client.line(LAST_REPLIES)
        assert last, f"{client.name} has ended without a report"
        return WorkerReport(**json.loads(last))

    def _judge(self, seconds: float, reports: list[tuple[str, WorkerReport]]) -> None:
        answered, told = (sum(getattr(report, name) for _, report in reports) for name in ("answered", "told"))
        print(f"{answered} answered and {told} told lost in {seconds:.0f} s; {dict(self._killer.done)}")
        handed_again = sum(self._again(kernel) for kernel in self._attack.kernels)
        causes = _sum_of(report.causes for _, report in reports)
        print(f"{handed_again} were handed out again; causes of what is lost: {causes}")
        wrong = [line for kernel, report in reports for line in self._wrong_in(kernel, report)]
        for kernel in self._attack.kernels:
            pids = np.unique(records_of(self._file(kernel))["pid"])
            print(f"{kernel}: {len(pids)} workers were handed something")
        print(f"{self.pauses} pauses")
        if self._operating or self._operator.is_alive():
            wrong.append(f"who pauses the kernels: {self._operating or 'does not end'}")
        warm_up = WARM_UP_SHARE * seconds
        print(f"{self._memory}\n  grew by {self._memory.growth(warm_up) / MIB:.1f} MiB after the first {warm_up:.0f} s")
        if self._memory.grows(warm_up):
            wrong.append("the daemon's memory grows")
        if not eventually(lambda: self._open_files() <= self._files + FILES_MORE):
            wrong.append(f"the daemon has {self._open_files()} open files, and had {self._files}")
        assert not wrong, "\n".join(wrong)
        served = [records_of(self._file(kernel))["pid"] for kernel in self._attack.kernels]
        started = {*descendants(self.daemon.pid), *np.unique(np.concatenate(served)).tolist()}
        assert self.daemon.end() == 0
        assert eventually(lambda: not any(map(is_worker, started))), (
            f"workers have not ended: {[*filter(is_worker, started)]}"
        )

    def _file(self, kernel: str) -> str:
        return os.path.join(self._folder, kernel)

    def _again(self, kernel: str) -> int:
        records = records_of(self._file(kernel))
        return len(records) - len(np.unique(records[["client", "number"]]))

    def _wrong_in(self, kernel: str, report: WorkerReport) -> Iterator[str]:
        name = f"client {report.number} of {kernel}"
        for problem in report.problems:
            yield f"{name}: {problem}"
        if report.answered + report.told != report.sent:
            yield f"{name}: {report.answered} answered and {report.told} told of {report.sent}"
        records = records_of(self._file(kernel))
        records = records[records["client"] == report.number]
        numbers, pids = records["number"].astype(np.int64), records["pid"]
        unique, first = np.unique(numbers, return_index=True)
        again = len(numbers) - len(unique)
        if self._attack.may_lose and again:
            yield f"{name}: {again} were handed to an actor again"
        # Tasks that ask at the same time may overtake each other in their client.
        if kernel != "several" and report.way == SEND and (np.diff(first) < 0).any():
            at = first[int(np.argmin(np.diff(first)))]
            around = [*zip(numbers[at - 3 : at + 3].tolist(), pids[at - 3 : at + 3].tolist(), strict=True)]
            yield f"{name}: an actor was handed a later one before an earlier one: (number, process) {around}"
        missing = np.setdiff1d(np.arange(1, report.sent + 1), unique)
        if len(missing) > report.told:
            yield f"{name}: no actor was handed {missing[:20]}, and it was told of {report.told}"
        if report.lost and (strange := np.setdiff1d(missing, report.lost)).size:
            yield f"{name}: no actor was handed {strange[:20]}, and it was not told so"


def _sum_of(counts: Iterator[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def run(seed: int, attack: Attack) -> None:
    """Run an attack. AssertionError if anything was wrong."""
    with tempfile.TemporaryDirectory(prefix="journal-") as folder, Processes(seed) as processes:
        _Run(processes, attack, folder).run()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.workers", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="the longest that it takes")
    parser.add_argument("--requests", type=int, default=0, help="of all clients together; 0: as many as there is time")
    text = "ask a kernel that is given again what it had in hand: then nothing may be lost"
    parser.add_argument("--redeliver", action="store_true", help=text)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    try:
        kernels = REDELIVERS if given.redeliver else Attack.kernels
        run(given.seed, Attack(given.requests, given.minutes * 60, kernels, may_lose=not given.redeliver))
    except AssertionError as error:
        sys.exit("\n".join([f"wrong: {error}", *getattr(error, "__notes__", [])]))


if __name__ == "__main__":
    main()
