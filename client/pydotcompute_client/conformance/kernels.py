"""The kernel that the cases of `pydotcompute conformance` talk to.

A daemon is checked with `pydotcompute-server pydotcompute_client.conformance.kernels`.
"""

from __future__ import annotations

from pydotcompute import RingKernelMessage, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext

__all__ = ["Probe", "conformance"]


@message(package="conformance.v1")
class Probe(RingKernelMessage):
    """A request, and its reply."""

    number: int = 0
    """Comes back."""
    note: str = ""
    """Comes back."""
    outputs: int = 0
    """How many outputs there are to be before the reply. They have the numbers 0, 1, 2, …"""


@ring_kernel(kernel_id="conformance", input_type=Probe, output_type=Probe)
async def conformance(ctx: KernelContext[Probe, Probe]) -> None:
    """Answers each probe with its number and its note."""
    async for probe in ctx:
        for number in range(probe.outputs):
            await ctx.send(Probe(number))
        await ctx.send(Probe(probe.number, probe.note, correlation_id=probe.message_id))
