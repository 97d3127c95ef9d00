"""Arrays on a GPU that one kernel forwards to another, as far as a fake of CuPy shows what is asked of it."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import numpy as np
import pytest

from pydotcompute import Array, RingKernelMessage, RingKernelRuntime, message, ring_kernel
from pydotcompute.device import DeviceMemoryError
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels.actor.blocking import BlockingContext
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.kernel import RingKernel
from tests.fake_cupy import UNIT, FakeCuda

PATIENCE = 10.0
Context = KernelContext[Any, Any]
Blocking = BlockingContext[Any, Any]


@message
class Samples(RingKernelMessage):
    """What a client sends, and hears."""

    values: np.ndarray


@message
class Staying(RingKernelMessage):
    """An array that stays on the GPU; one that does not; and some in a list and in a tuple."""

    values: Annotated[np.ndarray, Array(on_device=True)]
    on_host: np.ndarray | None = None
    listed: list[Annotated[np.ndarray, Array(on_device=True)]] | None = None
    paired: tuple[Annotated[np.ndarray, Array(on_device=True)], ...] = ()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    cuda = FakeCuda(devices=2)
    for name, module in cuda.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return cuda


@pytest.fixture
async def runtime(cuda: FakeCuda) -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime() as runtime:
        yield runtime
    gc.collect()
    assert cuda.races == []


@pytest.fixture
def received() -> list[Any]:
    """What the stages have received."""
    return []


def stage(
    device: str, input_type: type, work: Callable[[Any, Any], Any], *, output_type: type = Samples, **settings: Any
) -> Any:
    """An actor that forwards to "next" what `work` makes of a message, or sends it, if it is `Samples`."""

    async def actor(ctx: Context) -> None:
        async for request in ctx:
            made = work(ctx, request)
            request = None
            await (ctx.send(made) if isinstance(made, Samples) else ctx.forward("next", made))
            made = None

    declare = ring_kernel(
        input_type=input_type, output_type=output_type, device=device, auto_register=False, **settings
    )
    return declare(actor)


def blocking_stage(device: str, input_type: type, work: Callable[[Any, Any], Any]) -> Any:
    """Likewise, in a thread."""

    def actor(ctx: Blocking) -> None:
        for request in ctx:
            made = work(ctx, request)
            if isinstance(made, Samples):
                ctx.send(made)
            else:
                ctx.forward("next", made)

    return ring_kernel(input_type=input_type, output_type=Samples, device=device, auto_register=False)(actor)


def double(ctx: Any, request: Any) -> Staying:
    return Staying(ctx.to_device(request.values) * 2, correlation_id=request.message_id)


def keeping(received: list[Any]) -> Callable[[Any, Any], Samples]:
    """Keeps what it receives, and answers with three times that."""

    def work(ctx: Any, request: Any) -> Samples:
        received.append(request)
        reply = Samples(np.zeros(0), correlation_id=request.message_id)
        reply.values = ctx.to_device(request.values) * 3
        return reply

    return work


def tripling(ctx: Any, request: Any) -> Samples:
    return keeping([])(ctx, request)


async def start(runtime: RingKernelRuntime, **actors: Any) -> list[RingKernel[Any, Any]]:
    kernels = [await runtime.launch(kernel_id, actor) for kernel_id, actor in actors.items()]
    for kernel in kernels:
        await kernel.activate()
    return kernels


async def ask(kernel: RingKernel[Any, Any], *values: float) -> Any:
    return await kernel.send_and_receive(Samples(np.array(values)), timeout=PATIENCE)


def held(kernel: RingKernel[Any, Any]) -> int | None:
    return kernel.get_telemetry().device_memory_bytes


@pytest.mark.parametrize("first", [stage, blocking_stage])
@pytest.mark.parametrize("last", [stage, blocking_stage])
async def test_an_array_goes_to_a_kernel_of_the_same_gpu_without_leaving_it(
    runtime: RingKernelRuntime, cuda: FakeCuda, received: list[Any], first: Any, last: Any
) -> None:
    sent: list[Any] = []

    def doubling(ctx: Any, request: Any) -> Staying:
        sent.append(double(ctx, request).values)
        return Staying(sent[-1], correlation_id=request.message_id)

    cuda.busy = 3
    (kernel, _) = await start(
        runtime, first=first("cuda", Samples, doubling), next=last("cuda:0", Staying, keeping(received))
    )
    request = Samples(np.array([1.0, 2.0]))
    reply = await kernel.send_and_receive(request, timeout=PATIENCE)
    assert reply.values.tolist() == [6.0, 12.0]
    assert reply.correlation_id == request.message_id
    assert received[0].message_id == request.message_id
    assert type(received[0].values) is type(sent[0])
    assert received[0].values._elements is sent[0]._elements, "not a copy"
    assert (len(cuda.uploads), cuda.pinned) == (1, 1), "once to the GPU, and once back"
    assert [name for name in cuda.waited_in if "get" in name] == []


async def test_its_memory_is_not_used_again_before_the_receivers_stream_is_done_with_it(
    runtime: RingKernelRuntime, cuda: FakeCuda
) -> None:
    def careless(ctx: Any, request: Any) -> Samples:
        _ = request.values[:1] * 2  # On the receiver's stream, which nobody waits for.
        return Samples(np.zeros(1), correlation_id=request.message_id)

    kernel, last = await start(runtime, first=stage("cuda", Samples, double), next=stage("cuda", Staying, careless))
    for _ in range(3):
        await ask(kernel, 1.0)
    gc.collect()
    assert cuda.races == []
    assert cuda.pools[0].used_bytes() == UNIT, "all but the last are back in the sender's pool"
    lender, borrower = kernel.lease.stream, last.lease.stream
    assert lender.comes_after(borrower, 2)
    assert borrower.done < 2, "nobody has waited on the host"


async def test_the_request_itself_goes_on_and_on(
    runtime: RingKernelRuntime, cuda: FakeCuda, received: list[Any]
) -> None:
    def hand_on(ctx: Any, request: Any) -> Any:
        _ = request.values * 5
        return request

    async def router(ctx: Context) -> None:
        async for request in ctx:
            _ = hand_on(ctx, request)
            await ctx.forward("last", request)

    kernel, *_ = await start(
        runtime,
        first=stage("cuda", Samples, double),
        next=ring_kernel(input_type=Staying, output_type=Samples, device="cuda", auto_register=False)(router),
        last=stage("cuda", Staying, keeping(received)),
    )
    assert (await ask(kernel, 1.0, 2.0)).values.tolist() == [6.0, 12.0]
    assert type(received[0].values).__module__ == "cupy"
    assert (len(cuda.uploads), cuda.pinned) == (1, 1)


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
async def test_a_kernel_elsewhere_gets_it_by_way_of_the_host(
    runtime: RingKernelRuntime, cuda: FakeCuda, received: list[Any], device: str
) -> None:
    cuda.busy = 3
    (kernel, _) = await start(
        runtime, first=stage("cuda:0", Samples, double), next=stage(device, Staying, keeping(received))
    )
    assert (await ask(kernel, 1.0, 2.0)).values.tolist() == [6.0, 12.0]
    assert type(received[0].values) is np.ndarray
    assert [name for name in cuda.waited_in if "get" in name] == [], "without blocking the loop"


async def test_only_what_is_in_a_field_for_it_stays_on_the_gpu(
    runtime: RingKernelRuntime, cuda: FakeCuda, received: list[Any]
) -> None:
    def work(ctx: Any, request: Any) -> Staying:
        values = ctx.to_device(request.values)
        made = Staying(values, listed=[values + 1], paired=(values + 2, values + 3), correlation_id=request.message_id)
        made.on_host = values + 4
        return made

    (kernel, _) = await start(
        runtime, first=stage("cuda", Samples, work), next=stage("cuda", Staying, keeping(received))
    )
    await ask(kernel, 1.0)
    (got,) = received
    assert type(got.on_host) is np.ndarray
    assert got.on_host.tolist() == [5.0]
    on_gpu = [got.values, *got.listed, *got.paired]
    assert [type(array).__module__ for array in on_gpu] == ["cupy"] * 4
    assert [array._elements.tolist() for array in on_gpu] == [[1.0], [2.0], [3.0], [4.0]]


async def test_what_the_receiver_has_outlives_its_sender(
    runtime: RingKernelRuntime, cuda: FakeCuda, received: list[Any]
) -> None:
    kernel, last = await start(
        runtime, first=stage("cuda", Samples, double), next=stage("cuda", Staying, keeping(received))
    )
    await ask(kernel, *[1.0] * 128)
    await kernel.terminate()
    assert held(kernel) == 1024, "it is the sender's, and not taken from under the receiver"
    assert received[0].values._elements.tolist() == [2.0] * 128
    await last.terminate()
    received.clear()
    gc.collect()
    assert held(kernel) == 0


async def test_what_the_receiver_has_counts_for_the_sender(
    runtime: RingKernelRuntime, cuda: FakeCuda, received: list[Any]
) -> None:
    kernel, last = await start(
        runtime,
        first=stage("cuda", Samples, double, memory_limit="4KiB"),
        next=stage("cuda", Staying, keeping(received), memory_limit="4KiB"),
    )
    await ask(kernel, *[1.0] * 128)
    assert cuda.pools[0].used_bytes() == 1024
    assert cuda.pools[1].used_bytes() == 0
    for _ in range(2):
        await ask(kernel, *[1.0] * 128)
    with pytest.raises(KernelFailedError) as failed:
        await ask(kernel, *[1.0] * 128)
    assert (failed.value.kernel_id, failed.value.cause_type) == ("first", DeviceMemoryError.__name__)
    assert not last.gate.has_ended


async def test_what_is_sent_stays_on_the_gpu_in_process_and_leaves_it_at_a_daemon(
    runtime: RingKernelRuntime, cuda: FakeCuda
) -> None:
    async def actor(ctx: Context) -> None:
        async for request in ctx:
            await ctx.send(double(ctx, request))

    actor = ring_kernel(input_type=Samples, output_type=Staying, device="cuda", auto_register=False)(actor)
    cuda.busy = 3
    (kernel,) = await start(runtime, kernel=actor)
    reply = await ask(kernel, 1.0)
    assert type(reply.values).__module__ == "cupy"
    assert reply.values.get().tolist() == [2.0], "it is computed"
    async with RingKernelRuntime(sends_to_host=True) as daemons:
        (kernel,) = await start(daemons, kernel=actor)
        reply = await ask(kernel, 1.0)
        assert type(reply.values) is np.ndarray
        assert reply.values.tolist() == [2.0]


async def test_many_items_are_under_way_at_once(runtime: RingKernelRuntime, cuda: FakeCuda) -> None:
    cuda.busy = 2
    (kernel, _) = await start(runtime, first=stage("cuda", Samples, double), next=stage("cuda", Staying, tripling))
    replies = await asyncio.gather(*(ask(kernel, number) for number in range(50)))
    assert [reply.values.tolist() for reply in replies] == [[6.0 * number] for number in range(50)]
