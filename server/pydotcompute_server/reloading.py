"""Loads the files of kernels again while the daemon runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from pydotcompute.exceptions import InvalidConfigurationError, KernelStateError, MessageTypeError, PyDotComputeError
from pydotcompute.messages.raw import Raw
from pydotcompute.protobuf.breaking import Breaking, CannotCompareError, breaking_changes
from pydotcompute.protobuf.conventions import required_fields
from pydotcompute.protobuf.export.files import compiled
from pydotcompute.protobuf.packages import by_package
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.ring_kernels.actor.runner import Decide
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import LIVING, RingKernel
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.wire.worker.start import Elsewhere
from pydotcompute.workers.templates import TEMPLATES
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.describing.process import describe_kernel_types
from pydotcompute_server.loading import LoadError

__all__ = ["Reloaded", "Reloader", "cannot_reload"]

logger = logging.getLogger(__name__)

_ROLES = ("input_type", "output_type")
_DESCRIBED = ("__elsewhere__", "__sample_json__", "__proto_files__")
"""What a class has that stands for one of another process."""


def cannot_reload() -> PyDotComputeError:
    """Return the error of a daemon that has imported the files of its kernels itself."""
    problem = "the daemon has imported the files of its kernels itself, and cannot do that again; start it with process"
    return InvalidConfigurationError("isolation", "none", problem)


@dataclass(frozen=True)
class Reloaded:
    """What is new after a reload."""

    kernel_ids: list[str]
    """The kernels that have new workers."""
    new_kernel_types: list[str]
    """The names of the kernel types that there were not before."""
    changed_types: list[str]
    """The full names of the message types that have changed."""


@dataclass
class _Change:
    """What is to change."""

    kernel_types: dict[str, KernelType]
    """The kernel types of the files, by name. A message class that has not changed is the one that there was."""
    classes: list[tuple[type, type]]
    """Each message class that has changed, as it was and as it is."""
    catalog: Catalog
    """The types and services of all kernel types."""


class Reloader:
    """Loads the files of kernels again while the daemon runs. Another process imports them.

    Args:
        sources: what the daemon was started with; see `load_kernel_types`.
        kernel_types: the kernel types that can be launched, by name, which a reload changes.
        runtime: the runtime with the kernels.
        catalog: the types and services, which a reload changes.
        patience: the seconds that the import of one file may take.
    """

    def __init__(
        self,
        sources: Sequence[str],
        kernel_types: dict[str, KernelType],
        runtime: RingKernelRuntime,
        catalog: Catalog,
        patience: float,
    ) -> None:
        self.sources = sources
        self._kernel_types = kernel_types
        self._runtime, self._catalog = runtime, catalog
        self._patience = patience
        self._one_at_a_time = asyncio.Lock()
        self.forget: Callable[[Collection[str]], None] | None = None
        """Called with the names of the services whose handlers must be found anew."""

    async def reload(self, file: str = "", require: Callable[[str], None] | None = None) -> Reloaded:
        """Load files again. New workers take over, and old ones finish what they have in hand.

        Args:
            file: the one of the daemon's sources that is loaded again, or a file in a directory that is one; empty for
                all sources.
            require: called with the id of each kernel, and the name of each kernel type, that is concerned. It raises
                if whoever asks may not do this.

        Raises:
            InvalidConfigurationError: the file is none of the daemon's, or cannot be imported, or a change would break
                programs. Nothing has changed.
            KernelFailedError: a new actor raised before it first waited. Nothing has changed.
        """
        async with self._one_at_a_time:
            sources = self._chosen(file)
            label = file or " ".join(sources)
            try:
                found = await asyncio.to_thread(describe_kernel_types, sources, self._patience)
                change = await self._change(found, sources)
                TEMPLATES.forget()  # They see if a file has changed, but not if a module has that it imports.
            except (LoadError, MessageTypeError, CannotCompareError) as error:
                raise InvalidConfigurationError("file", label, str(error).removeprefix(f"{label}: ")) from error
            kernels = [each for each in self._runtime.all_kernels() if self._is_concerned(each, change)]
            if require is not None:
                for name in (*change.kernel_types, *(kernel.kernel_id for kernel in kernels)):
                    require(name)
            return await self._apply(change, kernels)

    def _chosen(self, file: str) -> list[str]:
        """Return the sources to load."""
        if not file:
            return list(self.sources)
        path = Path(file).resolve()
        for source in self.sources:
            if source == file or (Path(source).exists() and Path(source).resolve() == path):
                return [source]
        if any(Path(source).is_dir() and path.parent == Path(source).resolve() for source in self.sources):
            return [file]
        problem = f"the daemon was not started with it, but with {', '.join(self.sources)}"
        raise InvalidConfigurationError("file", file, problem)

    # -- what is to change ---------------------------------------------------------------------------------------------

    async def _change(self, found: dict[str, KernelType], sources: Sequence[str]) -> _Change:
        """Return what is to change. LoadError if that would break programs."""
        is_all = sources == list(self.sources)
        gone = [
            name
            for name, known in self._kernel_types.items()
            if name not in found and (is_all or any(_is_of(known, source) for source in sources))
        ]
        if gone:
            raise LoadError(f"kernel type {gone[0]!r} is gone; declare it again, or start the daemon anew")
        for name, kernel_type in found.items():
            known = self._kernel_types.get(name, kernel_type)
            if (
                not is_all
                and not any(_is_of(known, source) for source in sources)
                and _file(known) != _file(kernel_type)
            ):
                raise LoadError(f"kernel type {name!r} is already declared in {_file(known)}")
        adapted, classes = {}, {}
        for name, kernel_type in found.items():
            roles: dict[str, Any] = {}
            for role in _ROLES:
                both = self._kernel_types.get(name), kernel_type
                old, new = (None if each is None else getattr(each, role) for each in both)
                if old is not None and new is not None and _structure(old) == _structure(new):
                    _describe_anew(old, new)
                    roles[role] = old
                elif old is not None and new is not None:
                    classes[old] = new
            adapted[name] = replace(kernel_type, **roles)
        catalog = self._catalog.replaced_by(*{**self._kernel_types, **adapted}.values())
        before, now = _files(self._catalog), _files(catalog)
        if classes and (breaking := await asyncio.to_thread(breaking_changes, before, now)):
            raise LoadError(_in_words(breaking))
        return _Change(adapted, list(classes.items()), catalog)

    def _is_concerned(self, kernel: RingKernel[Any, Any], change: _Change) -> bool:
        known = self._kernel_types.get(kernel.type.name)
        return kernel.type is known and known.name in change.kernel_types and kernel.state is not KernelState.TERMINATED

    # -- the change ----------------------------------------------------------------------------------------------------

    async def _apply(self, change: _Change, kernels: Sequence[RingKernel[Any, Any]]) -> Reloaded:
        for old, new in change.classes:
            # What has come as a message of the old class and still waits is one of the new class then.
            if (raw := old.__dict__.get("__raw__")) is not None:
                setattr(new, "__raw__", raw)  # noqa: B010  # It is no attribute that mypy knows.
        decisions: list[tuple[RingKernel[Any, Any], Decide]] = []
        try:
            for kernel in kernels:
                if kernel.state in LIVING:
                    with suppress(KernelStateError):  # It has ended meanwhile.
                        decisions.append((kernel, await kernel.try_out(change.kernel_types[kernel.type.name])))
        except BaseException:
            await asyncio.gather(*(decide(False) for _, decide in decisions))
            raise
        new_types = [name for name in change.kernel_types if name not in self._kernel_types]
        for _, new in change.classes:
            _stand_for(new, change.catalog)
        self._catalog.become(change.catalog)
        self._kernel_types.update(change.kernel_types)
        if self.forget is not None:
            self.forget([each.service for each in change.kernel_types.values()])
        for kernel in kernels:
            if kernel.state is KernelState.FAILED:  # A restart takes the new text.
                kernel.become(change.kernel_types[kernel.type.name])
        await asyncio.gather(*(decide(True) for _, decide in decisions))
        changed = sorted(self._catalog.codec(new).descriptor.full_name for _, new in change.classes)
        done = Reloaded([kernel.kernel_id for kernel, _ in decisions], new_types, changed)
        logger.info(
            "kernels were loaded again",
            extra={"kernels": done.kernel_ids, "new_types": new_types, "changed_messages": changed},
        )
        return done


def _file(kernel_type: KernelType) -> Path | None:
    """Return the file that declares a kernel type."""
    found: Elsewhere | None = getattr(kernel_type.func, "__elsewhere__", None)
    return None if found is None or found.place is None else Path(found.place.file).resolve()


def _is_of(kernel_type: KernelType, source: str) -> bool:
    """Return True if a source declares a kernel type."""
    file, path = _file(kernel_type), Path(source)
    if path.exists():
        return file is not None and (file == path.resolve() or (path.is_dir() and file.parent == path.resolve()))
    found: Elsewhere | None = getattr(kernel_type.func, "__elsewhere__", None)
    return found is not None and found.place is not None and f"{found.place.module}.".startswith(f"{source}.")


def _structure(cls: type) -> tuple[list[bytes], set[str]]:
    """Return what differs if the type of a message class has changed."""
    pool = TypePool()
    files = pool.file_set(pool.add(cls).full_name).file
    required = required_fields(files)
    for file in files:
        file.ClearField("source_code_info")
    return [file.SerializeToString(deterministic=True) for file in files], required


def _describe_anew(old: Any, new: Any) -> None:
    """Let a class stand for what the new one stands for, which has the same structure."""
    for name in _DESCRIBED:
        if name in new.__dict__:
            setattr(old, name, new.__dict__[name])


def _stand_for(cls: Any, catalog: Catalog) -> None:
    """Let the `Raw` messages of an older class stand for this class."""
    raw: type[Raw] | None = cls.__dict__.get("__raw__")
    if raw is not None:
        raw.message_class = cls
        raw.decode = staticmethod(catalog.codec(cls).decode_checked)


def _files(catalog: Catalog) -> FileDescriptorSet:
    return compiled(FileDescriptorSet(file=by_package(catalog.pool.files)))


def _in_words(breaking: Sequence[Breaking]) -> str:
    changes = "; ".join(map(str, breaking))
    return f"this breaks programs: {changes}"
