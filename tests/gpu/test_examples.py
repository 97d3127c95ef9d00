"""The examples on a real GPU, as their readers run them: here and at a daemon."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cupy"), pytest.mark.timeout(400)]

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT = 110.0
"""Seconds. Each process compiles what it uses, if that is not in CuPy's cache on the disk."""


def run(name: str, *arguments: str, **env: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-X", "utf8", str(EXAMPLES / name), *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        env={**os.environ, **env},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any]) -> str:
    address: str = start_daemon(str(EXAMPLES)).target
    return address


def test_the_vectors_are_added_on_the_gpu(target: str) -> None:
    here, there = run("vector_add.py"), run("vector_add.py", "--target", target)
    assert here == there
    assert here.endswith("Computed with: cupy\n")
    assert "[11. 22. 33.]" in here


def test_the_pipeline_reports_the_same_as_on_the_cpu(target: str) -> None:
    on_the_cpu = run("streaming_pipeline.py", CUDA_VISIBLE_DEVICES="")
    assert run("streaming_pipeline.py") == run("streaming_pipeline.py", "--target", target) == on_the_cpu


def test_the_network_gives_the_same_scores_by_the_batch_and_one_by_one(target: str) -> None:
    for output in (run("inference.py"), run("inference.py", "--target", target)):
        assert "batches of" in output
        assert output.endswith("Same scores: True\n")


async def test_the_network_gives_the_scores_that_it_gives_on_the_cpu() -> None:
    import numpy as np

    from pydotcompute import RingKernelRuntime

    sys.path.insert(0, str(EXAMPLES))
    try:
        import inference
    finally:
        sys.path.remove(str(EXAMPLES))
    pictures = np.random.default_rng(2).standard_normal((64, inference.FEATURES), dtype=np.float32)
    first, second = inference.weights()
    on_the_cpu = np.maximum(pictures @ first, 0) @ second
    async with RingKernelRuntime() as runtime:
        for actor in (inference.classify, inference.classify_one):
            kernel = await runtime.launch(actor.__name__, actor)
            await kernel.activate()
            assert kernel.lease.on_gpu
            scores = await inference.ask_all(runtime, actor.__name__, pictures)
            np.testing.assert_allclose(scores, on_the_cpu, atol=1e-3)
