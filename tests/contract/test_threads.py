"""Actors that are plain functions, each in a thread of its own."""

import asyncio

import pytest

from pydotcompute.exceptions import KernelFailedError, KernelStateError
from pydotcompute.ring_kernels.mail.gate import KernelState
from tests.contract.kernels import Job, Result, blocking, blocking_batches, square
from tests.contract.world import PATIENCE, World


async def ask(world: World, kernel_id: str, number: int, note: str = "") -> Result:
    result = await world.runtime.send_and_receive(kernel_id, Job(number, note=note), timeout=PATIENCE)
    assert isinstance(result, Result)
    return result


async def test_each_caller_gets_its_own_reply(world: World) -> None:
    kernel_id = await world.launch(blocking)
    results = await asyncio.gather(*(ask(world, kernel_id, number) for number in range(50)))
    assert [result.number for result in results] == [number**2 for number in range(50)]
    assert {result.note for result in results} == {f"ring kernel {kernel_id}"}
    await world.processed(kernel_id, 50)


async def test_while_it_computes_other_kernels_go_on(world: World) -> None:
    busy, other = await world.launch(blocking), await world.launch(square)
    await world.runtime.deactivate(busy)
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(ask(world, busy, 1_000, "sleep"))
        await world.queued(busy, 1)
        await world.runtime.reactivate(busy)
        await world.queued(busy, 0)
        for number in range(20):
            await ask(world, other, number)
        assert not slow.done()


async def test_a_pause_holds_messages(world: World) -> None:
    kernel_id = await world.launch(blocking)
    await world.runtime.deactivate(kernel_id)
    await world.runtime.send(kernel_id, Job(3))
    await world.queued(kernel_id, 1)
    assert await world.nothing_to_receive(kernel_id)
    await world.runtime.reactivate(kernel_id)
    assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).number == 9


async def test_a_timeout_in_the_actor_loses_nothing(world: World) -> None:
    kernel_id = await world.launch(blocking)
    assert (await ask(world, kernel_id, 2, "wait")).number == 4
    assert (await ask(world, kernel_id, 3)).number == 9


async def test_a_crash_is_visible_at_once(world: World) -> None:
    kernel_id = await world.launch(blocking)
    with pytest.raises(KernelFailedError, match="as told"):
        await ask(world, kernel_id, 1, "fail")
    await world.failed(kernel_id)


async def test_it_ends_when_it_is_terminated(world: World) -> None:
    kernel_id = await world.launch(blocking)
    await ask(world, kernel_id, 1)
    await world.runtime.terminate(kernel_id)
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED


async def test_a_thread_that_does_not_end_in_time_is_abandoned_and_what_it_sends_is_refused(world: World) -> None:
    kernel_id = await world.launch(blocking)
    await world.runtime.deactivate(kernel_id)
    async with asyncio.TaskGroup() as group:
        told = group.create_task(expect_the_end(world, kernel_id))
        await world.queued(kernel_id, 1)
        await world.runtime.reactivate(kernel_id)
        await world.queued(kernel_id, 0)
        await world.runtime.terminate(kernel_id, timeout=0.01)
    assert told.result()
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED


async def test_batches_are_gathered_for_a_thread_too(world: World) -> None:
    kernel_id = await world.launch(blocking_batches)
    results = await asyncio.gather(*(ask(world, kernel_id, number) for number in range(8)))
    assert [result.number for result in results] == list(range(8))
    assert {result.note for result in results} == {"4"}


async def expect_the_end(world: World, kernel_id: str) -> bool:
    with pytest.raises(KernelStateError):
        await ask(world, kernel_id, 300, "sleep")
    return True
