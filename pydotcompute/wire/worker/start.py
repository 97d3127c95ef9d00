"""What a worker is told when it starts: which function it runs, where that is found, and with which settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.schema.lock import in_force

__all__ = ["Elsewhere", "Place", "Start", "place_of"]

BEATS = 16
"""How often a process shows that it lives within its `hang_timeout`."""


class Place(NamedTuple):
    """Where a function or a class is found."""

    module: str
    file: str
    name: str
    """The qualified name in the module."""


class Elsewhere(NamedTuple):
    """Where a function or a class is found for which something else stands in this process: its `__elsewhere__`."""

    place: Place | None
    """The place; None if another process cannot find it."""
    problem: str
    """Why there is no place."""
    path: tuple[str, ...]
    """The folders in which modules are found there, those of `sys.path` included."""


@dataclass(frozen=True)
class Start:
    """What a worker runs."""

    kernel_id: str
    func: Place
    input_type: Place
    output_type: Place | None
    name: str
    """The name of the kernel type."""
    device: str
    memory_limit: int | None
    config: dict[str, Any]
    limits: dict[str, Any]
    lock: str
    """The lock of the numbers of fields, as text: both sides must give a field the same number."""
    log_level: int
    """The level from which on the worker sends what is logged."""
    memory: int | None = None
    """The most bytes that the process may allocate."""
    beat: float | None = None
    """The seconds between two signs of life; None if it need not show any."""
    cpus: list[int] | None = None
    """The CPUs that the process may run on."""
    nice: int | None = None
    """The niceness of the process."""
    environ: dict[str, str] = field(default_factory=dict)
    """Variables of the worker's environment beside those of the kernel's process."""
    asked_device: str = ""
    """The device as the kernel type names it, if it has another name in the worker."""
    path: tuple[str, ...] = ()
    """The folders in which modules are found, beside those of the worker's own `sys.path`."""
    outputs: int = 0
    """The outputs of the workers before this one that nobody has received yet: they take room."""

    @classmethod
    def of(cls, kernel_type: KernelType, config: RingKernelConfig, limits: RuntimeLimits, log_level: int) -> Start:
        """Return what a worker of a kernel is told.

        Args:
            kernel_type: the type of the kernel.
            config: the settings of the kernel.
            limits: the limits of its runtime.
            log_level: the level from which on the worker sends what is logged.

        Raises:
            InvalidConfigurationError: another process cannot find the function or a message class, or the kernel has no
                input type.
        """
        if kernel_type.input_type is None:
            problem = "the messages go to another process, so the kernel needs an input_type"
            raise InvalidConfigurationError("isolation", "process", problem)
        output_type = kernel_type.output_type
        elsewhere = _elsewhere(kernel_type.func)
        own = kernel_type.worker_limits
        memory_limit = kernel_type.memory_limit if isinstance(kernel_type.memory_limit, int) else None
        on_cpu = kernel_type.device == "cpu"
        return cls(
            config.kernel_id,
            place_of(kernel_type.func),
            place_of(kernel_type.input_type),
            None if output_type is None else place_of(output_type),
            kernel_type.name,
            kernel_type.device,
            None if on_cpu else memory_limit,
            asdict(config),
            {name: getattr(limits, name) for name in RuntimeLimits.__dataclass_fields__},
            in_force().text(),
            log_level,
            memory=memory_limit if on_cpu else None,
            beat=None if own.hang_timeout is None else own.hang_timeout / BEATS,
            cpus=None if own.cpus is None else list(own.cpus),
            nice=own.nice,
            path=() if elsewhere is None else _own_first(elsewhere),
        )

    @classmethod
    def read(cls, values: dict[str, Any]) -> Start:
        """Return what `asdict` has made of a start, and JSON of that."""
        output_type = values["output_type"]
        places: dict[str, Any] = {
            "func": Place(*values["func"]),
            "input_type": Place(*values["input_type"]),
            "output_type": None if output_type is None else Place(*output_type),
            "path": tuple(values["path"]),
        }
        return cls(**{**values, **places})

    def kernel_type(self, find: Callable[[Place], Any]) -> KernelType:
        """Return the kernel type, of what `find` returns for each place."""
        return KernelType(
            self.name,
            find(self.func),
            RingKernelConfig(**self.config),
            find(self.input_type),
            None if self.output_type is None else find(self.output_type),
            device=self.device,
            memory_limit=self.memory_limit,
        )


def place_of(value: Any) -> Place:
    """Return where a function or a class is found. Raises InvalidConfigurationError if another process finds it not."""
    elsewhere = _elsewhere(value)
    if elsewhere is not None:
        if elsewhere.place is None:
            raise InvalidConfigurationError("isolation", "process", elsewhere.problem)
        return elsewhere.place
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    of_it = (each for each in _modules(module) if value is _found_in(each, name))
    file = getattr(next(of_it, None), "__file__", None)
    if file is None:
        problem = (
            f"another process cannot import {name or value!r}: it must be found by that name in a module of a file"
        )
        raise InvalidConfigurationError("isolation", "process", problem)
    assert isinstance(module, str)
    assert isinstance(name, str)
    return Place(module, str(file), name)


def _own_first(elsewhere: Elsewhere) -> tuple[str, ...]:
    """Return the path with the folder of the file first: another folder may have a file of the same name."""
    own = "" if elsewhere.place is None else os.path.dirname(elsewhere.place.file)
    return tuple(sorted(elsewhere.path, key=lambda folder: folder != own))


def _modules(name: str | None) -> Iterator[Any]:
    """Yield the modules of this name: first the one that an import finds, then those that had to give way to it."""
    yield sys.modules.get(name or "")
    yield from (module for module in list(sys.modules.values()) if getattr(module, "__name__", None) == name)


def _found_in(module: Any, name: str | None) -> Any:
    found = module
    for part in (name or "").split("."):
        found = getattr(found, part, None)
    return found


def _elsewhere(value: Any) -> Elsewhere | None:
    found: Elsewhere | None = vars(value).get("__elsewhere__") if hasattr(value, "__dict__") else None
    return found
