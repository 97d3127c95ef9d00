"""Long messages to a worker and back, by memory that both share."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels import RingKernel
from pydotcompute.wire.worker.frames import to_bytes
from pydotcompute.worker import link
from tests.contract.world import PATIENCE
from tests.workers import kernels
from tests.workers.kernels import Picture

PIXELS = np.arange(1 << 18, dtype=np.float64)  # 2 MiB.


def shares_memory(kernel: RingKernel[Any, Any]) -> bool:
    """Return True if the worker has mapped memory for long bodies, of both directions."""
    runner: Any = kernel._runner
    (instance,) = runner._instances.members
    maps = Path(f"/proc/{instance.process.pid}/maps").read_text()
    return maps.count("/memfd:pydotcompute ") == 2


async def test_long_messages_go_by_shared_memory_also_after_a_crash() -> None:
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("k", kernels.doubled) as kernel:

        async def ask(pixels: np.ndarray[Any, Any], do: str = "") -> Any:
            return (await runtime.send_and_receive("k", Picture(pixels, do), timeout=PATIENCE)).pixels

        assert np.array_equal(await ask(PIXELS[:10]), 2 * PIXELS[:10])
        assert not shares_memory(kernel)
        for _ in range(2):
            assert np.array_equal(await ask(PIXELS), 2 * PIXELS)
            assert shares_memory(kernel)
            several = await asyncio.gather(*(ask(number * PIXELS, "echo" * (number % 2)) for number in range(20)))
            for number, reply in enumerate(several):
                assert np.array_equal(reply, (1 if number % 2 else 2) * number * PIXELS)
            with pytest.raises(KernelFailedError):
                await ask(PIXELS, "kill")
            assert np.array_equal(several[19], 19 * PIXELS)  # It is in the memory of the dead worker.


async def test_what_an_actor_asks_and_forwards_goes_by_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    in_frames = 0

    def sent(frame: Any) -> bytes:
        nonlocal in_frames
        data = to_bytes(frame)
        in_frames += len(data)
        return data

    def received(self: Any, data: bytes) -> None:
        nonlocal in_frames
        in_frames += len(data)
        receive(self, data)

    receive = link.Link.data_received
    monkeypatch.setattr(link, "to_bytes", sent)
    monkeypatch.setattr(link.Link, "data_received", received)
    async with RingKernelRuntime(isolation="process") as runtime, AsyncExitStack() as stack:
        for kernel_type in (kernels.lets_double, kernels.doubled):
            await stack.enter_async_context(runtime.kernel_scope(kernel_type.__name__, kernel_type))

        async def ask(pixels: np.ndarray[Any, Any], do: str = "") -> Any:
            return (await runtime.send_and_receive("lets_double", Picture(pixels, do), timeout=PATIENCE)).pixels

        for do in ("", "forward"):  # There is no memory before the first long message.
            await ask(PIXELS, do)
        in_frames = 0
        for _ in range(3):
            assert np.array_equal(await ask(PIXELS), 2 * (PIXELS + 1))
            assert np.array_equal(await ask(PIXELS, "forward"), 2 * PIXELS)
        assert in_frames < PIXELS.nbytes // 10
