"""Kernels whose messages raise what should end a program, while they are read, written, or looked at."""

import asyncio
from dataclasses import dataclass
from typing import Any

from pydotcompute import KernelContext, message, ring_kernel

ERRORS = {
    "interrupt": KeyboardInterrupt,
    "exit": SystemExit,
    "close": GeneratorExit,
    "cancel": asyncio.CancelledError,
}
"""What a message can raise, by the text in it."""


@message
@dataclass
class Inner:
    """A message inside another, which raises when it is made."""

    what: str = ""

    def __post_init__(self) -> None:
        if self.what in ERRORS:
            raise ERRORS[self.what]("a message's")


@message
@dataclass
class Trap:
    """A message that raises when it is made."""

    what: str = ""
    inner: Inner | None = None
    padding: bytes = b""

    def __post_init__(self) -> None:
        if self.what in ERRORS:
            raise ERRORS[self.what]("a message's")


@message
@dataclass
class Spring:
    """A message that raises when it is looked at, after it was sent."""

    what: str = ""
    armed: bool = False

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name == "what" and object.__getattribute__(self, "armed") and value in ERRORS:
            raise ERRORS[value]("a message's")
        return value


@ring_kernel(input_type=Trap, output_type=Trap)
async def trapped(ctx: KernelContext[Trap, Trap]) -> None:
    """Sends messages back."""
    async for trap in ctx:
        await ctx.send(trap)


@ring_kernel(input_type=Spring, output_type=Spring)
async def sprung(ctx: KernelContext[Spring, Spring]) -> None:
    """Sends messages back, which then raise when they are looked at."""
    async for spring in ctx:
        await ctx.send(spring)
        spring.armed = True
