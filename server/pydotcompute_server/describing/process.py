"""Asks another process which kernel types some files declare."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable
from time import monotonic

from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS
from pydotcompute.schema.lock import in_force
from pydotcompute.wire.worker.errors import from_values
from pydotcompute.wire.worker.frames import Frame, LinkError, Note, Reader, to_bytes
from pydotcompute.workers.process import name_of_exit
from pydotcompute_server.describing.description import kernel_types_of
from pydotcompute_server.loading import LoadError

__all__ = ["describe_kernel_types"]

PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from pydotcompute_server.describing.command import main; main()"
)
"""What the process runs. It finds modules where this process finds them."""
START = 60.0
"""Seconds that the process has to start, before it imports the first file."""


def describe_kernel_types(
    sources: Iterable[str], patience: float = DEFAULT_LIMITS.worker_start
) -> dict[str, KernelType]:
    """Return the kernel types that these sources declare, by name, without importing them.

    Another process imports the sources, by the rules of `load_kernel_types`, and describes what they declare. The
    kernel types can be launched in worker processes only.

    Args:
        sources: as for `load_kernel_types`.
        patience: the seconds that the import of one file, or of one module, may take; a daemon takes its limit
            `worker_start`.

    Raises:
        LoadError: as of `load_kernel_types`; or the import of a file has ended the process, or takes too long; or a
            kernel type asks for `isolation="none"`.
        MessageTypeError: two message classes of one full name have different fields.
    """
    here, there = socket.socketpair()
    with here:
        with there:
            process = _spawn(there.fileno())
        try:
            here.sendall(to_bytes(Note("describe", {"sources": list(sources), "lock": in_force().text()})))
            answer = _Answer(here, process, patience).read()
        finally:
            process.kill()
            process.wait()
    if answer.what == "refused":
        raise LoadError(answer.values["text"])
    if answer.what == "failed":
        raise from_values(answer.values["error"])
    kernel_types = kernel_types_of(answer.values, answer.body)
    for kernel_type in kernel_types.values():
        if kernel_type.isolation == "none":
            raise LoadError(_wants_to_be_here(kernel_type))
    return kernel_types


def _spawn(link: int) -> subprocess.Popen[bytes]:
    path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
    return subprocess.Popen(  # noqa: S603  # It runs this very Python.
        [sys.executable, "-c", PROGRAM, str(link), str(os.getpid()), path],
        stdin=subprocess.DEVNULL,
        pass_fds=(link,),
        process_group=0,  # A Ctrl-C in the terminal is for this process, which then ends the other.
    )


def _wants_to_be_here(kernel_type: KernelType) -> str:
    return (
        f'kernel type {kernel_type.name!r} has isolation="none", but with --isolation process the daemon imports no '
        "file of kernels; leave that setting out, or serve the kernel by a daemon without --isolation process"
    )


class _Answer:
    """What the other process answers.

    Args:
        link: the socket to the process.
        process: the process.
        patience: the seconds that it may say nothing.
    """

    def __init__(self, link: socket.socket, process: subprocess.Popen[bytes], patience: float) -> None:
        self._link, self._process, self._patience = link, process, patience
        self._reader = Reader()
        self._label = "the process that imports kernels"  # What it imports.

    def read(self) -> Note:
        """Return the last note of the process. LoadError if it ends without one, or takes too long."""
        ended = os.pidfd_open(self._process.pid)
        try:
            deadline = monotonic() + START
            while True:
                watched: list[socket.socket | int] = [self._link, ended]
                readable, _, _ = select.select(watched, [], [], max(0.0, deadline - monotonic()))
                if not readable:
                    raise LoadError(f"{self._label}: its import takes longer than {self._patience:g} seconds")
                data = self._link.recv(1 << 20) if self._link in readable else b""
                if not data:  # A process that it has started may hold the socket open.
                    raise LoadError(f"{self._label}: the process that imports it {self._how_it_ended()}")
                for frame in self._frames(data):
                    if not isinstance(frame, Note) or frame.what != "importing":
                        assert isinstance(frame, Note)
                        return frame
                    self._label = str(frame.values["label"])
                    deadline = monotonic() + self._patience
        finally:
            os.close(ended)

    def _frames(self, data: bytes) -> list[Frame]:
        try:
            return list(self._reader.feed(data))
        except LinkError as error:
            raise LoadError(f"{self._label}: the process that imports it has broken its link: {error}") from error

    def _how_it_ended(self) -> str:
        self._process.kill()  # It may have closed the socket alone.
        return name_of_exit(self._process.wait())[1]
