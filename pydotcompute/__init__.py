"""Ring kernels: persistent actors with an input and an output mailbox, in-process or behind a daemon.

In-process, a program begins with `async with RingKernelRuntime() as runtime:`. With a daemon, it begins with
`async with connect("host:50051") as runtime:`, where `connect` is from `pydotcompute_client`. The rest of the program
is the same.
"""

from pydotcompute.messages.message import RingKernelMessage, message
from pydotcompute.ring_kernels.api import KernelRuntime
from pydotcompute.ring_kernels.declaration import ring_kernel
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.schema.arrays import Array

__all__ = ["Array", "KernelRuntime", "RingKernelMessage", "RingKernelRuntime", "__version__", "message", "ring_kernel"]

__version__ = "0.1.0"
