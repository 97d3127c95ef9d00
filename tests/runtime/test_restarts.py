"""Actors of this process that are started again after they have failed."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pydotcompute import BlockingContext, KernelContext, KernelState, RingKernelRuntime, message, ring_kernel
from pydotcompute.exceptions import InvalidConfigurationError, KernelFailedError, QueueTimeoutError
from pydotcompute.ring_kernels import DeadLetterReason, RingKernelTelemetry, RuntimeLimits
from tests.contract.world import PATIENCE, eventually


@message
class Ask:
    number: int = 0
    do: str = ""


@message
class Told:
    number: int = 0
    deliveries: int = 0
    start: int = 0


LIMITS = RuntimeLimits(max_restarts=3)


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime(limits=LIMITS) as started:
        yield started


def told(ask: Ask, ctx: KernelContext[Ask, Told] | BlockingContext[Ask, Told]) -> Told:
    if ask.do == "raise" or (ask.do == "raise once" and not ctx.redelivered):
        raise ValueError("as told")
    return Told(ask.number, ctx.deliveries, correlation_id=ask.message_id)  # type: ignore[call-arg, attr-defined]


def actor(**settings: Any) -> Any:
    @ring_kernel(input_type=Ask, output_type=Told, auto_register=False, **{"restart": "on_failure", **settings})
    async def answering(ctx: KernelContext[Ask, Told]) -> None:
        async for ask in ctx:
            if ask.do == "return":
                return
            await ctx.send(told(ask, ctx))

    return answering


def in_a_thread(**settings: Any) -> Any:
    @ring_kernel(input_type=Ask, output_type=Told, auto_register=False, **{"restart": "on_failure", **settings})
    def answering(ctx: BlockingContext[Ask, Told]) -> None:
        for ask in ctx:
            ctx.send(told(ask, ctx))

    return answering


def in_batches(**settings: Any) -> Any:
    @ring_kernel(input_type=Ask, output_type=Told, auto_register=False, **{"restart": "on_failure", **settings})
    async def answering(ctx: KernelContext[Ask, Told]) -> None:
        async for batch in ctx.batches(max_size=4, max_delay=0.0):
            for reply in [told(ask, ctx) for ask in batch]:
                await ctx.send(reply)

    return answering


async def ask(runtime: RingKernelRuntime, number: int = 0, do: str = "") -> Told:
    reply: Told = await runtime.send_and_receive("k", Ask(number, do), timeout=PATIENCE)
    return reply


def telemetry_of(runtime: RingKernelRuntime) -> RingKernelTelemetry:
    telemetry = runtime.get_telemetry("k")
    assert telemetry is not None
    return telemetry


@pytest.mark.parametrize("make", [actor, in_a_thread, in_batches])
async def test_an_actor_that_raises_is_started_again_and_what_waits_goes_on(
    runtime: RingKernelRuntime, make: Any
) -> None:
    async with runtime.kernel_scope("k", make()):
        asking = [asyncio.create_task(ask(runtime, number, "raise" if number == 4 else "")) for number in range(12)]
        replies = await asyncio.gather(*asking, return_exceptions=True)
        lost = [number for number, reply in enumerate(replies) if isinstance(reply, KernelFailedError)]
        assert 4 in lost
        assert [getattr(reply, "number", number) for number, reply in enumerate(replies)] == [*range(12)]
        letters = runtime.get_dead_letters("k")
        assert [letter.message.number for letter in letters] == lost
        assert {letter.reason for letter in letters} == {DeadLetterReason.KERNEL_ENDED}
        telemetry = telemetry_of(runtime)
        assert (telemetry.restarts, telemetry.error_count, telemetry.state) == (1, 1, "ACTIVE")
        assert telemetry.last_error == "ValueError: as told"
        assert (telemetry.last_crash, telemetry.workers) == (None, ())


@pytest.mark.parametrize("make", [actor, in_a_thread, in_batches])
async def test_what_was_in_hand_is_given_again_and_the_poison_alone_becomes_a_dead_letter(
    runtime: RingKernelRuntime, make: Any
) -> None:
    async with runtime.kernel_scope("k", make(on_crash="redeliver", max_deliveries=2)):
        asking = [asyncio.create_task(ask(runtime, number, "raise" if number == 4 else "")) for number in range(12)]
        replies = await asyncio.gather(*asking, return_exceptions=True)
        assert [number for number, reply in enumerate(replies) if isinstance(reply, KernelFailedError)] == [4]
        (letter,) = runtime.get_dead_letters("k")
        assert letter.message.number == 4
        assert letter.detail.endswith("the actor had it 2 times")
        assert (await ask(runtime, 20, "raise once")).deliveries == 2
        assert (await ask(runtime)).deliveries == 1
        assert telemetry_of(runtime).restarts == 3


async def test_an_actor_that_fails_too_often_fails_its_kernel(runtime: RingKernelRuntime) -> None:
    await runtime.launch("k", actor(max_restarts=2))
    await runtime.activate("k")
    for _ in range(3):
        with pytest.raises(KernelFailedError, match="as told"):
            await ask(runtime, do="raise")
    await eventually(lambda: runtime.get_kernel_state("k") is KernelState.FAILED)
    assert telemetry_of(runtime).error_count == 3


async def test_an_actor_that_returns_is_started_again_if_its_type_says_always(runtime: RingKernelRuntime) -> None:
    async with runtime.kernel_scope("k", actor(restart="always")):
        await runtime.send("k", Ask(do="return"))
        assert (await ask(runtime, 5)).number == 5
        telemetry = telemetry_of(runtime)
        assert (telemetry.restarts, telemetry.messages_dropped, telemetry.messages_processed) == (1, 0, 2)


async def test_while_an_actor_is_started_again_the_kernel_is_active_and_does_not_serve(
    runtime: RingKernelRuntime,
) -> None:
    changes: list[bool] = []

    @ring_kernel(input_type=Ask, output_type=Told, restart="on_failure", auto_register=False)
    async def unlucky(ctx: KernelContext[Ask, Told]) -> None:
        await ctx.receive()
        raise ValueError("every time")

    await runtime.launch("k", unlucky)
    runtime.on_actor(lambda kernel_id: changes.append(runtime.kernel(kernel_id).is_serving))
    await runtime.activate("k")
    for number in range(3):
        await runtime.send("k", Ask(number))
    await eventually(lambda: telemetry_of(runtime).error_count == 2)
    # The second failure in a row has a pause.
    kernel = runtime.kernel("k")
    assert (kernel.state, kernel.is_serving) == (KernelState.ACTIVE, False)
    with pytest.raises(QueueTimeoutError, match=r"is started again; 1 message comes before this one") as caught:
        await runtime.send_and_receive("k", Ask(), timeout=0.01)
    assert caught.value.cause == "RESTARTING"
    await eventually(lambda: telemetry_of(runtime).error_count == 3)
    assert changes[:3] == [False, True, False]
    await runtime.terminate("k", timeout=0.0)  # It ends the pause.
    assert runtime.get_kernel_state("k") is KernelState.TERMINATED


async def test_who_has_asked_is_told_if_the_actor_had_kept_the_request_to_answer_it_later(
    runtime: RingKernelRuntime,
) -> None:
    @ring_kernel(input_type=Ask, output_type=Told, restart="on_failure", queue_size=1, auto_register=False)
    async def keeping(ctx: KernelContext[Ask, Told]) -> None:
        async for request in ctx:
            if request.do != "keep":
                await ctx.send(told(request, ctx))

    async with runtime.kernel_scope("k", keeping):
        kept = asyncio.create_task(ask(runtime, 1, "keep"))
        await eventually(lambda: telemetry_of(runtime).messages_processed == 1)
        failing, waiting, without_room = (
            asyncio.create_task(ask(runtime, number, do)) for number, do in ((2, "raise"), (3, ""), (4, ""))
        )
        replies = await asyncio.gather(kept, failing, waiting, without_room, return_exceptions=True)
    assert [type(reply) for reply in replies] == [KernelFailedError, KernelFailedError, Told, Told]


async def test_an_actor_that_is_paused_stays_so(runtime: RingKernelRuntime) -> None:
    reached = asyncio.Event()

    @ring_kernel(input_type=Ask, output_type=Told, restart="on_failure", auto_register=False)
    async def waiting(ctx: KernelContext[Ask, Told]) -> None:
        async for request in ctx:
            if request.do:
                await reached.wait()
            await ctx.send(told(request, ctx))

    await runtime.launch("k", waiting)
    await runtime.activate("k")
    failing = asyncio.create_task(ask(runtime, do="raise"))
    await eventually(lambda: not runtime.kernel("k").queue_depth and not runtime.kernel("k").is_idle)
    await runtime.deactivate("k")
    another = asyncio.create_task(ask(runtime, 3))
    reached.set()
    with pytest.raises(KernelFailedError):
        await failing
    await eventually(lambda: telemetry_of(runtime).restarts == 1)
    assert runtime.kernel("k").queue_depth == 1
    await runtime.reactivate("k")
    assert (await another).number == 3


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_failure_before_the_first_wait_is_one_of_the_launch(runtime: RingKernelRuntime, blocking: bool) -> None:
    async def broken(ctx: Any) -> None:
        raise ValueError("at once")

    def broken_thread(ctx: Any) -> None:
        raise ValueError("at once")

    kernel = ring_kernel(restart="always", auto_register=False)(broken_thread if blocking else broken)
    threads = threading.active_count()
    with pytest.raises(KernelFailedError, match="at once"):
        await runtime.launch("k", kernel)
    assert threading.active_count() < threads + 10


@pytest.mark.parametrize(
    "settings",
    [{"time_limit": 1.0}, {"hang_timeout": 1.0}, {"cpus": (0,)}, {"nice": 1}, {"memory_limit": "1GiB"}],
)
async def test_what_only_a_worker_can_have_is_refused(runtime: RingKernelRuntime, settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigurationError, match=rf"{next(iter(settings))}.*isolation=\"process\""):
        await runtime.launch("k", actor(**settings))
