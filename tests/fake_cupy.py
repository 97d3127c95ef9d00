"""A `cupy` for machines without a GPU: as much of its protocol as kernels use, with a device that is slow on purpose.

What a stream is given is done only when somebody waits for it: an array that is read too early is found out. So is one
that is read on another stream than it is computed on, without a wait in between, and memory that is given back while
another stream still works with it (`FakeCuda.races`). Nothing here is evidence of what a GPU does; `tests/gpu/` is for
that.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

UNIT = 512
"""Bytes that memory is given out in."""


NOT_READY, ILLEGAL_ADDRESS = 600, 700
"""CUDA's numbers for what is no error, and for one that no device recovers from."""


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        self.status = status
        names = {ILLEGAL_ADDRESS: "cudaErrorIllegalAddress: an illegal memory access was encountered"}
        super().__init__(names.get(status, "cudaErrorInsufficientDriver: CUDA driver version is insufficient"))


class OutOfMemoryError(MemoryError):
    pass


class FakeStream:
    """Work is done in order, and only when `finish` is called."""

    def __init__(self, cuda: FakeCuda, device: int) -> None:
        self.cuda, self.device = cuda, device
        self.given: list[Callable[[], None]] = []
        self.done = 0
        self.waits: dict[FakeStream, int] = {}
        """Of other streams, how much of what they were given is done before this one goes on."""

    def give(self, work: Callable[[], None] = lambda: None) -> int:
        self.given.append(work)
        return len(self.given)

    def finish(self, through: int | None = None) -> None:
        for work in self.given[self.done : through]:
            self.done += 1
            work()

    def wait_event(self, event: FakeEvent) -> None:
        self.give(event.finish)
        for stream, through in event.after.items():
            self.waits[stream] = max(through, self.waits.get(stream, 0))

    def comes_after(self, stream: FakeStream, through: int) -> bool:
        """Whether what this one is given next is done after that much of another."""
        return self is stream or stream.done >= through or self.waits.get(stream, 0) >= through

    def __enter__(self) -> FakeStream:
        current = self.cuda.current
        if current.device != self.device:
            raise RuntimeError("the stream is another device's")
        current.streams.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self.cuda.current.streams.pop() is self, "the streams are left in the order in which they are entered"


class FakeEvent:
    """`queries` says how often it was asked whether it is done."""

    def __init__(self, cuda: FakeCuda, block: bool) -> None:
        self.cuda, self.block = cuda, block
        self.queries = 0
        self.ptr = next(cuda.addresses)
        cuda.events[self.ptr] = self

    def record(self, stream: FakeStream) -> None:
        if self.cuda.failure is not None:
            raise CUDARuntimeError(self.cuda.failure)
        assert self.cuda.current.device == stream.device, "an event is of the device that is current when it is made"
        self.stream, self.through = stream, len(stream.given)
        self.after = {**stream.waits, stream: self.through}

    def finish(self) -> None:
        self.stream.finish(self.through)

    def query(self) -> int:
        if self.cuda.failure is not None:
            return self.cuda.failure
        self.queries += 1
        if self.queries <= self.cuda.busy:
            return NOT_READY
        self.finish()
        return 0

    @property
    def done(self) -> bool:
        """As CuPy's: False also when the device has failed."""
        return self.query() == 0

    def synchronize(self) -> None:
        assert self.block, "else it spins"
        self.cuda.waited_in.append(threading.current_thread().name)
        self.finish()


class FakeMemory:
    """As long as it lives, it is in use."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.stream = cuda, cuda.stream
        self.uses: list[tuple[FakeStream, int]] = []
        """How far each stream that works with it has to get."""

    def check(self) -> None:
        """It is about to be given to the stream that it was taken for: is everybody else done with it?"""
        if self.stream is not None and not all(self.stream.comes_after(*use) for use in self.uses):
            self.cuda.races.append("memory was given back while another stream was at work with it")


class FakePool:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.limit: int | None = None
        self.used = 0
        self.kept: list[int] = []
        """The sizes of what was given back, for the next who want as much or less."""
        cuda.pools.append(self)

    def set_limit(self, *, size: int) -> None:
        self.limit = size

    def malloc(self, size: int) -> FakeMemory:
        size = -(-size // UNIT) * UNIT
        fitting = [each for each in self.kept if each >= size]
        if fitting:
            size = min(fitting)
            self.kept.remove(size)
        elif self.limit is not None and self.total_bytes() + size > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes")
        self.used += size
        memory = FakeMemory(self.cuda)
        record = FakeMemory(self.cuda)  # What is left of it when it is gone.
        record.uses = memory.uses
        weakref.finalize(memory, self._free, size, record)
        return memory

    def _free(self, size: int, record: FakeMemory) -> None:
        record.check()
        self.used -= size
        self.kept.append(size)

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return self.used + sum(self.kept)

    def free_all_blocks(self) -> None:
        self.kept.clear()


class Current(threading.local):
    """What is current in a thread."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: list[FakeStream | None] = [None]
        self.allocator: Callable[[int], Any] | None = None


class FakeCuda:
    """The device, and what the tests ask of it."""

    def __init__(self, devices: int = 1, driver: bool = True, toolkit: bool = True) -> None:
        self.devices, self.driver, self.toolkit = devices, driver, toolkit
        self.current = Current()
        self.pools: list[FakePool] = []
        self.busy = 0
        """How often an event is asked before it is done."""
        self.failure: int | None = None
        """What has happened to the device, as CUDA's number."""
        self.waited_in: list[str] = []
        """The names of the threads that have waited for an event."""
        self.pinned = 0
        """Arrays in pinned memory."""
        self.uploads: list[int] = []
        """Bytes of each array that was copied from the host."""
        self.races: list[str] = []
        """What went wrong where nobody could raise an error."""
        self.arrays: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        """By their addresses."""
        self.events: weakref.WeakValueDictionary[int, FakeEvent] = weakref.WeakValueDictionary()
        self.addresses = itertools.count(1 << 20, 1 << 20)

    @property
    def stream(self) -> FakeStream | None:
        """The current one; None is the default one, which is done at once with what it is given."""
        return self.current.streams[-1]

    def modules(self) -> dict[str, ModuleType]:
        """`cupy` and `cupyx`."""
        cupy: Any = ModuleType("cupy")
        array_class = _array_class(self)
        made, elements = array_class.made, array_class.elements_of
        cupy.__version__ = "fake"
        cupy.fake = self
        cupy.ndarray = array_class
        cupy.asarray = array_class.copied
        cupy.asnumpy = lambda value: value.get() if isinstance(value, array_class) else np.asarray(value)
        cupy.stack = lambda arrays: made(np.stack([elements(array) for array in arrays]))
        cupy.maximum = lambda a, b: made(np.maximum(elements(a), elements(b)))
        cupy.zeros = lambda shape, dtype="f8": made(np.zeros(shape, dtype))
        cupy.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError,
                getDeviceCount=self._count,
                eventQuery=lambda ptr: self.events[ptr].query(),
                getDeviceProperties=lambda index: {"name": f"Fake {index}".encode()},
            ),
            nvrtc=SimpleNamespace(getVersion=self._compiler),
            Device=self._device,
            Stream=lambda non_blocking: FakeStream(self, self.current.device),
            Event=lambda block=False, disable_timing=False: FakeEvent(self, block),
            MemoryPool=lambda: FakePool(self),
            UnownedMemory=lambda ptr, size, owner, device_id: SimpleNamespace(ptr=ptr, owner=owner, device=device_id),
            MemoryPointer=lambda memory, offset: memory,
            using_allocator=self._using_allocator,
        )
        cupyx: Any = ModuleType("cupyx")
        cupyx.empty_pinned = self._empty_pinned
        return {"cupy": cupy, "cupyx": cupyx}

    def _count(self) -> int:
        if not self.driver:
            raise CUDARuntimeError(35)
        return self.devices

    def _compiler(self) -> tuple[int, int]:
        if not self.toolkit:
            raise RuntimeError('Failure finding "libnvrtc.so"\nNo such file')
        return 13, 2

    @contextmanager
    def _device(self, index: int) -> Iterator[None]:
        if self.failure is not None:
            raise CUDARuntimeError(self.failure)
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
        """An array on the device: `_elements` are what it will have when its stream is done."""

        __module__ = "cupy"

        def __init__(self, shape: Any, dtype: Any, memptr: Any, strides: Any) -> None:
            """An array in memory that somebody else has."""
            lent = cuda.arrays[memptr.ptr]
            assert (shape, dtype, strides) == (lent.shape, lent.dtype, lent.strides)
            assert memptr.device == lent.device.id
            self._set(lent._elements, memptr, lent._uses, lent._stream, lent._through)

        def _set(self, elements: Any, memory: Any, uses: Any, stream: Any, through: int) -> None:
            self._elements, self._memory, self._uses = elements, memory, uses
            self._stream, self._through = stream, through
            self.device = SimpleNamespace(id=cuda.current.device if stream is None else stream.device)
            self.data = SimpleNamespace(ptr=next(cuda.addresses))
            cuda.arrays[self.data.ptr] = self
            for name in ("shape", "dtype", "size", "ndim", "flags", "nbytes", "strides"):
                setattr(self, name, getattr(elements, name))

        @classmethod
        def made(cls, elements: Any) -> Any:
            """The result of an operation, which the current stream is given."""
            elements = np.asarray(elements)
            memory = None if cuda.current.allocator is None else cuda.current.allocator(elements.nbytes)
            array = cls.__new__(cls)
            stream = cuda.stream
            through = 0 if stream is None else stream.give()
            array._set(elements, memory, [] if memory is None else memory.uses, stream, through)
            return array

        @classmethod
        def copied(cls, value: Any) -> Any:
            if not isinstance(value, cls):
                cuda.uploads.append(np.asarray(value).nbytes)
                return cls.made(np.array(value))
            if value.device.id == cuda.current.device:
                return value
            return cls.made(value._used().copy())

        @classmethod
        def elements_of(cls, value: Any) -> Any:
            """What an operation on the current stream works with."""
            if not isinstance(value, cls):
                return value
            if value.device.id != cuda.current.device:
                raise ValueError(f"the array is on device {value.device.id}, and {cuda.current.device} is current")
            return value._used()

        def _used(self) -> Any:
            stream = cuda.stream
            if stream is None:
                computed = self._stream is None or self._stream.done >= self._through
            else:
                computed = self._stream is None or stream.comes_after(self._stream, self._through)
                self._uses.append((stream, len(stream.given) + 1))
            assert computed, "an array is read before it is computed"
            return self._elements

        def __len__(self) -> int:
            return len(self._elements)

        def __getitem__(self, index: Any) -> Any:
            view = type(self).__new__(type(self))
            view._set(self._elements[index], self._memory, self._uses, self._stream, self._through)
            return view

        def get(self, stream: Any = None, out: Any = None, blocking: bool = True) -> Any:
            elements = self._used()
            if out is None:
                cuda.waited_in.append(f"get in {threading.current_thread().name}")
                if cuda.stream is not None:
                    cuda.stream.finish()
                return elements.copy()
            assert not blocking
            assert stream is cuda.stream
            assert stream is not None
            stream.give(lambda: np.copyto(out, elements))
            return out

    def operation(name: str) -> Callable[..., Any]:
        def operate(self: Any, *others: Any, **settings: Any) -> Any:
            given = [ndarray.elements_of(other) for other in others]
            return ndarray.made(getattr(ndarray.elements_of(self), name)(*given, **settings))

        return operate

    binary = ("add", "sub", "mul", "truediv", "pow", "matmul")
    for name in [*(f"__{way}{each}__" for each in binary for way in ("", "r")), "__abs__", "sum", "min", "max", "mean"]:
        setattr(ndarray, name, operation(name))
    return ndarray


def install() -> FakeCuda:
    """Make it the `cupy` of this process: for a file `cupy.py` that a process finds first."""
    cuda = FakeCuda()
    sys.modules.update(cuda.modules())
    return cuda
