"""What a template process is asked for, and how that goes to it: through a socket, with descriptors."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

from pydotcompute.wire.worker.start import Place

__all__ = ["Order", "Received", "hear", "receive", "send", "tell"]

DESCRIPTORS = 8
"""The most descriptors that come with one message."""
LONGEST = 4096
"""The most bytes of a message."""


@dataclass(frozen=True)
class Order:
    """A process that is to be forked, and what it is to find there.

    A worker gets the descriptors of its link, its marks, the file for its last words, standard output and standard
    error. Another template gets the socket for its orders, and both standard files for the time of the import.
    """

    environ: dict[str, str]
    path: list[str]
    """Where modules are found."""
    directory: str | None
    """The current directory; None leaves it as it is."""
    capacity: int = 0
    """The most messages that may be ahead of the worker's actor."""
    imports: Place | None = None
    """What the process imports before it serves as a template; None for a worker."""
    lock: str = ""
    """The lock of the numbers of fields, for a template, as text."""

    @classmethod
    def here(cls, environ: Mapping[str, str], path: list[str], **values: Any) -> Self:
        """Return an order for a process that has the environment and the directory that this process has now.

        Args:
            environ: variables of the environment beside those of this process.
            path: where modules are found.
            values: the other fields.
        """
        directory = None
        with suppress(FileNotFoundError):  # It was removed.
            directory = os.getcwd()
        return cls({**os.environ, **environ}, path, directory, **values)


@dataclass(frozen=True)
class Received:
    """An order as a template has it."""

    order: Order
    report: socket.socket
    """Where the template tells what becomes of the process."""
    descriptors: list[int]

    def close(self) -> None:
        """Close what came with the order, but for the socket for reports."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def send(control: socket.socket, order: Order, report: socket.socket, descriptors: Iterable[int]) -> None:
    """Send an order to a template.

    Raises:
        BlockingIOError: the template has too many orders that it has not read yet, or the system has too many
            descriptors under way.
        OSError: the template is gone.
    """
    # The environment may be long, and a message of a socket may not.
    text = os.memfd_create("pydotcompute-order")
    try:
        os.write(text, json.dumps(asdict(order)).encode())
        socket.send_fds(control, [b"order"], [text, report.fileno(), *descriptors])
    except OSError as error:
        if error.errno == errno.ETOOMANYREFS:
            raise BlockingIOError(*error.args) from error
        raise
    finally:
        os.close(text)


def receive(control: socket.socket) -> Received | None:
    """Return the next order; None if there will be none.

    Raises:
        OSError: too many files are open, so that not all came with the order. It is lost.
    """
    data, descriptors = hear(control)
    if not data:
        return None
    text, report, *rest = descriptors
    with open(text, "rb") as file:
        file.seek(0)
        values = json.load(file)
    imports = None if values["imports"] is None else Place(*values["imports"])
    return Received(Order(**{**values, "imports": imports}), socket.socket(fileno=report), rest)


def tell(report: socket.socket, descriptors: Iterable[int] = (), **values: Any) -> None:
    """Tell what has become of a process. If nobody wants to know, nothing happens."""
    with suppress(OSError):
        socket.send_fds(report, [json.dumps(values).encode()], descriptors)


def hear(end: socket.socket) -> tuple[bytes, list[int]]:
    """Return the next message and its descriptors. The message is empty if the other end is closed.

    Raises:
        OSError: too many files are open, so that not all descriptors came.
    """
    try:
        # A program that the process starts must not have them.
        data, descriptors, flags, _ = socket.recv_fds(end, LONGEST, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    if flags & socket.MSG_CTRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return data, descriptors
