"""The runtime: messages, kernel types, mailboxes, lifecycle, telemetry. It imports no gRPC and no protobuf."""

from pydotcompute.messages.message import RingKernelMessage, message
from pydotcompute.ring_kernels.declaration import KernelType, RingKernelConfig, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext, KernelState, RingKernel, managed_kernel
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetter, DeadLetterDirection, DeadLetterReason
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry
from pydotcompute.ring_kernels.runtime import KernelRuntime, RingKernelRuntime

__all__ = [
    "DeadLetter",
    "DeadLetterDirection",
    "DeadLetterReason",
    "KernelContext",
    "KernelRuntime",
    "KernelState",
    "KernelType",
    "RingKernel",
    "RingKernelConfig",
    "RingKernelMessage",
    "RingKernelRuntime",
    "RingKernelTelemetry",
    "managed_kernel",
    "message",
    "ring_kernel",
]
