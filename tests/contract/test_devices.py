"""Kernels and what they compute on."""

import asyncio
import importlib.util
from typing import Any

import pytest

from pydotcompute.exceptions import BackendUnavailableError
from tests.contract.kernels import Job, where_auto, where_blocking, where_cpu, where_cuda
from tests.contract.world import PATIENCE, World, new_kernel_id


@pytest.mark.parametrize("actor", [where_cpu, where_auto, where_blocking], ids=["cpu", "auto", "thread"])
async def test_the_same_actor_computes_on_a_gpu_or_on_the_cpu(world: World, actor: Any) -> None:
    kernel_id = await world.launch(actor)
    jobs = [world.runtime.send_and_receive(kernel_id, Job(number), timeout=PATIENCE) for number in range(10)]
    results = await asyncio.gather(*jobs)
    assert [result.number for result in results] == [number**2 for number in range(10)]
    notes = {result.note for result in results}
    assert notes == {"cpu numpy True"} or (actor is not where_cpu and notes == {"cuda cupy False"})


async def test_telemetry_tells_of_device_memory_only_where_there_is_some(world: World) -> None:
    telemetry = world.telemetry(await world.launch(where_cpu))
    assert telemetry.device_memory_bytes is None
    assert telemetry.device_memory_peak_bytes is None


async def test_a_kernel_whose_gpu_is_not_there_is_refused(world: World) -> None:
    kernel_id = new_kernel_id(where_cuda)
    with pytest.raises(BackendUnavailableError) as refused:
        await world.runtime.launch(kernel_id, where_cuda)
    assert refused.value.backend == "cuda:99"
    if importlib.util.find_spec("cupy") is None:
        assert refused.value.problem == "CuPy is not installed; pip install 'pydotcompute-grpc[cuda12]'"
    assert kernel_id not in world.runtime.kernel_ids
