"""Point 15: actors ask each other."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pydotcompute.exceptions import QueueTimeoutError
from pydotcompute.ring_kernels.mail.gate import KernelState
from tests.contract import kernels
from tests.contract.kernels import Job, Result
from tests.contract.world import PATIENCE, World, eventually

ENOUGH = 1.0
"""Seconds after which a caller gives up: enough for a daemon to say why, unless the machine is very busy."""


async def ask(world: World, kernel_id: str, number: int, *way: str, timeout: float = PATIENCE, **header: Any) -> Result:
    """Ask a kernel, which is to ask those of the way, each the next."""
    job = Job(number, note=" ".join(way), **header)
    result = await world.runtime.send_and_receive(kernel_id, job, timeout=timeout)
    assert isinstance(result, Result)
    return result


async def until_told(attempt: Callable[[], Any]) -> QueueTimeoutError:
    """The time-out of the first attempt in which the daemon says in time why: a busy machine may need several."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with pytest.raises(QueueTimeoutError) as late:
                await attempt()
            if late.value.cause != "SILENT":
                return late.value


@pytest.mark.parametrize(
    "first", [kernels.asker, kernels.blocking_asker, kernels.batched_asker, kernels.concurrent_asker]
)
async def test_the_reply_comes_back_to_the_actor(world: World, first: Callable[..., Any]) -> None:
    first_id = await world.launch(first)
    for last in (kernels.square, kernels.blocking):
        last_id = await world.launch(last)
        results = await asyncio.gather(*(ask(world, first_id, number, last_id) for number in range(20)))
        assert [result.number for result in results] == [number**2 for number in range(20)]
        await world.processed(last_id, 20)
    await world.processed(first_id, 40)
    telemetry = world.telemetry(first_id)
    assert (telemetry.asking, telemetry.asking_seconds) == (None, None)


async def test_messages_of_classes_that_are_neither_input_nor_output(world: World) -> None:
    first_id = await world.launch(kernels.asker_of_bare)
    result = await ask(world, first_id, 4, await world.launch(kernels.total))
    assert (result.number, result.note) == (7, "Inherited")
    assert (await ask(world, first_id, 4, await world.launch(kernels.echo))).note == "Bare"


async def test_an_actor_may_ask_before_its_first_message(world: World) -> None:
    await world.runtime.launch("early-square", kernels.square)
    await world.runtime.activate("early-square")
    try:
        assert (await ask(world, await world.launch(kernels.early_asker), 1)).number == 26
    finally:
        await world.runtime.terminate("early-square")


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [kernels.asker, kernels.blocking_asker])
async def test_errors_are_those_of_any_caller(world: World, first: Callable[..., Any]) -> None:
    first_id = await world.launch(first)
    note = (await ask(world, first_id, 2, "nowhere")).note
    assert note.startswith("KernelNotFoundError: kernel 'nowhere' not found; known here: ")
    launched = await world.launch(kernels.square, activate=False)
    note = (await ask(world, first_id, 2, launched)).note
    assert note == f"KernelStateError: kernel '{launched}' is LAUNCHED: cannot send; it needs ACTIVE or DEACTIVATED"
    fragile = await world.launch(kernels.fragile)
    note = (await ask(world, first_id, 2, fragile, "boom")).note
    assert note == f"KernelFailedError: kernel '{fragile}' failed: ValueError: no square of 2"
    echo = await world.launch(kernels.echo)
    note = (await ask(world, first_id, 2, echo)).note
    assert note == "MessageTypeError: $: expected Bare, got Job"
    assert (await ask(world, first_id, 3)).number == 9


async def test_a_full_mailbox_refuses(world: World, clog: Callable[..., Any]) -> None:
    clogged = await clog("reject")
    note = (await ask(world, await world.launch(kernels.asker), 2, clogged.kernel_id)).note
    assert note == f"QueueFullError: the mailbox of kernel '{clogged.kernel_id}' is full (4 messages)"


async def test_a_time_out_says_why(world: World) -> None:
    first_id, last_id = await world.launch(kernels.hasty_asker), await world.launch(kernels.square)
    await world.runtime.deactivate(last_id)
    note = (await ask(world, first_id, 2, last_id)).note
    assert note == (
        f"QueueTimeoutError: kernel '{last_id}': send_and_receive timed out after 0.05 s: the kernel is paused; "
        "0 messages come before this one"
    )
    assert world.telemetry(last_id).queue_depth == 0


# -- what goes along ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [kernels.concurrent_asker, kernels.batched_asker])
async def test_the_priority_goes_along(world: World, first: Callable[..., Any]) -> None:
    firsts = [await world.launch(first) for _ in range(3)]
    last_id = await world.launch(kernels.square)
    await world.runtime.deactivate(last_id)
    async with asyncio.TaskGroup() as group:
        asks = []
        for at, (first_id, priority) in enumerate(zip(firsts, (1, 200, 100), strict=True)):
            asks.append(group.create_task(ask(world, first_id, 1, last_id, priority=priority)))
            await world.queued(last_id, at + 1)
        await world.runtime.reactivate(last_id)
    # The concurrent ones have let go of their jobs, so nobody knows their priorities any more.
    expected = [2, 0, 1] if first is kernels.batched_asker else [0, 1, 2]
    assert [task.result().position for task in asks] == expected


async def test_the_principal_goes_along(world: World) -> None:
    last_id = await world.launch(kernels.concierge)
    me = "local" if world.name == "local" else "anonymous"
    for first in (kernels.asker, kernels.blocking_asker, kernels.batched_asker, kernels.concurrent_asker):
        assert (await ask(world, await world.launch(first), 1, last_id)).note == me
    assert (await ask(world, await world.launch(kernels.anonymous_asker), 1, last_id)).note == "None"


async def test_the_deadline_goes_along(world: World) -> None:
    first_id, last_id = await world.launch(kernels.asker), await world.launch(kernels.square)
    await world.runtime.deactivate(last_id)
    with pytest.raises(QueueTimeoutError):
        await ask(world, first_id, 2, last_id, timeout=0.2)
    await world.processed(first_id, 1)
    await world.queued(last_id, 0)
    await world.runtime.reactivate(last_id)
    assert (await ask(world, first_id, 3, last_id)).number == 9


# -- withdrawal --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [kernels.asker, kernels.blocking_asker, kernels.batched_asker, kernels.concurrent_asker]
)
async def test_what_is_withdrawn_is_withdrawn_all_the_way(world: World, first: Callable[..., Any]) -> None:
    first_id, last_id = await world.launch(first), await world.launch(kernels.square)
    await world.runtime.deactivate(last_id)
    waiting = asyncio.create_task(ask(world, first_id, 2, last_id))
    await world.queued(last_id, 1)
    waiting.cancel()
    await world.queued(last_id, 0)
    await world.runtime.reactivate(last_id)
    assert (await ask(world, first_id, 3, last_id)).number == 9
    await eventually(lambda: bool(world.runtime.get_dead_letters(first_id)))
    (letter,) = world.runtime.get_dead_letters(first_id)
    assert letter.message.note.startswith(f"RequestWithdrawnError: the request to kernel '{last_id}' was withdrawn")


@pytest.mark.parametrize("first", [kernels.asker, kernels.blocking_asker, kernels.concurrent_asker])
async def test_an_actor_that_is_cancelled_waits_no_more(world: World, first: Callable[..., Any]) -> None:
    first_id, last_id = await world.launch(first), await world.launch(kernels.square)
    await world.runtime.deactivate(last_id)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(asyncio.wait([group.create_task(ended(world, first_id, last_id))]))
        await world.queued(last_id, 1)
        await world.runtime.terminate(first_id, 0.0)
        await world.queued(last_id, 0)
    assert waiting.done()
    assert world.runtime.get_kernel_state(first_id) is KernelState.TERMINATED


async def ended(world: World, first_id: str, last_id: str) -> None:
    """Ask, and hear of the end of the kernel."""
    with pytest.raises(Exception, match="TERMINAT"):
        await ask(world, first_id, 2, last_id)


# -- circles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kernels.asker, kernels.blocking_asker])
async def test_a_circle_is_an_error_at_once(world: World, kind: Callable[..., Any]) -> None:
    a, b, c = [await world.launch(kind) for _ in range(3)]
    for way, circle in (((a,), (a, a)), ((b, a), (b, a, b)), ((b, c, a), (c, a, b, c)), ((b, c, b), (c, b, c))):
        result = await ask(world, a, 2, *way)
        assert result.note.startswith("CircularAskError: ")
        assert f" in a circle: {' -> '.join(circle)}. " in result.note
    assert (await ask(world, a, 2, b, c)).number == 4


async def test_a_request_that_is_forwarded_to_who_waits_for_it_is_a_circle(world: World) -> None:
    first_id, last_id = await world.launch(kernels.asker), await world.launch(kernels.entrance)
    note = (await ask(world, first_id, 2, last_id, first_id)).note
    assert note.startswith("CircularAskError: ")
    assert f" in a circle: {last_id} -> {first_id} -> {last_id}. " in note


async def test_an_actor_that_takes_messages_meanwhile_may_be_asked_again(world: World) -> None:
    first_id, last_id = await world.launch(kernels.concurrent_asker), await world.launch(kernels.asker)
    assert (await ask(world, first_id, 3, last_id, first_id)).number == 9
    assert (await ask(world, first_id, 3, first_id, first_id)).number == 9
    assert (await ask(world, last_id, 3, first_id, first_id)).number == 9


# -- what is said of it ------------------------------------------------------------------------------------------------


async def test_telemetry_and_time_outs_say_so(world: World) -> None:
    first_id, last_id = await world.launch(kernels.asker), await world.launch(kernels.square)
    await world.runtime.deactivate(last_id)
    patient = asyncio.create_task(ask(world, first_id, 2, last_id))
    await world.queued(last_id, 1)
    await eventually(lambda: (world.telemetry(first_id).asking_seconds or 0) > 0)
    assert world.telemetry(first_id).asking == last_id

    behind = await until_told(lambda: ask(world, first_id, 3, timeout=ENOUGH))
    assert (behind.cause, behind.before, behind.asking) == ("ASKING", 0, last_id)
    assert behind.seconds > 0
    assert f"the actor has waited for the reply of kernel '{last_id}' for" in str(behind)
    with pytest.raises(QueueTimeoutError) as nothing:
        await world.runtime.receive(first_id, timeout=ENOUGH)
    assert nothing.value.cause in ("ASKING", "SILENT")

    await world.runtime.reactivate(last_id)
    assert (await patient).number == 4


async def test_a_time_out_of_the_request_in_hand_says_so(world: World) -> None:
    first_id, last_id = await world.launch(kernels.asker), await world.launch(kernels.square)
    await world.runtime.deactivate(last_id)
    error = await until_told(lambda: ask(world, first_id, 2, last_id, timeout=ENOUGH))
    assert (error.cause, error.before, error.asking) == ("ASKING", 0, last_id)
