"""Point 7: a kernel may say that its actor is started again, and that it gets again what it had in hand."""

import asyncio

import pytest

from pydotcompute.exceptions import KernelFailedError
from tests.contract import kernels
from tests.contract.kernels import Job
from tests.contract.world import PATIENCE, World


async def test_a_message_that_the_actor_had_in_hand_is_given_again_and_answered_once(world: World) -> None:
    kernel_id = await world.launch(kernels.tenacious)
    jobs = [Job(number, note="stumble" if number == 2 else "") for number in range(5)]
    async with asyncio.timeout(PATIENCE):
        results = await asyncio.gather(*(world.runtime.send_and_receive(kernel_id, job) for job in jobs))
    assert [result.number for result in results] == [0, 1, 4, 9, 16]
    telemetry = world.telemetry(kernel_id)
    assert (telemetry.restarts, telemetry.error_count, telemetry.messages_dropped) == (1, 1, 0)
    assert telemetry.redelivered >= 1
    assert telemetry.state == "ACTIVE"
    assert len(telemetry.workers) == (world.isolation == "process")


async def test_a_message_that_fails_each_time_becomes_a_dead_letter_and_the_others_go_on(world: World) -> None:
    kernel_id = await world.launch(kernels.tenacious)
    jobs = [Job(number, note="boom" if number == 2 else "") for number in range(5)]
    asking = [asyncio.create_task(world.runtime.send_and_receive(kernel_id, job)) for job in jobs]
    with pytest.raises(KernelFailedError) as caught:
        await asking[2]
    assert caught.value == KernelFailedError(kernel_id, "ValueError", "no square of 2")
    async with asyncio.timeout(PATIENCE):
        others = await asyncio.gather(*(each for each in asking if each is not asking[2]))
    assert [result.number for result in others] == [0, 1, 9, 16]
    assert world.telemetry(kernel_id).restarts == 2
