"""What a process runs that describes kernel types: it imports their files as a daemon would, tells, and ends."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
from collections.abc import Iterator

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.schema import lock
from pydotcompute.wire.worker.errors import to_values
from pydotcompute.wire.worker.frames import Note, Reader, to_bytes
from pydotcompute.worker.parent import end_with
from pydotcompute_server.describing.description import describe
from pydotcompute_server.loading import LoadError, load_kernel_types

__all__ = ["main"]


def main() -> None:
    """Describe the kernel types that the parent asks for, over the socket that is named on the command line."""
    descriptor, parent = map(int, sys.argv[1:])
    sys.argv[1:] = []
    end_with(parent)
    os.set_inheritable(descriptor, False)
    faulthandler.enable()
    with socket.socket(fileno=descriptor) as link:
        _answer(link)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # A thread that a file has started must not keep the process alive.


def _answer(link: socket.socket) -> None:
    asked = next(_notes(link)).values

    def tell(what: str, body: bytes = b"", **values: object) -> None:
        link.sendall(to_bytes(Note(what, values, body)))

    lock.use(lock.parse(asked["lock"]))
    try:
        kernel_types = load_kernel_types(asked["sources"], lambda label: tell("importing", label=label))
        values, files = describe(kernel_types.values())
    except LoadError as error:
        tell("refused", text=str(error))
    except PyDotComputeError as error:
        tell("failed", error=to_values(error))
    else:
        tell("described", files, **values)


def _notes(link: socket.socket) -> Iterator[Note]:
    reader = Reader()
    while data := link.recv(1 << 16):
        for frame in reader.feed(data):
            assert isinstance(frame, Note)
            yield frame
