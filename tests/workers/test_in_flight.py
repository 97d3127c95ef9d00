"""What is under way between a kernel and its worker when the worker dies."""

import asyncio
import os
import signal
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.workers.instance import AHEAD
from tests.contract.world import PATIENCE, eventually
from tests.workers import kernels
from tests.workers.kernels import Ask


async def ask(runtime: RingKernelRuntime, number: int = 0, do: str = "") -> Any:
    return await runtime.send_and_receive("k", Ask(number, do), timeout=PATIENCE)


async def test_of_a_thousand_under_way_only_what_is_ahead_of_the_actor_can_be_lost() -> None:
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("k", kernels.restarted):
        pid = (await ask(runtime)).pid
        asking = [asyncio.create_task(ask(runtime, number)) for number in range(1_000)]
        await eventually(lambda: any(each.done() for each in asking))
        os.kill(pid, signal.SIGKILL)
        told = await asyncio.gather(*asking, return_exceptions=True)
        lost = [each for each in told if isinstance(each, BaseException)]
        assert all(isinstance(each, KernelFailedError) for each in lost)
        assert len(lost) <= AHEAD
        answered = [(number, each.number) for number, each in enumerate(told) if not isinstance(each, BaseException)]
        assert all(number == of for number, of in answered)
        assert len(runtime.get_dead_letters("k")) == len(lost)


async def test_outputs_that_wait_take_the_room_of_the_next_worker_too() -> None:
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("k", kernels.talkative):
        await ask(runtime)
        with pytest.raises(KernelFailedError):
            await ask(runtime, do="kill")
        outputs = runtime.kernel("k").mail.outputs
        assert len(outputs) == 3
        asking = asyncio.create_task(ask(runtime, 2))
        await eventually(lambda: len(outputs) == 4)
        assert not asking.done()
        received = [await runtime.receive("k", timeout=PATIENCE) for _ in range(3)]
        assert (await asking).number == 2
        received += [await runtime.receive("k", timeout=PATIENCE) for _ in range(3)]
        assert len({told.pid for told in received}) == 2
