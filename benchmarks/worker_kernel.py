"""The kernel of the workloads that are about worker processes."""

import os
from dataclasses import dataclass

from pydotcompute import message, ring_kernel


@message
@dataclass
class Ask:
    """A question."""

    number: int = 0


@message
@dataclass
class Told:
    """Its answer, and which process has given it."""

    number: int = 0
    pid: int = 0


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="on_failure")
async def isolated(ctx):  # type: ignore[no-untyped-def]
    """Answers at once."""
    async for ask in ctx:
        await ctx.send(Told(ask.number, os.getpid(), correlation_id=ask.message_id))  # type: ignore[call-arg]
