"""Limits of a worker process: what ends it, who is told what, and how much it may use."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import InvalidConfigurationError, KernelFailedError
from pydotcompute.ring_kernels import RingKernelTelemetry
from tests.contract.world import PATIENCE
from tests.workers import kernels
from tests.workers.kernels import Ask

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime() as started, started.kernel_scope("k", kernels.limited):
        yield started


async def ask(runtime: RingKernelRuntime, do: str = "", kernel_id: str = "k") -> Any:
    return await runtime.send_and_receive(kernel_id, Ask(do=do), timeout=PATIENCE)


def telemetry_of(runtime: RingKernelRuntime) -> RingKernelTelemetry:
    telemetry = runtime.get_telemetry("k")
    assert telemetry is not None
    return telemetry


@pytest.mark.parametrize(
    ("do", "cause_type", "text"),
    [
        ("compute forever", "TimeLimitExceeded", "had a message in hand for more than its time_limit of 1.5 seconds"),
        ("stop", "TimeLimitExceeded", "and was ended by SIGKILL"),  # A process that is stopped heeds no SIGTERM.
        ("allocate", "MemoryError", "its worker may have 192 MiB of memory"),
        ("share", "MemoryLimitExceeded", "of memory, and its memory_limit is 192 MiB, and was ended by SIGKILL"),
    ],
)
async def test_a_worker_that_takes_too_much_is_ended_and_the_caller_is_told(
    runtime: RingKernelRuntime, do: str, cause_type: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    pid = (await ask(runtime)).pid
    with pytest.raises(KernelFailedError, match=text) as caught:
        await ask(runtime, do)
    assert caught.value.cause_type == cause_type
    assert (await ask(runtime)).pid != pid
    telemetry = telemetry_of(runtime)
    assert telemetry.last_error is not None
    assert telemetry.last_error.startswith(cause_type)
    if do != "stop":
        assert ("in harm" in caplog.text) == (
            do != "share"
        )  # A process that is killed at once cannot say where it was.


async def test_a_worker_that_shows_no_life_is_ended(runtime: RingKernelRuntime) -> None:
    async with runtime.kernel_scope("lively", kernels.lively):
        with pytest.raises(KernelFailedError, match="showed no life for more than its hang_timeout of 1 s") as caught:
            await ask(runtime, "stop", "lively")
        assert caught.value.cause_type == "HangTimeoutExceeded"
        # One that computes in Python lives.
        computing = asyncio.create_task(ask(runtime, "compute", "lively"))
        assert (await computing).pid


async def test_a_worker_has_its_cpus_and_its_niceness_and_telemetry_its_figures(runtime: RingKernelRuntime) -> None:
    pid = (await ask(runtime)).pid
    assert os.sched_getaffinity(pid) == {0}
    assert os.getpriority(os.PRIO_PROCESS, pid) == 1
    telemetry = telemetry_of(runtime)
    (worker,) = telemetry.workers
    assert worker.pid == pid
    assert worker.resident_bytes > 1 << 20
    assert worker.cpu_seconds >= 0  # One that was forked has hardly computed yet.
    assert (worker.in_hand, worker.ahead) == (0, 0)
    assert telemetry.to_dict()["workers"][0]["pid"] == pid


async def test_a_cpu_that_there_is_not_is_refused_at_the_launch(runtime: RingKernelRuntime) -> None:
    with pytest.raises(InvalidConfigurationError, match=r"cpus.*the worker process cannot have that"):
        await runtime.launch("elsewhere", kernels.elsewhere)
    assert "elsewhere" not in runtime.kernel_ids
