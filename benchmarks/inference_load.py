"""The network of examples/inference.py with 256 clients in flight: computed by the batch, and one by one.

In-process, where nothing but the batching differs, and at a daemon.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from daemon import LAUNCH_NOTHING
from measure import Metrics, main, rate_in_flight, serving

from pydotcompute import KernelRuntime, RingKernelRuntime
from pydotcompute_client import connect

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from inference import FEATURES, Picture  # noqa: E402

DAEMON = [LAUNCH_NOTHING[0], str(EXAMPLES / "inference.py"), "--listen=127.0.0.1:0"]


async def load(runtime: KernelRuntime, kernel_id: str, seconds: float) -> Metrics:
    """Requests a second."""
    await runtime.launch(kernel_id)
    await runtime.activate(kernel_id)
    pixels = np.random.default_rng(2).standard_normal(FEATURES, dtype=np.float32)

    async def call(number: int) -> None:
        await runtime.send_and_receive(kernel_id, Picture(pixels=pixels), timeout=60.0)

    return await rate_in_flight(call, seconds, in_flight=256)


def here(kernel_id: str) -> Callable[[float], Awaitable[Metrics]]:
    """In this process."""

    async def measure(seconds: float) -> Metrics:
        async with RingKernelRuntime() as runtime:
            return await load(runtime, kernel_id, seconds)

    return measure


def there(kernel_id: str) -> Callable[[float], Awaitable[Metrics]]:
    """At a daemon."""

    async def measure(seconds: float) -> Metrics:
        with serving(DAEMON) as server:
            async with connect(server.address) as runtime:
                return await load(runtime, kernel_id, seconds)

    return measure


if __name__ == "__main__":
    main(
        {
            "batched": here("classify"),
            "one_by_one": here("classify_one"),
            "remote_batched": there("classify"),
            "remote_one_by_one": there("classify_one"),
        }
    )
