"""The device of each of several workers. The GPUs are those of `tests/fake_cupy.py`."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pydotcompute import RingKernelConfig, RingKernelRuntime
from pydotcompute.exceptions import BackendUnavailableError, InvalidConfigurationError
from pydotcompute.ring_kernels.declaration import KernelType
from tests.contract.world import PATIENCE
from tests.workers.kernels import Ask, Told, answer, where

GPUS = "cuda:0", "cuda:1"


def kernel_type(*devices: str, instances: int = 1, **settings: Any) -> KernelType:
    config = RingKernelConfig("k")
    values = {"isolation": "process", **settings}
    return KernelType("k", where, config, Ask, Told, devices=devices, instances=instances, **values)


@pytest.fixture(autouse=True)
def gpus(gpu: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(gpu["PYTHONPATH"].partition(":")[0])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


async def told_by(kernel: KernelType) -> list[str]:
    """What each instance tells of its device."""
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("k", kernel):
        asked = (runtime.send_and_receive("k", Ask(), timeout=PATIENCE) for _ in range(kernel.instances))
        return sorted({told.text for told in await asyncio.gather(*asked)})


async def test_each_instance_sees_its_own_device_alone() -> None:
    assert await told_by(kernel_type(*GPUS, instances=2)) == ["cuda:0 of 0", "cuda:0 of 1"]


async def test_the_instances_get_the_devices_by_turns() -> None:
    assert await told_by(kernel_type("cuda:3", "cpu", instances=3)) == ["cpu of ", "cuda:0 of 3"]


async def test_there_may_be_more_devices_than_instances() -> None:
    assert await told_by(kernel_type("cuda", "cuda:1")) == ["cuda:0 of 0"]


async def test_the_devices_are_those_that_the_runtime_itself_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7f,-1,6")
    assert await told_by(kernel_type("cuda:1", instances=1)) == ["cuda:0 of GPU-7f"]
    async with RingKernelRuntime() as runtime:
        with pytest.raises(BackendUnavailableError, match="no GPU of index 2 in CUDA_VISIBLE_DEVICES=5, GPU-7f,-1,6"):
            await runtime.launch("k", kernel_type("cuda:2"))
        assert runtime.kernel_ids == []


async def test_the_error_names_the_device_as_it_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('as if there were none')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    async with RingKernelRuntime() as runtime:
        with pytest.raises(BackendUnavailableError, match=r"as if there were none.*CUDA_VISIBLE_DEVICES=4") as refused:
            await runtime.launch("k", kernel_type("cuda:4"))
        assert refused.value.backend == "cuda:4"


@pytest.mark.parametrize(
    ("devices", "problem"),
    [("cuda:0", "a tuple of devices"), (["cuda:x"], "choose one of"), (["auto"], "auto is none"), (7, "a tuple of")],
)
def test_devices_that_are_none_are_refused(devices: Any, problem: str) -> None:
    with pytest.raises(InvalidConfigurationError, match=problem):
        KernelType("k", answer, RingKernelConfig("k"), Ask, isolation="process", devices=devices)


def test_either_one_device_or_several_are_named() -> None:
    with pytest.raises(InvalidConfigurationError, match="choose one"):
        kernel_type(*GPUS, device="cuda")


async def test_only_workers_have_a_device_each() -> None:
    async with RingKernelRuntime() as runtime:
        with pytest.raises(InvalidConfigurationError, match="only worker processes have a device each"):
            await runtime.launch("k", kernel_type(*GPUS, isolation="none"))
