"""A GPU, or the reason why there is none."""

from typing import Any

import pytest

from pydotcompute.device.cuda import open_cuda
from pydotcompute.exceptions import BackendUnavailableError


@pytest.fixture(scope="session")
def cupy() -> Any:
    """CuPy with a GPU that works; without one, the test is skipped and says what is missing."""
    try:
        return open_cuda("cuda", 0, "probe", None).xp
    except BackendUnavailableError as error:
        pytest.skip(str(error))
