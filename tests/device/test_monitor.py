"""What the driver tells of GPUs, as far as a fake of nvidia-ml-py goes."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pydotcompute.device.monitor import DeviceReading, read_devices
from pydotcompute.exceptions import BackendUnavailableError
from pydotcompute.wire.kernels import device_to_proto


class NVMLError(Exception):
    pass


def refuse(*_: Any) -> Any:
    raise NVMLError("Not Supported")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        shutdowns=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}",
        nvmlDeviceGetName=lambda handle: b"Old binding",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=80 << 30, used=1 << 30),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=37, memory=5),
        nvmlDeviceGetTemperature=lambda handle, sensor: 55,
        nvmlDeviceGetPowerUsage=lambda handle: 123_400,
    )
    nvml.nvmlShutdown = lambda: setattr(nvml, "shutdowns", nvml.shutdowns + 1)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def test_each_gpu_is_read(nvml: SimpleNamespace) -> None:
    first, second = read_devices()
    assert first == DeviceReading(0, "GPU-0", "Old binding", 80 << 30, 1 << 30, 37, 55, 123.4)
    assert second.index == 1
    assert nvml.shutdowns == 1


def test_what_a_gpu_does_not_tell_is_absent_and_not_zero(nvml: SimpleNamespace) -> None:
    for name in ("MemoryInfo", "UtilizationRates", "Temperature", "PowerUsage"):
        setattr(nvml, f"nvmlDeviceGet{name}", refuse)
    reading = read_devices()[0]
    assert reading == DeviceReading(0, "GPU-0", "Old binding", None, None, None, None, None)
    told = {field.name for field, _ in device_to_proto(reading).ListFields()}
    assert told == {"uuid", "name"}, "an index of 0 is not written"


def test_without_a_driver_it_says_so(nvml: SimpleNamespace) -> None:
    nvml.nvmlInit = refuse
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver"):
        read_devices()


def test_a_driver_that_fails_meanwhile_is_let_go(nvml: SimpleNamespace) -> None:
    nvml.nvmlDeviceGetCount = refuse
    with pytest.raises(BackendUnavailableError, match="does not answer"):
        read_devices()
    assert nvml.shutdowns == 1


def test_without_nvidia_ml_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'pydotcompute-grpc\[cuda12\]'"):
        read_devices()
