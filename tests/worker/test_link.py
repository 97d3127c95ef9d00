"""The link between a kernel and its worker, over a real socket pair, on the event loops that a daemon may have."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from pydotcompute.wire.worker.frames import Frame, LinkError, Note, Recall, to_bytes
from pydotcompute.worker.link import Link
from tests.contract.world import PATIENCE, eventually

LOOPS: list[Any] = [asyncio.SelectorEventLoop, uvloop.new_event_loop]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def run(coroutine: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(coroutine, PATIENCE))

    return run


async def opened(end: socket.socket, frames: list[Frame], ends: list[LinkError | None]) -> Link:
    return await Link.open(end, frames.append, ends.append)


def test_what_the_other_side_has_sent_before_its_end_is_read_although_nothing_can_be_sent(run: Any) -> None:
    async def check() -> None:
        here, there = socket.socketpair()
        frames: list[Frame] = []
        ends: list[LinkError | None] = []
        link = await opened(here, frames, ends)
        there.sendall(b"".join(to_bytes(Note("said", {"number": number})) for number in range(500)))
        there.close()
        for _ in range(3):  # The other side does not read it.
            link.send(Note("heard"))
        await link.wait_closed()
        assert frames == [Note("said", {"number": number}) for number in range(500)]
        assert ends == [None]

    run(check())


def test_what_has_no_room_in_the_socket_goes_in_order_once_there_is_room(run: Any) -> None:
    async def check() -> None:
        here, there = socket.socketpair()
        received: list[Frame] = []
        sending = await opened(here, [], [])
        sent = [Note("long", {"number": number}, bytes(100_000)) for number in range(40)]
        for note in sent:
            sending.send(note)
        receiving = await opened(there, received, [])
        sending.close()
        sending.send(Note("too late"))
        await receiving.wait_closed()
        assert received == sent

    run(check())


def test_the_side_that_finishes_goes_on_receiving(run: Any) -> None:
    async def check() -> None:
        here, there = socket.socketpair()
        frames: list[Frame] = []
        link = await opened(here, frames, [])
        link.send(Recall([1]))
        link.finish()
        heard = b""
        while data := await asyncio.get_running_loop().run_in_executor(None, there.recv, 100):
            heard += data
        assert heard == to_bytes(Recall([1]))
        there.sendall(to_bytes(Note("said")))
        there.close()
        await link.wait_closed()
        assert frames == [Note("said")]

    run(check())


@pytest.mark.parametrize("other", ["closes", "breaks the rules", "goes with something unsent"])
def test_no_descriptor_stays(run: Any, other: str) -> None:
    async def use() -> None:
        here, there = socket.socketpair()
        ends: list[LinkError | None] = []
        link = await opened(here, [], ends)
        if other == "breaks the rules":
            there.send(bytes([0, 0, 0, 0, 99]))
        elif other == "goes with something unsent":
            link.send(Note("long", {}, bytes(1 << 22)))
        if other != "breaks the rules":
            there.close()
        await link.wait_closed()
        there.close()
        link.close()
        assert (ends[0] is not None) == (other == "breaks the rules")

    async def check() -> None:
        await use()  # The event loop itself opens something.
        after_one = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await use()
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= after_one)

    run(check())
