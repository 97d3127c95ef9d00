"""Kernels with services of their own, for what those of the contract suite do not do."""

import asyncio
from datetime import datetime

from pydotcompute import RingKernelMessage, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message(package="shop.v1")
class Order(RingKernelMessage):
    """What a customer wants."""

    amount: int = 0
    note: str = ""


@message(package="shop.v1")
class Receipt(RingKernelMessage):
    """What a customer gets."""

    amount: int = 0


@message(package="shop.v1")
class Booking(RingKernelMessage):
    """A message with two fields that have to be there."""

    begins: datetime
    ends: datetime


@ring_kernel(kernel_id="desk", input_type=Booking, output_type=Booking)
async def desk(ctx: KernelContext[Booking, Booking]) -> None:
    """Sends each booking back."""
    async for booking in ctx:
        await ctx.send(booking)


@ring_kernel(kernel_id="till", service="CashDesk", input_type=Order, output_type=Receipt)
async def till(ctx: KernelContext[Order, Receipt]) -> None:
    """Takes orders.

    An order that says "back" comes back as it is, one that says "boom" is the last.
    """
    async for order in ctx:
        if order.note == "boom":
            raise ValueError("out of paper")
        if order.note == "back":
            await ctx.send(order)  # type: ignore[arg-type]
        elif order.note == "advert":
            await ctx.send(Receipt(order.amount))
        else:
            await ctx.send(Receipt(order.amount, correlation_id=order.message_id))


@ring_kernel(service="shop.parrots.v1.Parrot", input_type=Order)
async def parrot(ctx: KernelContext[Order, Order]) -> None:
    """Declares no output type."""
    async for order in ctx:
        await ctx.send(order)


@ring_kernel()
async def hermit(ctx: KernelContext[Order, Receipt]) -> None:
    """Declares no input type, so that no program but its own reaches it."""
    async for _ in ctx:
        pass


@ring_kernel(input_type=Order, output_type=Receipt)
async def slow_till(ctx: KernelContext[Order, Receipt]) -> None:
    """Takes so many milliseconds for an order."""
    async for order in ctx:
        await asyncio.sleep(order.amount / 1000)
        await ctx.send(Receipt(order.amount, correlation_id=order.message_id))
