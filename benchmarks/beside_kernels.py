"""Kernels in processes of their own that compute, sleep or crash, and one to ask meanwhile."""

import ctypes
import time
from dataclasses import dataclass
from typing import Any

from pydotcompute import message, ring_kernel


@message
@dataclass
class Work:
    """How long it takes."""

    seconds: float = 0.0


@message
@dataclass
class Finished:
    """It is finished."""


async def _compute(ctx: Any) -> None:
    async for work in ctx:
        end = time.thread_time() + work.seconds  # Of the processor: whoever has to share it takes longer.
        while time.thread_time() < end:
            pass
        await ctx.send(Finished(correlation_id=work.message_id))  # type: ignore[call-arg]


@ring_kernel(input_type=Work, output_type=Finished, isolation="process")
async def computes(ctx: Any) -> None:
    """Computes without `await`."""
    await _compute(ctx)


@ring_kernel(input_type=Work, output_type=Finished, isolation="process", instances=2)
async def computes_twice(ctx: Any) -> None:
    """The same, in two processes."""
    await _compute(ctx)


@ring_kernel(input_type=Work, output_type=Finished, isolation="process", instances=4)
async def blocks(ctx: Any) -> None:
    """Blocks its process, one of four."""
    async for work in ctx:
        time.sleep(work.seconds)  # noqa: ASYNC251  # That is what is measured.
        await ctx.send(Finished(correlation_id=work.message_id))  # type: ignore[call-arg]


@ring_kernel(input_type=Work, output_type=Finished, isolation="process", restart="on_failure")
async def crashes(ctx: Any) -> None:
    """Crashes."""
    async for _ in ctx:
        ctypes.string_at(0)


@ring_kernel(input_type=Work, output_type=Finished)
async def answers(ctx: Any) -> None:
    """Answers at once, in the process of the daemon."""
    async for work in ctx:
        await ctx.send(Finished(correlation_id=work.message_id))  # type: ignore[call-arg]
