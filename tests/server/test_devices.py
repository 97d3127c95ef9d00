"""Kernels on a GPU behind a daemon, which is that of `tests/fake_cupy.py`: what goes over the wire is on the host."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import numpy as np
import pytest

from pydotcompute import RingKernelMessage, message
from pydotcompute_client import RemoteRuntime, connect

KERNELS = """
from typing import Annotated
import numpy as np
from pydotcompute import Array, message, ring_kernel

@message
class Samples:
    values: np.ndarray
    note: str = ""

@message
class Staying:
    values: Annotated[np.ndarray, Array(on_device=True)]
    note: str = ""

@ring_kernel(input_type=Samples, output_type=Staying, device="cuda")
async def first(ctx):
    async for samples in ctx:
        values = ctx.to_device(samples.values) + 1
        await ctx.forward("last", Staying(values, correlation_id=samples.message_id))

@ring_kernel(input_type=Staying, output_type=Staying, device="cuda")
async def last(ctx):
    async for staying in ctx:
        note = type(staying.values).__module__
        if note == "cupy":
            await ctx.send(Staying(staying.values * 2, note, correlation_id=staying.message_id))

@ring_kernel(input_type=Samples, output_type=Staying, device="cuda")
def in_a_thread(ctx):
    for samples in ctx:
        ctx.send(Staying(ctx.to_device(samples.values) * 2, correlation_id=samples.message_id))

@ring_kernel(input_type=Samples, output_type=Samples, device="cuda")
async def batched(ctx):
    async for batch in ctx.batches(max_size=8):
        await batch.reply(values=batch.stack("values") * 2)

@ring_kernel(input_type=Samples, output_type=Samples)
async def told(ctx):
    import cupy
    async for samples in ctx:
        waits = [name for name in cupy.fake.waited_in if "get in" in name]
        await ctx.send(Samples(samples.values, str(waits + cupy.fake.races), correlation_id=samples.message_id))
"""


@message
class Samples(RingKernelMessage):
    """What a client sends, and hears, whose classes know of no device."""

    values: np.ndarray
    note: str = ""


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any], gpu: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    kernels = tmp_path_factory.mktemp("kernels") / "device_kernels.py"
    kernels.write_text(KERNELS)
    address: str = start_daemon(str(kernels), "--launch", "all", env=gpu).target
    return address


@pytest.fixture
async def runtime(target: str) -> AsyncIterator[RemoteRuntime]:
    async with connect(target) as runtime:
        yield runtime


@pytest.mark.parametrize(
    ("kernel_id", "expected", "note"),
    [
        ("first", lambda number: 2 * (number + 1), "cupy"),
        ("in_a_thread", lambda number: 2 * number, ""),
        ("batched", lambda number: 2 * number, ""),
    ],
)
async def test_a_client_hears_from_the_last_stage_with_arrays_on_its_host(
    runtime: RemoteRuntime, kernel_id: str, expected: Callable[[int], int], note: str
) -> None:
    """The array of the first stage has reached the last without leaving the GPU."""
    requests = [Samples(np.full(3, number)) for number in range(20)]
    replies = await asyncio.gather(
        *(runtime.send_and_receive(kernel_id, request, timeout=10.0) for request in requests)
    )
    for number, (request, reply) in enumerate(zip(requests, replies, strict=True)):
        assert type(reply.values) is np.ndarray
        assert (reply.values.tolist(), reply.note) == ([expected(number)] * 3, note)
        assert reply.correlation_id == request.message_id
    told = await runtime.send_and_receive("told", Samples(np.zeros(0)), timeout=10.0)
    assert told.note == "[]", "nothing has blocked the event loop, and no stream has overtaken another"
