"""From what a kernel type says of its device to what a kernel has of it."""

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
    """What a kernel has of this device; the event loop goes on while it is looked for.

    Raises:
        BackendUnavailableError: it is not there. "auto" is the CPU then.
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
