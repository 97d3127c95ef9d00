"""A client of a kernel whose workers are killed, as a process of its own: each request is answered once, or told lost.

    python -m tests.chaos.worker_client 127.0.0.1:50051 lonely --number 3 --count 1000 --way ask

It prints `under way` after the first reply, and at the end a line of JSON with what it has seen. SIGTERM makes it send
no more, hear of what is under way, and end.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass, field

from pydotcompute import KernelFailedError
from pydotcompute_client import RemoteRuntime, connect
from tests.chaos.client_process import tell, until_stopped
from tests.chaos.kernels import Account, Entry

__all__ = ["ASK", "SEND", "WorkerReport"]

ASK, SEND = "ask", "send"
MOST_PROBLEMS = 20


@dataclass
class WorkerReport:
    """What a client has seen."""

    number: int
    way: str
    """`ASK` or `SEND`."""
    sent: int = 0
    answered: int = 0
    told: int = 0
    """Requests of which it was told that they are lost."""
    lost: list[int] = field(default_factory=list)
    """Their numbers, if it has asked: whoever sends and receives apart is not told which."""
    causes: dict[str, int] = field(default_factory=dict)
    """How often each cause was told."""
    problems: list[str] = field(default_factory=list)
    """What was wrong; empty if nothing was."""

    def wrong(self, problem: str) -> None:
        """Note a problem, if it is not one of too many."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


class WorkerClient:
    """Keeps `window` requests under way."""

    def __init__(self, runtime: RemoteRuntime, given: argparse.Namespace) -> None:
        self._runtime, self._given = runtime, given
        self._paddings = bytes(given.padding), b""
        self._last = 0
        self.report = WorkerReport(given.number, given.way)
        self.stopping = False

    async def run(self) -> None:
        """Send and receive all."""
        if self._given.way == ASK:
            await self._ask_all()
        else:
            await self._send_all()

    def _more(self) -> bool:
        return not self.stopping and (self._given.count == 0 or self.report.sent < self._given.count)

    def _next(self) -> Entry:
        self.report.sent += 1
        return Entry(self._given.number, self.report.sent, self._paddings[self.report.sent % 2])

    async def _ask_all(self) -> None:
        room = asyncio.Semaphore(self._given.window)
        async with asyncio.TaskGroup() as asking:
            while self._more():
                await room.acquire()
                asking.create_task(self._ask(self._next(), room))

    async def _ask(self, entry: Entry, room: asyncio.Semaphore) -> None:
        try:
            reply = await self._runtime.send_and_receive(self._given.kernel, entry, timeout=self._given.timeout)
        except KernelFailedError as error:
            self._told(error)
            self.report.lost.append(entry.number)
        else:
            if reply.number != entry.number:
                self.report.wrong(f"asked for {entry.number}, got {reply.number}")
            self._answered(reply)
        finally:
            room.release()

    async def _send_all(self) -> None:
        report = self.report
        while self._more() or report.answered + report.told < report.sent:
            while self._more() and report.sent - report.answered - report.told < self._given.window:
                await self._runtime.send(self._given.kernel, self._next(), timeout=self._given.timeout)
            try:
                reply = await self._runtime.receive(self._given.kernel, timeout=self._given.timeout)
            except KernelFailedError as error:
                self._told(error)
                continue
            if self._given.in_order and reply.number <= self._last:
                report.wrong(f"the reply to {reply.number} came after that to {self._last}")
            self._last = reply.number
            self._answered(reply)

    def _told(self, error: KernelFailedError) -> None:
        self.report.told += 1
        causes = self.report.causes
        causes[error.cause_type] = causes.get(error.cause_type, 0) + 1
        if not self._given.may_lose:
            self.report.wrong(f"nothing may be lost: {error}")

    def _answered(self, reply: Account) -> None:
        report = self.report
        report.answered += 1
        if reply.client != report.number or reply.padding != self._paddings[reply.number % 2]:
            report.wrong(f"got the reply to {reply.number} of client {reply.client}, with {len(reply.padding)} bytes")
        if report.answered == 1:
            print("under way", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.worker_client", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("kernel")
    parser.add_argument("--number", type=int, default=0, help="this client's own, which no other has")
    parser.add_argument("--count", type=int, default=0, help="how many requests; 0: until SIGTERM")
    parser.add_argument("--way", choices=[ASK, SEND], default=ASK)
    parser.add_argument("--window", type=int, default=64, help="how many may be under way")
    parser.add_argument("--padding", type=int, default=0, help="bytes in every second request and reply")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that one reply may take")
    parser.add_argument("--in-order", type=int, default=1, help="whether replies must come in order")
    parser.add_argument("--may-lose", type=int, default=1, help="whether a request may be lost, if it is told")
    parser.add_argument("--keepalive", type=float, default=1.0, help="as of `connect`")
    return parser.parse_args()


async def _main(given: argparse.Namespace) -> WorkerReport:
    async with connect(given.target, keepalive=given.keepalive) as runtime:
        client = WorkerClient(runtime, given)
        await until_stopped(client)
    return client.report


if __name__ == "__main__":
    tell(asyncio.run(_main(_arguments())))
