"""A typed stream against a client that does just what it is told to: for what no real one does at will."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from pydotcompute import RingKernelMessage, RingKernelRuntime, message
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.bounds.shares import Owner
from pydotcompute_server.calls.errors import StatusError
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.connected import ConnectedClient
from pydotcompute_server.limits import Limits
from pydotcompute_server.typed.streams import Stream, Streams

PATIENCE = 10.0


@message(package="shop.v1")
class Order(RingKernelMessage):
    """A request, or an output if it is sent again without its id."""

    amount: int = 0


async def counter(ctx: KernelContext[Order, Order]) -> None:
    """Sends each order back, and with an amount of 99 an output before it."""
    async for order in ctx:
        if order.amount == 99:
            await ctx.send(Order(1))
        await ctx.send(order)


async def hoarder(ctx: KernelContext[Order, Order]) -> None:
    """Answers nothing."""
    async for _ in ctx:
        pass


async def repeater(ctx: KernelContext[Order, Order]) -> None:
    """Answers each order as many times as its amount says."""
    async for order in ctx:
        for number in range(order.amount):
            await ctx.send(Order(number, correlation_id=order.message_id))


class Client:
    """The context of a call: what the client sends is put into `sent`, and it takes an answer where `reading` is."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.answers: list[bytes] = []
        self.reading = asyncio.Event()
        self.offered = asyncio.Event()
        """Whether an answer was written, read or not."""
        self.seconds: float | None = None

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Nobody looks."""

    def time_remaining(self) -> float | None:
        """Until the call's deadline."""
        return self.seconds

    async def read(self) -> Any:
        await asyncio.sleep(0)  # gRPC's waits too, whatever there is.
        return await self.sent.get()

    async def write(self, body: bytes) -> None:
        self.offered.set()
        await self.reading.wait()
        self.answers.append(body)

    def send(self, amount: int) -> None:
        """A message with this amount."""
        self.sent.put_nowait(bytes([0x08, amount]))


@asynccontextmanager
async def kernel_of(actor: Any, **config: Any) -> AsyncIterator[tuple[RingKernel[Any, Any], Catalog]]:
    """A kernel that is active in the block, and the catalog of its types."""
    kernel_type = KernelType("counter", actor, RingKernelConfig("counter", **config), Order, Order)
    catalog = Catalog()
    catalog.add(kernel_type)
    runtime = RingKernelRuntime(kernel_types={"counter": kernel_type})
    async with asyncio.timeout(PATIENCE), runtime, runtime.kernel_scope("counter") as kernel:
        yield kernel, catalog


LIMITS = Limits(max_message_bytes=1_000)


def stream_of(
    kernel: RingKernel[Any, Any], catalog: Catalog, client: Any, limits: Limits = LIMITS, **options: Any
) -> Stream:
    connected = ConnectedClient(1, Owner("anonymous", "ipv4:127.0.0.1:50000"))
    return Stream(kernel, catalog, client, limits, Apart(limits), Memory(1 << 30), connected, **options)


async def settled(what: Any) -> None:
    """Wait until this is true."""
    while not what():  # noqa: ASYNC110  # It waits for tasks of this very loop.
        await asyncio.sleep(0)


async def status_of(running: asyncio.Task[None]) -> tuple[int, str]:
    """How a stream ends."""
    with pytest.raises(StatusError) as ended:
        await running
    return ended.value.status.code, ended.value.status.message


async def test_while_a_client_does_not_read_others_get_the_outputs() -> None:
    async with kernel_of(counter) as (kernel, catalog):
        client = Client()
        running = asyncio.create_task(stream_of(kernel, catalog, client, outputs=True).run())
        await settled(lambda: len(kernel.mail.replies.wanted) == 1)
        receiving = asyncio.create_task(kernel.receive())
        await settled(lambda: len(kernel.mail.replies.wanted) == 2)
        client.send(99)  # The stream, which waits longest, is woken for the output, but offers the client the reply.
        assert (await receiving).amount == 1
        running.cancel()
        await asyncio.wait((running,))


async def test_an_output_that_a_client_does_not_take_is_for_others() -> None:
    async with kernel_of(counter) as (kernel, catalog):
        client = Client()
        running = asyncio.create_task(stream_of(kernel, catalog, client, outputs=True).run())
        await kernel.mail.send_as(kernel.mail.replies.callers.running(), Order(99))
        assert (await kernel.receive()).amount == 99
        await client.offered.wait()
        running.cancel()
        await asyncio.wait((running,))
        assert (await kernel.receive()).amount == 1


async def test_replies_that_a_client_does_not_take_stop_the_reader_and_reject_nothing() -> None:
    async with kernel_of(counter, output_queue_size=4, backpressure_strategy="reject") as (kernel, catalog):
        client = Client()
        for _ in range(100):
            client.send(1)
        client.sent.put_nowait(grpc.aio.EOF)
        running = asyncio.create_task(stream_of(kernel, catalog, client).run())
        await client.offered.wait()
        await settled(lambda: kernel.get_telemetry().messages_processed >= 5 and not kernel.mail.inbox)
        assert client.sent.qsize() > 80
        client.reading.set()
        await running
        assert len(client.answers) == 100


async def test_two_replies_to_each_request_all_find_room() -> None:
    async with kernel_of(repeater, output_queue_size=4) as (kernel, catalog):
        await kernel.deactivate()
        client = Client()
        client.reading.set()
        for _ in range(500):
            client.send(2)
        client.sent.put_nowait(grpc.aio.EOF)
        running = asyncio.create_task(stream_of(kernel, catalog, client).run())
        await settled(lambda: kernel.queue_depth == 500)
        await kernel.reactivate()
        await running
        assert client.answers == [b"", b"\x08\x01"] * 500


async def test_replies_that_wait_count_where_requests_are_admitted() -> None:
    limits = replace(LIMITS, stream_requests=10, stream_replies=20)
    async with kernel_of(repeater) as (kernel, catalog):
        client = Client()
        for _ in range(100):
            client.send(2)
        client.sent.put_nowait(grpc.aio.EOF)
        running = asyncio.create_task(stream_of(kernel, catalog, client, limits).run())
        await client.offered.wait()
        await settled(lambda: kernel.get_telemetry().messages_processed >= 4 and not kernel.mail.inbox)
        client.reading.set()
        await running
        assert len(client.answers) == 200


async def test_a_further_reply_that_finds_no_room_fails_the_stream() -> None:
    limits = replace(LIMITS, stream_replies=8)
    async with kernel_of(repeater) as (kernel, catalog):
        client = Client()
        for amount in (1, 20, 1):
            client.send(amount)
        running = asyncio.create_task(stream_of(kernel, catalog, client, limits).run())
        await client.offered.wait()
        await settled(lambda: kernel.get_telemetry().messages_processed == 3)
        client.reading.set()
        code, text = await status_of(running)
        assert code == 8
        assert text.startswith("message 2 of the stream: the mailbox of kernel 'counter' is full (8 messages); further")
        assert len(client.answers) + len(kernel.dead_letters) == 22
        assert client.answers[-1] == b""  # The first reply to the third is not one of those that are dropped.


async def test_after_one_further_reply_without_room_none_comes() -> None:
    limits = replace(LIMITS, stream_replies=8)
    async with kernel_of(repeater) as (kernel, catalog):
        client = Client()
        client.send(100)
        running = asyncio.create_task(stream_of(kernel, catalog, client, limits).run())
        await client.offered.wait()
        await settled(lambda: kernel.dead_letters)
        client.reading.set()
        assert (await status_of(running))[0] == 8
        assert client.answers == [b"", *(bytes([0x08, number]) for number in range(1, len(client.answers)))]


async def test_large_messages_wait_until_the_mailbox_has_fewer_bytes() -> None:
    limits = replace(LIMITS, large_message_bytes=2, mailbox_bytes=6)
    async with kernel_of(counter) as (kernel, catalog):
        await kernel.deactivate()
        client = Client()
        client.reading.set()
        for _ in range(10):
            client.send(1)
        client.sent.put_nowait(grpc.aio.EOF)
        running = asyncio.create_task(stream_of(kernel, catalog, client, limits).run())
        await settled(lambda: kernel.queue_depth == 3 and kernel.mail.inbox.taken.waiters)
        assert (client.sent.qsize(), kernel.mail.inbox.bytes) == (7, 6)  # One has been read and waits.
        await kernel.reactivate()
        await running
        assert (len(client.answers), kernel.mail.inbox.bytes) == (10, 0)


async def test_requests_that_the_kernel_has_forgotten_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async with kernel_of(hoarder) as (kernel, catalog):
        client = Client()
        running = asyncio.create_task(stream_of(kernel, catalog, client).run())
        client.send(1)
        client.send(2)
        await settled(lambda: len(kernel.mail.replies.waiting_keys()) == 2)
        kernel.mail.replies._forget_requests()  # What it does when 65,536 wait.
        client.sent.put_nowait(grpc.aio.EOF)
        code, text = await status_of(running)
        assert (code, text.partition(": ")[0]) == (8, "message 1 of the stream")


async def test_a_stream_whose_client_does_not_read_ends_before_its_deadline() -> None:
    async with kernel_of(counter) as (kernel, catalog):
        client = Client()
        client.seconds = 0.05
        for amount in (1, 2, 3):
            client.send(amount)
        code, text = await status_of(asyncio.create_task(stream_of(kernel, catalog, client).run()))
        assert code == 4
        assert text.startswith(
            "message 2 of the stream: kernel 'counter': Stream timed out after 0.04 s: the actor has"
        )
        assert len(kernel.dead_letters) == 3


async def test_a_client_that_does_not_read_does_not_hold_the_farewell_up() -> None:
    async with kernel_of(counter) as (kernel, catalog):
        client, all_streams = Client(), Streams(LIMITS)
        running = asyncio.create_task(all_streams.run(stream_of(kernel, catalog, client)))
        client.send(1)
        client.send(2)
        await client.offered.wait()
        await settled(lambda: kernel.get_telemetry().messages_processed == 2)
        all_streams.drain()
        await all_streams.farewell(0.01)
        assert await status_of(running) == (14, "the daemon is shutting down: message 2 of the stream is not answered")
        assert len(kernel.dead_letters) == 2


async def test_the_farewell_waits_for_a_client_that_reads() -> None:
    async with kernel_of(counter) as (kernel, catalog):
        client, all_streams = Client(), Streams(LIMITS)
        running = asyncio.create_task(all_streams.run(stream_of(kernel, catalog, client)))
        for amount in (1, 2, 3):
            client.send(amount)
        await client.offered.wait()
        await settled(lambda: kernel.get_telemetry().messages_processed == 3)
        all_streams.drain()
        leaving = asyncio.create_task(all_streams.farewell(PATIENCE))
        await asyncio.sleep(0)
        client.reading.set()
        await leaving
        assert await status_of(running) == (14, "the daemon is shutting down")
        assert client.answers == [b"\x08\x01", b"\x08\x02", b"\x08\x03"]


async def test_a_stream_that_comes_when_the_daemon_ends_is_refused() -> None:
    async with kernel_of(counter) as (kernel, catalog):
        all_streams = Streams(LIMITS)
        all_streams.drain()
        with pytest.raises(StatusError, match="the daemon is shutting down"):
            await all_streams.run(stream_of(kernel, catalog, Client()))
