"""Readings of the GPUs of this machine from NVIDIA's driver: load, temperature, power and memory."""

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
    """The state of one GPU at one moment. A value is None if the GPU does not report it."""

    index: int
    """The number that the driver gives the GPU. It may differ from N in `cuda:N` if CUDA_VISIBLE_DEVICES is set."""
    uuid: str
    name: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    """The memory used by all processes together."""
    utilization_percent: int | None
    """The share of the last sampling period, of at most a second, in which the GPU was busy."""
    temperature_celsius: int | None
    power_watts: float | None


def read_devices() -> list[DeviceReading]:
    """Returns a reading of every GPU of the machine. It blocks the thread for some milliseconds for each GPU.

    Raises:
        BackendUnavailableError: nvidia-ml-py is not installed, or the driver is missing or does not answer.
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
        except pynvml.NVMLError:  # Not every GPU reports every value: a MIG instance has no power of its own.
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
