"""What a kernel has of its device, from its launch to its end; here, that of a kernel on the CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy

__all__ = ["HOST", "Device", "DeviceLease", "DeviceMemory", "DeviceMemoryError", "HostLease"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Device:
    """Where a kernel computes."""

    kind: Literal["cpu", "cuda"]
    index: int = 0
    """Which of this kind, among those that this process sees."""
    name: str = ""
    """What its maker calls it; empty for the CPU."""

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"{self.kind}:{self.index}"


class DeviceMemory(NamedTuple):
    """Device memory of one kernel, in bytes: its arrays, and what its pool keeps for the next ones."""

    held: int
    peak: int
    """The most that it has held."""


class DeviceMemoryError(MemoryError):
    """A kernel asked for more device memory than its `memory_limit` allows."""


class DeviceLease(Protocol):
    """What a kernel has of its device.

    Everything but `synchronize`, `wait` and `close` is done at once, as far as the host is concerned: what it starts on
    the device is done when the next `synchronize` or `wait` returns.
    """

    xp: ModuleType
    """NumPy, or CuPy."""
    device: Device
    stream: Any
    """The kernel's CUDA stream; None on the CPU."""
    on_gpu: bool

    def drive(self, actor: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """The actor, each step of which has the device and the stream current."""

    def current(self) -> AbstractContextManager[object]:
        """A block, of one thread and without an `await`, that has them current."""

    def to_device(self, array: Any) -> Any:
        """An array of `xp` with these elements; the copy goes by way of pinned memory."""

    def fetch(self, arrays: Sequence[Any]) -> list[Any]:
        """Arrays of NumPy's, whose elements are there after the next `synchronize` or `wait`."""

    def lend(self, array: Any, borrower: DeviceLease) -> Any:
        """The same array for another kernel on this device. Its memory stays this kernel's, and is not used for
        anything else before the other's stream is done with it.
        """

    async def synchronize(self) -> None:
        """Wait until the device has done what was asked of it so far; everything else goes on."""

    def wait(self) -> None:
        """`synchronize` for a thread."""

    def memory(self) -> DeviceMemory | None:
        """What the kernel holds of the device; None where that is the host."""

    async def close(self) -> None:
        """Give everything back that is not in use. The kernel's actor has ended."""


class HostLease:
    """A kernel on the CPU: nothing to hold, nothing to wait for."""

    xp: ModuleType = numpy
    device = Device("cpu")
    stream = None
    on_gpu = False

    def drive(self, actor: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        return actor

    def current(self) -> AbstractContextManager[object]:
        return nullcontext()

    def to_device(self, array: Any) -> Any:
        return numpy.asarray(array)

    def fetch(self, arrays: Sequence[Any]) -> list[Any]:
        return [numpy.asarray(array) for array in arrays]

    def lend(self, array: Any, borrower: DeviceLease) -> Any:
        return array

    async def synchronize(self) -> None:
        await asyncio.sleep(0)

    def wait(self) -> None:
        pass

    def memory(self) -> DeviceMemory | None:
        return None

    async def close(self) -> None:
        pass


HOST = HostLease()
