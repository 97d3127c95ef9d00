"""The standard output and standard error of the process, and what is written to them below Python.

C libraries, `printf` in CUDA kernels and the child processes of an actor write to the file descriptors 1 and 2. Here
these become pipes, so that everything comes to the log. The other ends belong to a process of their own, the relay. In
the daemon itself, a thread that reads them might wait for a library that waits for room in the pipe, and the last words
of a process that crashes would be lost with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import warnings
from collections.abc import Mapping
from time import monotonic, sleep
from typing import TextIO

from pydotcompute_server.process.printed import LONGEST_WAIT, log_line

__all__ = ["StandardFiles"]

LONGEST_END = 0.4
"""How long the end of the process may wait for the relay to write what was printed last, in seconds."""


class StandardFiles:
    """Duplicates of the descriptors 1 and 2, as they were when the process began.

    Whoever reports a crash writes to `stderr`: it is no pipe, so nothing stands between the report and its reader.
    """

    def __init__(self) -> None:
        for descriptor in range(3):
            try:
                os.fstat(descriptor)
            except OSError:  # The process was started without this file. A pipe must not take its number.
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        self.stdout: TextIO = _duplicate(1)
        self.stderr: TextIO = _duplicate(2)
        self._relay: int | None = None

    def relay(self, sources: Mapping[int, tuple[int, str]], longest_line: int) -> None:
        """Log from now on what is written to descriptors.

        Args:
            sources: for each descriptor the level of its events, and their `source`.
            longest_line: the most bytes without a line break that are kept.
        """
        pipes = {descriptor: os.pipe() for descriptor in sources}
        with warnings.catch_warnings():
            # Python warns of threads, which NumPy may have. The relay needs nothing that they could hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._relay = os.fork()
        if self._relay == 0:
            try:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                    signal.signal(number, signal.SIG_IGN)
                nothing = os.open(os.devnull, os.O_RDWR)
                for descriptor in (0, 1, 2, self.stdout.fileno(), *(write for _, write in pipes.values())):
                    os.dup2(nothing, descriptor)
                _relay({read: sources[descriptor] for descriptor, (read, _) in pipes.items()}, longest_line)
            finally:
                os._exit(0)
        for descriptor, (read, write) in pipes.items():
            os.close(read)
            os.dup2(write, descriptor)
            os.close(write)

    def end_relay(self) -> None:
        """Give both descriptors to standard error, and wait a short time until the relay has written everything.

        The relay outlives this process if it has to: until the last child process of an actor has closed its pipe, and
        whoever reads the log has read it.
        """
        ctypes.CDLL(None).fflush(None)  # What C code has printed and not flushed.
        for descriptor in (1, 2):
            os.dup2(self.stderr.fileno(), descriptor)
        deadline = monotonic() + LONGEST_END
        with contextlib.suppress(ChildProcessError):
            while self._relay and os.waitpid(self._relay, os.WNOHANG)[0] == 0 and monotonic() < deadline:
                sleep(0.005)
        self._relay = None


def _duplicate(descriptor: int) -> TextIO:
    return open(os.dup(descriptor), "w", buffering=1, encoding="utf-8", errors="backslashreplace")


def _relay(sources: Mapping[int, tuple[int, str]], longest_line: int) -> None:
    """Log what comes out of pipes, until the last of them is closed."""
    begun = dict.fromkeys(sources, b"")
    since = dict.fromkeys(sources, 0.0)

    def log(pipe: int, line: bytes) -> None:
        level, source = sources[pipe]
        log_line(level, line.decode(errors="backslashreplace"), source)

    with selectors.DefaultSelector() as selector:
        for pipe in sources:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = [key.fd for key, _ in selector.select(LONGEST_WAIT if any(begun.values()) else None)]
            for pipe in ready:
                data = os.read(pipe, 1 << 16)
                since[pipe] = monotonic()
                *lines, begun[pipe] = (begun[pipe] + data).split(b"\n")
                for line in lines:
                    log(pipe, line)
                if not data:
                    selector.unregister(pipe)
            for pipe, line in begun.items():
                is_late = monotonic() - since[pipe] >= LONGEST_WAIT or pipe not in selector.get_map()
                if line and (is_late or len(line) > longest_line):
                    log(pipe, line)
                    begun[pipe] = b""
