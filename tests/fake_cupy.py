"""A `cupy` for machines without a GPU: as much of its protocol as kernels use, with a device that is slow on purpose.

What a stream is given is done only when somebody waits for it: an array that is read too early is found out. Nothing
here is evidence of what a GPU does; `tests/gpu/` is for that.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

UNIT = 512
"""Bytes that memory is given out in."""


class CUDARuntimeError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class FakeStream:
    """Work is done in order, and only when `finish` is called; `queries` says how often it is not done yet."""

    def __init__(self, cuda: FakeCuda, device: int) -> None:
        self.cuda, self.device = cuda, device
        self.given: list[Callable[[], None]] = []
        self.done = 0

    def finish(self, through: int | None = None) -> None:
        for work in self.given[self.done : through]:
            self.done += 1
            work()

    def __enter__(self) -> FakeStream:
        current = self.cuda.current
        if current.device != self.device:
            raise RuntimeError("the stream is another device's")
        current.streams.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self.cuda.current.streams.pop() is self, "the streams are left in the order in which they are entered"


class FakeEvent:
    def __init__(self, cuda: FakeCuda, block: bool) -> None:
        self.cuda, self.block = cuda, block
        self.queries = 0

    def record(self, stream: FakeStream) -> None:
        self.stream, self.through = stream, len(stream.given)

    @property
    def done(self) -> bool:
        if self.cuda.failure is not None:
            raise CUDARuntimeError(self.cuda.failure)
        self.queries += 1
        if self.queries <= self.cuda.busy:
            return False
        self.stream.finish(self.through)
        return True

    def synchronize(self) -> None:
        assert self.block, "else it spins"
        self.cuda.waited_in.append(threading.current_thread().name)
        self.stream.finish(self.through)


class FakeMemory:
    """As long as it lives, it is in use."""


class FakePool:
    def __init__(self, cuda: FakeCuda) -> None:
        self.limit: int | None = None
        self.used = self.kept = 0
        cuda.pools.append(self)

    def set_limit(self, *, size: int) -> None:
        self.limit = size

    def malloc(self, size: int) -> FakeMemory:
        size = -(-size // UNIT) * UNIT
        if self.limit is not None and self.used + size > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes")
        self.kept = max(0, self.kept - size)
        self.used += size
        memory = FakeMemory()
        weakref.finalize(memory, self._free, size)
        return memory

    def _free(self, size: int) -> None:
        self.used -= size
        self.kept += size

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return self.used + self.kept

    def free_all_blocks(self) -> None:
        self.kept = 0


class Current(threading.local):
    """What is current in a thread."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: list[FakeStream | None] = [None]
        self.allocator: Callable[[int], Any] | None = None


class FakeCuda:
    """The device, and what the tests ask of it."""

    def __init__(self, devices: int = 1, driver: bool = True) -> None:
        self.devices, self.driver = devices, driver
        self.current = Current()
        self.pools: list[FakePool] = []
        self.busy = 0
        """How often an event is asked before it is done."""
        self.failure: str | None = None
        """What has happened to the device."""
        self.waited_in: list[str] = []
        """The names of the threads that have waited for an event."""
        self.pinned = 0
        """Arrays in pinned memory."""

    @property
    def stream(self) -> FakeStream | None:
        """The current one; None is the default one."""
        return self.current.streams[-1]

    def modules(self) -> dict[str, ModuleType]:
        """`cupy` and `cupyx`."""
        cupy: Any = ModuleType("cupy")
        array_class = _array_class(self)
        cupy.__version__ = "fake"
        cupy.ndarray = array_class
        cupy.asarray = array_class.make
        cupy.stack = lambda arrays: array_class(np.stack([array.elements for array in arrays]))
        cupy.asnumpy = lambda value: value.get() if isinstance(value, array_class) else np.asarray(value)
        cupy.zeros = lambda shape, dtype="f8": array_class(np.zeros(shape, dtype))
        cupy.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError,
                getDeviceCount=self._count,
                getDeviceProperties=lambda index: {"name": f"Fake {index}".encode()},
            ),
            Device=self._device,
            Stream=lambda non_blocking: FakeStream(self, self.current.device),
            Event=lambda block, disable_timing: FakeEvent(self, block),
            MemoryPool=lambda: FakePool(self),
            using_allocator=self._using_allocator,
        )
        cupyx: Any = ModuleType("cupyx")
        cupyx.empty_pinned = self._empty_pinned
        return {"cupy": cupy, "cupyx": cupyx}

    def _count(self) -> int:
        if not self.driver:
            raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
        return self.devices

    @contextmanager
    def _device(self, index: int) -> Iterator[None]:
        before, self.current.device = self.current.device, index
        try:
            yield
        finally:
            self.current.device = before

    @contextmanager
    def _using_allocator(self, allocator: Callable[[int], Any]) -> Iterator[None]:
        before, self.current.allocator = self.current.allocator, allocator
        try:
            yield
        finally:
            self.current.allocator = before

    def _empty_pinned(self, shape: tuple[int, ...], dtype: Any, order: Any) -> Any:
        self.pinned += 1
        return np.full(shape, 99, dtype, order)


def _array_class(cuda: FakeCuda) -> Any:
    class ndarray:
        """An array on the device: `elements` are what it will have when its stream is done."""

        __module__ = "cupy"

        def __init__(self, elements: Any) -> None:
            self.elements = np.asarray(elements)
            self.stream = cuda.stream
            self.memory = None if cuda.current.allocator is None else cuda.current.allocator(self.elements.nbytes)
            for name in ("shape", "dtype", "size", "ndim", "flags", "nbytes"):
                setattr(self, name, getattr(self.elements, name))

        @classmethod
        def make(cls, value: Any) -> Any:
            return value if isinstance(value, cls) else cls(np.array(value))

        def __len__(self) -> int:
            return len(self.elements)

        def __add__(self, other: Any) -> Any:
            return type(self)(self.elements + getattr(other, "elements", other))

        def __mul__(self, other: Any) -> Any:
            return type(self)(self.elements * getattr(other, "elements", other))

        def sum(self) -> Any:
            return type(self)(self.elements.sum())

        def get(self, stream: Any = None, out: Any = None, blocking: bool = True) -> Any:
            if out is None:
                cuda.waited_in.append(f"get in {threading.current_thread().name}")
                return self.elements.copy()
            assert not blocking
            stream.given.append(lambda: np.copyto(out, self.elements))
            return out

    return ndarray
