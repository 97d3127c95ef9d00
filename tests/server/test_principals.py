"""A kernel may ask who has sent the message in its hands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from pydotcompute import RingKernelRuntime, message
from pydotcompute.ring_kernels.actor.blocking import BlockingContext
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute_client import connect
from pydotcompute_server import Daemon
from tests.embedded import EmbeddedWire, embedded
from tests.principals import believing, saying


@message(package="guests.v1")
class Guest:
    """A request, and its reply, which says who is who."""

    name: str = ""


def answer(request: Any, name: object) -> Any:
    """The reply to a request."""
    make: Any = Guest
    return make(str(name), correlation_id=request.message_id)


async def host(ctx: KernelContext[Any, Any]) -> None:
    """Says who has sent each request, and that nobody knows once it is answered."""
    async for request in ctx:
        who = ctx.principal
        assert who == ctx.principal_of(request)
        await ctx.send(answer(request, who))
        assert ctx.principal is None
        assert ctx.principal_of(request) is None


async def porter(ctx: KernelContext[Any, Any]) -> None:
    """Hands every request on to the host."""
    async for request in ctx:
        await ctx.forward("host", request)


async def party(ctx: KernelContext[Any, Any]) -> None:
    """Answers in batches of two."""
    async for batch in ctx.batches(max_size=2, max_delay=5.0):
        assert ctx.principal is None
        await batch.reply(name=[str(ctx.principal_of(request)) for request in batch])


def blocking_host(ctx: BlockingContext[Any, Any]) -> None:
    """As the host, in a thread."""
    for request in ctx:
        ctx.send(answer(request, f"{ctx.principal} {ctx.principal_of(request)}"))


async def slow(ctx: KernelContext[Any, Any]) -> None:
    """Answers when it is too late, and tells the host's next caller who had asked."""
    async for request in ctx:
        await GIVEN_UP.wait()
        SEEN.append(ctx.principal)
        await ctx.send(answer(request, ""))


GIVEN_UP = asyncio.Event()
SEEN: list[str | None] = []
KERNELS = [
    KernelType(func.__name__, func, RingKernelConfig(func.__name__), Guest, Guest)
    for func in (host, porter, party, blocking_host, slow)
]


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with embedded(believing, kernels=KERNELS) as daemon:
        yield daemon


async def as_one(stack: AsyncExitStack, daemon: Daemon, name: str) -> Any:
    return await stack.enter_async_context(connect(daemon.address, interceptors=saying(name)))


@pytest.mark.parametrize("kernel_id", ["host", "porter"])
async def test_a_kernel_is_told_who_has_sent_a_message_over_exchange(daemon: Daemon, kernel_id: str) -> None:
    async with AsyncExitStack() as stack:
        for name in ("alice", "bob"):
            runtime = await as_one(stack, daemon, name)
            assert (await runtime.send_and_receive(kernel_id, Guest())).name == name
            await runtime.send(kernel_id, Guest())
            assert (await runtime.receive(kernel_id)).name == name


async def test_who_says_nothing_is_anonymous(daemon: Daemon) -> None:
    async with connect(daemon.address) as runtime:
        assert (await runtime.send_and_receive("host", Guest())).name == "anonymous"


@pytest.mark.parametrize("kernel_id", ["host", "porter"])
async def test_a_kernel_is_told_who_has_made_a_unary_call(daemon: Daemon, kernel_id: str) -> None:
    async with grpc.aio.insecure_channel(daemon.address, interceptors=saying("alice")) as channel:
        wire = EmbeddedWire(channel, daemon.address)
        assert (await wire.ask(kernel_id)) == {"name": "alice"}
        await wire.send(kernel_id, client_id="hers")
        assert wire.fields((await wire.receive(kernel_id, client_id="hers")).body) == {"name": "alice"}


async def test_a_kernel_is_told_who_streams(daemon: Daemon) -> None:
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        method: Any = channel.stream_stream("/guests.v1.Host/Stream")
        call = method(metadata=[("who", "alice")])
        await call.write(b"")
        await call.done_writing()
        assert await call.read() == b"\x0a\x05alice"


async def test_each_message_of_a_batch_has_its_own_sender(daemon: Daemon) -> None:
    async with AsyncExitStack() as stack:
        asks = [(await as_one(stack, daemon, name)).send_and_receive("party", Guest()) for name in ("alice", "bob")]
        assert [reply.name for reply in await asyncio.gather(*asks)] == ["alice", "bob"]


async def test_an_actor_in_a_thread_is_told_too(daemon: Daemon) -> None:
    async with AsyncExitStack() as stack:
        runtime = await as_one(stack, daemon, "alice")
        assert (await runtime.send_and_receive("blocking_host", Guest())).name == "alice alice"


async def test_a_kernel_is_told_who_has_asked_even_when_that_one_has_given_up(daemon: Daemon) -> None:
    SEEN.clear()
    GIVEN_UP.clear()
    async with grpc.aio.insecure_channel(daemon.address, interceptors=saying("alice")) as channel:
        wire = EmbeddedWire(channel, daemon.address)
        with pytest.raises(grpc.aio.AioRpcError):
            await wire.ask("slow", 0.3)
        GIVEN_UP.set()
        await wire.until("slow", messages_dropped=1)
    assert SEEN == ["alice"]


async def test_in_the_process_everybody_is_local() -> None:
    async with RingKernelRuntime(kernel_types={each.name: each for each in KERNELS}) as runtime:
        for name in ("host", "porter", "blocking_host"):
            await runtime.launch(name)
            await runtime.activate(name)
        assert (await runtime.send_and_receive("host", Guest())).name == "local"
        await runtime.send("porter", Guest())
        assert (await runtime.receive("porter")).name == "local"
        assert (await runtime.send_and_receive("blocking_host", Guest())).name == "local local"


async def test_nobody_knows_who_has_sent_a_dead_letter_that_was_put_back() -> None:
    async with RingKernelRuntime(kernel_types={each.name: each for each in KERNELS}) as runtime:
        await runtime.launch("host")
        await runtime.activate("host")
        await runtime.deactivate("host")
        with pytest.raises(TimeoutError):
            await runtime.send_and_receive("host", Guest(), timeout=0.01)
        await runtime.requeue_dead_letters("host")
        await runtime.reactivate("host")
        assert (await runtime.receive("host")).name == "None"
