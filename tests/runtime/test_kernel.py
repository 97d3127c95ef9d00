"""One kernel by itself: `RingKernel`, `managed_kernel`, and what only an in-process kernel can show."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime, message, ring_kernel
from pydotcompute.exceptions import (
    ConnectionLostError,
    KernelFailedError,
    KernelNotFoundError,
    KernelStateError,
    MessageTypeError,
    QueueFullError,
    QueueTimeoutError,
)
from pydotcompute.ring_kernels.actor.room import FIRST_ROW
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.kernel import RingKernel, current_kernel_id, managed_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.gate import KernelState


@message
class Ping:
    """A request."""

    number: int = 0


@message
class Pong:
    """A reply."""

    number: int = 0


Context = KernelContext[Any, Any]


async def echo(ctx: Context) -> None:
    async for ping in ctx:
        await ctx.send(ping)


async def double(ctx: Context) -> None:
    async for ping in ctx:
        await ctx.send(Pong(2 * ping.number, correlation_id=ping.message_id))  # type: ignore[call-arg]


def managed(kernel_id: str, actor: Any, **arguments: Any) -> AbstractAsyncContextManager[RingKernel[Any, Any]]:
    """`managed_kernel`, of any messages."""
    return managed_kernel(kernel_id, actor, **arguments)


async def until(predicate: Callable[[], bool]) -> None:
    """Let the actor run until this holds."""
    async with asyncio.timeout(10):
        while not predicate():  # noqa: ASYNC110  # There is no event for all of this.
            await asyncio.sleep(0)


async def turns() -> None:
    """Let the actor run, which has nothing to do and shall do nothing."""
    for _ in range(100):
        await asyncio.sleep(0)


# -- a kernel by itself ------------------------------------------------------------------------------------------------


async def test_a_kernel_works_without_a_runtime() -> None:
    kernel: RingKernel[Any, Any] = RingKernel("k", double)
    states = [kernel.state]
    for move in (kernel.launch, kernel.activate, kernel.deactivate, kernel.reactivate):
        await move()
        states.append(kernel.state)
    await kernel.send(Ping(1))
    assert (await kernel.receive(timeout=10)).number == 2
    assert (await kernel.send_and_receive(Ping(2), timeout=10)).number == 4
    await kernel.terminate()
    states.append(kernel.state)
    assert [state.name for state in states] == ["CREATED", "LAUNCHED", "ACTIVE", "DEACTIVATED", "ACTIVE", "TERMINATED"]
    assert kernel.get_telemetry().messages_processed == 2
    assert repr(kernel) == "<RingKernel 'k' TERMINATED>"


async def test_a_kernel_that_was_never_launched_refuses_everything_but_its_end() -> None:
    kernel: RingKernel[Any, Any] = RingKernel("k", echo)
    for operation in (kernel.activate, kernel.deactivate, kernel.reactivate):
        with pytest.raises(KernelStateError) as refused:
            await operation()
        assert refused.value.state == "CREATED"
    for call in (
        lambda: kernel.send(Ping()),
        lambda: kernel.receive(),
        lambda: kernel.send_and_receive(Ping()),
    ):
        with pytest.raises(KernelStateError):
            await call()
    await kernel.terminate()
    assert kernel.state is KernelState.TERMINATED


async def test_a_kernel_is_launched_once() -> None:
    kernel: RingKernel[Any, Any] = RingKernel("k", echo)
    await kernel.launch()
    with pytest.raises(KernelStateError) as refused:
        await kernel.launch()
    assert refused.value == KernelStateError("k", "LAUNCHED", "launch", ("CREATED",))
    await kernel.terminate()


async def test_a_managed_kernel_is_active_inside_and_terminated_after() -> None:
    async with managed("k", double, input_type=Ping, output_type=Pong) as kernel:
        assert kernel.state.name == "ACTIVE"
        assert (await kernel.send_and_receive(Ping(4), timeout=10)).number == 8
    assert kernel.state is KernelState.TERMINATED


async def test_a_managed_kernel_is_terminated_after_an_error_too() -> None:
    with pytest.raises(LookupError):
        async with managed("k", echo) as kernel:
            raise LookupError
    assert kernel.state is KernelState.TERMINATED


async def test_each_change_of_state_is_told() -> None:
    told: list[KernelState] = []
    kernel: RingKernel[Any, Any] = RingKernel("k", echo)
    kernel.gate.on_state = lambda: told.append(kernel.state)
    await kernel.launch()
    await kernel.activate()
    await kernel.deactivate()
    await kernel.terminate()
    assert [state.name for state in told] == ["LAUNCHED", "ACTIVE", "DEACTIVATED", "TERMINATING", "TERMINATED"]


# -- what a kernel takes -----------------------------------------------------------------------------------------------


async def test_a_kernel_without_declared_types_takes_any_message_and_nothing_else() -> None:
    async with managed("k", echo) as kernel:
        assert (await kernel.send_and_receive(Ping(1), timeout=10)).number == 1
        assert (await kernel.send_and_receive(Pong(2), timeout=10)).number == 2
        for value in (1, "text", None, object()):
            with pytest.raises(MessageTypeError) as refused:
                await kernel.send(value)
            assert refused.value.expected == "an instance of a @message class"


async def test_a_subclass_of_the_input_type_is_another_class() -> None:
    @message
    class Loud(Ping):
        volume: int = 0

    async with managed("k", echo, input_type=Ping) as kernel:
        with pytest.raises(MessageTypeError) as refused:
            await kernel.send(Loud())
        assert refused.value == MessageTypeError("Ping", "Loud")


async def test_the_output_type_is_checked_and_the_input_type_may_be_sent_back() -> None:
    refused: list[str] = []

    async def actor(ctx: Context) -> None:
        async for ping in ctx:
            try:
                await ctx.send("no message")
            except MessageTypeError as error:
                refused.append(str(error))
            await ctx.send(ping)

    async with managed("k", actor, input_type=Ping, output_type=Pong) as kernel:
        assert type(await kernel.send_and_receive(Ping(), timeout=10)) is Ping
    assert refused == ["$: expected Pong or Ping, got str"]


# -- dead letters ------------------------------------------------------------------------------------------------------


async def test_the_message_in_hand_at_a_failure_is_a_dead_letter_with_its_reason() -> None:
    async def actor(ctx: Context) -> None:
        await ctx.receive()
        raise ValueError("no")

    kernel: RingKernel[Any, Any] = RingKernel("k", actor)
    await kernel.launch()
    await kernel.activate()
    for number in range(3):
        await kernel.send(Ping(number))
    await until(lambda: kernel.state is KernelState.FAILED)
    assert [(letter.message.number, letter.detail) for letter in kernel.dead_letters] == [
        (number, "kernel 'k' failed: ValueError: no") for number in range(3)
    ]
    assert all(letter.time > 1.7e9 for letter in kernel.dead_letters)
    await kernel.terminate()


async def test_the_message_that_was_answered_before_the_failure_is_no_dead_letter() -> None:
    async def actor(ctx: Context) -> None:
        await ctx.send(await ctx.receive())
        raise ValueError("no")

    kernel: RingKernel[Any, Any] = RingKernel("k", actor)
    await kernel.launch()
    await kernel.activate()
    assert (await kernel.send_and_receive(Ping(7), timeout=10)).number == 7
    await until(lambda: kernel.state is KernelState.FAILED)
    assert list(kernel.dead_letters) == []


async def test_locally_a_failure_carries_the_exception_itself() -> None:
    error = ValueError("no")

    async def actor(ctx: Context) -> None:
        await ctx.receive()
        raise error

    async with managed("k", actor) as kernel:
        with pytest.raises(KernelFailedError) as failed:
            await kernel.send_and_receive(Ping(), timeout=10)
        assert failed.value.__cause__ is error
        assert kernel.failure is not None
        assert kernel.failure.__cause__ is error


async def test_a_dropped_message_is_a_dead_letter() -> None:
    config = RingKernelConfig("k", input_queue_size=2, backpressure_strategy="drop_oldest")
    async with managed("k", echo, config=config) as kernel:
        await kernel.deactivate()
        for number in range(4):
            await kernel.send(Ping(number))
        assert [letter.message.number for letter in kernel.dead_letters] == [0, 1]
        assert str(QueueFullError("k", 2)) in kernel.dead_letters[0].detail


async def test_dead_letters_are_bounded_and_counted_all_the_same() -> None:
    config = RingKernelConfig("k", input_queue_size=1, backpressure_strategy="drop_oldest")
    limits = RuntimeLimits(dead_letters=5)
    async with (
        RingKernelRuntime(limits=limits) as runtime,
        runtime.kernel_scope("k", echo, config=config) as kernel,
    ):
        await kernel.deactivate()
        for number in range(11):
            await kernel.send(Ping(number))
        assert [letter.message.number for letter in kernel.dead_letters] == [5, 6, 7, 8, 9]
        assert kernel.get_telemetry().messages_dropped == 10


async def test_a_reply_to_a_message_sent_while_another_had_to_go_finds_its_caller() -> None:
    # The kernel is active: it may answer in the very turn in which the sender makes way for others.
    config = RingKernelConfig("k", input_queue_size=1, backpressure_strategy="drop_oldest")
    async with managed("k", double, config=config) as kernel:
        for _ in range(50):
            with_room, without = Ping(1), Ping(2)
            await kernel.send(with_room)
            asked = asyncio.create_task(kernel.send_and_receive(without, timeout=10))
            await kernel.send(Ping(3))
            outcomes = await asyncio.gather(
                asked, kernel.receive(timeout=10), kernel.receive(timeout=1), return_exceptions=True
            )
            for outcome in outcomes:
                assert isinstance(outcome, Pong | QueueFullError)
        assert len(kernel.mail.outputs) == 0


async def test_a_sender_that_is_never_refused_lets_others_run() -> None:
    config = RingKernelConfig("k", input_queue_size=4, backpressure_strategy="drop_oldest")
    rounds = 0

    async def others() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    async with managed("k", echo, config=config) as kernel:
        await kernel.deactivate()
        other = asyncio.create_task(others())
        for number in range(1_000):
            await kernel.send(Ping(number))
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
    assert rounds >= 10


# -- actors ------------------------------------------------------------------------------------------------------------


async def test_an_actor_that_ignores_every_error_cannot_starve_the_others() -> None:
    async def actor(ctx: Context) -> None:
        while not ctx.should_terminate:
            try:
                await ctx.receive(timeout=0)
            except Exception:
                continue

    async with managed("k", actor) as kernel:
        async with asyncio.timeout(5):
            for _ in range(100):
                await asyncio.sleep(0)
        await kernel.deactivate()
        await asyncio.wait_for(kernel.terminate(), 5)
    assert kernel.state is KernelState.TERMINATED


async def test_an_actor_that_ignores_even_its_end_cannot_starve_the_others() -> None:
    timed_out = asyncio.Event()

    async def actor(ctx: Context) -> None:
        while True:
            try:
                await ctx.receive(timeout=0.001)
            except Exception:
                timed_out.set()

    async with managed("k", actor) as kernel:
        await timed_out.wait()
        await asyncio.wait_for(kernel.terminate(timeout=0.01), 5)
    assert kernel.state is KernelState.TERMINATED


async def test_an_actor_waits_again_in_the_same_step_after_a_time_out() -> None:
    timed_out = asyncio.Event()

    async def actor(ctx: Context) -> None:
        with suppress(QueueTimeoutError):
            await ctx.receive(timeout=0.001)
        timed_out.set()
        await ctx.receive()

    async with managed("k", actor) as kernel:
        await timed_out.wait()
        assert len(kernel.mail.inbox._getters) == 1


async def test_an_actor_with_a_full_mailbox_lets_others_run() -> None:
    handled: list[int] = []

    async def actor(ctx: Context) -> None:
        async for ping in ctx:
            handled.append(ping.number)

    async with managed("k", actor) as kernel:
        await kernel.deactivate()
        for number in range(4_000):
            await kernel.send(Ping(number))
        await kernel.reactivate()
        seen = 0
        while len(handled) < 4_000:
            await asyncio.sleep(0)
            assert len(handled) - seen <= 2 * DEFAULT_LIMITS.in_a_row
            seen = len(handled)


async def test_an_actor_that_takes_long_for_each_message_lets_others_run_after_each() -> None:
    handled: list[int] = []

    async def actor(ctx: Context) -> None:
        async for ping in ctx:
            time.sleep(0.002)  # noqa: ASYNC251  # It computes, and does not wait.
            handled.append(ping.number)

    async with managed("k", actor) as kernel:
        await kernel.deactivate()
        for number in range(60):
            await kernel.send(Ping(number))
        await kernel.reactivate()
        while len(handled) <= FIRST_ROW:  # noqa: ASYNC110
            await asyncio.sleep(0)
        seen = len(handled)
        while len(handled) < 60:
            await asyncio.sleep(0)
            assert len(handled) - seen <= 1
            seen = len(handled)


async def test_wait_active_waits_through_a_pause_and_ends_with_the_kernel() -> None:
    seen: list[tuple[bool, bool]] = []

    async def actor(ctx: Context) -> None:
        while not ctx.should_terminate:
            await ctx.wait_active()
            seen.append((ctx.is_active, ctx.should_terminate))
            await asyncio.sleep(0)

    kernel: RingKernel[Any, Any] = RingKernel("k", actor)
    await kernel.launch()
    await turns()
    assert seen == []
    await kernel.activate()
    await until(lambda: bool(seen))
    assert set(seen) == {(True, False)}
    await kernel.deactivate()
    await turns()  # It has still been waiting for its next turn.
    seen.clear()
    await turns()
    assert seen == []
    await kernel.terminate()
    assert seen == [(False, True)]


async def test_an_output_waits_for_the_end_of_a_pause() -> None:
    sent: list[int] = []

    async def actor(ctx: Context) -> None:
        for number in range(2):
            await ctx.send(Pong(number))
            sent.append(number)
        await asyncio.Event().wait()

    kernel: RingKernel[Any, Any] = RingKernel("k", actor)
    await kernel.launch()
    await turns()
    assert sent == []
    await kernel.activate()
    assert [(await kernel.receive(timeout=10)).number for _ in range(2)] == [0, 1]
    await kernel.terminate(timeout=0)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def test_the_log_says_once_that_a_reply_seems_to_lack_its_correlation_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def forgetful(ctx: Context) -> None:
        async for job in ctx:
            await ctx.send(Pong(job.number))

    async with managed_kernel("forgetful", forgetful, input_type=Ping, output_type=Pong) as kernel:
        for _ in range(3):
            with pytest.raises(QueueTimeoutError):
                await kernel.send_and_receive(Ping(1), timeout=0.01)
    (warning,) = warnings_in(caplog)
    assert "it lacks correlation_id=request.message_id" in warning
    assert caplog.records[0].__dict__["kernel_id"] == "forgetful"


async def test_a_batch_whose_replies_lack_their_correlation_ids_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def forgetful(ctx: Context) -> None:
        async for batch in ctx.batches(max_delay=0.0):
            for job in batch:
                await ctx.send(Pong(job.number))

    async with managed_kernel("forgetful", forgetful, input_type=Ping, output_type=Pong) as kernel:
        with pytest.raises(QueueTimeoutError):
            await kernel.send_and_receive(Ping(1), timeout=0.05)
    assert len(warnings_in(caplog)) == 1


async def test_outputs_for_what_was_only_sent_and_replies_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def ticker(ctx: Context) -> None:
        async for job in ctx:
            if job.number:
                await ctx.send(Pong(job.number, correlation_id=job.message_id))  # type: ignore[call-arg]
            await ctx.send(Pong(7))

    async with managed_kernel("ticker", ticker, input_type=Ping, output_type=Pong) as kernel:
        await kernel.send(Ping(0))
        assert (await kernel.receive(timeout=10)).number == 7
        assert (await kernel.send_and_receive(Ping(5), timeout=10)).number == 5
        assert (await kernel.receive(timeout=10)).number == 7
    assert warnings_in(caplog) == []


async def test_an_actor_that_ignores_its_cancellation_is_left_behind_and_still_told_to_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()
    seen: list[bool] = []

    async def actor(ctx: Context) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        seen.append(ctx.should_terminate)

    limits = RuntimeLimits(cancellation_grace=0.05)
    kernel: RingKernel[Any, Any] = RingKernel("k", actor, limits=limits)
    await kernel.launch()
    await kernel.activate()
    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(kernel.terminate(timeout=0.01), 2)
    assert kernel.state is KernelState.TERMINATED
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    release.set()
    await until(lambda: bool(seen))
    assert seen == [True]
    assert kernel.state is KernelState.TERMINATED


async def test_an_actor_that_is_cancelled_by_itself_has_failed() -> None:
    async def actor(ctx: Context) -> None:
        await ctx.receive()
        raise asyncio.CancelledError

    async with managed("k", actor) as kernel:
        with pytest.raises(KernelFailedError) as failed:
            await kernel.send_and_receive(Ping(), timeout=10)
        assert failed.value.cause_type == "CancelledError"


async def test_an_actor_that_lets_the_state_error_pass_ends_in_order() -> None:
    async def actor(ctx: Context) -> None:
        while True:
            await ctx.receive()

    kernel: RingKernel[Any, Any] = RingKernel("k", actor)
    await kernel.launch()
    await kernel.activate()
    await kernel.terminate()
    assert (kernel.state, kernel.failure, kernel.get_telemetry().error_count) == (KernelState.TERMINATED, None, 0)


async def test_a_message_counts_when_the_actor_returns() -> None:
    async def actor(ctx: Context) -> None:
        await ctx.receive()

    kernel: RingKernel[Any, Any] = RingKernel("k", actor)
    await kernel.launch()
    await kernel.activate()
    await kernel.send(Ping())
    await until(lambda: kernel.state is KernelState.TERMINATED)
    assert kernel.get_telemetry().messages_processed == 1


async def test_what_an_actor_calls_knows_its_kernel() -> None:
    seen: list[str | None] = []

    async def actor(ctx: Context) -> None:
        seen.append(current_kernel_id.get())
        await asyncio.create_task(child())
        await ctx.receive()

    async def child() -> None:
        seen.append(current_kernel_id.get())

    async with managed("k", actor):
        await until(lambda: len(seen) == 2)
    assert seen == ["k", "k"]
    assert current_kernel_id.get() is None


async def test_a_cancelled_launch_leaves_no_actor_behind() -> None:
    ended = asyncio.Event()

    async def actor(ctx: Context) -> None:
        try:
            await ctx.receive()
        finally:
            ended.set()

    async with RingKernelRuntime() as runtime:
        launching = asyncio.create_task(runtime.launch("k", actor))
        await asyncio.sleep(0)
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching
        await asyncio.wait_for(ended.wait(), 1)
        assert runtime.kernel_ids == []


# -- the runtime -------------------------------------------------------------------------------------------------------


async def test_without_telemetry_there_is_none() -> None:
    async with RingKernelRuntime(enable_telemetry=False) as runtime, runtime.kernel_scope("k", echo):
        assert runtime.get_telemetry("k") is None
        assert runtime.get_all_telemetry() == {}
        assert runtime.get_summary()["kernel_count"] == 0
        with pytest.raises(KernelNotFoundError):
            runtime.get_telemetry("nobody")


async def test_a_runtime_can_be_limited_to_some_kernel_types() -> None:
    @ring_kernel(kernel_id="registered-here", input_type=Ping)
    async def registered(ctx: Context) -> None:
        await ctx.receive()

    async with RingKernelRuntime() as everything, RingKernelRuntime(kernel_types={}) as nothing:
        await everything.launch("registered-here")
        with pytest.raises(KernelNotFoundError) as refused:
            await nothing.launch("registered-here")
        assert refused.value == KernelNotFoundError("registered-here", ())


async def test_a_type_that_is_not_registered_can_be_launched_by_its_function_alone() -> None:
    @ring_kernel(kernel_id="unregistered", input_type=Ping, auto_register=False)
    async def unregistered(ctx: Context) -> None:
        async for ping in ctx:
            await ctx.send(ping)

    async with RingKernelRuntime() as runtime:
        with pytest.raises(KernelNotFoundError):
            await runtime.launch("unregistered")
        async with runtime.kernel_scope("k", unregistered):
            with pytest.raises(MessageTypeError):
                await runtime.send("k", Pong())


async def test_what_launch_is_told_goes_before_what_the_type_declares() -> None:
    @ring_kernel(input_type=Ping, output_type=Pong, queue_size=7, auto_register=False)
    async def declared(ctx: Context) -> None:
        async for request in ctx:
            await ctx.send(request)

    async with RingKernelRuntime() as runtime:
        as_declared = await runtime.launch("a", declared)
        other = await runtime.launch("b", declared, config=RingKernelConfig("x", input_queue_size=9), input_type=Pong)
        assert (as_declared.config.kernel_id, as_declared.config.input_queue_size) == ("a", 7)
        assert (other.config.kernel_id, other.config.input_queue_size, other.config.output_queue_size) == ("b", 9, 4096)
        await runtime.activate("b")
        with pytest.raises(MessageTypeError):
            await runtime.send("b", Ping())


async def test_changes_of_state_are_told_after_the_launch() -> None:
    told: list[tuple[str, str]] = []
    async with RingKernelRuntime() as runtime:
        runtime.on_state(lambda kernel: told.append((kernel.kernel_id, kernel.state.name)))
        async with runtime.kernel_scope("k", echo):
            pass
    assert told == [("k", "LAUNCHED"), ("k", "ACTIVE"), ("k", "TERMINATING"), ("k", "TERMINATED")]


async def test_terminated_kernels_are_remembered_up_to_a_number() -> None:
    async with RingKernelRuntime(limits=RuntimeLimits(terminated_kernels=3)) as runtime:
        await runtime.launch("running", echo)
        for number in range(5):
            await runtime.launch(f"k{number}", echo)
            await runtime.terminate(f"k{number}")
        assert runtime.get_kernel_state("k4") is runtime.get_kernel_state("k2") is KernelState.TERMINATED
        for forgotten in ("k0", "k1"):
            with pytest.raises(KernelNotFoundError):
                runtime.get_kernel_state(forgotten)
        assert runtime.kernel_ids == ["running"]


async def test_shutdown_ends_all_kernels_at_once_and_can_be_repeated() -> None:
    async def stubborn(ctx: Context) -> None:
        await asyncio.Event().wait()

    told: list[KernelState] = []
    runtime = RingKernelRuntime()
    await runtime.start()
    launched = [await runtime.launch(f"k{number}", stubborn) for number in range(20)]
    runtime.on_state(lambda kernel: told.append(kernel.state))
    await runtime.shutdown(timeout=0.1)
    await runtime.shutdown()
    assert told == [KernelState.TERMINATING] * 20 + [KernelState.TERMINATED] * 20
    assert {kernel.state for kernel in launched} == {KernelState.TERMINATED}
    assert (runtime.kernel_ids, runtime.is_active) == ([], False)


async def test_the_error_for_an_unknown_kernel_is_short() -> None:
    async def actor(ctx: Any) -> None:
        await ctx.receive()

    async with RingKernelRuntime() as runtime:
        for number in range(32):
            await runtime.launch(f"kernel-{number}", actor)
        with pytest.raises(KernelNotFoundError) as unknown:
            runtime.kernel("x" * 1_000_000)
    assert len(unknown.value.kernel_id) == 201
    assert unknown.value.available[-2:] == ("kernel-29", "…")


async def test_callers_of_a_kernel_that_ended_before_the_drain_hear_of_the_drain_too() -> None:
    async def actor(ctx: Any) -> None:
        await ctx.receive()

    async with RingKernelRuntime() as runtime:
        for kernel_id in ("ended", "active"):
            await runtime.launch(kernel_id, actor)
            await runtime.activate(kernel_id)
        await runtime.terminate("ended")
        kernel = runtime.kernel("ended")
        runtime.drain(ConnectionLostError("", "ending"))
        for refused in (kernel.activate, runtime.kernel("active").activate, lambda: runtime.launch("more", actor)):
            with pytest.raises(ConnectionLostError, match="ending"):
                await refused()
