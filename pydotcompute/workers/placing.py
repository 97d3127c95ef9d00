"""Which device an instance of a kernel has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from pydotcompute.device.settings import cuda_index
from pydotcompute.exceptions import BackendUnavailableError, PyDotComputeError
from pydotcompute.wire.worker.start import Start

__all__ = ["as_asked", "placed"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable of the environment that says which GPUs a process sees, and in which order."""


def placed(start: Start, devices: Sequence[str], number: int) -> Start:
    """Return what the worker of an instance is told, which then sees its own device alone.

    Args:
        start: what all instances are told.
        devices: the devices of the kernel type, which the instances get by turns; empty if all have `start.device`.
        number: the number of the instance, from 0.

    Raises:
        BackendUnavailableError: this process does not see the GPU, so its workers may not see it.
    """
    if not devices:
        return start
    device = devices[number % len(devices)]
    if device == "cpu":
        return replace(start, device=device, environ={VISIBLE: ""}, asked_device=device)
    return replace(start, device="cuda:0", environ={VISIBLE: _visible(device)}, asked_device=device)


def _visible(device: str) -> str:
    """Return the value of `CUDA_VISIBLE_DEVICES` with which a process sees this GPU alone."""
    index = cuda_index(device)
    seen = os.environ.get(VISIBLE)
    if seen is None:
        return str(index)
    names = [name.strip() for name in seen.split(",")]
    # CUDA heeds what stands before the first name that is none.
    names = names[: next((place for place, name in enumerate(names) if name in ("", "-1")), None)]
    if index >= len(names):
        raise BackendUnavailableError(device, f"there is no GPU of index {index} in {VISIBLE}={seen}")
    return names[index]


def as_asked(error: PyDotComputeError, start: Start) -> PyDotComputeError:
    """Return the error of a worker that refuses to launch, with the device as the kernel type names it."""
    if not isinstance(error, BackendUnavailableError) or not start.environ:
        return error
    return BackendUnavailableError(start.asked_device, f"{error.problem}, with {VISIBLE}={start.environ[VISIBLE]}")
