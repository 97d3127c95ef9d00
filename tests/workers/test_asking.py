"""Actors that ask each other, of which some are in workers."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime, message
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels.lifecycle import KernelContext
from tests.contract.world import PATIENCE, eventually
from tests.workers import kernels
from tests.workers.kernels import Ask


@message
class Strange:
    """A class that no worker knows."""

    number: int = 0


async def ask(runtime: RingKernelRuntime, kernel_id: str, number: int = 0, do: str = "") -> Any:
    return await runtime.send_and_receive(kernel_id, Ask(number, do), timeout=PATIENCE)


async def scopes(stack: AsyncExitStack, runtime: RingKernelRuntime, **types: Callable[..., Awaitable[None]]) -> None:
    """Launch these kernels."""
    for kernel_id, kernel_type in types.items():
        await stack.enter_async_context(runtime.kernel_scope(kernel_id, kernel_type))


async def test_from_here_to_a_worker_and_from_a_worker_to_here_and_round_in_a_circle() -> None:
    async with RingKernelRuntime() as runtime, AsyncExitStack() as stack:
        await scopes(stack, runtime, here=kernels.asks_here, there=kernels.asks)
        at_worker = (await ask(runtime, "there", 1)).pid
        assert at_worker != os.getpid()
        assert (await ask(runtime, "here", 2, "there")).pid == at_worker
        assert (await ask(runtime, "there", 3, "here")).pid == os.getpid()
        for first, second in (("here", "there"), ("there", "here")):
            told = await ask(runtime, first, 4, f"{second} {first}")
            assert f"in a circle: {second} -> {first} -> {second}. " in told.note


async def test_an_instance_may_ask_its_own_kernel_while_another_takes_messages() -> None:
    async with RingKernelRuntime() as runtime, AsyncExitStack() as stack:
        await scopes(stack, runtime, k=kernels.asks_in_two)
        assert (await ask(runtime, "k", 1, "k")).note == "Told"
        assert "in a circle: k -> k. " in (await ask(runtime, "k", 2, "k k")).note, "it takes three"
        # Two at once: whoever comes last is refused, if both would wait for each other.
        told = await asyncio.gather(*(ask(runtime, "k", number, "k") for number in range(20)))
        assert [each.number for each in told] == [*range(20)]
        assert {each.note.partition(":")[0] for each in told} <= {"Told", "CircularAskError"}


async def test_what_a_worker_has_asked_is_withdrawn_when_it_dies() -> None:
    async with RingKernelRuntime() as runtime, AsyncExitStack() as stack:
        await scopes(stack, runtime, here=kernels.asks_here, there=kernels.asks)
        pid = (await ask(runtime, "there", 1)).pid
        await runtime.deactivate("here")
        asking = asyncio.create_task(ask(runtime, "there", 2, "here"))
        here = runtime.kernel("here")
        await eventually(lambda: here.queue_depth == 1)
        os.kill(pid, 9)
        with pytest.raises(KernelFailedError, match="SIGKILL"):
            await asking
        await eventually(lambda: here.queue_depth == 0)
        await runtime.reactivate("here")
        assert (await ask(runtime, "there", 3, "here")).pid == os.getpid()


async def test_a_reply_of_a_class_that_the_worker_lacks_is_an_error() -> None:
    async def strange(ctx: KernelContext[Ask, Strange]) -> None:
        async for request in ctx:
            correlation_id = request.message_id  # type: ignore[attr-defined]
            await ctx.send(Strange(request.number, correlation_id=correlation_id))  # type: ignore[call-arg]

    async with RingKernelRuntime() as runtime, AsyncExitStack() as stack:
        await scopes(stack, runtime, there=kernels.asks)
        await runtime.launch("strange", strange, input_type=Ask, output_type=Strange)
        await runtime.activate("strange")
        note = (await ask(runtime, "there", 1, "strange")).note
        assert note.startswith("MessageDeserializationError: ")
        assert "no class of this name is declared in the worker of the actor; import the file that declares it" in note
