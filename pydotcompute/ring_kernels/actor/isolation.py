"""The way to what runs actors in worker processes.

That is another package, because it needs protobuf, which this one does not. It is imported when the first kernel needs
it.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["prepare_workers", "runs_in_workers"]


def runs_in_workers() -> Any:
    """Return the class that runs actors in worker processes. It is made with a kernel, and what finds other kernels.

    Raises:
        InvalidConfigurationError: what it needs is not installed.
    """
    try:
        return importlib.import_module("pydotcompute.workers.runner").RunsInWorkers
    except ModuleNotFoundError as error:
        problem = f"{error}; install it with `pip install 'pydotcompute-grpc[wire]'`"
        raise InvalidConfigurationError("isolation", "process", problem) from error


def prepare_workers() -> None:
    """Begin to start the process from which workers come, so that the first worker starts sooner.

    If that is not possible, nothing happens: the launch of a kernel says why.
    """
    with suppress(InvalidConfigurationError, OSError):
        runs_in_workers().prepare()
