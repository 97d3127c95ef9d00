"""The kernels that the tests of the command talk to."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np

from pydotcompute import RingKernelMessage, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
@dataclass
class Note(RingKernelMessage):
    text: str
    count: int = 0
    tags: list[str] | None = None


@ring_kernel(kernel_id="crasher", input_type=Note, output_type=Note)
async def crasher(ctx: KernelContext[Note, Note]) -> None:
    async for _ in ctx:
        raise ValueError("no such word\nsee the dictionary")


@ring_kernel(kernel_id="silent", input_type=Note, output_type=Note, backpressure="reject", queue_size=7)
async def silent(ctx: KernelContext[Note, Note]) -> None:
    """Takes notes, and keeps them."""
    async for _ in ctx:
        pass


@ring_kernel(kernel_id="repeater", input_type=Note, output_type=Note)
async def repeater(ctx: KernelContext[Note, Note]) -> None:
    async for note in ctx:
        for index in range(note.count):
            await ctx.send(Note(text=note.text, count=index))


@dataclass
class Inner:
    since: datetime


@message
class Kept(RingKernelMessage):
    id: UUID
    inner: Inner
    big: int = field(default=0, metadata={"doc": "More than a double holds."})
    scale: float = 1.0


@ring_kernel(kernel_id="keeper", input_type=Kept, output_type=Kept)
async def keeper(ctx: KernelContext[Kept, Kept]) -> None:
    async for kept in ctx:
        await ctx.send(kept)


class Unit(enum.Enum):
    METRE = 1
    INCH = 2


@dataclass
class Circle:
    radius: float


@dataclass
class Square:
    side: float


@message
class Mixed:
    text: str
    zero: int
    whole: float
    half: float
    large: float
    huge: float
    odd: float
    unset: str
    flag: bool
    raw: bytes
    unit: Unit
    when: datetime
    takes: timedelta
    id: UUID
    array: np.ndarray[Any, Any]
    numbers: dict[int, float]
    flags: dict[bool, str]
    labels: dict[str, int]
    shapes: list[Circle | Square]
    grid: list[list[int]]
    pair: tuple[float, float]
    maybe: list[str] | None
    none: int | None = None
    scale: float = 1.0


@ring_kernel(kernel_id="mixer", input_type=Mixed, output_type=Mixed)
async def mixer(ctx: KernelContext[Mixed, Mixed]) -> None:
    async for mixed in ctx:
        await ctx.send(mixed)


@message
class Secret(RingKernelMessage):
    text: str


@ring_kernel(kernel_id="vague", input_type=Note)
async def vague(ctx: KernelContext[Note, Kept | Secret]) -> None:
    since = datetime.fromisoformat("2000-01-01T00:00:00Z")
    async for note in ctx:
        if note.text == "secret":
            await ctx.send(Secret("x", correlation_id=note.message_id))
        else:
            await ctx.send(Kept(UUID(int=note.count), Inner(since), correlation_id=note.message_id))


@ring_kernel(kernel_id="private")
async def private(ctx: KernelContext[Any, Any]) -> None:
    async for _ in ctx:
        pass
