"""Kernels with workers at a daemon: how many there are, and when they begin anew."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydotcompute import KernelState
from pydotcompute.exceptions import (
    InvalidConfigurationError,
    KernelFailedError,
    KernelNotFoundError,
    KernelStateError,
    LimitExceededError,
)
from pydotcompute.ring_kernels.declaration import kernel_type_of
from pydotcompute_client import connect
from tests.contract.world import PATIENCE, eventually
from tests.embedded import embedded
from tests.workers import kernels
from tests.workers.kernels import Ask

KERNELS = Path(kernels.__file__)


def see(method: Any, proceed: Any) -> Any:
    return proceed


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any]) -> str:
    """The address of a daemon with the kernels that harm their processes."""
    address: str = start_daemon(str(KERNELS)).target
    return address


async def test_workers_come_and_go_and_begin_anew_under_load(target: str) -> None:
    async with connect(target, scoped=True) as runtime:
        kernel = await runtime.launch("load", kernels.fragile)
        await kernel.activate()
        stop = asyncio.Event()
        pids: set[int] = set()

        async def load(first: int) -> int:
            number = first
            while not stop.is_set():
                told = await runtime.send_and_receive("load", Ask(number), timeout=PATIENCE)
                assert told.number == number
                pids.add(told.pid)
                number += 1_000
            return number // 1_000

        loads = [asyncio.create_task(load(number)) for number in range(10)]
        await eventually(lambda: len(pids) == 1)
        await kernel.scale(2)
        assert (await runtime.describe("load")).instances == 2
        await eventually(lambda: len(pids) == 2)
        await runtime.scale("load", 1)
        assert (await runtime.describe("load")).instances == 1
        pids.clear()
        await kernel.restart(PATIENCE)
        pids.clear()
        await eventually(lambda: len(pids) == 1)
        stop.set()
        sent = sum(await asyncio.gather(*loads))
        telemetry = await runtime.fetch_telemetry("load")
        assert telemetry is not None
        assert telemetry.messages_processed == sent
        assert await runtime.fetch_dead_letters("load") == []


async def test_the_refusals_are_those_of_a_runtime_here(target: str) -> None:
    async with connect(target, scoped=True) as runtime:
        await runtime.launch("here")
        for count in (0, -1):
            with pytest.raises(InvalidConfigurationError, match=f"instances={count}: must be a whole number"):
                await runtime.scale("here", count)
        with pytest.raises(InvalidConfigurationError, match="only worker processes can share a mailbox"):
            await runtime.scale("here", 2)
        with pytest.raises(KernelNotFoundError):
            await runtime.scale("nobody", 2)
        with pytest.raises(KernelNotFoundError):
            await runtime.restart("nobody")
        await runtime.launch("fragile")
        with pytest.raises(LimitExceededError, match="max_instances is 64, and this would make 65"):
            await runtime.scale("fragile", 65)
        await runtime.terminate("fragile")
        for call in (runtime.scale("fragile", 2), runtime.restart("fragile")):
            with pytest.raises(KernelStateError, match="is TERMINATED"):
                await call


async def test_a_failed_kernel_is_restarted_in_its_place() -> None:
    here = kernel_type_of(kernels.here)
    assert here is not None
    # Whoever sees all calls tells principals apart.
    async with (
        embedded(see, kernels=(here,), max_kernels_per_principal=1) as daemon,
        connect(daemon.address) as runtime,
    ):
        await runtime.launch("k", kernels.here)
        await runtime.activate("k")
        with pytest.raises(KernelFailedError):
            await runtime.send_and_receive("k", Ask(do="raise"), timeout=PATIENCE)
        while await runtime.fetch_kernel_state("k") is not KernelState.FAILED:  # noqa: ASYNC110  # It is elsewhere.
            await asyncio.sleep(0.005)
        await runtime.restart("k")
        assert (await runtime.send_and_receive("k", Ask(1), timeout=PATIENCE)).number == 1
        with pytest.raises(LimitExceededError, match="max_kernels_per_principal"):
            await runtime.launch("another", kernels.here)
        await runtime.terminate("k")
        await runtime.launch("another", kernels.here)
