"""The names that PyDotCompute has in its `ring_kernels.lifecycle`, imported from the modules that define them."""

from __future__ import annotations

from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.kernel import RingKernel, current_kernel_id, managed_kernel
from pydotcompute.ring_kernels.mail.gate import KernelState

__all__ = ["KernelContext", "KernelState", "RingKernel", "RingKernelConfig", "current_kernel_id", "managed_kernel"]
