"""Calls over a limit are answered one by one, so that a client that calls again at once takes little time."""

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute_server.access import refusals
from pydotcompute_server.access.refusals import Refusals
from tests.embedded import embedded
from tests.principals import believing, saying
from tests.stubs import Wire, failure_of

FOREVER = 3_600.0
LIST = kernel_pb.ListKernelsRequest()


@pytest.fixture(autouse=True)
def held_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second refusal of a principal is held back until its test is over."""
    monkeypatch.setattr(refusals, "EVERY", FOREVER)
    monkeypatch.setattr(refusals, "LONGEST", FOREVER)


async def held(all_of_them: Refusals, *asked: tuple[str, int]) -> list[bool]:
    """Whether each of these refusals, of a principal and of so many bytes, is held back."""
    holds = [asyncio.create_task(all_of_them.hold(name, size, None)) for name, size in asked]
    await asyncio.sleep(0)
    answers = [not hold.done() for hold in holds]
    for hold in holds:
        hold.cancel()
    await asyncio.gather(*holds, return_exceptions=True)
    return answers


async def test_each_principal_has_its_first_refusal_at_once_and_further_ones_later() -> None:
    asked = ("bob", 1), ("bob", 1), ("alice", 1), ("alice", 1)
    assert await held(Refusals(100), *asked) == [False, True, False, True]


async def test_no_more_bytes_are_kept_than_allowed() -> None:
    all_of_them = Refusals(100)
    assert await held(all_of_them, ("bob", 0), ("bob", 60), ("bob", 60), ("bob", 40)) == [False, True, False, True]
    assert await held(all_of_them, ("bob", 100)) == [True]  # What was kept before is kept no more.


async def test_no_more_refusals_are_held_back_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MOST", 2)
    asked = ("bob", 0), ("bob", 0), ("alice", 0), ("alice", 0), ("bob", 0), ("alice", 0)
    assert await held(Refusals(100), *asked) == [False, True, False, True, False, False]


async def test_a_refusal_is_held_back_no_longer_than_the_client_waits() -> None:
    all_of_them = Refusals(100)
    await all_of_them.hold("bob", 0, None)
    await all_of_them.hold("bob", 0, 0.01)


async def test_whoever_is_refused_again_and_again_waits_and_others_are_served() -> None:
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(embedded(believing, messages_per_second_per_principal=1))

        async def wire(name: str) -> Wire:
            channel = grpc.aio.insecure_channel(daemon.address, interceptors=saying(name))
            return Wire(await stack.enter_async_context(channel))

        bob, alice = await wire("bob"), await wire("alice")
        await bob.kernels.ListKernels(LIST)
        calls = [asyncio.ensure_future(failure_of(bob.kernels.ListKernels(LIST))) for _ in range(8)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await alice.kernels.ListKernels(LIST)
        assert sum(not call.done() for call in calls) >= 5
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
