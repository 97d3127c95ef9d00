"""The lease of a GPU, for kernels that compute with CuPy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from types import ModuleType
from typing import Any, TypeVar

from pydotcompute.device.current import Steps
from pydotcompute.device.lease import Device, DeviceLease, DeviceMemory, DeviceMemoryError
from pydotcompute.device.settings import text_of_bytes
from pydotcompute.exceptions import BackendUnavailableError

__all__ = ["INSTALL", "CudaLease", "open_cuda"]

T = TypeVar("T")

INSTALL = "pip install 'pydotcompute-grpc[cuda12]'"
TOOLKIT = "install one, or pip install 'cupy-cuda12x[ctk]'"
SUCCESS, NOT_READY = 0, 600
"""Status codes of the CUDA runtime."""
SPINS = 20
"""The number of turns of the event loop at which `synchronize` polls the device before it polls with pauses."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.005
"""The pauses between two polls, in seconds. The event loop cannot sleep for a shorter time."""

logger = logging.getLogger(__name__)


def open_cuda(backend: str, index: int, kernel_id: str, memory_limit: int | None) -> CudaLease:
    """Opens a lease of a GPU for a kernel. It may take a second, because it imports CuPy and initializes CUDA.

    Args:
        backend: the name of the device in errors, as in the kernel's settings.
        index: the index of the GPU among those that this process sees.
        kernel_id: the kernel, for errors and the log.
        memory_limit: the most device memory that the kernel may hold, in bytes. None means no limit.

    Raises:
        BackendUnavailableError: CuPy, the driver, the CUDA toolkit or the GPU is missing, or the GPU cannot be used.
    """
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendUnavailableError(backend, f"CuPy cannot be imported ({error}); {INSTALL}") from error
        raise BackendUnavailableError(backend, f"CuPy is not installed; {INSTALL}") from error
    except Exception as error:  # Problems with its shared libraries raise various errors.
        raise BackendUnavailableError(backend, f"CuPy cannot be imported ({_line(error)}); {INSTALL}") from error
    failure = cupy.cuda.runtime.CUDARuntimeError
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except failure as error:
        problem = f"CuPy {cupy.__version__} finds no GPU ({_line(error)}); install an NVIDIA driver that fits it"
        raise BackendUnavailableError(backend, problem) from error
    if index >= count:
        names = ", ".join(f"cuda:{each} {_name(cupy, each)}" for each in range(count)) or "none"
        raise BackendUnavailableError(backend, f"there is no device of index {index}; devices: {count} ({names})")
    try:
        cupy.cuda.nvrtc.getVersion()  # Without this test, the actor's first operation would fail.
    except Exception as error:  # A missing toolkit raises various errors, too.
        problem = f"CuPy {cupy.__version__} finds no CUDA toolkit ({_line(error)}); {TOOLKIT}"
        raise BackendUnavailableError(backend, problem) from error
    try:
        return CudaLease(cupy, index, kernel_id, memory_limit)
    except failure as error:
        raise BackendUnavailableError(backend, f"cuda:{index} cannot be used ({_line(error)})") from error


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _name(cupy: Any, index: int) -> str:
    name = cupy.cuda.runtime.getDeviceProperties(index)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


class CudaLease:
    """The lease of a kernel on a GPU: a stream that waits for no other stream, and a pool of device memory."""

    on_gpu = True

    def __init__(self, cupy: ModuleType, index: int, kernel_id: str, memory_limit: int | None) -> None:
        self.xp = cupy
        self._cuda: Any = cupy.cuda
        self.device = Device("cuda", index, _name(cupy, index))
        self._kernel_id = kernel_id
        self._limit = memory_limit
        self._closed = False
        self._memory = DeviceMemory(0, 0)
        with self._cuda.Device(index):
            self.stream: Any = self._cuda.Stream(non_blocking=True)
            self._pool: Any = self._cuda.MemoryPool()
            if memory_limit is not None:
                self._pool.set_limit(size=memory_limit)
        _sweep()

    def drive(self, actor: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Returns a coroutine that runs each step of the actor inside `current()`."""
        return Steps(actor, self.current)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the device, the stream and the memory pool current in this thread.

        Raises:
            CUDARuntimeError: the device has failed.
        """
        # Each call makes a new Device object: `current` may be nested, and several threads may be in it at once.
        with self._cuda.Device(self.device.index), self.stream, self._cuda.using_allocator(self._allocate):
            yield

    def _allocate(self, size: int) -> Any:
        """Allocates `size` bytes. CuPy calls this as its allocator inside `current()`."""
        try:
            memory = self._malloc(size)
        except MemoryError as error:
            held = self._pool.total_bytes()
            if self._limit is None or held + size <= self._limit:
                raise
            allowed, asked = text_of_bytes(self._limit), text_of_bytes(size)
            raise DeviceMemoryError(
                f"kernel {self._kernel_id!r} holds {text_of_bytes(held)} of {self.device} and asks for {asked} more; "
                f"its memory_limit is {allowed}"
            ) from error
        held = self._pool.total_bytes()
        self._memory = DeviceMemory(held, max(held, self._memory.peak))
        return memory

    def _malloc(self, size: int) -> Any:
        try:
            return self._pool.malloc(size)
        except MemoryError:
            # Free blocks in the pool count toward the limit, and CuPy does not free them to stay below it.
            self._pool.free_all_blocks()
            return self._pool.malloc(size)

    def to_device(self, array: Any) -> Any:
        """Returns `array` as a CuPy array on this device, without waiting for the copy.

        Raises:
            DeviceMemoryError: the array does not fit into the kernel's memory limit.
        """
        with self.current():
            # CuPy copies into pinned memory and does not wait. It keeps this memory until the stream has read it.
            return self.xp.asarray(array)

    def fetch(self, arrays: Sequence[Any]) -> list[Any]:
        """Returns NumPy arrays in pinned memory. Their elements are valid after the next `synchronize` or `wait`."""
        with self.current():
            return [self._fetch(array) for array in arrays]

    def _fetch(self, array: Any) -> Any:
        if not isinstance(array, self.xp.ndarray) or not array.size:
            return self.xp.asnumpy(array)
        from cupyx import empty_pinned

        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        host = empty_pinned(array.shape, array.dtype, order)
        return array.get(stream=self.stream, out=host, blocking=False)

    def lend(self, array: Any, borrower: DeviceLease) -> Any:
        """Returns a CuPy array for the borrower that shares the memory of `array`, without a copy."""
        # All arrays that the borrower's actor derives from it, such as slices, share one owner, the loan. The loan
        # lives until the last of them is dropped. At that moment, the borrower's stream may still be using the memory.
        loan = _Loan()
        ended = weakref.finalize(loan, _end_loan, self._cuda, self.device.index, array, self.stream, borrower.stream)
        ended.atexit = False  # CUDA may have been shut down by then.
        memory = self._cuda.UnownedMemory(array.data.ptr, array.nbytes, loan, array.device.id)
        return self.xp.ndarray(array.shape, array.dtype, self._cuda.MemoryPointer(memory, 0), array.strides)

    async def synchronize(self) -> None:
        """Waits until the stream has done all work that it was given so far. The event loop goes on meanwhile.

        Raises:
            CUDARuntimeError: the device has failed.
        """
        event = self._mark(block=False)
        for _ in range(SPINS):
            await asyncio.sleep(0)
            if self._is_done(event):
                return
        pause = SHORTEST_PAUSE
        while not self._is_done(event):  # A wait in a thread could not be cancelled.
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def wait(self) -> None:
        """Does the same as `synchronize`, but blocks the thread."""
        self._mark(block=True).synchronize()

    def _mark(self, *, block: bool) -> Any:
        """Returns a CUDA event that is done when the stream has done all work that it was given so far."""
        with self.current():
            event = self._cuda.Event(block=block, disable_timing=True)
            event.record(self.stream)
        return event

    def _is_done(self, event: Any) -> bool:
        # `event.done` cannot be used: it returns False both for a busy device and for one that has failed.
        status = self._cuda.runtime.eventQuery(event.ptr)
        if status not in (SUCCESS, NOT_READY):
            raise self._cuda.runtime.CUDARuntimeError(status)
        return bool(status == SUCCESS)

    def memory(self) -> DeviceMemory:
        """Returns the device memory of the kernel. If the device has failed, returns the last known values."""
        with contextlib.suppress(self._cuda.runtime.CUDARuntimeError), self._cuda.Device(self.device.index):
            if self._closed:
                self.sweep()
            self._memory = self._memory._replace(held=self._pool.total_bytes())
        return self._memory

    async def close(self) -> None:
        """Waits for the stream, and then gives back all memory that is not in use.

        Memory that others still use is given back when they are done: see `_lingering`. If the device has failed, this
        writes a warning to the log in place of raising an error.
        """
        self._closed = True
        try:
            await self.synchronize()  # Freeing memory that the device still uses would block the thread.
            await asyncio.to_thread(self._give_back)
        except self._cuda.runtime.CUDARuntimeError as error:  # A device that has failed has no memory to give back.
            extra = {"kernel_id": self._kernel_id}
            logger.warning("the kernel's GPU has failed: %s", _line(error), extra=extra)

    def _give_back(self) -> None:
        with _lock:
            _lingering.append(self)
        _sweep()

    def sweep(self) -> bool:
        """Gives back the memory that is not in use. Returns True if no memory is left in use."""
        with self._cuda.Device(self.device.index):
            self._pool.free_all_blocks()
            return not self._pool.used_bytes()


class _Loan:
    """Owns an array that one kernel has lent to another. The array is lent until this object is dropped."""


def _end_loan(cuda: Any, index: int, array: Any, lender: Any, borrower: Any) -> None:
    """Makes the lender's stream wait for the borrower's stream, and then drops `array`.

    The memory of `array` goes back to the lender's pool as soon as this function returns. The pool may use it at once
    for the next work of the lender's stream, which must not begin before the borrower's stream is done.
    """
    # If the device has failed, no stream uses the memory any more, so the error does not matter.
    with contextlib.suppress(cuda.runtime.CUDARuntimeError), cuda.Device(index):
        event = cuda.Event(disable_timing=True)
        event.record(borrower)
        lender.wait_event(event)


_lingering: list[CudaLease] = []
"""The leases of ended kernels whose arrays are still in use, for example by a receiver in this process.

If the pool of such a lease were dropped, it would free arrays that are in use. If the pool were only kept, it would
never give its memory back. So these leases are swept whenever a lease is opened or closed."""
_lock = Lock()


def _sweep() -> None:
    with _lock:
        _lingering[:] = [lease for lease in _lingering if not lease.sweep()]
