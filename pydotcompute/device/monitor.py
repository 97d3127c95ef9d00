"""How busy, warm and full the GPUs of this machine are, as NVIDIA's driver tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydotcompute.device.cuda import INSTALL
from pydotcompute.exceptions import BackendUnavailableError

__all__ = ["DeviceReading", "read_devices"]

BACKEND = "nvml"


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One GPU at one moment. None is what it does not tell."""

    index: int
    """The driver's number: not that of `cuda:N` where CUDA_VISIBLE_DEVICES says which GPUs a process sees."""
    uuid: str
    name: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    """By all processes."""
    utilization_percent: int | None
    """Of the last moment, the part in which something ran."""
    temperature_celsius: int | None
    power_watts: float | None


def read_devices() -> list[DeviceReading]:
    """Every GPU of the machine. It blocks for some milliseconds a GPU.

    Raises:
        BackendUnavailableError: nvidia-ml-py is not installed, or there is no driver.
    """
    try:
        import pynvml
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(BACKEND, f"nvidia-ml-py is not installed; {INSTALL}") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise BackendUnavailableError(BACKEND, f"there is no NVIDIA driver ({error})") from error
    try:
        return [_read(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise BackendUnavailableError(BACKEND, f"the NVIDIA driver does not answer ({error})") from error
    finally:
        pynvml.nvmlShutdown()


def _read(pynvml: Any, index: int) -> DeviceReading:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)

    def ask(question: Callable[..., Any], *more: Any) -> Any:
        try:
            return question(handle, *more)
        except pynvml.NVMLError:  # Not every GPU tells everything: a part of one has no power of its own.
            return None

    memory = ask(pynvml.nvmlDeviceGetMemoryInfo)
    utilization = ask(pynvml.nvmlDeviceGetUtilizationRates)
    milliwatts = ask(pynvml.nvmlDeviceGetPowerUsage)
    return DeviceReading(
        index=index,
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        memory_total_bytes=None if memory is None else memory.total,
        memory_used_bytes=None if memory is None else memory.used,
        utilization_percent=None if utilization is None else utilization.gpu,
        temperature_celsius=ask(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
        power_watts=None if milliwatts is None else milliwatts / 1000,
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
