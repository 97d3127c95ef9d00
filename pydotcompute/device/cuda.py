"""Kernels that launch their work on a GPU with CuPy. Nothing else imports it for them."""

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
"""CUDA's numbers."""
SPINS = 20
"""How often a wait asks the device at each turn of the event loop, before it asks at longer and longer intervals."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.005
"""Seconds. An event loop knows no shorter ones."""

logger = logging.getLogger(__name__)


def open_cuda(backend: str, index: int, kernel_id: str, memory_limit: int | None) -> CudaLease:
    """What a kernel has of the GPU of this index. It may take a second: CuPy is imported, and CUDA initialized.

    Raises:
        BackendUnavailableError: there is no CuPy, no driver, no toolkit, or no such GPU, or it cannot be used. It is
            about `backend`.
    """
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendUnavailableError(backend, f"CuPy cannot be imported ({error}); {INSTALL}") from error
        raise BackendUnavailableError(backend, f"CuPy is not installed; {INSTALL}") from error
    except Exception as error:  # What is wrong with its shared libraries comes as any of several.
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
        cupy.cuda.nvrtc.getVersion()  # Else the actor would find out, at its first operation.
    except Exception as error:  # As above.
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
    """A kernel on a GPU: a stream that waits for no other, and a pool of memory."""

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
        return Steps(actor, self.current)

    @contextmanager
    def current(self) -> Iterator[None]:
        # A new Device each time: it may be entered while it is entered, on another thread too.
        with self._cuda.Device(self.device.index), self.stream, self._cuda.using_allocator(self._allocate):
            yield

    def _allocate(self, size: int) -> Any:
        """CuPy's allocator while the kernel is at work."""
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
        except MemoryError:  # What the pool keeps counts, and CuPy does not let go of it for the limit's sake.
            self._pool.free_all_blocks()
            return self._pool.malloc(size)

    def to_device(self, array: Any) -> Any:
        with self.current():
            # It copies into pinned memory, which it keeps until the stream has copied from there, and does not wait.
            return self.xp.asarray(array)

    def fetch(self, arrays: Sequence[Any]) -> list[Any]:
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
        # What the borrower's actor makes of it, a slice or a reshaped one, has the same owner, which lives as long as
        # any of them. When the last is let go of, the borrower's stream may still be at work with it.
        loan = _Loan()
        ended = weakref.finalize(loan, _end_loan, self._cuda, self.device.index, array, self.stream, borrower.stream)
        ended.atexit = False  # CUDA may be gone by then.
        memory = self._cuda.UnownedMemory(array.data.ptr, array.nbytes, loan, array.device.id)
        return self.xp.ndarray(array.shape, array.dtype, self._cuda.MemoryPointer(memory, 0), array.strides)

    async def synchronize(self) -> None:
        event = self._mark(block=False)
        for _ in range(SPINS):
            await asyncio.sleep(0)
            if self._is_done(event):
                return
        pause = SHORTEST_PAUSE
        while not self._is_done(event):  # A thread that waits could not be cancelled.
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def wait(self) -> None:
        self._mark(block=True).synchronize()

    def _mark(self, *, block: bool) -> Any:
        """An event that is done when the stream has done what it was given so far."""
        with self.current():
            event = self._cuda.Event(block=block, disable_timing=True)
            event.record(self.stream)
        return event

    def _is_done(self, event: Any) -> bool:
        status = self._cuda.runtime.eventQuery(event.ptr)  # To `event.done`, a device that has failed is a busy one.
        if status not in (SUCCESS, NOT_READY):
            raise self._cuda.runtime.CUDARuntimeError(status)
        return bool(status == SUCCESS)

    def memory(self) -> DeviceMemory:
        with contextlib.suppress(self._cuda.runtime.CUDARuntimeError), self._cuda.Device(self.device.index):
            if self._closed:
                self.sweep()
            self._memory = self._memory._replace(held=self._pool.total_bytes())
        return self._memory

    async def close(self) -> None:
        self._closed = True
        try:
            await self.synchronize()  # To free what the device still works with would stop this thread.
            await asyncio.to_thread(self._give_back)
        except self._cuda.runtime.CUDARuntimeError as error:  # The device has failed, and has nothing to give back.
            extra = {"kernel_id": self._kernel_id}
            logger.warning("the kernel's GPU has failed: %s", _line(error), extra=extra)

    def _give_back(self) -> None:
        with _lock:
            _lingering.append(self)
        _sweep()

    def sweep(self) -> bool:
        """Give back what is not in use; whether that is all."""
        with self._cuda.Device(self.device.index):
            self._pool.free_all_blocks()
            return not self._pool.used_bytes()


class _Loan:
    """Owns what is lent of a kernel's memory, for the other."""


def _end_loan(cuda: Any, index: int, array: Any, lender: Any, borrower: Any) -> None:
    """`array`, when this lets go of it, goes back to the lender's pool, which takes it to be free for what the lender's
    stream is given next.
    """
    # A device that has failed does nothing more with any of it.
    with contextlib.suppress(cuda.runtime.CUDARuntimeError), cuda.Device(index):
        event = cuda.Event(disable_timing=True)
        event.record(borrower)
        lender.wait_event(event)


_lingering: list[CudaLease] = []
"""Of kernels that have ended, while someone else, a receiver in this process say, has arrays of theirs. A pool that was
dropped would free these under their owner's hands, and one that was only kept would never give them back."""
_lock = Lock()


def _sweep() -> None:
    with _lock:
        _lingering[:] = [lease for lease in _lingering if not lease.sweep()]
