"""The worlds of the contract, and a clogged kernel in each."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pydotcompute import KernelRuntime, RingKernelRuntime
from pydotcompute.ring_kernels.declaration import Isolation
from tests.contract import kernels
from tests.contract.world import Clogged, World
from tests.properties import is_thorough

KERNELS = Path(__file__).with_name("kernels.py")


@pytest.fixture(scope="session")
def contract_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with the kernel types of this suite."""
    return start_daemon(str(KERNELS))


@pytest.fixture(scope="session")
def isolating_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with the kernel types of this suite, whose actors are in worker processes."""
    return start_daemon(str(KERNELS), "--isolation", "process")


# A worker for each kernel takes minutes in all, so `make test` leaves these worlds to CI, or to
# HYPOTHESIS_PROFILE=thorough.
WORLDS = ["local", "remote", "process", "remote process"] if is_thorough() else ["local", "remote"]


@pytest.fixture(params=WORLDS)
def place(request: pytest.FixtureRequest) -> str:
    """Where the kernels are, here or at a daemon; and whether their actors are in worker processes."""
    place: str = request.param
    return place


@pytest.fixture
def isolation(place: str) -> Isolation:
    """Where the actors are: "none" is where the kernels are."""
    return "process" if "process" in place else "none"


@pytest.fixture
def target(place: str, request: pytest.FixtureRequest) -> str | None:
    """Where the kernels are: here (None), or at the daemon with this address."""
    if "remote" not in place:
        return None
    daemon = request.getfixturevalue("isolating_daemon" if "process" in place else "contract_daemon")
    address: str = daemon.target
    return address


@pytest.fixture
async def world(target: str | None, isolation: Isolation) -> AsyncIterator[World]:
    """A started runtime, here or at the daemon; what is launched with it is terminated after the test."""
    async with AsyncExitStack() as stack:
        if target is None:
            here = await stack.enter_async_context(RingKernelRuntime(isolation=isolation))

            async def connect_another() -> KernelRuntime:
                return here

            yield World("local", here, connect_another, isolation)
        else:
            from pydotcompute_client import connect

            async def connect_another() -> KernelRuntime:
                runtime: KernelRuntime = await stack.enter_async_context(connect(target, scoped=True))
                return runtime

            yield World("remote", await connect_another(), connect_another, isolation)


@pytest.fixture
def clog(world: World) -> Callable[..., Awaitable[Clogged]]:
    """Makes a paused `square` whose mailbox of four is full.

    Used as `await clog("reject", priorities=(1, 2, 3, 4))`.

    Each message has its place in the order of sending as its number.
    """

    async def make(strategy: str, priorities: tuple[int, int, int, int] = (128, 128, 128, 128)) -> Clogged:
        kernel_id = await world.launch(kernels.square, input_queue_size=4, backpressure_strategy=strategy)
        await world.runtime.deactivate(kernel_id)
        for number, priority in enumerate(priorities):
            await world.runtime.send(kernel_id, kernels.Job(number, priority=priority))
        await world.queued(kernel_id, 4)
        return Clogged(world, kernel_id)

    return make
