"""A request that nobody waits for any more is not handed to the kernel."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pydotcompute.exceptions import QueueTimeoutError
from tests.contract import kernels
from tests.contract.kernels import Job
from tests.contract.world import PATIENCE, Clogged, World, eventually

SHORT = 0.05
"""Seconds after which a caller gives up."""


async def paused(world: World, input_queue_size: int = 100) -> str:
    """A `square` that takes nothing for now; what it replies tells how many jobs it was handed before. It has answered
    one, so that what is asked of it now is on its way at once, and waits for no conversation to begin.
    """
    kernel_id = await world.launch(kernels.square, input_queue_size=input_queue_size)
    await world.runtime.send_and_receive(kernel_id, Job(0), timeout=PATIENCE)
    await world.runtime.deactivate(kernel_id)
    return kernel_id


async def jobs_before(world: World, kernel_id: str) -> int:
    """How many jobs the kernel was handed before this one."""
    return int((await world.runtime.send_and_receive(kernel_id, Job(7), timeout=PATIENCE)).position)


async def ask_in_vain(world: World, kernel_id: str) -> None:
    """Ask a kernel that is paused."""
    with pytest.raises(QueueTimeoutError) as told:
        await world.runtime.send_and_receive(kernel_id, Job(1), timeout=SHORT)
    assert (told.value.kernel_id, told.value.timeout, told.value.operation) == (kernel_id, SHORT, "send_and_receive")


async def buried(world: World, kernel_id: str, count: int) -> None:
    """Wait until so many requests are dead letters. At a daemon a deadline passes a little later than here, and while
    the kernel is paused that is noticed only where the mailbox is full.
    """
    await eventually(lambda: world.telemetry(kernel_id).messages_dropped == count)


async def test_a_request_whose_deadline_has_passed_is_a_dead_letter_and_never_handed_over(world: World) -> None:
    kernel_id = await paused(world, input_queue_size=1)
    await ask_in_vain(world, kernel_id)
    await buried(world, kernel_id, 1)
    await world.runtime.reactivate(kernel_id)
    assert await jobs_before(world, kernel_id) == 1
    telemetry = world.telemetry(kernel_id)
    assert (telemetry.messages_processed, telemetry.messages_dropped, telemetry.queue_depth) == (2, 1, 0)
    assert await world.nothing_to_receive(kernel_id)


async def test_requests_with_a_deadline_do_not_take_those_beside_them_along(world: World) -> None:
    kernel_id = await paused(world, input_queue_size=8)
    await world.runtime.send(kernel_id, Job(3))
    patient = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(4), timeout=PATIENCE))
    endless = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(5)))
    await world.queued(kernel_id, 3)
    await asyncio.gather(*(ask_in_vain(world, kernel_id) for _ in range(5)))
    # There is room for the three and for these five, but not before the others are gone.
    for number in range(6, 11):
        await world.runtime.send(kernel_id, Job(number), timeout=PATIENCE)
    await buried(world, kernel_id, 5)
    await world.queued(kernel_id, 8)
    await world.runtime.reactivate(kernel_id)
    assert [(await each).number for each in (patient, endless)] == [16, 25]
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(6)]
    assert received == [number**2 for number in (3, *range(6, 11))]
    assert await jobs_before(world, kernel_id) == 9
    assert world.telemetry(kernel_id).messages_dropped == 5


async def test_requests_whose_deadline_has_passed_take_no_room(world: World) -> None:
    kernel_id = await paused(world, input_queue_size=2)
    await asyncio.gather(*(ask_in_vain(world, kernel_id) for _ in range(2)))
    for number in (3, 4):
        await world.runtime.send(kernel_id, Job(number), timeout=PATIENCE)
    await buried(world, kernel_id, 2)
    await world.queued(kernel_id, 2)
    await world.runtime.reactivate(kernel_id)
    assert [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(2)] == [9, 16]


async def test_a_cancelled_caller_takes_back_a_request_that_was_not_taken_yet(world: World) -> None:
    kernel_id = await paused(world)
    await world.runtime.send(kernel_id, Job(3))
    asking = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(4)))
    await world.queued(kernel_id, 2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await world.queued(kernel_id, 1)
    await world.runtime.reactivate(kernel_id)
    assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).number == 9
    assert await jobs_before(world, kernel_id) == 2
    assert world.telemetry(kernel_id).messages_dropped == 0


async def test_a_request_that_was_taken_back_makes_room(world: World) -> None:
    kernel_id = await paused(world, input_queue_size=1)
    asking = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(4)))
    await world.queued(kernel_id, 1)
    sending = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(5)))
    asking.cancel()
    await asyncio.wait((asking,))
    await world.queued(kernel_id, 1)
    await world.runtime.reactivate(kernel_id)
    reply = await sending
    assert (reply.number, reply.position) == (25, 1)


async def test_a_caller_that_is_cancelled_before_there_was_room_leaves_nothing_behind(
    world: World, clog: Callable[..., Awaitable[Clogged]]
) -> None:
    kernel_id = (await clog("block")).kernel_id
    asking = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(9)))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait((asking,))
    await world.runtime.reactivate(kernel_id)
    assert [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(4)] == [0, 1, 4, 9]
    assert await jobs_before(world, kernel_id) == 4
    assert world.telemetry(kernel_id).messages_dropped == 0


async def test_the_reply_to_a_cancelled_caller_whose_request_was_taken_is_a_dead_letter(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    asking = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(3)))
    await world.processed(kernel_id, 1)  # It has asked for the next, and holds this one.
    asking.cancel()
    await asyncio.wait((asking,))
    assert (await world.runtime.send_and_receive(kernel_id, Job(5, note="open"), timeout=PATIENCE)).number == 25
    await eventually(lambda: world.telemetry(kernel_id).messages_dropped == 1)
