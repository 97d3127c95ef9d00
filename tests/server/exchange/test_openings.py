"""New sessions of one principal are opened one by one, and those of others are not held up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import grpc
import pytest

from pydotcompute_server import Daemon, daemon
from pydotcompute_server.exchange.openings import Openings
from tests.embedded import embedded
from tests.principals import believing, saying
from tests.stubs import Talk, Wire

MANY = 100
"""So many sessions take so many seconds, at one in a second."""


@asynccontextmanager
async def as_one(host: Daemon, name: str) -> AsyncIterator[Wire]:
    """A connection of this principal's."""
    async with grpc.aio.insecure_channel(host.address, interceptors=saying(name)) as channel:
        yield Wire(channel)


async def test_there_are_no_more_in_a_second_than_the_rate() -> None:
    openings, began = Openings(50), monotonic()
    await asyncio.gather(*(openings.turn("bob") for _ in range(6)))
    assert monotonic() - began >= 5 / 50


async def test_who_gives_up_leaves_the_line() -> None:
    openings = Openings(1)
    await openings.turn("bob")
    line = [asyncio.create_task(openings.turn("bob")) for _ in range(3_600)]
    await asyncio.sleep(0)
    for each in line:
        each.cancel()
    await asyncio.gather(*line, return_exceptions=True)
    async with asyncio.timeout(60):  # And not an hour.
        await openings.turn("bob")


async def test_nobody_waits_any_more_when_there_are_no_more_sessions() -> None:
    openings = Openings(1)
    line = [asyncio.create_task(openings.turn("bob")) for _ in range(3_600)]
    await asyncio.sleep(0)
    openings.close()
    async with asyncio.timeout(60):
        await asyncio.gather(*line)


async def test_sessions_of_others_and_resumed_ones_do_not_wait_for_those_of_one_principal() -> None:
    async with (
        embedded(believing, sessions_per_second_per_principal=1) as host,
        as_one(host, "bob") as bob,
        as_one(host, "alice") as alice,
    ):
        first = Talk(bob)
        await first.open("echo")
        line = [asyncio.ensure_future(Talk(bob).open("echo")) for _ in range(MANY)]
        await Talk(alice).open("echo")
        first.cut()
        await first.resume()
        assert sum(not each.done() for each in line) > MANY // 2
        for each in line:
            each.cancel()
        await asyncio.gather(*line, return_exceptions=True)


async def test_sessions_wait_by_default_only_where_principals_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "SESSIONS_PER_SECOND", 1)
    async with embedded() as host, as_one(host, "bob") as bob:
        await asyncio.gather(*(Talk(bob).open("echo") for _ in range(MANY)))  # The daemon's time-out is shorter.
    async with embedded(believing) as host, as_one(host, "bob") as bob:
        line = [asyncio.ensure_future(Talk(bob).open("echo")) for _ in range(MANY)]
        await asyncio.wait(line, return_when=asyncio.FIRST_COMPLETED)
        assert sum(not each.done() for each in line) > MANY // 2
        for each in line:
            each.cancel()
        await asyncio.gather(*line, return_exceptions=True)
