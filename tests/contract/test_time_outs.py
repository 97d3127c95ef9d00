"""Point 14: time-outs say why."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pydotcompute.exceptions import QueueTimeoutError, TimeoutCause
from tests.contract import kernels
from tests.contract.kernels import Job
from tests.contract.world import PATIENCE, World, eventually

ENOUGH = 1.0
"""Seconds after which a caller gives up: enough for a daemon to say why, unless the machine is very busy."""


async def given_up(waiting: Awaitable[Any]) -> QueueTimeoutError:
    """The error of who has waited in vain."""
    with pytest.raises(QueueTimeoutError) as late:
        await waiting
    return late.value


async def until_told(attempt: Callable[[], Awaitable[QueueTimeoutError]]) -> QueueTimeoutError:
    """The error of the first attempt in which the daemon says in time why: a busy machine may need several."""
    async with asyncio.timeout(PATIENCE):
        while (error := await attempt()).cause == TimeoutCause.SILENT:
            pass
    return error


def ask(world: World, kernel_id: str, job: Job) -> Awaitable[Any]:
    """Ask, and give up soon."""
    return world.runtime.send_and_receive(kernel_id, job, timeout=ENOUGH)


async def test_the_kernel_is_paused(world: World) -> None:
    async def attempt() -> QueueTimeoutError:
        kernel_id = await world.launch(kernels.square)
        await world.runtime.deactivate(kernel_id)
        for number in range(2):
            await world.runtime.send(kernel_id, Job(number))
        await world.queued(kernel_id, 2)
        return await given_up(ask(world, kernel_id, Job(3)))

    error = await until_told(attempt)
    assert (error.cause, error.before, error.seconds) == ("PAUSED", 2, 0.0)
    assert (error.timeout, error.operation) == (ENOUGH, "send_and_receive")
    assert str(error).endswith(
        "send_and_receive timed out after 1 s: the kernel is paused; 2 messages come before this one"
    )


async def test_messages_are_before_it_by_their_priority_and_one_is_in_hand(world: World) -> None:
    async def attempt() -> QueueTimeoutError:
        kernel_id = await world.launch(kernels.tardy)
        await world.runtime.deactivate(kernel_id)
        await world.runtime.send(kernel_id, Job(note="hold"))
        await world.queued(kernel_id, 1)
        await world.runtime.reactivate(kernel_id)
        await world.queued(kernel_id, 0)
        for priority in (1, 128, 200):
            await world.runtime.send(kernel_id, Job(0, priority=priority))
        await world.queued(kernel_id, 3)
        return await given_up(ask(world, kernel_id, Job(0, priority=200)))

    error = await until_told(attempt)
    assert (error.cause, error.before) == ("QUEUED", 1)
    assert 0 < error.seconds < PATIENCE
    assert "1 message comes before this one; the actor has had what it works on in hand for" in str(error)


async def test_the_actor_has_it_in_hand(world: World) -> None:
    async def attempt() -> QueueTimeoutError:
        return await given_up(ask(world, await world.launch(kernels.tardy), Job(note="hold")))

    error = await until_told(attempt)
    assert (error.cause, error.before) == ("IN_HAND", 0)
    assert 0 < error.seconds < PATIENCE
    assert "the actor has had this one in hand for" in str(error)


async def test_it_is_in_hand_since_the_actor_was_done_with_the_one_before(world: World) -> None:
    async def attempt() -> QueueTimeoutError:
        kernel_id = await world.launch(kernels.tardy)
        await world.runtime.send(kernel_id, Job(500))
        return await given_up(ask(world, kernel_id, Job(note="hold")))

    error = await until_told(attempt)
    assert error.cause == "IN_HAND"
    assert 0 < error.seconds < ENOUGH - 0.4, "the first had taken half a second"


async def test_a_batch_is_in_hand(world: World) -> None:
    async def attempt() -> QueueTimeoutError:
        kernel_id = await world.launch(kernels.tardy_batches)
        errors = await asyncio.gather(*(given_up(ask(world, kernel_id, Job(number))) for number in range(3)))
        assert len({error.cause for error in errors}) == 1
        return errors[-1]

    error = await until_told(attempt)
    assert error.cause == "IN_HAND"
    assert error.seconds > 0


async def test_the_actor_has_gone_on_without_a_reply(world: World) -> None:
    async def attempt() -> QueueTimeoutError:
        return await given_up(ask(world, await world.launch(kernels.sink), Job(1)))

    error = await until_told(attempt)
    assert (error.cause, error.before, error.seconds) == ("NO_REPLY", 0, 0.0)
    assert "gone on without a reply to it; a reply has correlation_id=request.message_id" in str(error)


async def test_a_reply_without_a_correlation_id_is_no_reply_and_fills_the_output_mailbox(world: World) -> None:
    async def attempt() -> QueueTimeoutError:
        kernel_id = await world.launch(kernels.crier, output_queue_size=1)
        first, second = await asyncio.gather(*(given_up(ask(world, kernel_id, Job(number))) for number in (1, 2)))
        await world.runtime.terminate(kernel_id, 0.0)  # It does not end by itself.
        if TimeoutCause.SILENT in (first.cause, second.cause):
            return first
        assert {first.cause, second.cause} == {"NO_REPLY", "STUCK_IN_SEND"}
        return first if first.cause == "STUCK_IN_SEND" else second

    error = await until_told(attempt)
    if error.cause != TimeoutCause.SILENT:
        assert error.seconds > 0
        assert "the actor has waited in ctx.send for" in str(error)
        assert "because nobody receives its outputs" in str(error)


async def test_the_kernel_to_which_the_request_was_forwarded_is_paused(world: World) -> None:
    async def attempt() -> QueueTimeoutError:
        entrance, last = await world.launch(kernels.entrance), await world.launch(kernels.square)
        await world.runtime.deactivate(last)
        await world.runtime.send(last, Job(1))
        await world.queued(last, 1)
        return await given_up(ask(world, entrance, Job(2, note=last)))

    error = await until_told(attempt)
    assert (error.cause, error.before) == ("PAUSED", 1)


async def test_a_receive_says_what_the_kernel_does(world: World) -> None:
    kernel_id = await world.launch(kernels.tardy)

    async def receive() -> QueueTimeoutError:
        return await given_up(world.runtime.receive(kernel_id, timeout=ENOUGH))

    assert (await until_told(receive)).cause == "IDLE"
    await world.runtime.deactivate(kernel_id)
    await world.runtime.send(kernel_id, Job(note="hold"))
    await world.queued(kernel_id, 1)
    paused = await until_told(receive)
    assert (paused.cause, paused.before) == ("PAUSED", 1)
    assert str(paused).endswith("receive timed out after 1 s: the kernel is paused; 1 message waits in its mailbox")
    await world.runtime.reactivate(kernel_id)
    await world.queued(kernel_id, 0)
    busy = await until_told(receive)
    assert busy.cause == "IN_HAND"
    assert busy.seconds > 0


async def test_a_receive_says_that_there_was_no_reply(world: World) -> None:
    kernel_id = await world.launch(kernels.sink)
    await world.runtime.send(kernel_id, Job(1))
    await world.processed(kernel_id, 1)
    error = await until_told(lambda: given_up(world.runtime.receive(kernel_id, timeout=ENOUGH)))
    assert error.cause == "NO_REPLY"


async def test_telemetry_shows_the_outputs_that_wait_and_an_actor_that_is_stuck(world: World) -> None:
    kernel_id = await world.launch(kernels.crier, output_queue_size=2)
    telemetry = world.telemetry(kernel_id)
    assert (telemetry.output_depth, telemetry.output_queue_size, telemetry.stuck_in_send_seconds) == (0, 2, None)
    await world.runtime.send(kernel_id, Job(1))
    await eventually(lambda: world.telemetry(kernel_id).output_depth == 1)
    assert world.telemetry(kernel_id).stuck_in_send_seconds is None
    for number in (2, 3):
        await world.runtime.send(kernel_id, Job(number))
    await eventually(lambda: (world.telemetry(kernel_id).stuck_in_send_seconds or 0) > 0)
    assert world.telemetry(kernel_id).output_depth == 2
    for _ in range(3):
        await world.runtime.receive(kernel_id, timeout=PATIENCE)
    await world.processed(kernel_id, 3)
    assert world.telemetry(kernel_id).stuck_in_send_seconds is None
