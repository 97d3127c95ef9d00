"""A client of Exchange that was written from docs/wire.md alone: it keeps all rules, and gets each reply once."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from pydotcompute_client.conformance.probes import number_in, probe
from tests.cli.command import start
from tests.contract.world import PATIENCE, eventually
from tests.forwarder import Forwarder
from tests.interop.exchange_client import Refused, Session
from tests.stubs import Wire

MESSAGES = 1_200
AT_ONCE = 60


@pytest.fixture
def referee() -> Iterator[tuple[str, Callable[[], list[dict[str, Any]]]]]:
    """The address of `pydotcompute conformance --listen`, and what ends it and gives its results."""
    with start("", "conformance", "--listen", "127.0.0.1:0", "--json") as process:
        assert process.stdout is not None
        address = process.stdout.readline().decode().removeprefix("listening on ").strip()

        def results() -> list[dict[str, Any]]:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=PATIENCE)
            found: list[dict[str, Any]] = json.loads(output)
            assert process.returncode == int(any(each["outcome"] == "FAIL" for each in found))
            return found

        yield address, results


async def ask_many(session: Session, count: int, at_once: int = AT_ONCE) -> Counter[str]:
    """How many requests were answered, or were refused for which reason. Each has one end, or this waits for ever."""
    ends: Counter[str] = Counter()
    places = asyncio.Semaphore(at_once)

    async def ask(number: int) -> None:
        async with places:
            try:
                reply = await session.ask(probe(number, "x" * (number % 300)))
            except Refused as refused:
                ends[refused.reason] += 1
            else:
                assert number_in(reply) == number
                ends["answered"] += 1

    async with asyncio.timeout(3 * PATIENCE):
        await asyncio.gather(*map(ask, range(count)))
    return ends


async def test_it_keeps_every_rule_whatever_happens_to_it(referee: Any) -> None:
    address, results = referee
    async with grpc.aio.insecure_channel(address) as channel:
        rough = Session(channel, "rough")
        ends = await ask_many(rough, MESSAGES)
        await rough.close()
        assert rough.streams > 10
        assert ends == {"QUEUE_FULL": 168, "answered": 1_032}, "one in 10 is refused, and one in 25 later"
        for script, answered, reason in (
            ("calm", 30, ""),
            ("ending", 10, "KERNEL_STATE_INVALID"),
            ("lost", 9, "SESSION_LOST"),
            ("taken-over", 9, ""),
        ):
            session = Session(channel, script)
            ends = await ask_many(session, 30, at_once=1)
            await session.close()
            assert ends == Counter({"answered": answered}) + Counter({reason: 30 - answered})
    found = results()
    assert [each["problem"] for each in found if each["problem"]] == []
    not_tried = {each["name"] for each in found if each["outcome"] == "not tried"}
    assert not_tried == {"parts"}, "it takes no parts, and sends none"


@pytest.fixture
async def way(start_daemon: Callable[..., Any]) -> AsyncIterator[Forwarder]:
    """The way to a daemon with the kernel of the tests."""
    async with Forwarder(start_daemon("pydotcompute_client.conformance.kernels").target) as way:
        yield way


async def test_each_request_to_a_daemon_is_answered_once_though_the_connection_is_cut(way: Forwarder) -> None:
    async with grpc.aio.insecure_channel(way.target) as direct, grpc.aio.insecure_channel(way.address) as channel:
        wire = Wire(direct)
        kernel_id = await wire.launch("conformance")
        session = Session(channel, kernel_id)
        asking = asyncio.create_task(ask_many(session, 3 * MESSAGES))
        while not asking.done():
            enough = way.bytes + 20_000
            await eventually(lambda enough=enough: asking.done() or way.bytes > enough)  # type: ignore[misc]
            way.cut()
        assert await asking == {"answered": 3 * MESSAGES}
        assert session.streams > 5
        await session.close()
        await wire.until(kernel_id, messages_processed=3 * MESSAGES, messages_dropped=0)
