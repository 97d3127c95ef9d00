"""The lease of a device: all that a kernel uses of it, from its launch to its end. Here also the lease of the CPU."""

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
    """The device that a kernel computes on."""

    kind: Literal["cpu", "cuda"]
    index: int = 0
    """The index among the devices of this kind that this process sees, from 0."""
    name: str = ""
    """The product name of the GPU. Empty for the CPU."""

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"{self.kind}:{self.index}"


class DeviceMemory(NamedTuple):
    """The device memory of one kernel, in bytes."""

    held: int
    """The memory of its arrays, and the free memory that its pool keeps for new arrays."""
    peak: int
    """The largest value that `held` has had."""


class DeviceMemoryError(MemoryError):
    """A kernel asked for more device memory than its `memory_limit` allows."""


class DeviceLease(Protocol):
    """The stream and the memory of one kernel on its device, and the operations on them.

    `synchronize`, `wait` and `close` wait for the device. All other methods return at once and may leave work running
    on the device. That work is done when the next `synchronize` or `wait` returns.
    """

    xp: ModuleType
    """The module NumPy or CuPy."""
    device: Device
    """The device of this lease."""
    stream: Any
    """The kernel's CUDA stream. None on the CPU."""
    on_gpu: bool
    """True if the device is a GPU, so that `xp` is CuPy."""

    def drive(self, actor: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Returns a coroutine that runs the actor, with the device and the stream current at each of its steps."""

    def current(self) -> AbstractContextManager[object]:
        """Returns a context manager that makes the device and the stream current in this thread.

        There must be no `await` inside its block.
        """

    def to_device(self, array: Any) -> Any:
        """Returns an array of `xp` with the elements of `array`. They are copied by way of pinned memory."""

    def fetch(self, arrays: Sequence[Any]) -> list[Any]:
        """Returns NumPy arrays for these arrays. Their elements are valid after the next `synchronize` or `wait`."""

    def lend(self, array: Any, borrower: DeviceLease) -> Any:
        """Returns an array for another kernel on this device that shares the memory of `array`.

        The memory still belongs to this kernel. It is not used for anything else before the borrower has dropped the
        array and its stream has finished its work with it.
        """

    async def synchronize(self) -> None:
        """Waits until the device has done all work of this kernel so far. The event loop goes on meanwhile."""

    def wait(self) -> None:
        """Does the same as `synchronize`, but blocks the thread."""

    def memory(self) -> DeviceMemory | None:
        """Returns the device memory of the kernel. None if the device is the CPU."""

    async def close(self) -> None:
        """Gives back all memory that is not in use. To be called when the kernel's actor has ended."""


class HostLease:
    """The lease of a kernel on the CPU. It holds nothing, and there is nothing to wait for."""

    xp: ModuleType = numpy
    device = Device("cpu")
    stream = None
    on_gpu = False

    def drive(self, actor: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Returns the actor itself."""
        return actor

    def current(self) -> AbstractContextManager[object]:
        """Returns a context manager that does nothing."""
        return nullcontext()

    def to_device(self, array: Any) -> Any:
        """Returns `array` as a NumPy array, without a copy if it is one already."""
        return numpy.asarray(array)

    def fetch(self, arrays: Sequence[Any]) -> list[Any]:
        """Returns these arrays as NumPy arrays, without a copy of those that are already."""
        return [numpy.asarray(array) for array in arrays]

    def lend(self, array: Any, borrower: DeviceLease) -> Any:
        """Returns the array itself."""
        return array

    async def synchronize(self) -> None:
        """Lets the other tasks of the event loop run once. There is no device to wait for."""
        await asyncio.sleep(0)

    def wait(self) -> None:
        """Does nothing: there is no device to wait for."""

    def memory(self) -> DeviceMemory | None:
        """Returns None: the kernel has no device memory."""
        return None

    async def close(self) -> None:
        """Does nothing: there is no memory to give back."""


HOST = HostLease()
"""The lease that all kernels on the CPU share."""
