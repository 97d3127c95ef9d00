"""A daemon in the process of the test, and messages whose reading and writing a test can hold up."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import field
from typing import Any

import grpc

from pydotcompute import message
from pydotcompute.protobuf.varints import varint
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute_server import Daemon, Limits, Settings
from tests.chaos.overload import ask, messages
from tests.stubs import PATIENCE, Wire

MANY = 10_000
"""So many elements that a message is read and written apart."""
FULL_NAME = "overload.v1.Load"
OUTPUT = b"\x08" + varint((1 << 64) - MANY)
"""The bytes of an `Order` to `giving` for an output of many elements."""


class Hold:
    """Holds up a thread of the daemon from `begun` to `let_go`, if it is `armed`."""

    def __init__(self) -> None:
        self.armed = False
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def here(self) -> None:
        """Called in the place that is held up."""
        if self.armed:
            self.begun.set()
            assert self.let_go.wait(PATIENCE)

    async def reached(self) -> None:
        """Wait until a thread is held up."""
        assert await asyncio.to_thread(self.begun.wait, PATIENCE)


class Holds:
    """The holds of the running test."""

    reading = Hold()
    writing = Hold()


class HeldList(list[Any]):
    """A list that is held up where it is gone through outside the event loop, which is where it is written apart."""

    def __iter__(self) -> Iterator[Any]:
        if threading.current_thread() is not threading.main_thread():
            Holds.writing.here()
        return super().__iter__()


@message(package="overload.v1")
class Point:
    """An element."""

    x: float = 0.0


@message(package="overload.v1")
class Load:
    """A message that may be long; reading it is held up if its note says so."""

    items: list[Point] = field(default_factory=list)
    note: str = ""

    def __post_init__(self) -> None:
        if self.note == "hold":
            Holds.reading.here()


@message(package="overload.v1")
class Order:
    """A short request."""

    amount: int = 0


async def short(ctx: KernelContext[Order, Order]) -> None:
    """Sends each order back."""
    async for order in ctx:
        await ctx.send(order)


async def taking(ctx: KernelContext[Load, Order]) -> None:
    """Answers with the number of items."""
    async for load in ctx:
        await ctx.send(Order(len(load.items), correlation_id=load.message_id))  # type: ignore[call-arg, attr-defined]


async def giving(ctx: KernelContext[Order, Load]) -> None:
    """Answers with so many items; an output of so many with a minus."""
    async for order in ctx:
        items = HeldList(Point() for _ in range(abs(order.amount)))
        correlation = order.message_id if order.amount >= 0 else None  # type: ignore[attr-defined]
        await ctx.send(Load(items, correlation_id=correlation))  # type: ignore[call-arg]


def body(count: int = MANY, note: str = "hold") -> bytes:
    """The bytes of a `Load`."""
    return messages(count) + b"\x12" + bytes([len(note)]) + note.encode()


def ask_load(count: int = MANY, note: str = "hold") -> Any:
    """A call of Ask with a `Load`."""
    return ask("taking", FULL_NAME, body(count, note))


@asynccontextmanager
async def daemon(*steps: Any, **limits: Any) -> AsyncIterator[Wire]:
    """A daemon with the kernels above and these steps, and holds that let everything pass."""
    Holds.reading, Holds.writing = Hold(), Hold()
    types = {
        "short": KernelType("short", short, RingKernelConfig("short"), Order, Order),
        "taking": KernelType("taking", taking, RingKernelConfig("taking", output_queue_size=64), Load, Order),
        "giving": KernelType("giving", giving, RingKernelConfig("giving"), Order, Load),
    }
    settings = Settings(listen="127.0.0.1:0", launch=["all"], limits=Limits(**{"grace": 1.0, **limits}))
    running_daemon = Daemon(settings, types, steps)
    await running_daemon.start()
    running = asyncio.create_task(running_daemon.run())
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    try:
        async with grpc.aio.insecure_channel(running_daemon.address, options=options) as channel:
            yield Wire(channel)
    finally:
        Holds.reading.let_go.set()
        Holds.writing.let_go.set()
        running_daemon.stop()
        await running
