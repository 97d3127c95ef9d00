"""Dead letters can be seen, and put back."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import time

import pytest

from pydotcompute.exceptions import (
    KernelFailedError,
    KernelNotFoundError,
    KernelStateError,
    QueueFullError,
)
from pydotcompute.ring_kernels import DeadLetter, DeadLetterDirection, DeadLetterReason
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS
from tests.contract import kernels
from tests.contract.kernels import Job, Result
from tests.contract.world import PATIENCE, Clogged, World, eventually, new_kernel_id

TO_KERNEL = DeadLetterDirection.TO_KERNEL
FROM_KERNEL = DeadLetterDirection.FROM_KERNEL
OPEN = ["ACTIVE", "DEACTIVATED"]

Clog = Callable[..., Awaitable[Clogged]]


async def dead_letters(world: World, kernel_id: str, count: int) -> list[DeadLetter]:
    """The dead letters of a kernel, once there are so many."""
    await eventually(lambda: len(world.runtime.get_dead_letters(kernel_id)) == count)
    return world.runtime.get_dead_letters(kernel_id)


async def crash(world: World, kernel_id: str, numbers: range) -> None:
    """Have a `fragile` kernel fail with these jobs behind the one it fails of."""
    await world.runtime.deactivate(kernel_id)
    await world.runtime.send(kernel_id, Job(7, note="boom", priority=255))
    for number in numbers:
        await world.runtime.send(kernel_id, Job(number))
    await world.queued(kernel_id, 1 + len(numbers))
    await world.runtime.reactivate(kernel_id)
    await world.failed(kernel_id)


async def drop(world: World, kernel_id: str, count: int) -> None:
    """Send so many more to a clogged kernel that drops its oldest."""
    for number in range(4, 4 + count):
        await world.runtime.send(kernel_id, Job(number))
    await eventually(lambda: world.telemetry(kernel_id).messages_dropped == count)


async def drain(world: World, kernel_id: str, count: int) -> None:
    """Have a clogged kernel handle the four that wait, receive what there is for this task, and pause the kernel."""
    await world.runtime.reactivate(kernel_id)
    for _ in range(count):
        with suppress(QueueFullError):  # Of one that was dropped.
            await world.runtime.receive(kernel_id, timeout=PATIENCE)
    await world.runtime.deactivate(kernel_id)


async def give_up(world: World, kernel_id: str, job: Job) -> None:
    """Ask a `gate` for this, give up while it holds the request back, and then have it reply."""
    asked = asyncio.create_task(world.runtime.send_and_receive(kernel_id, job))
    await world.processed(kernel_id, 1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await world.runtime.send_and_receive(kernel_id, Job(1, note="open"), timeout=PATIENCE)


# -- what is told of them ----------------------------------------------------------------------------------------------


async def test_a_kernel_has_none_to_begin_with(world: World) -> None:
    kernel_id = await world.launch(kernels.square, activate=False)
    assert world.runtime.get_dead_letters(kernel_id) == []


async def test_a_request_dropped_to_make_room_is_listed_whole(world: World, clog: Clog) -> None:
    before = time()
    kernel_id = (await clog("drop_oldest")).kernel_id
    await drop(world, kernel_id, 2)
    first, second = await dead_letters(world, kernel_id, 2)
    assert (first.id, first.message.number, second.id, second.message.number) == (1, 0, 2, 1)
    assert first.message == Job(0, message_id=first.message.message_id), "the whole message, of this program's class"
    assert {first.reason, second.reason} == {DeadLetterReason.DROPPED}
    assert {first.direction, second.direction} == {TO_KERNEL}
    assert str(QueueFullError(kernel_id, 4)) in first.detail
    assert before - 1 < first.time <= second.time < time() + 1


async def test_requests_of_a_kernel_that_failed_are_listed_with_its_failure(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    await crash(world, kernel_id, range(3))
    letters = await dead_letters(world, kernel_id, 4)
    assert [(letter.id, letter.message.number) for letter in letters] == [(1, 7), (2, 0), (3, 1), (4, 2)]
    failure = KernelFailedError(kernel_id, "ValueError", "no square of 7")
    assert {(letter.reason, letter.detail, letter.direction) for letter in letters} == {
        (DeadLetterReason.KERNEL_ENDED, str(failure), TO_KERNEL)
    }


async def test_the_full_mailbox_of_a_kernel_that_was_terminated_is_listed(world: World, clog: Clog) -> None:
    kernel_id = (await clog("block", (1, 3, 2, 3))).kernel_id
    await world.runtime.terminate(kernel_id)
    letters = await dead_letters(world, kernel_id, 4)
    assert [letter.message.number for letter in letters] == [1, 3, 2, 0], "in the order in which they would have come"
    assert {(letter.reason, letter.direction) for letter in letters} == {(DeadLetterReason.KERNEL_ENDED, TO_KERNEL)}


async def test_a_reply_that_came_too_late_is_listed(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    late = Job(3)
    await give_up(world, kernel_id, late)
    (letter,) = await dead_letters(world, kernel_id, 1)
    assert (letter.reason, letter.direction) == (DeadLetterReason.CALLER_GONE, FROM_KERNEL)
    assert isinstance(letter.message, Result)
    assert (letter.message.number, letter.message.correlation_id) == (9, late.message_id)


async def test_an_output_for_which_there_was_no_room_before_the_end_is_listed(world: World) -> None:
    kernel_id = await world.launch(kernels.emitter, output_queue_size=1)
    await world.runtime.send(kernel_id, Job(100))
    assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).number == 0
    await world.runtime.terminate(kernel_id, timeout=0.05)  # The next is in the mailbox, and another waits for room.
    letters = await dead_letters(world, kernel_id, 2)
    (output,) = [letter for letter in letters if letter.direction is FROM_KERNEL]
    assert (output.message.number > 1, output.reason) == (True, DeadLetterReason.KERNEL_ENDED)


async def test_the_last_thousand_are_kept_and_all_are_counted(world: World, clog: Clog) -> None:
    kernel_id = (await clog("drop_oldest")).kernel_id
    await drop(world, kernel_id, DEFAULT_LIMITS.dead_letters + 5)
    letters = await dead_letters(world, kernel_id, DEFAULT_LIMITS.dead_letters)
    assert [letter.id for letter in letters] == list(range(6, DEFAULT_LIMITS.dead_letters + 6))
    assert letters[0].message.number == 5


async def test_those_of_a_kernel_that_does_not_exist_are_asked_for_in_vain(world: World) -> None:
    with pytest.raises(KernelNotFoundError):
        world.runtime.get_dead_letters("nobody")
    with pytest.raises(KernelNotFoundError):
        await world.runtime.requeue_dead_letters("nobody")


# -- putting them back -------------------------------------------------------------------------------------------------


async def test_a_request_that_is_put_back_is_handled_and_its_reply_is_for_anyone(world: World, clog: Clog) -> None:
    kernel_id = (await clog("drop_oldest")).kernel_id
    await drop(world, kernel_id, 2)
    await drain(world, kernel_id, 6)
    assert await world.runtime.requeue_dead_letters(kernel_id) == [1, 2]
    assert world.runtime.get_dead_letters(kernel_id) == []
    assert world.telemetry(kernel_id).queue_depth == 2, "while the kernel is paused, they wait"
    await world.runtime.reactivate(kernel_id)
    another = await world.connect_another()
    received = [
        await asyncio.create_task(another.receive(kernel_id, timeout=PATIENCE)),
        await world.runtime.receive(kernel_id, timeout=PATIENCE),
    ]
    assert [result.number for result in received] == [0, 1]
    assert world.telemetry(kernel_id).messages_processed == 6


async def test_what_finds_no_room_stays_a_dead_letter(world: World, clog: Clog) -> None:
    kernel_id = (await clog("drop_oldest")).kernel_id
    await drop(world, kernel_id, 6)
    assert await world.runtime.requeue_dead_letters(kernel_id) == []
    assert len(world.runtime.get_dead_letters(kernel_id)) == 6
    await drain(world, kernel_id, 10)
    assert await world.runtime.requeue_dead_letters(kernel_id) == [1, 2, 3, 4]
    assert [letter.id for letter in world.runtime.get_dead_letters(kernel_id)] == [5, 6]
    assert world.telemetry(kernel_id).queue_depth == 4
    assert world.telemetry(kernel_id).messages_dropped == 6, "nothing had to go for them"


async def test_those_that_are_named_are_put_back_and_other_ids_are_passed_over(world: World, clog: Clog) -> None:
    kernel_id = (await clog("drop_oldest")).kernel_id
    await drop(world, kernel_id, 3)
    await drain(world, kernel_id, 7)
    assert await world.runtime.requeue_dead_letters(kernel_id, []) == []
    assert await world.runtime.requeue_dead_letters(kernel_id, [0, -1, 2**64, 77]) == []
    assert await world.runtime.requeue_dead_letters(kernel_id, iter((3, 77, 1))) == [1, 3]
    assert await world.runtime.requeue_dead_letters(kernel_id, [1, 3]) == [], "they are none any more"
    assert [letter.id for letter in world.runtime.get_dead_letters(kernel_id)] == [2]
    assert world.telemetry(kernel_id).queue_depth == 2


async def test_a_late_reply_that_is_put_back_is_for_anyone(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    await give_up(world, kernel_id, Job(3))
    await dead_letters(world, kernel_id, 1)
    another = await world.connect_another()
    receiving = asyncio.create_task(another.receive(kernel_id))
    await world.heard(another, kernel_id, Job(2, note="open"))  # It waits, and is to be woken.
    assert await world.runtime.requeue_dead_letters(kernel_id) == [1]
    async with asyncio.timeout(PATIENCE):
        assert (await receiving).number == 9
    assert world.runtime.get_dead_letters(kernel_id) == []
    assert await world.nothing_to_receive(kernel_id)


async def test_a_caller_that_waits_for_a_reply_to_that_id_all_the_same_gets_it(world: World, clog: Clog) -> None:
    kernel_id = (await clog("drop_oldest")).kernel_id
    await drop(world, kernel_id, 1)
    (letter,) = world.runtime.get_dead_letters(kernel_id)
    await drain(world, kernel_id, 5)
    assert await world.runtime.requeue_dead_letters(kernel_id) == [1]
    again = Job(5, message_id=letter.message.message_id)
    asked = asyncio.create_task(world.runtime.send_and_receive(kernel_id, again, timeout=PATIENCE))
    await world.queued(kernel_id, 2)
    await world.runtime.reactivate(kernel_id)
    assert (await asked).number == 0


async def test_a_kernel_that_is_neither_active_nor_paused_gets_nothing_back(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile, activate=False)
    with pytest.raises(KernelStateError) as refused:
        await world.runtime.requeue_dead_letters(kernel_id)
    assert refused.value == KernelStateError(kernel_id, "LAUNCHED", "requeue_dead_letters", OPEN)
    await world.runtime.activate(kernel_id)
    await crash(world, kernel_id, range(2))
    with pytest.raises(KernelStateError) as refused:
        await world.runtime.requeue_dead_letters(kernel_id, [])
    assert refused.value == KernelStateError(kernel_id, "FAILED", "requeue_dead_letters", OPEN)
    await world.runtime.terminate(kernel_id)
    with pytest.raises(KernelStateError) as refused:
        await world.runtime.requeue_dead_letters(kernel_id)
    assert refused.value == KernelStateError(kernel_id, "TERMINATED", "requeue_dead_letters", OPEN)
    assert len(world.runtime.get_dead_letters(kernel_id)) == 3


# -- launched again ----------------------------------------------------------------------------------------------------


async def test_what_a_failed_kernel_left_can_be_put_back_into_the_next_of_its_id(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    await crash(world, kernel_id, range(3))
    await world.runtime.terminate(kernel_id)
    await world.runtime.launch(kernel_id, kernels.square)
    await world.runtime.activate(kernel_id)
    assert len(world.runtime.get_dead_letters(kernel_id)) == 4
    assert await world.runtime.requeue_dead_letters(kernel_id, [2, 3, 4]) == [2, 3, 4]
    another = await world.connect_another()  # This one is still to be told of the failure.
    received = [await another.receive(kernel_id, timeout=PATIENCE) for _ in range(3)]
    assert [result.number for result in received] == [0, 1, 4]
    await world.runtime.terminate(kernel_id)
    assert [letter.id for letter in world.runtime.get_dead_letters(kernel_id)] == [1]


async def test_the_ids_go_on_counting_when_a_kernel_is_launched_again(world: World) -> None:
    kernel_id = new_kernel_id(kernels.fragile)
    for _ in range(2):
        await world.runtime.launch(kernel_id, kernels.fragile)
        await world.runtime.activate(kernel_id)
        await crash(world, kernel_id, range(1))
        await world.runtime.terminate(kernel_id)
    assert [letter.id for letter in world.runtime.get_dead_letters(kernel_id)] == [1, 2, 3, 4]


async def test_a_kernel_of_another_type_gets_no_messages_that_are_not_its_own(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    await crash(world, kernel_id, range(1))
    await world.runtime.terminate(kernel_id)
    await world.runtime.launch(kernel_id, kernels.echo)
    await world.runtime.activate(kernel_id)
    assert await world.runtime.requeue_dead_letters(kernel_id) == []
    assert [letter.message.number for letter in world.runtime.get_dead_letters(kernel_id)] == [7, 0]
    assert world.telemetry(kernel_id).queue_depth == 0


async def test_a_launch_that_fails_leaves_those_of_the_kernel_before_it(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    await crash(world, kernel_id, range(1))
    await world.runtime.terminate(kernel_id)
    with pytest.raises(KernelFailedError):
        await world.runtime.launch(kernel_id, kernels.stillborn)
    assert len(world.runtime.get_dead_letters(kernel_id)) == 2
