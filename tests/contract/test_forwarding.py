"""Requests that a kernel hands on to another."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import KernelFailedError, KernelStateError, QueueTimeoutError
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from tests.contract.kernels import (
    Job,
    Result,
    batched_entrance,
    blocking,
    blocking_entrance,
    echo,
    echo_job,
    entrance,
    gate,
    square,
)
from tests.contract.world import PATIENCE, World, eventually


async def ask(world: World, kernel_id: str, number: int, note: str, **header: Any) -> Result:
    result = await world.runtime.send_and_receive(kernel_id, Job(number, note=note, **header), timeout=PATIENCE)
    assert isinstance(result, Result)
    return result


@pytest.mark.parametrize("first", [entrance, blocking_entrance, batched_entrance])
async def test_the_last_stage_answers_the_caller_of_the_first(world: World, first: Callable[..., Any]) -> None:
    first_id, last_id = await world.launch(first), await world.launch(square)
    results = await asyncio.gather(*(ask(world, first_id, number, last_id) for number in range(0, 80, 2)))
    assert [result.number for result in results] == [number**2 for number in range(0, 80, 2)]
    await world.processed(first_id, 40)
    await world.processed(last_id, 40)


async def test_another_message_takes_the_place_of_the_request(world: World) -> None:
    first_id, last_id = await world.launch(entrance), await world.launch(square)
    assert (await ask(world, first_id, 3, last_id)).number == 103**2


async def test_replies_to_send_are_received_where_it_was_sent(world: World) -> None:
    first_id, last_id = await world.launch(entrance), await world.launch(square)
    jobs = [Job(number, note=last_id) for number in range(10)]
    for job in jobs:
        await world.runtime.send(first_id, job)
    results = [await world.runtime.receive(first_id, timeout=PATIENCE) for _ in jobs]
    assert [result.correlation_id for result in results] == [job.message_id for job in jobs]
    assert await world.nothing_to_receive(last_id)


async def test_the_priority_goes_along(world: World) -> None:
    first_id, last_id = await world.launch(entrance), await world.launch(square)
    await world.runtime.deactivate(last_id)
    async with asyncio.TaskGroup() as group:
        asks = []
        for at, priority in enumerate((1, 200, 100)):
            asks.append(group.create_task(ask(world, first_id, 1, last_id, priority=priority)))
            await world.queued(last_id, at + 1)
        await world.runtime.reactivate(last_id)
    assert [task.result().position for task in asks] == [2, 0, 1]


async def test_the_deadline_goes_along(world: World) -> None:
    first_id, last_id = await world.launch(entrance), await world.launch(square)
    await world.runtime.deactivate(last_id)
    job = Job(2, note=last_id)
    async with asyncio.TaskGroup() as group:
        asked = expect(QueueTimeoutError, world.runtime.send_and_receive(first_id, job, timeout=1.0))
        group.create_task(asked)
        await world.queued(last_id, 1)
        await asyncio.sleep(1.0)  # It has arrived, so by then its deadline has passed where the kernel is, too.
    await world.runtime.reactivate(last_id)
    await eventually(lambda: len(world.runtime.get_dead_letters(last_id)) == 1)
    (letter,) = world.runtime.get_dead_letters(last_id)
    assert letter.reason is DeadLetterReason.EXPIRED


async def test_a_missing_stage_is_an_error_that_names_those_there_are(world: World) -> None:
    first_id = await world.launch(entrance)
    note = (await ask(world, first_id, 2, "nowhere")).note
    assert note.startswith("KernelNotFoundError")
    assert "nowhere" in note
    assert first_id in note


async def test_a_circle_is_an_error(world: World) -> None:
    first_id, second_id = await world.launch(entrance), await world.launch(entrance)
    note = (await ask(world, first_id, 2, first_id)).note
    assert "circle" in note
    assert first_id in note
    # The job names the kernel that forwards it too, so that the second stage sends it back.
    assert "circle" in (await ask(world, second_id, 2, second_id)).note


async def test_a_stage_that_ended_is_an_error(world: World) -> None:
    first_id, last_id = await world.launch(entrance), await world.launch(square)
    await world.runtime.terminate(last_id)
    assert (await ask(world, first_id, 2, last_id)).note.startswith("KernelStateError")


async def test_when_the_last_stage_fails_the_caller_of_the_first_is_told(world: World) -> None:
    first_id, last_id = await world.launch(blocking_entrance), await world.launch(blocking)
    await world.runtime.deactivate(last_id)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(expect(KernelFailedError, ask(world, first_id, 2, last_id)))
        await world.queued(last_id, 1)
        await world.runtime.send(last_id, Job(note="fail", priority=255))
        await world.queued(last_id, 2)
        await world.runtime.reactivate(last_id)
    assert waiting.result().kernel_id == last_id


async def test_when_the_first_stage_ends_its_callers_are_told_and_the_late_reply_is_a_dead_letter(world: World) -> None:
    first_id, last_id = await world.launch(entrance), await world.launch(gate)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(expect(KernelStateError, ask(world, first_id, 2, last_id)))
        await world.processed(first_id, 1)
        await world.runtime.terminate(first_id)
    assert waiting.result().kernel_id == first_id
    await world.runtime.send(last_id, Job(note="open"))
    await eventually(lambda: len(world.runtime.get_dead_letters(first_id)) == 1)


async def test_a_reply_of_another_type_than_the_first_stage_declares_is_refused(world: World) -> None:
    first_id, last_id = await world.launch(entrance), await world.launch(echo)
    note = (await ask(world, first_id, 2, last_id)).note
    assert note.startswith("MessageTypeError")


async def test_an_echo_by_the_last_stage_is_a_reply(world: World) -> None:
    first_id, last_id = await world.launch(entrance), await world.launch(echo_job)
    reply = await world.runtime.send_and_receive(first_id, Job(2, note=last_id), timeout=PATIENCE)
    assert (type(reply), reply.number) == (Job, 2)


async def expect(error: type[Exception], outcome: Any) -> Any:
    with pytest.raises(error) as caught:
        await outcome
    return caught.value


async def test_a_runtime_is_idle_when_what_was_forwarded_is_handled_too() -> None:
    async with RingKernelRuntime() as runtime:
        for kernel_id, kernel in (("first", entrance), ("slow", blocking), ("last", square)):
            await runtime.launch(kernel_id, kernel)
            await runtime.activate(kernel_id)
        await runtime.send("first", Job(50, note="slow"))
        await runtime.send("first", Job(2, note="last"))
        assert not await runtime.wait_idle(0)
        assert await runtime.wait_idle(PATIENCE)
        assert all(runtime.kernel(kernel_id).is_idle for kernel_id in runtime.kernel_ids)
        assert {(await runtime.receive("first", timeout=PATIENCE)).number for _ in range(2)} == {2500, 4}
