"""A daemon, proxies and clients as processes, none of which outlives the `with` block."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from tests.chaos.client import Report

__all__ = ["PATIENCE", "Client", "Daemon", "Process", "Processes", "Proxy", "eventually", "seed_of"]

ROOT = Path(__file__).parents[2]
KERNELS = Path(__file__).with_name("kernels.py")
PATIENCE = 30.0
"""Seconds that anything may take that ought to happen soon."""


def seed_of(default: int) -> int:
    """The seed of a test: its own, or CHAOS_SEED of the environment."""
    return int(os.environ.get("CHAOS_SEED", default))


def eventually(holds: Callable[[], bool], timeout: float = PATIENCE) -> bool:
    """Wait until it holds, for what can be asked and not awaited; whether it came to hold."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Process:
    """A process in a group of its own, whose output is read as it comes."""

    def __init__(self, name: str, command: list[str], stderr: IO[bytes], env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    @property
    def pid(self) -> int:
        """Its id, and that of its group."""
        return self.popen.pid

    def started(self) -> str:
        """The address in its first line of output, if that is what it says."""
        first = self.line()
        found = re.fullmatch(r"listening on (\S+:\d+)", first)
        assert found, f"{self.name}: not what a first line should be: {first!r}"
        return found[1]

    def line(self, timeout: float = PATIENCE) -> str:
        """The next line of its output; empty if it has ended."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"{self.name} says nothing for {timeout:g} s") from None

    def order(self, text: str, timeout: float = PATIENCE) -> str:
        """Give it a line of input; returns its answer."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{text}\n")
        self.popen.stdin.flush()
        return self.line(timeout)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    def end(self, timeout: float = PATIENCE) -> int:
        """Ask it to end, and wait until it has; returns its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until it has ended."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} has not ended within {timeout:g} s") from None

    def kill(self) -> None:
        """End it, and all that it has started, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()
        self._reader.join()
        for stream in (self.popen.stdin, self.popen.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:  # An order that it never read.
                continue

    @property
    def resident_bytes(self) -> int:
        """The memory that it has now."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Daemon(Process):
    """`pydotcompute-server` with the kernels of the suite launched."""

    def __init__(
        self,
        stderr: IO[bytes],
        session_timeout: float | None,
        arguments: tuple[str, ...],
        kernels: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        script = os.path.join(sysconfig.get_path("scripts"), "pydotcompute-server")
        command = [script, kernels, "--listen", "127.0.0.1:0", *arguments]
        timeout = {} if session_timeout is None else {"PYDOTCOMPUTE_SESSION_TIMEOUT": f"{session_timeout:g}"}
        super().__init__("daemon", command, stderr, {**timeout, **(env or {})})


class Proxy(Process):
    """`tests.chaos.proxy` in front of a daemon."""

    def __init__(self, stderr: IO[bytes], target: str, seed: int, arguments: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "tests.chaos.proxy", "--to", target, "--seed", str(seed), *arguments]
        super().__init__("proxy", command, stderr)

    def statistics(self) -> dict[str, Any]:
        """What it has done so far."""
        answer: dict[str, Any] = json.loads(self.order("statistics"))
        return answer

    def faults(self) -> int:
        """How often it has mistreated a connection."""
        return sum(self.statistics()["faults"].values())


class Client(Process):
    """`tests.chaos.client`."""

    def __init__(self, stderr: IO[bytes], target: str, kernel: str, number: int, options: Mapping[str, object]) -> None:
        command = [sys.executable, "-m", "tests.chaos.client", target, kernel, "--number", str(number)]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        super().__init__(f"client {number}", command, stderr)
        self.number = number

    def under_way(self) -> None:
        """Wait until it has had a reply."""
        first = self.line()
        assert first == "under way", f"{self.name}: {first or 'has ended'}"

    def last_words(self, timeout: float = PATIENCE) -> Report:
        """What it has seen, when it has ended."""
        last = self.line(timeout)
        while last == "under way":
            last = self.line(timeout)
        assert last, f"{self.name} has ended without a report"
        self.wait()
        return Report(**json.loads(last))

    def stop(self, timeout: float = PATIENCE) -> Report:
        """Let it receive what is under way, and end."""
        self.signal(signal.SIGTERM)
        return self.last_words(timeout)


P = TypeVar("P", bound=Process)


class Processes:
    """Starts processes, and at the end of the block kills those that are left.

    An exception that leaves the block is given the seed, and the last words of each process.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._folder = tempfile.TemporaryDirectory(prefix="chaos-")
        self._started: list[Process] = []
        self._logs: list[Path] = []
        self._clients = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for process in self._started:
                process.kill()
            if error is not None:
                error.add_note(f"CHAOS_SEED={self.seed}")
                for log in self._logs:
                    if keep := os.environ.get("CHAOS_LOGS"):
                        shutil.copy(log, keep)
                    if text := log.read_text(errors="replace")[-3_000:]:
                        error.add_note(f"-- stderr of {log.stem}\n{text}")
        finally:
            self._folder.cleanup()

    def daemon(
        self,
        *arguments: str,
        session_timeout: float | None = None,
        kernels: str = str(KERNELS),
        env: Mapping[str, str] | None = None,
    ) -> tuple[Daemon, str]:
        """Start a daemon, with all kernels of the suite launched; returns it and its address."""
        arguments = arguments or ("--launch", "all")
        daemon = self._start(lambda stderr: Daemon(stderr, session_timeout, arguments, kernels, env), "daemon")
        return daemon, daemon.started()

    def proxy(self, target: str, *arguments: str) -> tuple[Proxy, str]:
        """Start a proxy in front of a daemon; returns it and its address."""
        proxy = self._start(lambda stderr: Proxy(stderr, target, self.seed, arguments), "proxy")
        return proxy, proxy.started()

    def client(self, target: str, kernel: str = "ledger", **options: object) -> Client:
        """Start a client, with options of `tests.chaos.client`; its number is nobody else's."""
        self._clients += 1
        number = self._clients
        return self._start(lambda stderr: Client(stderr, target, kernel, number, options), f"client-{number}")

    def run(self, name: str, module: str, *arguments: str) -> Process:
        """Start a module of the suite as a program."""
        command = [sys.executable, "-m", module, *arguments]
        return self._start(lambda stderr: Process(name, command, stderr), name)

    def _start(self, make: Callable[[IO[bytes]], P], name: str) -> P:
        log = Path(self._folder.name) / f"{name}.log"
        self._logs.append(log)
        with log.open("ab") as stderr:
            process = make(stderr)
        self._started.append(process)
        return process

    def forget(self, process: Process) -> None:
        """Kill a process now, and remember nothing of it."""
        process.kill()
        self._started.remove(process)

    def log(self, name: str) -> str:
        """What a process has written to stderr."""
        return (Path(self._folder.name) / f"{name}.log").read_text(errors="replace")
