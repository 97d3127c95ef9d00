"""Many clients at one kernel: turns that are fair, and an end in good order."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pydotcompute.exceptions import ConnectionLostError, PyDotComputeError
from pydotcompute_client import RemoteRuntime, connect
from tests.contract.kernels import Job
from tests.stubs import KERNELS

CLIENTS = 4


async def test_clients_that_send_without_end_take_turns_at_one_kernel(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--launch", "square")
    answered = [0] * CLIENTS
    enough = asyncio.Event()

    async def flood(client: int) -> None:
        async with connect(daemon.target) as runtime:

            async def send() -> None:
                while True:
                    await runtime.send("square", Job(client))

            async def receive() -> None:
                while True:
                    assert (await runtime.receive("square")).number == client**2
                    answered[client] += 1
                    if sum(answered) >= 40_000:
                        enough.set()

            async with asyncio.TaskGroup() as both:
                both.create_task(send())
                both.create_task(receive())

    floods = [asyncio.create_task(flood(client)) for client in range(CLIENTS)]
    await enough.wait()
    for each in floods:
        each.cancel()
    await asyncio.gather(*floods, return_exceptions=True)
    assert min(answered) > max(answered) / 3, answered


@pytest.mark.parametrize("together", [1, 50])
async def test_when_the_daemon_ends_every_request_is_answered_or_refused(
    start_daemon: Callable[..., Any], together: int
) -> None:
    daemon = start_daemon(str(KERNELS), "--launch", "square", "--grace", "20")
    endings: list[PyDotComputeError] = []
    answered = 0
    busy = asyncio.Event()

    async def ask(runtime: RemoteRuntime) -> None:
        nonlocal answered
        while True:
            try:
                reply = await runtime.send_and_receive("square", Job(7))
            except PyDotComputeError as error:
                endings.append(error)
                return
            assert reply.number == 49
            answered += 1
            if answered >= 500:
                busy.set()

    async def use() -> None:
        async with connect(daemon.target, reconnect_timeout=1.0, timeout=1.0) as runtime, asyncio.TaskGroup() as asking:
            for _ in range(together):
                asking.create_task(ask(runtime))

    clients = [asyncio.create_task(use()) for _ in range(CLIENTS)]
    await busy.wait()
    await asyncio.to_thread(daemon.stop)  # It sees that the exit code is 0.
    await asyncio.gather(*clients)
    assert len(endings) == CLIENTS * together
    # Neither of them leaves a request of unknown fate: that would be a SessionLostError.
    assert {type(error) for error in endings} == {ConnectionLostError}, endings[0]
