"""A daemon in the process of the test, and a step that notes what it sees."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.rpc import status_pb2

from pydotcompute import message
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute_server import Call, Daemon, Limits, Method, Proceed, Settings
from tests.stubs import PATIENCE, Wire


@message(package="shop.v1")
class Order:
    """A request, which is its own reply."""

    amount: int = 0


async def echo(ctx: KernelContext[Order, Order]) -> None:
    """Sends each order back."""
    async for order in ctx:
        await ctx.send(order)


ECHO = KernelType("echo", echo, RingKernelConfig("echo"), Order, Order)


class EmbeddedWire(Wire):
    """The services of a daemon in this process."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        super().__init__(channel)
        self.address = address


@asynccontextmanager
async def embedded(*steps: Any, kernels: Iterable[KernelType] = (ECHO,), **limits: Any) -> AsyncIterator[Daemon]:
    """A daemon with these steps, kernels and limits."""
    settings = Settings(listen="127.0.0.1:0", launch=["all"], limits=Limits(**{"grace": 1.0, **limits}))
    daemon = Daemon(settings, {kernel_type.name: kernel_type for kernel_type in kernels}, steps)
    async with asyncio.timeout(PATIENCE):
        await daemon.start()
        running = asyncio.create_task(daemon.run())
        try:
            yield daemon
        finally:
            daemon.stop()
            await running


@asynccontextmanager
async def daemon_with(*steps: Any) -> AsyncIterator[EmbeddedWire]:
    """A daemon with these steps and the kernel `echo`, and a connection to it."""
    async with embedded(*steps) as daemon, grpc.aio.insecure_channel(daemon.address) as channel:
        yield EmbeddedWire(channel, daemon.address)


class Recorder:
    """A step that notes what it sees of each call, and how the call ends."""

    def __init__(self) -> None:
        self.methods: list[Method] = []
        """Those that it was asked for."""
        self.calls: list[Call] = []
        self.kernels: list[str] = []
        self.ends: list[status_pb2.Status | None] = []
        self.errors: list[BaseException] = []
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    def __call__(self, method: Method, proceed: Proceed) -> Proceed:
        self.methods.append(method)

        async def record(call: Call) -> None:
            self.calls.append(call)
            self.begun.set()
            try:
                await call.on_kernel(self._note)
                await proceed(call)
                self.ends.append(None)
            except BaseException as error:
                self.errors.append(error)
                self.ends.append(call.status_of(error))
                raise
            finally:
                self.ended.set()

        return record

    async def _note(self, kernel_id: str) -> None:
        self.kernels.append(kernel_id)
