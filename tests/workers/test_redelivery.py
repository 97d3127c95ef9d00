"""Messages that are given to the actor again after it has failed: in order, one by one, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from pydotcompute import KernelState, RingKernelRuntime
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels import DeadLetterReason, RingKernelTelemetry
from pydotcompute.ring_kernels.declaration import kernel_type_of
from tests.contract.world import PATIENCE, eventually
from tests.workers import kernels
from tests.workers.kernels import Ask


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime() as started:
        yield started


async def ask(runtime: RingKernelRuntime, kernel_id: str, number: int = 0, do: str = "") -> Any:
    return await runtime.send_and_receive(kernel_id, Ask(number, do), timeout=PATIENCE)


def telemetry_of(runtime: RingKernelRuntime, kernel_id: str) -> RingKernelTelemetry:
    telemetry = runtime.get_telemetry(kernel_id)
    assert telemetry is not None
    return telemetry


@pytest.mark.parametrize("do", ["kill once", "raise once"])
async def test_a_message_in_hand_is_given_again_and_its_caller_gets_the_reply(
    runtime: RingKernelRuntime, do: str
) -> None:
    async with runtime.kernel_scope("k", kernels.again):
        first = await ask(runtime, "k", 1)
        told = await ask(runtime, "k", 2, do)
        assert (first.deliveries, told.deliveries) == (1, 2)
        assert told.pid != first.pid
        telemetry = telemetry_of(runtime, "k")
        assert (telemetry.restarts, telemetry.redelivered, telemetry.messages_dropped) == (1, 1, 0)
        assert not runtime.get_dead_letters("k")


async def test_the_poison_alone_becomes_a_dead_letter_and_all_others_are_answered_in_order(
    runtime: RingKernelRuntime,
) -> None:
    async with runtime.kernel_scope("k", kernels.again):
        await runtime.deactivate("k")
        asking = [
            asyncio.create_task(ask(runtime, "k", number, "kill" if number == 50 else "")) for number in range(90)
        ]
        order: list[int] = []
        for number, task in enumerate(asking):
            task.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
        await eventually(lambda: runtime.kernel("k").queue_depth == 90)
        await runtime.reactivate("k")
        told = await asyncio.gather(*asking, return_exceptions=True)
        (error,) = [each for each in told if isinstance(each, BaseException)]
        assert isinstance(error, KernelFailedError)
        assert error.cause_type == "SIGKILL"
        assert [getattr(each, "number", 50) for each in told] == [*range(90)]
        assert order == [*range(90)]
        (letter,) = runtime.get_dead_letters("k")
        assert (letter.reason, letter.message.number) == (DeadLetterReason.WORKER_LOST, 50)
        assert "3 times" in letter.detail
        telemetry = telemetry_of(runtime, "k")
        assert telemetry.restarts == 3
        assert telemetry.last_crash is not None
        assert telemetry.last_crash.startswith("SIGKILL: its worker")


async def test_a_batch_is_given_again_one_by_one(runtime: RingKernelRuntime) -> None:
    async with runtime.kernel_scope("k", kernels.again_in_batches):
        await runtime.deactivate("k")
        asking = [asyncio.create_task(ask(runtime, "k", number, "kill" if number == 2 else "")) for number in range(4)]
        await eventually(lambda: runtime.kernel("k").queue_depth == 4)
        await runtime.reactivate("k")
        told = await asyncio.gather(*asking, return_exceptions=True)
        assert [getattr(each, "deliveries", None) for each in told] == [2, 2, None, 2]
        assert (await ask(runtime, "k")).deliveries == 1  # Alone it was not given again.
        assert [letter.message.number for letter in runtime.get_dead_letters("k")] == [2]
        assert runtime.get_kernel_state("k") is KernelState.ACTIVE


async def test_what_one_instance_had_in_hand_another_gets(runtime: RingKernelRuntime) -> None:
    kernel_type = kernel_type_of(kernels.again)
    assert kernel_type is not None
    async with runtime.kernel_scope("k", replace(kernel_type, instances=2)):
        asking = [ask(runtime, "k", number, "kill once" if number in (10, 20) else "") for number in range(40)]
        told = await asyncio.gather(*asking)
        assert [each.number for each in told] == [*range(40)]
        assert [told[number].deliveries for number in (10, 20)] == [2, 2]
        assert not runtime.get_dead_letters("k")
