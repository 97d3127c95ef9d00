"""A daemon that soon forgets its sessions."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from tests.server.exchange.helpers import SESSION_TIMEOUT
from tests.stubs import KERNELS, Wire


@pytest.fixture(scope="module")
def brief_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon that soon forgets a session without a stream, and takes long messages as a whole too."""
    whole = "max_request_bytes=67108864"
    return start_daemon(str(KERNELS), "--session-timeout", str(SESSION_TIMEOUT), "--limit", whole)


@pytest.fixture
async def brief(brief_daemon: Any) -> AsyncIterator[Wire]:
    """Its services."""
    async with grpc.aio.insecure_channel(
        brief_daemon.target, options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        wire = Wire(channel)
        yield wire
        for kernel_id in wire.launched:
            await wire.terminate(kernel_id, timeout=0.5)
