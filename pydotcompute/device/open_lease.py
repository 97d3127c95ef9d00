"""Opens the lease of the device that a kernel type names."""

from __future__ import annotations

import asyncio
import logging

from pydotcompute.device.cuda import open_cuda
from pydotcompute.device.lease import HOST, DeviceLease
from pydotcompute.device.settings import cuda_index
from pydotcompute.exceptions import BackendUnavailableError

__all__ = ["open_lease"]

logger = logging.getLogger(__name__)


async def open_lease(device: str, kernel_id: str, memory_limit: int | None) -> DeviceLease:
    """Opens a lease of this device for a kernel. The event loop goes on meanwhile.

    Args:
        device: "cpu", "cuda", "cuda:N", or "auto", which means the first GPU if it is available, and else the CPU.
        kernel_id: the kernel, for errors and the log.
        memory_limit: the most device memory that the kernel may hold, in bytes. None means no limit.

    Raises:
        BackendUnavailableError: the GPU is not available. Not raised for "auto".
    """
    if device == "cpu":
        return HOST
    try:
        return await asyncio.to_thread(open_cuda, device, cuda_index(device), kernel_id, memory_limit)
    except BackendUnavailableError as error:
        if device != "auto":
            raise
        logger.info("the kernel runs on the CPU: %s", error.problem, extra={"kernel_id": kernel_id})
        return HOST
