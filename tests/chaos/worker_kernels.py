"""The kernels whose workers are killed. They write down what they are handed, in a file that outlives them."""

import asyncio
import os
import struct

import numpy as np
import numpy.typing as npt

from pydotcompute import ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext
from tests.chaos.kernels import Account, Entry

JOURNAL = "CHAOS_JOURNAL"
"""The environment variable with the name of the folder for these files. There is one for each kernel."""
RECORD = struct.Struct("=3I")
SLOW_EVERY, SLOW_SECONDS = 16, 0.002
"""Some requests take a while, so that there is something in hand at most moments."""
COLUMNS = np.dtype([("client", "u4"), ("number", "u4"), ("pid", "u4")])
"""What a record says: whose request the actor was handed, which one, and in which process it was."""


def journal_of(kernel_id: str) -> str:
    """The file of a kernel."""
    return os.path.join(os.environ[JOURNAL], kernel_id)


def records_of(file: str) -> npt.NDArray[np.void]:
    """What the actors of a kernel were handed, in that order."""
    return np.fromfile(file, COLUMNS) if os.path.exists(file) else np.empty(0, COLUMNS)


async def answer(ctx: KernelContext[Entry, Account]) -> None:
    """Writes each entry down, and then answers it."""
    journal, pid = os.open(journal_of(ctx.kernel_id), os.O_WRONLY | os.O_APPEND | os.O_CREAT), os.getpid()
    async for entry in ctx:
        os.write(journal, RECORD.pack(entry.client, entry.number, pid))
        if entry.number % SLOW_EVERY == 0:
            await asyncio.sleep(SLOW_SECONDS)
        await ctx.send(Account(entry.client, entry.number, padding=entry.padding, correlation_id=entry.message_id))


@ring_kernel(input_type=Entry, output_type=Account, isolation="process", restart="on_failure")
async def lonely(ctx: KernelContext[Entry, Account]) -> None:
    """One worker. What it had in hand when it is killed becomes a dead letter."""
    await answer(ctx)


@ring_kernel(input_type=Entry, output_type=Account, isolation="process", restart="on_failure", instances=2)
async def several(ctx: KernelContext[Entry, Account]) -> None:
    """Two workers that share a mailbox."""
    await answer(ctx)


@ring_kernel(
    input_type=Entry,
    output_type=Account,
    isolation="process",
    restart="on_failure",
    on_crash="redeliver",
    max_deliveries=1_000,
)
async def patient(ctx: KernelContext[Entry, Account]) -> None:
    """One worker. What it had in hand when it is killed is given to the next one."""
    await answer(ctx)
