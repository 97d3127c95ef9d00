"""A client of the `ledger` kernel as a process of its own: it checks that each reply comes once, to it, in order.

    python -m tests.chaos.client 127.0.0.1:50051 ledger --number 3 --count 1000

It prints `under way` after the first reply, and at the end a line of JSON with what it has seen. SIGTERM makes it send
no more, receive what is under way, and end. The exit code is 0 if nothing was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from pydotcompute_client import RemoteRuntime, connect
from tests.chaos.client_process import tell, until_stopped
from tests.chaos.kernels import Account, Entry

__all__ = ["Report"]

ASK_EVERY = 17
"""Each so-many-th request is a `send_and_receive`, the others are sent and received apart."""
MOST_PROBLEMS = 20


@dataclass
class Report:
    """What a client has seen."""

    number: int
    sent: int = 0
    answered: int = 0
    seconds: float = 0.0
    """From the first reply to the last."""
    slowest: float = 0.0
    """Seconds that it waited longest for one reply."""
    problems: list[str] = field(default_factory=list)
    """What was wrong; empty if nothing was."""

    def wrong(self, problem: str) -> None:
        """Note a problem, if it is not one of too many."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


class Client:
    """One task that keeps `window` requests under way."""

    def __init__(self, runtime: RemoteRuntime, given: argparse.Namespace) -> None:
        self._runtime = runtime
        self._given = given
        self._padding = bytes(given.padding)
        self._long_padding = random.Random(given.number).randbytes(given.long)
        self._under_way: deque[int] = deque()
        self.report = Report(given.number)
        self.stopping = False

    async def run(self) -> None:
        """Send and receive all."""
        started = time.monotonic()
        while self._more() or self._under_way:
            while self._more() and len(self._under_way) < self._given.window:
                await self._send()
            if self._under_way:
                await self._receive()
            if self._given.pause:
                await asyncio.sleep(self._given.pause / 1000)
        self.report.seconds = time.monotonic() - started

    def _more(self) -> bool:
        return not self.stopping and (self._given.count == 0 or self.report.sent < self._given.count)

    def _next(self) -> Entry:
        self.report.sent += 1
        return Entry(self._given.number, self.report.sent, self._padding_of(self.report.sent))

    def _padding_of(self, number: int) -> bytes:
        return self._long_padding if self._given.long and number % self._given.long_every == 0 else self._padding

    async def _send(self) -> None:
        entry = self._next()
        if entry.number % ASK_EVERY:
            await self._runtime.send(self._given.kernel, entry, timeout=self._given.timeout)
            self._under_way.append(entry.number)
        else:
            asked = time.monotonic()
            reply = await self._runtime.send_and_receive(self._given.kernel, entry, timeout=self._given.timeout)
            self._check(reply, entry.number, asked)

    async def _receive(self) -> None:
        asked = time.monotonic()
        reply = await self._runtime.receive(self._given.kernel, timeout=self._given.timeout)
        self._check(reply, self._under_way.popleft(), asked)

    def _check(self, reply: Account, number: int, asked: float) -> None:
        report = self.report
        report.slowest = max(report.slowest, time.monotonic() - asked)
        if (reply.client, reply.number) != (report.number, number) or reply.padding != self._padding_of(number):
            report.wrong(f"expected the reply to {number}, got {reply.number} of client {reply.client}")
        if reply.again or reply.skipped:
            report.wrong(f"at {number}: {reply.again} came to the kernel again, {reply.skipped} never")
        report.answered += 1
        if report.answered == 1:
            print("under way", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.client", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("kernel")
    parser.add_argument("--number", type=int, default=0, help="this client's own, which no other has")
    parser.add_argument("--count", type=int, default=0, help="how many requests; 0: until SIGTERM")
    parser.add_argument("--window", type=int, default=64, help="how many may be under way")
    parser.add_argument("--padding", type=int, default=0, help="bytes in each request and reply")
    parser.add_argument("--long", type=int, default=0, help="bytes in each so-many-th request and reply")
    parser.add_argument("--long-every", type=int, default=5, help="how many that is")
    parser.add_argument("--pause", type=float, default=0.0, help="milliseconds after each reply")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that one reply may take")
    parser.add_argument("--keepalive", type=float, help="as of `connect`")
    parser.add_argument("--reconnect-timeout", type=float, help="as of `connect`")
    parser.add_argument("--max-message-bytes", type=int, help="as of `connect`")
    parser.add_argument("--shared-memory", type=bool, help="as of `connect`")
    return parser.parse_args()


async def _main(given: argparse.Namespace) -> Report:
    names = ("keepalive", "reconnect_timeout", "max_message_bytes", "shared_memory")
    options: dict[str, Any] = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    async with connect(given.target, **options) as runtime:
        client = Client(runtime, given)
        await until_stopped(client)
    return client.report


if __name__ == "__main__":
    tell(asyncio.run(_main(_arguments())))
