"""Ring kernels: persistent actors with an input and an output mailbox, in-process or behind a daemon.

In-process: `async with RingKernelRuntime() as runtime:`. At a daemon: `async with connect("host:50051") as runtime:`,
from `pydotcompute_client`. The rest of the program is the same.

The public modules are this one, `pydotcompute.exceptions`, `pydotcompute.ring_kernels` and its `lifecycle`, and
`pydotcompute.device`. All other modules may change in any release.
"""

from pydotcompute.exceptions import (
    BackendUnavailableError,
    CircularAskError,
    ConnectionLostError,
    InvalidConfigurationError,
    KernelAlreadyExistsError,
    KernelError,
    KernelFailedError,
    KernelNotFoundError,
    KernelStateError,
    LimitExceededError,
    MemoryExhaustedError,
    MessageDeserializationError,
    MessageError,
    MessageSerializationError,
    MessageTooLargeError,
    MessageTypeError,
    MisuseError,
    PyDotComputeError,
    QueueError,
    QueueFullError,
    QueueTimeoutError,
    RequestWithdrawnError,
    SessionLostError,
    TimeoutCause,
)
from pydotcompute.messages.message import RingKernelMessage, message
from pydotcompute.ring_kernels.actor.batches import Batch
from pydotcompute.ring_kernels.actor.blocking import BlockingBatch, BlockingContext
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.api import KernelHandle, KernelRuntime
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import ring_kernel
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.schema.arrays import Array
from pydotcompute.schema.introspect import FieldNumber

__all__ = [
    "Array",
    "BackendUnavailableError",
    "Batch",
    "BlockingBatch",
    "BlockingContext",
    "CircularAskError",
    "ConnectionLostError",
    "FieldNumber",
    "InvalidConfigurationError",
    "KernelAlreadyExistsError",
    "KernelContext",
    "KernelError",
    "KernelFailedError",
    "KernelHandle",
    "KernelNotFoundError",
    "KernelRuntime",
    "KernelState",
    "KernelStateError",
    "LimitExceededError",
    "MemoryExhaustedError",
    "MessageDeserializationError",
    "MessageError",
    "MessageSerializationError",
    "MessageTooLargeError",
    "MessageTypeError",
    "MisuseError",
    "PyDotComputeError",
    "QueueError",
    "QueueFullError",
    "QueueTimeoutError",
    "RequestWithdrawnError",
    "RingKernelConfig",
    "RingKernelMessage",
    "RingKernelRuntime",
    "SessionLostError",
    "TimeoutCause",
    "__version__",
    "message",
    "ring_kernel",
]

__version__ = "0.1.0"
