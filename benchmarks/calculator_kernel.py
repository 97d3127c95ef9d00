"""The calculator that every in-process and remote figure is measured on.

One text for all: it is imported with PyDotCompute 0.2.0 in the peer's environment, with this project in its own, and it
is the file the daemon is started with. Hence it uses nothing that only one of them has.
"""

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID, uuid4

from pydotcompute import message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
@dataclass
class CalculationRequest:
    """What is asked of the calculator."""

    a: float = 0.0
    b: float = 0.0
    operation: Literal["add", "sub", "mul", "div"] = "add"
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


@message
@dataclass
class CalculationResponse:
    """What it answers; its correlation_id is the message_id of the request."""

    result: float = 0.0
    success: bool = True
    error: str | None = None
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


def calculate(request: CalculationRequest) -> float:
    """The result of a request; ZeroDivisionError or ValueError if it has none."""
    if request.operation == "add":
        return request.a + request.b
    if request.operation == "sub":
        return request.a - request.b
    if request.operation == "mul":
        return request.a * request.b
    if request.operation == "div":
        return request.a / request.b
    raise ValueError(f"Unknown operation: {request.operation}")


@ring_kernel(kernel_id="calculator", input_type=CalculationRequest, output_type=CalculationResponse, queue_size=1000)
async def calculator_actor(ctx: KernelContext[CalculationRequest, CalculationResponse]) -> None:
    """Answers each request with one response."""
    print(f"[{ctx.kernel_id}] Calculator started")
    while not ctx.should_terminate:
        if not ctx.is_active:
            await ctx.wait_active()
            continue
        try:
            request = await ctx.receive(timeout=0.1)
            response = CalculationResponse(correlation_id=request.message_id)
            try:
                response.result = calculate(request)
            except ZeroDivisionError:
                response.success, response.error = False, "Division by zero"
            except ValueError as problem:
                response.success, response.error = False, str(problem)
            await ctx.send(response)
        except Exception:  # in the main a receive that timed out, whose class is not the same in the peer
            continue
    print(f"[{ctx.kernel_id}] Calculator stopped")
