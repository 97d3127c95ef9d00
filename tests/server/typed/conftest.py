"""The daemon with the kernels of `typed_kernels.py`."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.server.typed.services import TYPED_KERNELS
from tests.stubs import BUSY_MARGIN, KERNELS, MAX_MESSAGE_BYTES, VECTOR_ADD


@pytest.fixture(scope="module")
def daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with more kernels than the others have."""
    options: tuple[str, ...] = (
        "--max-message-bytes",
        str(MAX_MESSAGE_BYTES),
        "--launch",
        "till",
        "--launch",
        "vector_add",
    )
    options += ("--limit", BUSY_MARGIN)
    return start_daemon(str(KERNELS), str(VECTOR_ADD), str(TYPED_KERNELS), *options)
