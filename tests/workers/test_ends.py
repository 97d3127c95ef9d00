"""A kernel that is ended while its workers are killed, paused and restarted: all hear of it, and nothing stays."""

import asyncio
import os
import random
import signal
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import KernelFailedError, KernelStateError
from tests.contract.world import PATIENCE, eventually
from tests.properties import examples
from tests.workers import kernels
from tests.workers.kernels import Ask

WAYS = signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP


async def use_up(runtime: RingKernelRuntime, kernel_id: str, dice: random.Random) -> None:
    """Launch a kernel, ask it many things, and end it while it is mistreated."""
    await runtime.launch(kernel_id, dice.choice([kernels.restarted, kernels.shared]))
    await runtime.activate(kernel_id)

    def ask(number: int = 0) -> Any:
        return runtime.send_and_receive(kernel_id, Ask(number), timeout=PATIENCE)

    pid = (await ask()).pid
    asking = [asyncio.create_task(ask(number)) for number in range(200)]

    async def harm() -> None:
        await asyncio.sleep(dice.random() * 0.02)
        os.kill(pid, dice.choice(WAYS))

    operations = [harm(), runtime.terminate(kernel_id, timeout=dice.choice([0.01, 0.5]))]
    if dice.random() < 0.5:
        operations.append(runtime.deactivate(kernel_id))
    if dice.random() < 0.3:
        operations.append(runtime.restart(kernel_id, timeout=0.2))
    dice.shuffle(operations)
    for error in await asyncio.gather(*operations, return_exceptions=True):
        assert error is None or isinstance(error, KernelStateError | ProcessLookupError), error
    told = await asyncio.gather(*asking, return_exceptions=True)
    for number, each in enumerate(told):
        if isinstance(each, BaseException):
            assert isinstance(each, KernelFailedError | KernelStateError), each
        else:
            assert each.number == number


@pytest.mark.timeout(120)
async def test_everybody_is_told_and_nothing_stays() -> None:
    dice = random.Random(5)
    async with RingKernelRuntime() as runtime:
        await use_up(runtime, "first", dice)
        files, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        for number in range(examples(20)):
            await use_up(runtime, f"k{number}", dice)
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
