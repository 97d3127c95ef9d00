"""A launch whose answer is lost on its way."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pydotcompute.exceptions import KernelAlreadyExistsError
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute_client import connect
from tests.contract.kernels import Job
from tests.contract.world import eventually
from tests.forwarder import Forwarder
from tests.stubs import KERNELS, PATIENCE


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any]) -> str:
    address: str = start_daemon(str(KERNELS)).target
    return address


async def test_it_is_sent_again_and_answered_as_it_was(target: str) -> None:
    async with (
        Forwarder(target) as way,
        connect(way.address, timeout=PATIENCE) as runtime,
        connect(target, scoped=True) as beside,
    ):
        for lost in range(5):
            kernel_id = f"mine-{lost}"
            way.answers.clear()
            launching = asyncio.create_task(runtime.launch(kernel_id, "square"))
            await eventually(lambda: kernel_id in beside.kernel_ids)  # noqa: B023  # It is called here.
            assert not launching.done()
            way.cut()
            way.answers.set()
            kernel = await launching
            assert await beside.fetch_kernel_state(kernel_id) is KernelState.LAUNCHED
            await kernel.activate()
            assert (await runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)).number == 9
            await runtime.terminate(kernel_id)
        assert way.connections > 5


async def test_a_kernel_of_somebody_else_is_still_an_error(target: str) -> None:
    async with (
        Forwarder(target) as way,
        connect(way.address, timeout=PATIENCE) as runtime,
        connect(target, scoped=True) as beside,
    ):
        await beside.launch("theirs", "square")
        passed = way.bytes
        way.answers.clear()
        launching = asyncio.create_task(runtime.launch("theirs", "square"))
        await eventually(lambda: way.bytes > passed)
        way.cut()
        way.answers.set()
        with pytest.raises(KernelAlreadyExistsError):
            await launching
