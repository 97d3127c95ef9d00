"""Point 7: a crash is visible at once."""

import asyncio
from typing import Any

import pytest

from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels.mail.gate import KernelState
from tests.contract import kernels
from tests.contract.kernels import Job
from tests.contract.world import PATIENCE, World, eventually


def failure(kernel_id: str, number: int) -> KernelFailedError:
    return KernelFailedError(kernel_id, "ValueError", f"no square of {number}")


async def test_a_kernel_that_raises_is_failed_within_a_second(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    await world.runtime.send(kernel_id, Job(7, note="boom"))
    async with asyncio.timeout(1.0):
        await world.failed(kernel_id, timeout=1.0)
        telemetry = world.telemetry(kernel_id)
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.FAILED
    assert (telemetry.state, telemetry.error_count) == ("FAILED", 1)
    assert telemetry.last_error == "ValueError: no square of 7"


async def test_the_failed_kernel_is_listed_with_the_others(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    await world.runtime.send(kernel_id, Job(7, note="boom"))
    await world.failed(kernel_id)
    assert kernel_id in world.runtime.kernel_ids
    assert world.runtime.get_all_telemetry()[kernel_id].state == "FAILED"
    assert world.runtime.get_summary()["total_errors"] == 1


async def test_whoever_waits_is_told_of_the_failure(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    held = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(1, note="hold")))
    await world.processed(kernel_id, 1)  # The actor has asked for the next, and holds this one.
    another = await world.connect_another()
    receiving = asyncio.create_task(another.receive(kernel_id))
    await world.heard(another, kernel_id, Job(2))
    culprit = asyncio.create_task(another.send_and_receive(kernel_id, Job(7, note="boom")))
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(held, receiving, culprit, return_exceptions=True)
    assert list(outcomes) == [failure(kernel_id, 7)] * 3


async def test_requests_behind_the_failure_are_told_and_become_dead_letters(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    await world.runtime.deactivate(kernel_id)
    await world.runtime.send(kernel_id, Job(7, note="boom"))
    behind = [
        asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(number, priority=1))) for number in range(3)
    ]
    await world.queued(kernel_id, 4)
    await world.runtime.reactivate(kernel_id)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*behind, return_exceptions=True) == [failure(kernel_id, 7)] * 3
        with pytest.raises(KernelFailedError) as failed:
            await world.runtime.receive(kernel_id)
    assert failed.value == failure(kernel_id, 7)
    telemetry = world.telemetry(kernel_id)
    assert (telemetry.messages_dropped, telemetry.messages_processed, telemetry.queue_depth) == (4, 0, 0)


async def test_a_failed_kernel_refuses_messages_with_the_cause(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    await world.runtime.send(kernel_id, Job(7, note="boom"))
    await world.failed(kernel_id)
    assert await world.refusal(kernel_id, Job(1)) == failure(kernel_id, 7)
    with pytest.raises(KernelFailedError) as failed:
        await world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE)
    assert failed.value == failure(kernel_id, 7)


async def test_replies_made_before_the_failure_can_be_received_after_it(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    for number in range(10):
        await world.runtime.send(kernel_id, Job(number))
    await world.runtime.send(kernel_id, Job(7, note="boom"))
    await world.failed(kernel_id)
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(10)]
    assert received == [number**2 for number in range(10)]
    for _ in range(2):  # For the request that failed, and for the kernel.
        with pytest.raises(KernelFailedError):
            await world.runtime.receive(kernel_id, timeout=PATIENCE)


async def test_a_failure_is_its_kernels_alone(world: World) -> None:
    failing, sound = await world.launch(kernels.fragile), await world.launch(kernels.fragile)
    await world.runtime.send(failing, Job(7, note="boom"))
    await world.failed(failing)
    assert (await world.runtime.send_and_receive(sound, Job(3), timeout=PATIENCE)).number == 9
    telemetry = world.telemetry(sound)
    assert (telemetry.state, telemetry.error_count, telemetry.last_error) == ("ACTIVE", 0, None)


async def test_every_request_of_many_clients_is_answered_or_told_of_the_failure(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    runtimes = [await world.connect_another() for _ in range(4)]
    jobs = [Job(number, note="boom" if number == 500 else "") for number in range(1_000)]
    asked = [runtimes[job.number % 4].send_and_receive(kernel_id, job, timeout=PATIENCE) for job in jobs]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    told = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    answered = [
        (job.number, outcome.number)
        for job, outcome in zip(jobs, outcomes, strict=True)
        if not isinstance(outcome, BaseException)
    ]
    assert set(map(type, told)) == {KernelFailedError}
    assert told[0] == failure(kernel_id, 500)
    assert all(square == number**2 for number, square in answered)
    assert world.telemetry(kernel_id).messages_processed == len(answered)


async def test_an_actor_that_leaves_by_system_exit_fails_its_kernel_alone(world: World) -> None:
    kernel_id, other = await world.launch(kernels.quitter), await world.launch(kernels.square)
    with pytest.raises(KernelFailedError) as failed:
        await world.runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)
    assert failed.value == KernelFailedError(kernel_id, "SystemExit", "3")
    assert (await world.runtime.send_and_receive(other, Job(3), timeout=PATIENCE)).number == 9


@pytest.mark.parametrize("kernel", [kernels.interrupter, kernels.interrupter_in_a_thread])
async def test_an_interrupt_that_an_actor_raises_fails_its_kernel_alone(world: World, kernel: Any) -> None:
    kernel_id, other = await world.launch(kernel), await world.launch(kernels.square)
    with pytest.raises(KernelFailedError) as failed:
        await world.runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)
    assert failed.value == KernelFailedError(kernel_id, "KeyboardInterrupt", "")
    assert (await world.runtime.send_and_receive(other, Job(3), timeout=PATIENCE)).number == 9


async def test_a_failure_while_the_kernel_ends_is_counted(world: World) -> None:
    kernel_id = await world.launch(kernels.sore_loser)
    await world.runtime.terminate(kernel_id)
    await eventually(lambda: world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED)
    telemetry = world.telemetry(kernel_id)
    assert (telemetry.error_count, telemetry.last_error) == (1, "RuntimeError: not without a fight")
