"""The kernel that the figure of large arrays is measured on: it sends back what it gets."""

import numpy

from pydotcompute import RingKernelMessage, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
class Samples(RingKernelMessage):
    """An array."""

    values: numpy.ndarray


@ring_kernel(kernel_id="echo", input_type=Samples, output_type=Samples)
async def echo(ctx: KernelContext[Samples, Samples]) -> None:
    """Answers each array with the same array."""
    async for samples in ctx:
        await ctx.send(Samples(samples.values, correlation_id=samples.message_id))
