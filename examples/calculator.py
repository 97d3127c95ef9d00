"""A calculator as an actor.

python examples/calculator.py                           in this process
python examples/calculator.py --target 127.0.0.1:50051  at a daemon
"""

import argparse
import asyncio
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID, uuid4

from pydotcompute import KernelContext, KernelRuntime, RingKernelRuntime, message, ring_kernel

Operation = Literal["add", "sub", "mul", "div"]


@message
@dataclass
class CalculationRequest:
    """Two numbers, and what to do with them."""

    a: float = 0.0
    b: float = 0.0
    operation: Operation = "add"
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


@message
@dataclass
class CalculationResponse:
    """The result, or why there is none."""

    result: float = 0.0
    success: bool = True
    error: str | None = None
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


def calculate(request: CalculationRequest) -> float:
    match request.operation:
        case "add":
            return request.a + request.b
        case "sub":
            return request.a - request.b
        case "mul":
            return request.a * request.b
        case "div":
            return request.a / request.b
        case unknown:
            raise ValueError(f"Unknown operation: {unknown}")


@ring_kernel(
    kernel_id="calculator",
    input_type=CalculationRequest,
    output_type=CalculationResponse,
    queue_size=1000,
)
async def calculator_actor(ctx: KernelContext[CalculationRequest, CalculationResponse]) -> None:
    """Adds, subtracts, multiplies and divides."""
    print(f"[{ctx.kernel_id}] Calculator started")
    while not ctx.should_terminate:
        if not ctx.is_active:
            await ctx.wait_active()
            continue
        try:
            request = await ctx.receive(timeout=0.1)
            try:
                response = CalculationResponse(result=calculate(request), correlation_id=request.message_id)
            except ZeroDivisionError:
                response = CalculationResponse(
                    success=False, error="Division by zero", correlation_id=request.message_id
                )
            except ValueError as error:
                response = CalculationResponse(success=False, error=str(error), correlation_id=request.message_id)
            await ctx.send(response)
        except Exception:
            continue
    print(f"[{ctx.kernel_id}] Calculator stopped")


async def use(runtime: KernelRuntime) -> None:
    await runtime.launch("calculator")
    await runtime.activate("calculator")
    asked: list[tuple[float, float, Operation]]
    asked = [(10, 5, "add"), (10, 5, "sub"), (10, 5, "mul"), (10, 5, "div"), (10, 0, "div")]
    for a, b, operation in asked:
        await runtime.send("calculator", CalculationRequest(a=a, b=b, operation=operation))
        response = await runtime.receive("calculator", timeout=1.0)
        outcome = response.result if response.success else f"ERROR: {response.error}"
        print(f"  {a} {operation} {b} = {outcome}")
    if telemetry := runtime.get_telemetry("calculator"):
        print(f"Messages processed: {telemetry.messages_processed}")
        print(f"Throughput: {telemetry.throughput:.2f} msg/s")


async def main(target: str | None) -> None:
    if target is None:
        async with RingKernelRuntime(enable_telemetry=True) as runtime:
            await use(runtime)
    else:
        from pydotcompute_client import connect

        async with connect(target, scoped=True) as runtime:
            await use(runtime)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A calculator as an actor.")
    parser.add_argument("--target", help="HOST:PORT of a daemon; in this process if absent")
    asyncio.run(main(parser.parse_args().target))
