"""The kernels of the chaos suite. All are well-behaved: whatever a client sends, none may fail."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import numpy as np

from pydotcompute import RingKernelMessage, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext

QUESTION = -1
"""The number of an entry that only asks."""


@message
class Entry(RingKernelMessage):
    """One numbered request of a client."""

    client: int = 0
    number: int = 0
    padding: bytes = b""


@message
class Account(RingKernelMessage):
    """What the ledger knows of a client, in answer to an entry."""

    client: int = 0
    number: int = 0
    """The entry's own number; in answer to a question, the last number seen."""
    again: int = 0
    """How many entries came that had come before, or came too late."""
    skipped: int = 0
    """How many numbers were left out."""
    padding: bytes = b""


@ring_kernel(input_type=Entry, output_type=Account)
async def ledger(ctx: KernelContext[Entry, Account]) -> None:
    """Answers each entry in turn, and keeps account of whether each client's come once, complete and in order.

    A client numbers its entries from 1. What is kept does not grow with their count.
    """
    accounts: dict[int, Account] = {}
    async for entry in ctx:
        account = accounts.get(entry.client) or accounts.setdefault(entry.client, Account(entry.client))
        number = entry.number
        if number == QUESTION:
            number = account.number
        elif number <= account.number:
            account.again += 1
        else:
            account.skipped += number - account.number - 1
            account.number = number
        await ctx.send(
            Account(
                entry.client, number, account.again, account.skipped, entry.padding, correlation_id=entry.message_id
            )
        )


class Colour(enum.Enum):
    """An enum of a message."""

    RED = 1
    BLUE = 2


@dataclass
class Leaf:
    """A message in a message."""

    weight: float = 0.0
    names: list[str] = field(default_factory=list)


@dataclass
class Twig:
    """The other half of a union."""

    leaves: list[Leaf] = field(default_factory=list)


@message
class Everything:
    """A field of every annotation."""

    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    text: str = ""
    raw: bytes = b""
    id: UUID | None = None
    colour: Colour = Colour.RED
    mode: Literal["fast", "slow"] = "fast"
    note: str | None = None
    series: list[int] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)
    by_number: dict[int, Leaf] = field(default_factory=dict)
    leaf: Leaf | None = None
    either: Leaf | Twig | None = None
    made: datetime | None = None
    span: timedelta | None = None
    grid: np.ndarray[Any, Any] | None = None


@ring_kernel(input_type=Everything, output_type=Everything)
async def everything(ctx: KernelContext[Everything, Everything]) -> None:
    """Sends each request back as it is."""
    async for request in ctx:
        await ctx.send(request)


@ring_kernel(input_type=Entry, output_type=Account, input_queue_size=4, output_queue_size=4, backpressure="reject")
async def narrow(ctx: KernelContext[Entry, Account]) -> None:
    """Refuses what it has no room for."""
    async for entry in ctx:
        await ctx.send(Account(entry.client, entry.number, correlation_id=entry.message_id))


@ring_kernel(input_type=Entry, output_type=Account, input_queue_size=4, backpressure="drop_oldest")
async def forgetful(ctx: KernelContext[Entry, Account]) -> None:
    """Drops the oldest, and answers nothing but outputs: as many as the last digit of the number says."""
    async for entry in ctx:
        for number in range(entry.number % 10):
            await ctx.send(Account(entry.client, number))
