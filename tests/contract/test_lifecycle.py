"""Points 1, 2 and 8: states, pauses and ends."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from pydotcompute import KernelRuntime
from pydotcompute.exceptions import (
    InvalidConfigurationError,
    KernelAlreadyExistsError,
    KernelFailedError,
    KernelNotFoundError,
    KernelStateError,
    QueueFullError,
    QueueTimeoutError,
)
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.mail.gate import KernelState
from tests.contract import kernels
from tests.contract.kernels import Bare, Job, Result
from tests.contract.world import PATIENCE, World, eventually, new_kernel_id, turns

# -- 1. lifecycle ------------------------------------------------------------------------------------------------------


async def test_a_runtime_is_active_between_start_and_shutdown(world: World) -> None:
    assert isinstance(world.runtime, KernelRuntime)
    assert world.runtime.is_active
    await world.runtime.shutdown()
    assert not world.runtime.is_active


async def test_shutdown_terminates_the_kernels_that_were_launched(world: World) -> None:
    another = await world.connect_another()
    kernel_id = new_kernel_id(kernels.echo)
    await another.launch(kernel_id, kernels.echo)
    await another.shutdown()
    assert kernel_id not in world.runtime.kernel_ids


async def test_a_kernel_goes_through_its_states_in_order(world: World) -> None:
    kernel_id = await world.launch(kernels.echo, activate=False)
    seen = [world.runtime.get_kernel_state(kernel_id)]
    runtime = world.runtime
    for move in (runtime.activate, runtime.deactivate, runtime.reactivate, runtime.deactivate, runtime.terminate):
        await move(kernel_id)
        seen.append(runtime.get_kernel_state(kernel_id))
    assert [state.name for state in seen] == [
        "LAUNCHED",
        "ACTIVE",
        "DEACTIVATED",
        "ACTIVE",
        "DEACTIVATED",
        "TERMINATED",
    ]


@pytest.mark.parametrize("wrong", ["\x1b]0;title\x07", "a\nb", "\x9b2J", "\u202eright", "zero\u200bwidth", "\x00"])
async def test_an_id_has_printable_characters_only(world: World, wrong: str) -> None:
    with pytest.raises(InvalidConfigurationError, match="printable characters only") as refused:
        await world.runtime.launch(f"id {wrong}", kernels.echo)
    assert refused.value.parameter == "kernel_id"
    assert refused.value.value == repr(f"id {wrong}")[1:-1]
    assert str(refused.value).isprintable()


async def test_an_id_may_have_letters_of_any_script_and_spaces(world: World) -> None:
    kernel_id = f"größe 日本語 🦀 {new_kernel_id(kernels.echo)}"
    await world.runtime.launch(kernel_id, kernels.echo)
    assert kernel_id in world.runtime.kernel_ids


async def test_the_handle_of_a_kernel_does_what_the_runtime_does(world: World) -> None:
    kernel_id = new_kernel_id(kernels.echo)
    handle = await world.runtime.launch(kernel_id, kernels.echo)
    assert (handle.kernel_id, handle.state) == (kernel_id, KernelState.LAUNCHED)
    await handle.activate()
    await handle.deactivate()
    assert [handle.state, world.runtime.get_kernel_state(kernel_id)] == [KernelState.DEACTIVATED] * 2
    await handle.reactivate()
    await handle.send(Bare(1))
    assert (await handle.receive(timeout=PATIENCE)).x == 1.0
    assert (await handle.send_and_receive(Bare(2), timeout=PATIENCE)).x == 2.0
    telemetry = handle.get_telemetry()
    assert telemetry is not None
    assert telemetry.messages_processed == 2
    await handle.terminate()
    assert handle.state is KernelState.TERMINATED


async def test_kernel_ids_lists_the_kernels_that_are_not_terminated(world: World) -> None:
    first, second = await world.launch(kernels.echo), await world.launch(kernels.fragile)
    await world.runtime.send(second, Job(1, note="boom"))
    await world.failed(second)
    assert [kernel_id for kernel_id in world.runtime.kernel_ids if kernel_id in (first, second)] == [first, second]
    await world.runtime.terminate(first)
    assert first not in world.runtime.kernel_ids
    assert second in world.runtime.kernel_ids


async def test_a_kernel_scope_is_active_inside_and_terminated_after(world: World) -> None:
    kernel_id = new_kernel_id(kernels.echo)
    async with world.runtime.kernel_scope(kernel_id, kernels.echo) as handle:
        assert handle.state is KernelState.ACTIVE
        assert (await world.runtime.send_and_receive(kernel_id, Bare(2), timeout=PATIENCE)).x == 2.0
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED


async def test_a_kernel_scope_is_terminated_after_an_error_too(world: World) -> None:
    kernel_id = new_kernel_id(kernels.echo)
    with pytest.raises(LookupError):
        async with world.runtime.kernel_scope(kernel_id, kernels.echo):
            raise LookupError
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED


async def test_a_kernel_type_can_be_launched_by_its_name_alone(world: World) -> None:
    async with world.runtime.kernel_scope("small"):
        assert (await world.runtime.send_and_receive("small", Job(3), timeout=PATIENCE)).number == 9


async def test_a_kernel_has_the_settings_of_its_type_unless_told_otherwise(world: World) -> None:
    as_declared = await world.launch(kernels.small)
    other = await world.launch(kernels.small, input_queue_size=6, backpressure_strategy="block")
    for kernel_id, size in ((as_declared, 4), (other, 6)):
        await world.runtime.deactivate(kernel_id)
        for number in range(size):
            await world.runtime.send(kernel_id, Job(number), timeout=PATIENCE)
        with pytest.raises(QueueFullError) as refused:
            await world.runtime.send(kernel_id, Job(), timeout=0.05)
        assert refused.value == QueueFullError(kernel_id, size)


async def test_a_kernel_of_another_id_can_be_launched_by_the_name_of_its_type(world: World) -> None:
    kernel_id = new_kernel_id(kernels.square)
    async with world.runtime.kernel_scope(kernel_id, "square") as kernel:
        assert kernel.kernel_id == kernel_id
        assert (await kernel.send_and_receive(Job(3), timeout=PATIENCE)).number == 9


async def test_a_launch_by_the_name_of_no_type_is_refused(world: World) -> None:
    with pytest.raises(KernelNotFoundError) as refused:
        await world.runtime.launch(new_kernel_id(kernels.square), "sqare")
    assert refused.value.kernel_id == "sqare"


async def test_a_kernel_launched_twice_is_refused_and_the_first_goes_on(world: World) -> None:
    kernel_id = await world.launch(kernels.echo)
    with pytest.raises(KernelAlreadyExistsError) as refused:
        await world.runtime.launch(kernel_id, kernels.square)
    assert refused.value == KernelAlreadyExistsError(kernel_id)
    assert (await world.runtime.send_and_receive(kernel_id, Bare(1), timeout=PATIENCE)).x == 1.0


async def test_two_launches_of_one_id_at_once_give_one_kernel(world: World) -> None:
    kernel_id = new_kernel_id(kernels.echo)
    launches = [world.runtime.launch(kernel_id, kernels.echo) for _ in range(4)]
    outcomes = await asyncio.gather(*launches, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes if isinstance(outcome, Exception)) == (
        ["KernelAlreadyExistsError"] * 3
    )
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.LAUNCHED


async def test_a_failed_kernel_keeps_its_id_until_it_is_terminated(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile)
    await world.runtime.send(kernel_id, Job(1, note="boom"))
    await world.failed(kernel_id)
    with pytest.raises(KernelAlreadyExistsError):
        await world.runtime.launch(kernel_id, kernels.square)
    await world.runtime.terminate(kernel_id)
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED
    async with world.runtime.kernel_scope(kernel_id, kernels.square):
        assert (await world.runtime.send_and_receive(kernel_id, Job(4), timeout=PATIENCE)).number == 16


async def test_the_id_of_a_terminated_kernel_can_be_launched_anew(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    await world.runtime.send(kernel_id, Job(3))
    await world.processed(kernel_id, 1)
    await world.runtime.terminate(kernel_id)
    await world.runtime.launch(kernel_id, kernels.square)
    await world.runtime.activate(kernel_id)
    assert world.telemetry(kernel_id).messages_processed == 0
    assert (await world.runtime.send_and_receive(kernel_id, Job(5), timeout=PATIENCE)).number == 25
    assert await world.nothing_to_receive(kernel_id), "what the kernel before had sent is not this one's"


async def test_a_failure_before_the_actor_first_waits_belongs_to_launch(world: World) -> None:
    kernel_id = new_kernel_id(kernels.stillborn)
    with pytest.raises(KernelFailedError) as failed:
        await world.runtime.launch(kernel_id, kernels.stillborn)
    assert failed.value == KernelFailedError(kernel_id, "LookupError", "nothing to start from")
    assert kernel_id not in world.runtime.kernel_ids
    with pytest.raises(KernelNotFoundError):
        world.runtime.get_kernel_state(kernel_id)
    async with world.runtime.kernel_scope(kernel_id, kernels.square):
        assert (await world.runtime.send_and_receive(kernel_id, Job(2), timeout=PATIENCE)).number == 4


async def test_an_actor_that_returns_ends_its_kernel(world: World) -> None:
    kernel_id = await world.launch(kernels.short_lived)
    assert (await world.runtime.send_and_receive(kernel_id, Job(2), timeout=PATIENCE)).number == 4
    await eventually(lambda: world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED)
    refusal = await world.refusal(kernel_id, Job(2))
    assert isinstance(refusal, KernelStateError)
    assert refusal.state == "TERMINATED"


async def test_a_kernel_type_that_nobody_declared_is_not_found(world: World) -> None:
    with pytest.raises(KernelNotFoundError) as refused:
        await world.runtime.launch("no-such-type")
    assert refused.value.kernel_id == "no-such-type"
    assert {"batched", "blocking"} <= set(refused.value.available), "a daemon names some"


OPERATIONS: dict[str, Callable[[KernelRuntime, str], Awaitable[object]]] = {
    "activate": lambda runtime, kernel_id: runtime.activate(kernel_id),
    "deactivate": lambda runtime, kernel_id: runtime.deactivate(kernel_id),
    "reactivate": lambda runtime, kernel_id: runtime.reactivate(kernel_id),
    "send": lambda runtime, kernel_id: runtime.send(kernel_id, Job()),
    "send_and_receive": lambda runtime, kernel_id: runtime.send_and_receive(kernel_id, Job(), timeout=PATIENCE),
    "receive": lambda runtime, kernel_id: runtime.receive(kernel_id, timeout=PATIENCE),
}


async def _asked(call: Callable[[], object]) -> object:
    return call()


@pytest.mark.parametrize("operation", [*OPERATIONS, "terminate", "get_kernel_state", "get_telemetry"])
async def test_a_kernel_that_nobody_launched_is_not_found(world: World, operation: str) -> None:
    running = await world.launch(kernels.square)
    further: dict[str, Callable[[KernelRuntime, str], Awaitable[object]]] = {
        "terminate": lambda runtime, kernel_id: runtime.terminate(kernel_id),
        "get_kernel_state": lambda runtime, kernel_id: _asked(lambda: runtime.get_kernel_state(kernel_id)),
        "get_telemetry": lambda runtime, kernel_id: _asked(lambda: runtime.get_telemetry(kernel_id)),
    }
    with pytest.raises(KernelNotFoundError) as refused:
        await (OPERATIONS | further)[operation](world.runtime, "nobody")
    assert refused.value.kernel_id == "nobody"
    assert running in refused.value.available


async def into_launched(world: World) -> str:
    return await world.launch(kernels.square, activate=False)


async def into_active(world: World) -> str:
    return await world.launch(kernels.square)


async def into_deactivated(world: World) -> str:
    kernel_id = await world.launch(kernels.square)
    await world.runtime.deactivate(kernel_id)
    return kernel_id


async def into_terminated(world: World) -> str:
    kernel_id = await world.launch(kernels.square)
    await world.runtime.terminate(kernel_id)
    return kernel_id


async def into_failed(world: World) -> str:
    kernel_id = await world.launch(kernels.fragile)
    await world.runtime.send(kernel_id, Job(7, note="boom"))
    await world.failed(kernel_id)
    return kernel_id


NEEDED = {
    "activate": ("activate", ("LAUNCHED",)),
    "deactivate": ("deactivate", ("ACTIVE",)),
    "reactivate": ("reactivate", ("DEACTIVATED",)),
    "send": ("send", ("ACTIVE", "DEACTIVATED")),
    "send_and_receive": ("send", ("ACTIVE", "DEACTIVATED")),
    "receive": ("receive", ("ACTIVE", "DEACTIVATED")),
}
"""For each operation, what the error calls it and the states that allow it."""


@pytest.mark.parametrize(
    ("into", "operation"),
    [
        (into_launched, "deactivate"),
        (into_launched, "reactivate"),
        (into_launched, "send"),
        (into_launched, "send_and_receive"),
        (into_launched, "receive"),
        (into_active, "activate"),
        (into_active, "reactivate"),
        (into_deactivated, "activate"),
        (into_deactivated, "deactivate"),
        (into_terminated, "activate"),
        (into_terminated, "deactivate"),
        (into_terminated, "reactivate"),
        (into_terminated, "send"),
        (into_terminated, "send_and_receive"),
        (into_failed, "activate"),
        (into_failed, "deactivate"),
        (into_failed, "reactivate"),
    ],
)
async def test_a_wrong_move_is_refused_with_the_states_that_allow_it(
    world: World, into: Callable[[World], Awaitable[str]], operation: str
) -> None:
    kernel_id = await into(world)
    state = world.runtime.get_kernel_state(kernel_id)
    with pytest.raises(KernelStateError) as refused:
        await OPERATIONS[operation](world.runtime, kernel_id)
    called, allowed = NEEDED[operation]
    assert refused.value == KernelStateError(kernel_id, state.name, called, allowed)
    assert world.runtime.get_kernel_state(kernel_id) is state


async def test_an_actor_that_returns_says_so_to_its_callers(world: World) -> None:
    kernel_id = await world.launch(kernels.short_lived)
    await world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE)
    await eventually(lambda: world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED)
    told = await world.refusal(kernel_id, Job(2))
    assert isinstance(told, KernelStateError)
    assert (told.state, told.returned_after) == ("TERMINATED", 1)
    assert f"kernel {kernel_id!r} is TERMINATED, because its actor returned after 1 message: cannot" in str(told)
    with pytest.raises(KernelStateError) as refused:
        await world.runtime.activate(kernel_id)
    assert refused.value.returned_after == 1


async def test_callers_that_wait_when_the_actor_returns_are_told(world: World) -> None:
    kernel_id = await world.launch(kernels.short_lived)
    await world.runtime.deactivate(kernel_id)
    first = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE))
    await world.queued(kernel_id, 1)
    second = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(2), timeout=PATIENCE))
    await world.queued(kernel_id, 2)
    await world.runtime.reactivate(kernel_id)
    await first
    with pytest.raises(KernelStateError) as told:
        await second
    assert told.value.returned_after == 1


async def test_a_receive_from_a_kernel_that_has_ended_says_how_it_ended(world: World) -> None:
    terminated, failed = await into_terminated(world), await into_failed(world)
    another = await world.connect_another()
    for runtime in (world.runtime, another):
        with pytest.raises(KernelStateError) as ended:
            await runtime.receive(terminated, timeout=PATIENCE)
        assert ended.value == KernelStateError(terminated, "TERMINATED", "handle messages", ("ACTIVE", "DEACTIVATED"))
        with pytest.raises(KernelFailedError) as broken:
            await runtime.receive(failed, timeout=PATIENCE)
        assert broken.value == KernelFailedError(failed, "ValueError", "no square of 7")


# -- 2. a pause is real ------------------------------------------------------------------------------------------------


async def test_a_kernel_that_waits_in_receive_is_handed_nothing_after_deactivate(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    await world.runtime.send(kernel_id, Job(1))
    await world.processed(kernel_id, 1)  # It has asked for the next.
    await world.runtime.deactivate(kernel_id)
    await world.runtime.send(kernel_id, Job(2, note="open"))
    await world.queued(kernel_id, 1)
    assert await world.nothing_to_receive(kernel_id, timeout=0.1)
    assert (world.telemetry(kernel_id).queue_depth, world.telemetry(kernel_id).messages_processed) == (1, 1)
    await world.runtime.reactivate(kernel_id)
    assert [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(2)] == [1, 4]


async def test_what_an_actor_sends_before_it_is_active_can_be_received_once_it_is(world: World) -> None:
    kernel_id = await world.launch(kernels.greeter, activate=False)
    await world.runtime.activate(kernel_id)
    assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).note == f"{kernel_id} is_active=True"
    assert await world.nothing_to_receive(kernel_id)


async def test_no_pause_at_any_moment_lets_a_message_through(world: World) -> None:
    kernel_id = await world.launch(kernels.sink)
    dice = random.Random(2)
    rounds, burst = 200, 5
    for _ in range(rounds):
        for number in range(burst):
            await world.runtime.send(kernel_id, Job(number))
        await turns(dice.randrange(12))
        await world.runtime.deactivate(kernel_id)
        before = world.telemetry(kernel_id)
        await turns(12)
        after = world.telemetry(kernel_id)
        # What is still on its way over the wire may join the queue; nothing may leave it.
        assert after.queue_depth >= before.queue_depth
        assert after.messages_processed - before.messages_processed <= 1, "more than the one in the actor's hands"
        await world.runtime.reactivate(kernel_id)
    await world.processed(kernel_id, rounds * burst)


async def test_messages_sent_during_a_pause_queue_up_and_come_after_it(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    for _ in range(3):
        await world.runtime.deactivate(kernel_id)
        for number in range(50):
            await world.runtime.send(kernel_id, Job(number))
        await world.queued(kernel_id, 50)
        await world.runtime.reactivate(kernel_id)
        received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(50)]
        assert received == [number**2 for number in range(50)]


async def test_replies_made_before_a_pause_can_be_received_in_it(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    for number in range(10):
        await world.runtime.send(kernel_id, Job(number))
    await world.processed(kernel_id, 10)
    await world.runtime.deactivate(kernel_id)
    assert [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(10)] == [
        number**2 for number in range(10)
    ]


async def test_outputs_made_before_a_pause_can_be_received_in_it(world: World) -> None:
    kernel_id = await world.launch(kernels.emitter)
    await world.runtime.send(kernel_id, Job(10))
    await world.processed(kernel_id, 1)
    await world.runtime.deactivate(kernel_id)
    assert [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(10)] == list(range(10))


# -- 8. terminate is graceful ------------------------------------------------------------------------------------------


async def test_a_reply_in_progress_still_comes_when_the_kernel_is_told_to_end(world: World) -> None:
    kernel_id = await world.launch(kernels.careful)
    asked = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(6), timeout=PATIENCE))
    assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).note == "started"
    await world.runtime.terminate(kernel_id)
    reply = await asked
    assert (reply.number, reply.note) == (36, "should_terminate=True state=TERMINATING is_active=False")
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED


async def test_replies_already_made_can_be_received_after_terminate(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    for number in range(20):
        await world.runtime.send(kernel_id, Job(number))
    await world.processed(kernel_id, 20)
    await world.runtime.terminate(kernel_id)
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(20)]
    assert received == [number**2 for number in range(20)]
    with pytest.raises(KernelStateError) as ended:
        await world.runtime.receive(kernel_id, timeout=PATIENCE)
    assert ended.value.state == "TERMINATED"


async def test_outputs_already_made_can_be_received_after_terminate(world: World) -> None:
    kernel_id = await world.launch(kernels.emitter)
    await world.runtime.send(kernel_id, Job(20))
    await world.processed(kernel_id, 1)
    await world.runtime.terminate(kernel_id)
    assert [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(20)] == list(range(20))
    with pytest.raises(KernelStateError):
        await world.runtime.receive(kernel_id, timeout=PATIENCE)


async def test_callers_of_requests_never_handled_are_told_at_terminate(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    await world.runtime.deactivate(kernel_id)
    asked = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE))
    for number in (2, 3):
        await world.runtime.send(kernel_id, Job(number))
    await world.queued(kernel_id, 3)
    await world.runtime.terminate(kernel_id)
    told = KernelStateError(kernel_id, "TERMINATED", "handle messages", ("ACTIVE", "DEACTIVATED"))
    with pytest.raises(KernelStateError) as untold:
        await asked
    assert untold.value == told
    for _ in range(2):
        with pytest.raises(KernelStateError) as untold:
            await world.runtime.receive(kernel_id, timeout=PATIENCE)
        assert untold.value == told
    assert world.telemetry(kernel_id).messages_dropped == 3


async def test_a_receive_that_waits_is_told_at_terminate(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    receiving = asyncio.create_task(world.runtime.receive(kernel_id))
    await world.heard(world.runtime, kernel_id, Job(1))
    await world.runtime.terminate(kernel_id)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(KernelStateError):
            await receiving


async def test_callers_of_requests_that_the_actor_held_are_told_at_terminate(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    asked = [asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(n), timeout=PATIENCE)) for n in range(3)]
    await world.processed(kernel_id, 3)
    await world.runtime.terminate(kernel_id)
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [KernelStateError] * 3


async def test_an_actor_that_ignores_should_terminate_is_cancelled_after_the_time_out(world: World) -> None:
    kernel_id = await world.launch(kernels.stubborn)
    await world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with asyncio.timeout(PATIENCE):
        await world.runtime.terminate(kernel_id, timeout=0.1)
    assert loop.time() - begin >= 0.1
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED
    assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).note == "cancelled"


async def test_a_kernel_that_is_ending_refuses_everything(world: World) -> None:
    kernel_id = await world.launch(kernels.emitter, output_queue_size=4)
    await world.runtime.send(kernel_id, Job(20))
    await world.queued(kernel_id, 0)
    ending = asyncio.create_task(
        world.runtime.terminate(kernel_id, timeout=60)
    )  # It takes until the outputs have room.
    await eventually(lambda: world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATING)
    await world.heard_of_the_end(kernel_id)
    for operation in ("send", "send_and_receive", "activate", "deactivate", "reactivate"):
        with pytest.raises(KernelStateError) as refused:
            await OPERATIONS[operation](world.runtime, kernel_id)
        called, allowed = NEEDED[operation]
        assert refused.value == KernelStateError(kernel_id, "TERMINATING", called, allowed)
    with pytest.raises(KernelAlreadyExistsError):
        await world.runtime.launch(kernel_id, kernels.stubborn)
    assert not ending.done()
    assert [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(20)] == list(range(20))
    await asyncio.wait_for(ending, PATIENCE)


async def test_terminate_twice_and_at_once_is_fine(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    await asyncio.gather(*(world.runtime.terminate(kernel_id) for _ in range(3)))
    await world.runtime.terminate(kernel_id)
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED


async def test_a_kernel_can_be_terminated_in_every_state(world: World) -> None:
    for into in (into_launched, into_active, into_deactivated, into_terminated, into_failed):
        kernel_id = await into(world)
        await world.runtime.terminate(kernel_id)
        assert world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED


async def test_a_cancelled_terminate_ends_the_kernel_all_the_same(world: World) -> None:
    kernel_id = await world.launch(kernels.stubborn)
    await world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE)
    ending = asyncio.create_task(world.runtime.terminate(kernel_id, timeout=0.1))
    await eventually(lambda: world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATING)
    ending.cancel()
    await eventually(lambda: world.runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED)


async def test_a_kernel_that_ends_leaves_the_others_alone(world: World) -> None:
    ended, running = await world.launch(kernels.square), await world.launch(kernels.square)
    await world.runtime.send(running, Job(5))
    await world.runtime.terminate(ended)
    result = await world.runtime.receive(running, timeout=PATIENCE)
    assert isinstance(result, Result)
    assert result.number == 25
    with pytest.raises(QueueTimeoutError):
        await world.runtime.receive(running, timeout=0)


async def test_a_config_names_the_kernel_that_is_launched_with_it(world: World) -> None:
    kernel_id = new_kernel_id(kernels.square)
    handle = await world.runtime.launch(
        kernel_id, kernels.square, config=RingKernelConfig("another", input_queue_size=7)
    )
    assert handle.kernel_id == kernel_id
    assert "another" not in world.runtime.kernel_ids


# -- more actors, and new ones -----------------------------------------------------------------------------------------


async def test_a_failed_kernel_is_restarted_with_its_dead_letters(world: World) -> None:
    kernel_id = await world.launch(kernels.fragile, input_queue_size=7)
    with pytest.raises(KernelFailedError):
        await world.runtime.send_and_receive(kernel_id, Job(1, note="boom"), timeout=PATIENCE)
    await world.failed(kernel_id)
    await world.runtime.restart(kernel_id)
    assert world.runtime.get_kernel_state(kernel_id) is KernelState.ACTIVE
    reply = await world.runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)
    assert reply.number == 9
    (letter,) = world.runtime.get_dead_letters(kernel_id)
    assert letter.message.number == 1


async def test_workers_come_and_go_or_there_are_none(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    with pytest.raises(InvalidConfigurationError, match="at least 1" if world.isolation == "process" else "instances"):
        await world.runtime.scale(kernel_id, 0)
    moves = (world.runtime.scale(kernel_id, 2), world.runtime.restart(kernel_id), world.runtime.scale(kernel_id, 1))
    for move in moves:
        if world.isolation == "process":
            await move
        else:
            with pytest.raises(InvalidConfigurationError, match=r"only (a )?worker process"):
                await move
        assert (await world.runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)).number == 9
    await world.runtime.terminate(kernel_id)
    for move in (world.runtime.scale(kernel_id, 2), world.runtime.restart(kernel_id)):
        with pytest.raises(KernelStateError, match="is TERMINATED"):
            await move
