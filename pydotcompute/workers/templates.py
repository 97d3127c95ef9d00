"""The templates of this process, from which its workers are forked."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any

from pydotcompute.schema.lock import in_force
from pydotcompute.wire.worker.start import Place, Start
from pydotcompute.worker.orders import Order, hear, send
from pydotcompute.workers.child import Child, TemplateLostError, UnfitFileError

__all__ = ["TEMPLATES", "Templates"]

logger = logging.getLogger(__name__)

PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from pydotcompute.worker.command import main; main()"
)
"""What the first template runs. It finds modules where this process finds them."""
EARLY = ("PYTHON", "LD_", "GLIBC_", "MALLOC_", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "NPY_")
"""How the names of variables begin that are read when a process starts, or by NumPy when it is imported."""
AGAIN = 0.01
"""Seconds after which an order is sent again for which a template had no room."""
PATIENCE = 20.0
"""Seconds within which a template forks. One that was stopped, for example, never does."""
LAST_WORDS = 64 << 10
"""The most bytes that are read of what a template says on its standard error."""


class _Template:
    """A template that runs, and the socket for orders to it."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        control.setblocking(False)
        self.has_forked = False
        """True once it has forked: its imports have ended."""
        self._since = monotonic()

    @property
    def is_late(self) -> bool:
        """True if it has not forked yet, and should have."""
        return not self.has_forked and monotonic() - self._since > PATIENCE

    async def fork(self, order: Order, descriptors: Sequence[int]) -> Child:
        """Let a process be forked.

        Raises:
            TemplateLostError: the template has ended or does not answer, or its file cannot be imported.
            OSError: the system allows no more processes or files.
        """
        try:
            # Imports may take long, and a worker that waits for them has its own time.
            async with asyncio.timeout(PATIENCE if self.has_forked else None):
                child = await self._born(order, descriptors)
        except TimeoutError:
            raise TemplateLostError("it does not answer") from None
        self.has_forked = True
        return child

    async def _born(self, order: Order, descriptors: Sequence[int]) -> Child:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with there:
                while True:
                    try:
                        self.order(order, there, descriptors)
                        break
                    except BlockingIOError:
                        await asyncio.sleep(AGAIN)
        except BaseException:
            here.close()
            raise
        here.setblocking(False)
        return await Child.born(here)

    def order(self, order: Order, report: socket.socket, descriptors: Sequence[int]) -> None:
        """Send an order. Raises BlockingIOError if there is no room, and TemplateLostError if the template is gone."""
        if self._control.fileno() < 0:
            raise TemplateLostError("it was left")
        try:
            send(self._control, order, report, descriptors)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise TemplateLostError("it has ended") from error

    def leave(self) -> None:
        """Order nothing more. The template ends once its children have ended."""
        self._control.close()


class _First(_Template):
    """The template that has imported this package."""

    def __init__(self, lifeline: int) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._words = os.memfd_create("pydotcompute-template")
        self._early = _early()
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        try:
            with there:
                self._process = subprocess.Popen(  # noqa: S603  # It runs this very Python.
                    [sys.executable, "-c", PROGRAM, str(there.fileno()), str(lifeline), path],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._words,
                    pass_fds=(there.fileno(), lifeline),
                    process_group=0,
                )
        except BaseException:
            here.close()
            os.close(self._words)
            raise
        super().__init__(here)

    @property
    def is_fit(self) -> bool:
        """False if it has ended, or was started with variables of the environment that have changed."""
        return self._process.poll() is None and self._early == _early()

    def last_words(self) -> str:
        """Return what it has said when it ended, in one line."""
        text = os.pread(self._words, LAST_WORDS, 0).decode(errors="replace").strip()
        return f"exit code {self._process.poll()} {text.splitlines()[-1] if text else ''}".strip()

    @property
    def has_ended(self) -> bool:
        """True if it has ended."""
        return self._process.poll() is not None

    def end(self) -> None:
        """End it. Its children go on."""
        self._process.kill()
        self._process.wait()
        self.close()

    def close(self) -> None:
        """Close what belongs to it."""
        self.leave()
        os.close(self._words)

    def disown(self) -> None:
        """Close what belongs to it, in a fork of this process, whose child it is not."""
        self._process.returncode = 0
        self.close()


class _OfFile(_Template):
    """A template that has imported a file of kernels, or is about to."""

    def __init__(self, first: _First, order: Order, version: Any, descriptors: Sequence[int]) -> None:
        self.version = version
        """What must be the same for the file to be the same."""
        self.first = first
        """The template from which it comes."""
        self.came = False
        """True if it is known to have been forked. To be asked after `leave`."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(here)
        self._report, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._report.setblocking(False)
        try:
            with there, report:
                first.order(order, report, (there.fileno(), *descriptors))
        except BaseException:
            self.leave()
            raise

    async def fork(self, order: Order, descriptors: Sequence[int]) -> Child:
        """See `_Template`."""
        child = await super().fork(order, descriptors)
        self.first.has_forked = True
        return child

    def leave(self) -> None:
        """See `_Template`. If it is still about to import its file, it is ended."""
        super().leave()
        if not self.has_forked:
            with suppress(OSError):
                data, descriptors = hear(self._report)
                if descriptors:
                    self.came = True
                    child = Child(json.loads(data)["pid"], descriptors[0], self._report)
                    child.kill()
                    child.close()
        self._report.close()


class Templates:
    """The templates of this process. Any thread may use them."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._lifeline: tuple[int, int] | None = None
        self._first: _First | None = None
        self._firsts_before: list[_First] = []  # They end when their children have ended.
        self._of_files: dict[tuple[str, str], _OfFile] = {}
        self._unfit: dict[tuple[str, str], Any] = {}  # Files that cannot be imported by templates, with their version.

    def prepare(self) -> None:
        """Start the first template, unless there is one. Raises OSError if the system allows no more processes."""
        with self._guard:
            self._first_template()

    async def fork(self, start: Start, descriptors: Sequence[int], capacity: int) -> Child:
        """Fork a worker, from a template that has imported the file if there can be one.

        If the worker has an environment of its own, it imports the file itself, so that the file finds that.

        Args:
            start: what the worker is to run.
            descriptors: those of the link, the marks, the last words, standard output and standard error.
            capacity: the most messages that may be ahead of the actor.

        Raises:
            OSError: the system allows no more processes or files.
        """
        order = Order.here(start.environ, _path(start), capacity=capacity)
        place = start.func
        if not start.environ:
            template = self._template_of(place, order, descriptors[-2:])
            if template is not None:
                try:
                    return await template.fork(order, descriptors)
                except TemplateLostError as lost:
                    self._leave(place, template, lost)
                except BaseException:  # It may hang in the import.
                    if not template.has_forked:
                        self._leave(place, template)
                    raise
        try:
            return await self._fork_from_first(order, descriptors)
        except TemplateLostError:
            pass
        try:
            return await self._fork_from_first(order, descriptors)
        except TemplateLostError as error:
            raise OSError(f"there is no template: {error}") from error

    async def _fork_from_first(self, order: Order, descriptors: Sequence[int]) -> Child:
        with self._guard:
            first = self._first_template()
        try:
            return await first.fork(order, descriptors)
        except TemplateLostError as error:
            self._leave_first(first)
            raise TemplateLostError(f"{error} ({first.last_words()})") from error
        except BaseException:
            if first.is_late:
                self._leave_first(first)
            raise

    def forget(self) -> None:
        """Let the files be imported again for workers that are started from now on."""
        with self._guard:
            for template in self._of_files.values():
                template.leave()
            self._of_files.clear()
            self._unfit.clear()

    def end(self) -> None:
        """End the templates. Workers go on."""
        self.forget()
        with self._guard:
            for first in (self._first, *self._firsts_before):
                if first is not None:
                    first.end()
            self._first, self._firsts_before = None, []

    def forked(self) -> None:
        """Begin anew in a fork of this process: the templates and the workers are its parent's."""
        for template in self._of_files.values():
            template.has_forked = True  # It is not for this process to end it.
            template.leave()
        for first in (self._first, *self._firsts_before):
            if first is not None:
                first.disown()
        for descriptor in self._lifeline or ():
            os.close(descriptor)
        self.__init__()  # type: ignore[misc]

    def _leave_first(self, first: _First) -> None:
        with self._guard:
            if self._first is first:
                self._replace_first()

    def _replace_first(self) -> None:
        """Order nothing more of the first template: the next one is started when it is needed."""
        if self._first is not None:
            self._first.leave()
            self._firsts_before.append(self._first)
            self._first = None

    def _first_template(self) -> _First:
        first = self._first
        if first is not None and not first.is_fit:
            self._replace_first()
            first = None
        if first is None:
            for ended in [each for each in self._firsts_before if each.has_ended]:
                ended.close()
                self._firsts_before.remove(ended)
            if self._lifeline is None:
                self._lifeline = os.pipe()
            self._first = first = _First(self._lifeline[0])
        return first

    def _template_of(self, place: Place, order: Order, standard: Sequence[int]) -> _OfFile | None:
        """Return the template of a file, which is started if need be; None if there cannot be one."""
        lock = in_force().text()
        key = place.module, place.file
        with suppress(OSError):
            stat = os.stat(place.file)
            version = stat.st_mtime_ns, stat.st_size, order.environ, order.path, order.directory, lock
            with self._guard:
                if self._unfit.get(key) == version:
                    return None
                template = self._of_files.get(key)
                if template is not None and template.version != version:
                    self._of_files.pop(key).leave()
                    template = None
                if template is None:
                    importing = Order(order.environ, order.path, order.directory, imports=place, lock=lock)
                    try:
                        template = _OfFile(self._first_template(), importing, version, standard)
                    except TemplateLostError:
                        return None
                    self._of_files[key] = template
                return template
        return None

    def _leave(self, place: Place, template: _OfFile, why: TemplateLostError | None = None) -> None:
        key = place.module, place.file
        with self._guard:
            if self._of_files.get(key) is template:
                del self._of_files[key]
                template.leave()
                if template.is_late and not template.came and template.first is self._first:
                    self._replace_first()
            if isinstance(why, UnfitFileError):
                self._unfit[key] = template.version
                logger.warning("%s: each worker imports it anew, because %s", place.file, why)


def _path(start: Start) -> list[str]:
    """Return where modules are found: as in this process, and after that where the kernel's file is from."""
    here = [each for each in sys.path if isinstance(each, str)]
    own = os.path.dirname(start.func.file)  # Another folder may have a file of the same name.
    return here + sorted((folder for folder in start.path if folder not in here), key=lambda each: each != own)


def _early() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(EARLY)}


TEMPLATES = Templates()
"""The templates of this process."""
os.register_at_fork(after_in_child=TEMPLATES.forked)
atexit.register(TEMPLATES.end)
