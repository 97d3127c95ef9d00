"""A message that raises KeyboardInterrupt, SystemExit or the like costs itself alone, in every lane."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from pydotcompute.v1.dead_letter_service_pb2 import ListDeadLettersRequest
from tests.server.process.processes import serving, wired
from tests.server.process.trap_kernels import ERRORS
from tests.stubs import Letter, Talk, Wire

KERNELS = str(Path(__file__).with_name("trap_kernels.py"))
APART = 512 << 10
"""Bytes of a message that is read in a thread."""


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with serving(KERNELS, "--launch", "all") as (_, target):
        yield target


@pytest.fixture
async def wire(target: str) -> AsyncIterator[Wire]:
    async with wired(target) as wire:
        yield wire


def text(value: str) -> bytes:
    return b"\x0a" + bytes([len(value)]) + value.encode()


def inner(value: str) -> bytes:
    return b"\x12" + bytes([len(text(value))]) + text(value)


def padding(size: int) -> bytes:
    return b"\x1a" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + bytes(size)


async def fine(wire: Wire) -> bool:
    """Whether the kernels still answer."""
    traps, springs = await wire.ask("trapped", what="fine"), await wire.ask("sprung", what="fine")
    return bool(traps["what"] == springs["what"] == "fine")


@pytest.mark.parametrize("what", ERRORS)
async def test_in_a_call_it_is_refused(wire: Wire, what: str) -> None:
    for fields in ({"what": what}, {"inner": {"what": what}}):
        with pytest.raises(grpc.aio.AioRpcError, match=f"{ERRORS[what].__name__}: a message's") as refused:
            await wire.ask("trapped", **fields)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await fine(wire)


@pytest.mark.parametrize("what", ERRORS)
@pytest.mark.parametrize("body", [text, inner, lambda what: text(what) + padding(APART)], ids=["own", "inner", "long"])
async def test_in_a_session_it_is_refused_and_those_beside_it_are_answered(wire: Wire, what: str, body: object) -> None:
    talk = Talk(wire)
    await talk.open("trapped")
    letters = [Letter(text("one")), Letter(body(what)), Letter(text("two"))]  # type: ignore[operator]
    await talk.send(*letters)
    (refusal,) = await talk.refused()
    assert refusal.message_id == letters[1].message_id
    assert f"{ERRORS[what].__name__}: a message's" in refusal.status.message
    replies = await talk.received(2)
    assert [reply.message_id for reply in replies] == [letters[0].message_id, letters[2].message_id]
    assert await fine(wire)
    talk.cut()


@pytest.mark.parametrize("what", ERRORS)
async def test_a_reply_that_raises_when_it_is_written_is_a_dead_letter(wire: Wire, what: str) -> None:
    talk = Talk(wire)
    await talk.open("sprung")
    await talk.send(Letter(text(what)), Letter(text("two")))
    (refusal,) = await talk.refused()
    assert f"{ERRORS[what].__name__}: a message's" in refusal.status.message
    assert len(await talk.received(1)) == 1
    with pytest.raises(grpc.aio.AioRpcError, match=f"{ERRORS[what].__name__}: a message's") as failed:
        await wire.ask("sprung", what=what)
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert await fine(wire)
    listed = await wire.dead_letters.ListDeadLetters(ListDeadLettersRequest(kernel_id="sprung"))
    assert len(listed.dead_letters) >= 2
    talk.cut()
