"""The door for durable kernels: what a kernel's mail tells its journal, and when."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

from pydotcompute import RingKernelMessage, message
from pydotcompute.exceptions import MessageSerializationError, QueueFullError, QueueTimeoutError
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.callers import Caller

Context = KernelContext[Any, Any]


@message
class Ping(RingKernelMessage):
    number: int = 0


class Ledger:
    """A journal in memory."""

    def __init__(self, kept: Iterable[Any] = ()) -> None:
        self.kept: dict[UUID, Any] = {each.message_id: each for each in kept}
        self.accepted: list[int] = []
        self.on_disk = asyncio.Event()
        self.on_disk.set()

    def accept(self, messages: Sequence[Any]) -> None:
        self.kept |= {each.message_id: each for each in messages}
        self.accepted += [each.number for each in messages]

    async def sync(self) -> None:
        await self.on_disk.wait()

    def done(self, message_id: UUID) -> None:
        self.kept.pop(message_id, None)

    def replay(self) -> Iterable[Any]:
        return list(self.kept.values())

    @property
    def numbers(self) -> list[int]:
        return [each.number for each in self.kept.values()]


async def answer(ctx: Context) -> None:
    async for ping in ctx:
        await ctx.send(Ping(ping.number, correlation_id=ping.message_id))


async def kernel_with(ledger: Ledger, actor: Any = answer, **config: Any) -> RingKernel[Any, Any]:
    kernel: RingKernel[Any, Any] = RingKernel("k", actor, config=RingKernelConfig("k", **config), journal=ledger)
    await kernel.launch()
    await kernel.activate()
    return kernel


async def test_a_message_is_kept_from_its_acceptance_to_its_reply() -> None:
    ledger = Ledger()
    kernel = await kernel_with(ledger)
    await kernel.deactivate()
    await kernel.send(Ping(1))
    assert ledger.numbers == [1]
    await kernel.reactivate()
    assert (await kernel.receive()).number == 1
    assert (ledger.accepted, ledger.numbers) == ([1], [])
    await kernel.terminate()


async def test_a_message_without_a_reply_is_done_when_the_actor_asks_for_the_next() -> None:
    ledger = Ledger()
    handed = asyncio.Event()
    go_on = asyncio.Event()

    async def silent(ctx: Context) -> None:
        await ctx.receive()
        handed.set()
        await go_on.wait()
        with suppress(QueueTimeoutError):
            await ctx.receive(timeout=0)
        handed.set()
        await ctx.receive()

    kernel = await kernel_with(ledger, silent)
    await kernel.send(Ping(1))
    await handed.wait()
    assert ledger.numbers == [1]
    handed.clear()
    go_on.set()
    await handed.wait()
    assert ledger.numbers == []
    await kernel.terminate()


async def test_send_returns_when_the_message_is_on_disk() -> None:
    ledger = Ledger()
    kernel = await kernel_with(ledger)
    ledger.on_disk.clear()
    sending = asyncio.create_task(kernel.send(Ping(1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not sending.done()
    ledger.on_disk.set()
    await sending
    await kernel.terminate()


async def test_a_batch_is_kept_in_order() -> None:
    ledger = Ledger()
    kernel = await kernel_with(ledger)
    await kernel.deactivate()
    pings = [Ping(number) for number in range(3)]
    caller: Caller[Any] = Caller(private=True)
    assert kernel.mail.accept(caller, pings, [ping.message_id.int for ping in pings], ()) == []
    assert ledger.numbers == [0, 1, 2]
    await kernel.terminate()


@pytest.mark.parametrize("again", ["send", "accept"])
async def test_a_message_that_is_refused_is_not_kept(again: str) -> None:
    ledger = Ledger()
    kernel = await kernel_with(ledger)
    await kernel.deactivate()
    first = Ping(1)
    asking = asyncio.create_task(kernel.send_and_receive(first))
    await asyncio.sleep(0)
    second = Ping(2, message_id=first.message_id)
    if again == "send":
        with pytest.raises(MessageSerializationError):
            await kernel.send(second)
    else:
        caller: Caller[Any] = Caller(private=True)
        (refused,) = kernel.mail.accept(caller, [second], [second.message_id.int], ())
        assert isinstance(refused[1], MessageSerializationError)
    assert ledger.numbers == [1], "the first goes on"
    await kernel.reactivate()
    assert (await asking).number == 1
    await kernel.terminate()


async def test_a_message_that_finds_no_room_is_not_kept() -> None:
    ledger = Ledger()
    kernel = await kernel_with(ledger, input_queue_size=1, backpressure_strategy="reject")
    await kernel.deactivate()
    await kernel.send(Ping(1))
    with pytest.raises(QueueFullError):
        await kernel.send(Ping(2))
    assert ledger.numbers == [1]
    await kernel.terminate()


async def withdraw(kernel: RingKernel[Any, Any], ping: Any) -> None:
    assert kernel.mail.withdraw(ping.message_id)


async def expire(kernel: RingKernel[Any, Any], ping: Any) -> None:
    with pytest.raises(QueueTimeoutError):
        await kernel.send_and_receive(Ping(2), timeout=0)
    kernel.mail.withdraw(ping.message_id)


async def end(kernel: RingKernel[Any, Any], ping: Any) -> None:
    await kernel.terminate()


@pytest.mark.parametrize("how", [withdraw, expire, end])
async def test_a_message_that_the_actor_never_gets_is_done(how: Callable[[RingKernel[Any, Any], Any], Any]) -> None:
    ledger = Ledger()
    kernel = await kernel_with(ledger)
    await kernel.deactivate()
    ping = Ping(1)
    await kernel.send(ping)
    await how(kernel, ping)
    assert ledger.numbers == []
    await kernel.terminate()


async def test_what_was_kept_is_in_the_mailbox_before_anything_else() -> None:
    ledger = Ledger([Ping(1), Ping(2)])
    kernel: RingKernel[Any, Any] = RingKernel(
        "k", answer, config=RingKernelConfig("k", input_queue_size=1), journal=ledger
    )
    await kernel.launch()
    assert kernel.queue_depth == 2, "also beyond its capacity"
    await kernel.activate()
    assert [(await kernel.receive()).number for _ in range(2)] == [1, 2]
    assert (await kernel.send_and_receive(Ping(3))).number == 3
    assert (ledger.accepted, ledger.numbers) == ([3], [])
    await kernel.terminate()
