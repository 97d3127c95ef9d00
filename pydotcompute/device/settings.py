"""Checks the device settings of a kernel type, such as `device="cuda:1"` and `memory_limit="2GiB"`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["bytes_of", "check_device", "cuda_index", "devices_of", "text_of_bytes"]

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{binary}B": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("KMGT", 1)
    for binary in ("", "i")
}


def check_device(device: object) -> None:
    """Raises InvalidConfigurationError if `device` is not the name of a device."""
    if not isinstance(device, str) or not re.fullmatch(r"cpu|auto|cuda(:[0-9]{1,4})?", device):
        raise InvalidConfigurationError("device", device, "choose one of cpu, auto, cuda, cuda:0, cuda:1 and so on")


def devices_of(devices: object) -> tuple[str, ...]:
    """Returns the devices of the instances of a kernel as a tuple.

    Raises:
        InvalidConfigurationError: it is no sequence, or one of them is not the name of a device, or is "auto".
    """
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        raise InvalidConfigurationError("devices", devices, 'a tuple of devices, such as ("cuda:0", "cuda:1")')
    for device in devices:
        if device == "auto":
            raise InvalidConfigurationError("devices", devices, "auto is none; choose of cpu, cuda:0, cuda:1 and so on")
        check_device(device)
    return tuple(devices)


def cuda_index(device: str) -> int:
    """Returns the index of the GPU that `device` means. `cuda` and `auto` mean the first GPU, which is 0."""
    return int(device.partition(":")[2] or 0)


def bytes_of(limit: object) -> int | None:
    """Returns a memory limit in bytes, or None for no limit.

    Args:
        limit: a number of bytes, a text such as 512MiB, 2GiB or 1.5GB, or None.

    Raises:
        InvalidConfigurationError: `limit` is none of these, or is not positive.
    """
    if limit is None:
        return None
    if isinstance(limit, str):
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", limit)
        if found is not None and found[2] in _UNITS:
            limit = int(float(found[1]) * _UNITS[found[2]])
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise InvalidConfigurationError("memory_limit", limit, "a number of bytes, or a text such as 512MiB or 2GiB")
    return limit


def text_of_bytes(count: int) -> str:
    """Returns a number of bytes as a text for people, such as `1.5 GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.4g} {unit}"
    return f"{count} bytes"
