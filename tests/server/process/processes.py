"""Daemons as processes of their own: started, told to end, and looked at."""

import os
import queue
import signal
import subprocess
import sysconfig
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.stubs import PATIENCE, Wire

COMMAND = os.path.join(sysconfig.get_path("scripts"), "pydotcompute-server")


def environment(**variables: str) -> dict[str, str]:
    """This process's, without what would tell a daemon what to do."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYDOTCOMPUTE_")}
    return {**plain, **variables}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the daemon to its end."""
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, env=environment(**variables)
    )


class Process:
    """A daemon whose output is read as it comes."""

    def __init__(self, arguments: tuple[str, ...], variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**variables),
        )
        self.logged: list[str] = []
        """The lines of its stderr."""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=args, daemon=True)
            for args in ((self.process.stdout, self._lines.put), (self.process.stderr, self.logged.append))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, put: Callable[[str], None]) -> None:
        with stream:
            for line in stream:
                put(line)
        if put == self._lines.put:
            self._lines.put(None)

    def line(self) -> str | None:
        """The next line of its stdout; None at the end."""
        return self._lines.get(timeout=PATIENCE)

    def address(self) -> str:
        """Where it listens, as its first line says."""
        line = self.line()
        assert line is not None, "".join(self.logged)
        assert line.startswith("listening on ")
        return line.removeprefix("listening on ").rstrip("\n")

    def ask_to_end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join()
        return code

    def until_logged(self, text: str, times: int = 1) -> str:
        """Wait until its log has so many lines that contain this; returns the first."""
        deadline = time.monotonic() + PATIENCE
        while len(found := [line for line in self.logged if text in line]) < times:
            assert time.monotonic() < deadline, f"no {text!r} in\n{''.join(self.logged)}"
            time.sleep(0.005)
        return found[0]

    def log_line(self, text: str) -> str:
        """The one line of its log that contains this."""
        (line,) = [line for line in self.logged if text in line]
        return line


@contextmanager
def started(*arguments: str, **variables: str) -> Iterator[Process]:
    """A daemon that has been started, and does not outlive the block."""
    daemon = Process(arguments, variables)
    try:
        yield daemon
    finally:
        daemon.process.kill()
        daemon.ended()


@contextmanager
def serving(*arguments: str, **variables: str) -> Iterator[tuple[Process, str]]:
    """A daemon that listens on a free port, with its address."""
    with started(*arguments, "--listen", "127.0.0.1:0", **variables) as daemon:
        yield daemon, daemon.address()


@asynccontextmanager
async def wired(target: str) -> AsyncIterator[Wire]:
    """The services of the daemon at this address."""
    async with grpc.aio.insecure_channel(target) as channel:
        yield Wire(channel)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def until_exists(path: Path) -> None:
    """Wait until a process has made this file."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.005)
