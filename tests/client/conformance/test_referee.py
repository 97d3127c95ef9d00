"""The daemon of `pydotcompute conformance --listen` notices each broken rule, and the Python client breaks none."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest

from pydotcompute.exceptions import KernelStateError, QueueFullError, SessionLostError
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute_client import connect
from pydotcompute_client.conformance.kernels import Probe
from pydotcompute_client.conformance.probes import probe
from pydotcompute_client.conformance.referee import Referee, serve
from pydotcompute_client.conformance.rules import RULES
from tests.contract.world import PATIENCE
from tests.stubs import Letter, Talk, Wire

PATIENCE_WITH_CLIENTS = 0.2


class World:
    """A referee, its address, and what it waits for."""

    def __init__(self, referee: Referee, address: str, finished: asyncio.Event) -> None:
        self.referee = referee
        self.address = address
        self.finished = finished
        """Set when a session is."""

    def outcomes(self) -> dict[str, str]:
        """The outcomes of the rules that were tried."""
        return {each.name: each.outcome for each in self.referee.record.results() if each.tried}


async def world(patience: float) -> AsyncIterator[World]:
    finished = asyncio.Event()
    referee = Referee(patience, lambda _: finished.set())
    server, address = await serve(referee, "127.0.0.1:0")
    yield World(referee, address, finished)
    await server.stop(0)


@pytest.fixture
async def strict() -> AsyncIterator[World]:
    """One that waits for nobody who has gone."""
    async for each in world(PATIENCE_WITH_CLIENTS):
        yield each


@pytest.fixture
async def patient() -> AsyncIterator[World]:
    """One that does not give its clients up."""
    async for each in world(PATIENCE):
        yield each


class Client(Talk):
    """A client that breaks rules."""

    async def ended_somehow(self) -> None:
        """Wait until the stream ends, however."""
        with suppress(grpc.aio.AioRpcError):
            while await self.call.read() is not grpc.aio.EOF:
                pass


def letters(*numbers: int) -> list[Letter]:
    return [Letter(probe(number)) for number in numbers]


# -- each rule, broken -------------------------------------------------------------------------------------------------


async def no_open(one: Client) -> None:
    await one.ack(0)


async def second_open(one: Client) -> None:
    await one.open("calm")
    await one.say(open=pb.Open(kernel_id="calm"))


async def never_back(one: Client) -> None:
    await one.open("calm")
    one.cut()


async def other_kernel(one: Client) -> None:
    await one.open("calm")
    one.cut()
    await one.resume(kernel_id="rough")


async def received_too_much(one: Client) -> None:
    await one.open("calm")
    one.cut()
    await one.resume(received_through=1)


async def gap(one: Client) -> None:
    await one.open("calm")
    await one.send(*letters(1), first=2)


async def sequence_0(one: Client) -> None:
    await one.open("calm")
    await one.send(*letters(1), first=0)


async def another_again(one: Client) -> None:
    await one.open("calm")
    await one.send(*letters(1))
    await one.send(*letters(2), first=1)


async def too_many(one: Client) -> None:
    opened = await one.open("calm")
    await one.send(*letters(*range(opened.credit.messages + 1)))


async def too_long(one: Client) -> None:
    opened = await one.open("calm")
    await one.send(Letter(bytes(opened.credit.bytes)), Letter(b""))


async def odd_ids(one: Client) -> None:
    await one.open("calm")
    await one.say(batch=pb.Batch(first_sequence=1, message_ids=b"x", bodies=[b""]))


async def nothing(one: Client) -> None:
    await one.open("calm")
    await one.say()


async def part_gap(one: Client) -> None:
    await one.open("calm")
    await one.say(part=pb.Part(body_bytes=9_000, offset=0, data=bytes(4_096)))
    await one.say(part=pb.Part(body_bytes=9_000, offset=8_192, data=bytes(808)))


async def parts_missing(one: Client) -> None:
    await one.open("calm")
    await one.send_parted(Letter(b""))


async def ack_0(one: Client) -> None:
    await one.open("calm")
    await one.ack(0, number=0)


async def ack_ahead(one: Client) -> None:
    await one.open("calm")
    await one.ack(1)


async def ack_falls(one: Client) -> None:
    await one.open("calm")
    await one.send(*letters(1))
    await one.received(1)
    await one.ack(1)
    await one.ack(0)


async def bye_without_ack(one: Client) -> None:
    await one.open("calm")
    await one.send(*letters(1))
    await one.received(1)
    await one.say(bye=pb.Bye())


async def more_after_bye(one: Client) -> None:
    await one.open("calm")
    await one.say(bye=pb.Bye())
    await one.ack(0)


async def no_bye_back(one: Client) -> None:
    await one.open("ending")
    await one.send(*letters(*range(10)))
    await one.hear("bye", besides=("closed",))
    await one.call.done_writing()


async def uses_a_lost_token(one: Client) -> None:
    await one.open("lost")
    await one.send(*letters(*range(10)))
    await one.ended_somehow()
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError):
            await one.resume()


async def steals_back(one: Client) -> None:
    await one.open("taken-over")
    for _ in range(2):
        await one.send(*letters(*range(10)))
        await one.ended_somehow()
        await one.resume()


@pytest.mark.parametrize(
    ("rule", "break_it"),
    [
        ("first-frame", no_open),
        ("first-frame", second_open),
        ("returns", never_back),
        ("returns", other_kernel),
        ("received-through", received_too_much),
        ("sequences", gap),
        ("sequences", sequence_0),
        ("again", another_again),
        ("credit", too_many),
        ("credit", too_long),
        ("columns", odd_ids),
        ("columns", nothing),
        ("parts", part_gap),
        ("parts", parts_missing),
        ("ack-numbers", ack_0),
        ("ack-through", ack_ahead),
        ("ack-through", ack_falls),
        ("acknowledges", bye_without_ack),
        ("last-frame", more_after_bye),
        ("answers-bye", no_bye_back),
        ("lost", uses_a_lost_token),
        ("taken-over", steals_back),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_a_broken_rule_is_noticed_and_no_other(
    strict: World, rule: str, break_it: Callable[[Any], Awaitable[None]]
) -> None:
    async with grpc.aio.insecure_channel(strict.address) as channel:
        one = Client(Wire(channel))
        async with asyncio.timeout(PATIENCE):
            with suppress(AssertionError, grpc.aio.AioRpcError):  # The referee has ended the stream.
                await break_it(one)
            if rule != "first-frame" or one.opened.session_token:
                await strict.finished.wait()
            else:
                await one.ended_somehow()
        broken = [name for name, outcome in strict.outcomes().items() if outcome == "FAIL"]
        assert broken == [rule]
        for call in one.calls:
            call.cancel()


def test_every_rule_can_be_broken() -> None:
    (mark,) = test_a_broken_rule_is_noticed_and_no_other.pytestmark[:1]
    assert {rule for rule, _ in mark.args[1]} == RULES.keys()


# -- the Python client -------------------------------------------------------------------------------------------------


async def ends(address: str, script: str, count: int, at_once: int) -> Counter[str]:
    """How many requests of the Python client ended how."""
    found: Counter[str] = Counter()
    places = asyncio.Semaphore(at_once)
    async with connect(address) as runtime:

        async def ask(number: int) -> None:
            async with places:
                note = "x" * (9_000 if number == count // 2 else number % 99)
                try:
                    reply = await runtime.send_and_receive(script, Probe(number, note), timeout=PATIENCE)
                except (QueueFullError, KernelStateError, SessionLostError) as error:
                    found[type(error).__name__] += 1
                else:
                    assert (reply.number, reply.note) == (number, note)
                    found["answered"] += 1

        await asyncio.gather(*map(ask, range(count)))
    return found


async def test_the_python_client_keeps_every_rule_whatever_happens_to_it(patient: World) -> None:
    assert await ends(patient.address, "calm", 100, at_once=10) == {"answered": 100}
    rough = await ends(patient.address, "rough", 1_000, at_once=50)
    assert rough == {"answered": 860, "QueueFullError": 140}
    ending = await ends(patient.address, "ending", 15, at_once=1)  # What comes later begins a session of its own.
    assert ending.keys() == {"answered", "KernelStateError"}
    assert ending["answered"] >= 10
    assert (await ends(patient.address, "lost", 10, at_once=1)) == {"answered": 9, "SessionLostError": 1}
    assert (await ends(patient.address, "taken-over", 20, at_once=1)) == {"answered": 19, "SessionLostError": 1}
    assert [each.problem for each in patient.referee.record.results() if each.problem] == []
    assert patient.outcomes().keys() == RULES.keys(), "each rule was tried"
