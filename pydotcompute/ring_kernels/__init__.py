"""The runtime: messages, kernel types, mailboxes, lifecycle, telemetry.

This package imports no gRPC and no protobuf.
"""

from pydotcompute.messages.message import RingKernelMessage, message
from pydotcompute.ring_kernels.actor.batches import Batch
from pydotcompute.ring_kernels.actor.blocking import BlockingBatch, BlockingContext
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.api import KernelHandle, KernelRuntime
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType, ring_kernel
from pydotcompute.ring_kernels.kernel import RingKernel, managed_kernel
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetter, DeadLetterDirection, DeadLetterReason
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry, RuntimeSummary, WorkerTelemetry
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.ring_kernels.supervision import Supervision
from pydotcompute.ring_kernels.worker_limits import WorkerLimits

__all__ = [
    "Batch",
    "BlockingBatch",
    "BlockingContext",
    "DeadLetter",
    "DeadLetterDirection",
    "DeadLetterReason",
    "KernelContext",
    "KernelHandle",
    "KernelRuntime",
    "KernelState",
    "KernelType",
    "RingKernel",
    "RingKernelConfig",
    "RingKernelMessage",
    "RingKernelRuntime",
    "RingKernelTelemetry",
    "RuntimeLimits",
    "RuntimeSummary",
    "Supervision",
    "WorkerLimits",
    "WorkerTelemetry",
    "managed_kernel",
    "message",
    "ring_kernel",
]
