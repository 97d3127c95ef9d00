"""The kernels that are attacked: one takes a number, and each of the others takes something that can be large."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pydotcompute import RingKernelMessage, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
class Number(RingKernelMessage):
    """A number."""

    value: float = 0.0


@message
class Blob(RingKernelMessage):
    """Bytes."""

    data: bytes = b""


@dataclass
class Point:
    """A message in a message."""

    x: float = 0.0


@message
class Points(RingKernelMessage):
    """A list of messages."""

    items: list[Point] = field(default_factory=list)


@message
class Integers(RingKernelMessage):
    """A list of numbers."""

    items: list[int] = field(default_factory=list)


@message
class Texts(RingKernelMessage):
    """A list of texts."""

    items: list[str] = field(default_factory=list)


@message
class Table(RingKernelMessage):
    """A map."""

    entries: dict[int, Point] = field(default_factory=dict)


@message
class Array(RingKernelMessage):
    """An array."""

    values: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(1))


@ring_kernel(input_type=Number, output_type=Number)
async def square(ctx: KernelContext[Number, Number]) -> None:
    """Squares numbers, for a client that does nothing wrong."""
    async for request in ctx:
        await ctx.send(Number(request.value**2, correlation_id=request.message_id))


@ring_kernel(input_type=Blob, output_type=Blob)
async def echo(ctx: KernelContext[Blob, Blob]) -> None:
    """Sends bytes back."""
    async for request in ctx:
        await ctx.send(Blob(request.data, correlation_id=request.message_id))


@ring_kernel(input_type=Number, output_type=Blob)
async def blob(ctx: KernelContext[Number, Blob]) -> None:
    """Answers a short request with as many bytes as it says."""
    async for request in ctx:
        await ctx.send(Blob(b"x" * int(request.value), correlation_id=request.message_id))


@ring_kernel(input_type=Points, output_type=Number)
async def points(ctx: KernelContext[Points, Number]) -> None:
    """Counts points."""
    async for request in ctx:
        await ctx.send(Number(len(request.items), correlation_id=request.message_id))


@ring_kernel(input_type=Integers, output_type=Number)
async def integers(ctx: KernelContext[Integers, Number]) -> None:
    """Counts numbers."""
    async for request in ctx:
        await ctx.send(Number(len(request.items), correlation_id=request.message_id))


@ring_kernel(input_type=Texts, output_type=Number)
async def texts(ctx: KernelContext[Texts, Number]) -> None:
    """Counts texts."""
    async for request in ctx:
        await ctx.send(Number(len(request.items), correlation_id=request.message_id))


@ring_kernel(input_type=Table, output_type=Number)
async def table(ctx: KernelContext[Table, Number]) -> None:
    """Counts the entries of maps."""
    async for request in ctx:
        await ctx.send(Number(len(request.entries), correlation_id=request.message_id))


@ring_kernel(input_type=Array, output_type=Number)
async def array(ctx: KernelContext[Array, Number]) -> None:
    """Counts the values of arrays."""
    async for request in ctx:
        await ctx.send(Number(request.values.size, correlation_id=request.message_id))
