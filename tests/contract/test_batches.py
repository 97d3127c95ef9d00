"""Messages by the batch."""

import asyncio

import pytest

from pydotcompute.exceptions import KernelFailedError, KernelStateError, QueueTimeoutError
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetter, DeadLetterReason
from tests.contract.kernels import Job, Result, batched, patient
from tests.contract.world import PATIENCE, World, eventually


async def ask(world: World, kernel_id: str, number: int, note: str = "", priority: int = 128) -> Result:
    job = Job(number, number, note, priority=priority)
    result = await world.runtime.send_and_receive(kernel_id, job, timeout=PATIENCE)
    assert isinstance(result, Result)
    return result


async def test_each_caller_gets_its_own_row(world: World) -> None:
    kernel_id = await world.launch(batched)
    results = await asyncio.gather(*(ask(world, kernel_id, number) for number in range(100)))
    assert [(result.number, result.client) for result in results] == [(number**2, number) for number in range(100)]
    assert {int(result.note) for result in results} <= set(range(1, 9))


async def test_a_full_batch_is_handed_out_at_once(world: World) -> None:
    kernel_id = await world.launch(patient)
    results = await asyncio.gather(*(ask(world, kernel_id, number) for number in range(8)))
    assert {result.note for result in results} == {"4"}


async def test_a_batch_that_is_not_full_is_handed_out_when_its_first_message_has_waited(world: World) -> None:
    kernel_id = await world.launch(batched)
    result = await ask(world, kernel_id, 3)
    assert (result.number, result.note) == (9, "1")
    assert world.telemetry(kernel_id).min_latency_ns >= 0.19e9


async def test_a_batch_has_the_highest_priority_first_and_then_the_oldest(world: World) -> None:
    kernel_id = await world.launch(batched)
    await world.runtime.deactivate(kernel_id)
    priorities = [0, 255, 128, 128, 7, 255, 1, 0]
    async with asyncio.TaskGroup() as group:
        asks = []
        for number, priority in enumerate(priorities):
            asks.append(group.create_task(ask(world, kernel_id, number, priority=priority)))
            await world.queued(kernel_id, number + 1)
        await world.runtime.reactivate(kernel_id)
    positions = {task.result().client: task.result().position for task in asks}
    assert sorted(positions, key=positions.__getitem__) == [1, 5, 2, 3, 4, 6, 0, 7]


async def test_a_pause_holds_what_is_being_gathered(world: World) -> None:
    kernel_id = await world.launch(patient)
    async with asyncio.TaskGroup() as group:
        early = [group.create_task(ask(world, kernel_id, number)) for number in range(3)]
        await world.queued(kernel_id, 3)
        await world.runtime.deactivate(kernel_id)
        late = group.create_task(ask(world, kernel_id, 3, priority=200))
        await world.queued(kernel_id, 4)
        assert await world.nothing_to_receive(kernel_id)
        assert world.telemetry(kernel_id).queue_depth == 4
        assert world.telemetry(kernel_id).batches == 0
        await world.runtime.reactivate(kernel_id)
    assert [task.result().position for task in early] == [1, 2, 3]
    assert late.result().position == 0


async def test_when_the_actor_fails_the_caller_of_each_message_of_the_batch_is_told(world: World) -> None:
    kernel_id = await world.launch(batched)
    jobs = [ask(world, kernel_id, number, "fail" if number == 7 else "") for number in range(8)]
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [KernelFailedError] * 8
    assert {str(outcome).partition("a batch of ")[2] for outcome in outcomes} == {"8 failed"}
    letters = await dead_letters(world, kernel_id, 8)
    assert {(letter.message.number, letter.reason) for letter in letters} == {
        (number, DeadLetterReason.KERNEL_ENDED) for number in range(8)
    }


async def test_only_those_not_answered_by_then_are_told(world: World) -> None:
    kernel_id = await world.launch(batched)
    notes = ["half"] * 7 + ["fail"]
    jobs = [ask(world, kernel_id, number, note) for number, note in enumerate(notes)]
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert sum(isinstance(outcome, Result) for outcome in outcomes) == 4
    assert sum(isinstance(outcome, KernelFailedError) for outcome in outcomes) == 4
    await world.failed(kernel_id)
    assert world.telemetry(kernel_id).messages_processed == 4
    assert len(await dead_letters(world, kernel_id, 4)) == 4


async def test_to_ask_for_the_next_batch_is_to_be_done_with_this_one(world: World) -> None:
    kernel_id = await world.launch(batched)
    for number in range(8):
        await world.runtime.send(kernel_id, Job(number, note="half"))
    results = [await world.runtime.receive(kernel_id, timeout=PATIENCE) for _ in range(4)]
    assert [result.note for result in results] == ["by itself"] * 4
    await world.processed(kernel_id, 8)


async def test_what_is_overdue_is_in_no_batch(world: World) -> None:
    kernel_id = await world.launch(patient)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(in_vain(world, kernel_id, timeout=0.5))
        await world.queued(kernel_id, 1)
    assert asked.result()
    await asyncio.sleep(0.5)  # It had arrived, so by now its deadline has passed where the kernel is, too.
    results = await asyncio.gather(*(ask(world, kernel_id, number) for number in range(1, 5)))
    assert [result.number for result in results] == [1, 2, 3, 4]
    (letter,) = await dead_letters(world, kernel_id, 1)
    assert (letter.message.number, letter.reason) == (0, DeadLetterReason.EXPIRED)


async def test_an_end_comes_while_a_batch_is_being_gathered(world: World) -> None:
    kernel_id = await world.launch(patient)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(expect_the_end(world, kernel_id))
        await world.queued(kernel_id, 1)
        await world.runtime.terminate(kernel_id)
    assert waiting.result()


async def test_telemetry_tells_the_sizes_of_batches(world: World) -> None:
    kernel_id = await world.launch(patient)
    assert world.telemetry(kernel_id).avg_batch_size == 0
    await asyncio.gather(*(ask(world, kernel_id, number) for number in range(12)))
    telemetry = world.telemetry(kernel_id)
    assert (telemetry.batches, telemetry.avg_batch_size, telemetry.max_batch_size) == (3, 4.0, 4)
    assert telemetry.messages_processed == 12


async def in_vain(world: World, kernel_id: str, timeout: float) -> bool:
    with pytest.raises(QueueTimeoutError):
        await world.runtime.send_and_receive(kernel_id, Job(0), timeout=timeout)
    return True


async def expect_the_end(world: World, kernel_id: str) -> bool:
    with pytest.raises(KernelStateError):
        await world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE)
    return True


async def dead_letters(world: World, kernel_id: str, count: int) -> list[DeadLetter]:
    await eventually(lambda: len(world.runtime.get_dead_letters(kernel_id)) == count)
    return world.runtime.get_dead_letters(kernel_id)
