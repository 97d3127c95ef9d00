"""What the examples move to a GPU and back, as far as a fake of CuPy shows it."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pydotcompute import RingKernelRuntime
from tests.fake_cupy import FakeCuda

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    cuda = FakeCuda()
    for name, module in cuda.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    yield cuda
    assert cuda.races == []
    assert [name for name in cuda.waited_in if "get" in name] == [], "nobody has blocked the event loop"


def example(name: str) -> Any:
    specification = importlib.util.spec_from_file_location(f"traffic_examples.{name}", EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module: ModuleType = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


async def start(*actors: Any) -> RingKernelRuntime:
    runtime = RingKernelRuntime()
    for actor in actors:
        await runtime.launch(actor.__name__, actor)
        await runtime.activate(actor.__name__)
    return runtime


async def test_the_weights_are_moved_once_and_a_batch_once_each_way(cuda: FakeCuda) -> None:
    inference = example("inference")
    weights = [array.nbytes for array in inference.weights()]
    pictures = np.random.default_rng(2).standard_normal((30, inference.FEATURES), dtype=np.float32)
    async with await start(inference.classify) as runtime:
        batched = [await inference.ask_all(runtime, "classify", pictures) for _ in range(3)][-1]
        telemetry = runtime.get_telemetry("classify")
    assert telemetry is not None
    assert cuda.uploads[:2] == weights
    assert sum(cuda.uploads[2:]) == 3 * pictures.nbytes
    assert len(cuda.uploads[2:]) == telemetry.batches == cuda.pinned
    assert telemetry.batches < 90

    cuda.uploads.clear()
    cuda.pinned = 0
    async with await start(inference.classify_one) as runtime:
        single = await inference.ask_all(runtime, "classify_one", pictures)
    assert cuda.uploads == [*weights, *[pictures[0].nbytes] * 30]
    assert cuda.pinned == 30

    first, second = inference.weights()
    on_the_host = np.maximum(pictures @ first, 0) @ second
    np.testing.assert_allclose(batched, on_the_host, atol=1e-4)
    np.testing.assert_allclose(single, on_the_host, atol=1e-4)


async def test_the_readings_of_a_line_stay_on_the_gpu_from_the_first_stage_to_the_last(cuda: FakeCuda) -> None:
    pipeline = example("streaming_pipeline")
    async with await start(pipeline.parse, pipeline.convert, pipeline.judge) as runtime:
        report = await pipeline.report_on(runtime, "cellar " + " ".join(["50", "68"] * 500))
        assert report == "cellar: 10.0 to 20.0 °C, fine"
        assert await pipeline.report_on(runtime, "cellar") == "cellar: silent"
    assert cuda.uploads == [8000, 0]
    assert cuda.pinned == 1, "the lowest and the highest"


async def test_two_vectors_go_to_the_gpu_and_their_sum_comes_back(cuda: FakeCuda) -> None:
    vectors = example("vector_add")
    async with RingKernelRuntime() as runtime:
        await vectors.use(runtime)
    assert len(cuda.uploads) == 8
    assert cuda.pinned == 3, "one of the sums cannot be made"
