"""Lets one principal flood a daemon, and measures what another one notices, who asks one kernel every 5 ms.

    python -m tests.chaos.beside_a_flood [FLOOD ...] [--seconds N] [--limit NAME=VALUE ...]

Each flood has a daemon of its own. Beside its asking, the quiet one has a session without a stream and a reply that
waits for its client_id. Both must be there when the flood is over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import sleep
from typing import Any

import grpc

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from tests.chaos import overload
from tests.chaos.floods import FLOODS
from tests.chaos.neighbour import Waits
from tests.chaos.processes import Processes
from tests.principals import saying

__all__ = ["Figures", "measure"]

QUIET_ONE = "quiet"
SLOWER = 3
"""How many times its quiet p99 the p99 of the quiet one may be during a flood."""
LIMITS = ("messages_under_way_per_principal=64", "messages_per_second_per_principal=500")
PATIENCE = 60.0


@dataclass(frozen=True)
class Figures:
    """What one flood did. Times are in seconds."""

    flood: str
    answer: str
    quiet: Waits
    during: Waits
    lost: tuple[str, ...]
    """What of the quiet one's the daemon has no more."""

    @property
    def ratio(self) -> float:
        """The p99 during the flood, as a multiple of the quiet one."""
        return self.during.p99 / self.quiet.p99

    def problems(self) -> list[str]:
        """What is beyond the bounds."""
        found = [f"{self.flood}: {each} is lost" for each in self.lost]
        if self.ratio > SLOWER:
            found.append(f"{self.flood}: the p99 of the quiet one is {self.ratio:.1f} times what it was")
        if self.during.wrong:
            found.append(f"{self.flood}: {self.during.wrong} answers to the quiet one were wrong")
        return found

    def __str__(self) -> str:
        return (
            f"{self.flood:12} p50 {self.quiet.median * 1e3:5.1f} -> {self.during.median * 1e3:6.1f} ms, "
            f"p99 {self.quiet.p99 * 1e3:5.1f} -> {self.during.p99 * 1e3:6.1f} ms ({self.ratio:.1f} times), "
            f"{self.during.asked} asked, {self.during.wrong} wrong, lost: {', '.join(self.lost) or 'nothing'}\n"
            f"{'':12} {self.answer}"
        )


class _Belongings:
    """What the quiet one leaves with the daemon: a session without a stream, and a reply for its client_id."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._token = b""

    async def leave(self) -> None:
        """Leave them."""
        async with self._channel() as channel:
            stub: Any = MessageServiceStub(channel)
            self._token = await self._open(stub)
            request = pb.SendRequest(kernel_id="square", client_id=QUIET_ONE)
            request.message.CopyFrom(overload.ask("square", "attack_kernels.v1.Number", b"\x09" + bytes(8)).message)
            await stub.Send(request)

    async def lost(self) -> tuple[str, ...]:
        """What is not there any more."""
        found = []
        async with self._channel() as channel:
            stub: Any = MessageServiceStub(channel)
            try:
                await self._open(stub)
            except grpc.aio.AioRpcError as error:
                found.append(f"the session ({error.details()})")
            request = pb.ReceiveRequest(kernel_id="square", client_id=QUIET_ONE)
            request.timeout.FromSeconds(1)
            try:
                await stub.Receive(request)
            except grpc.aio.AioRpcError as error:
                found.append(f"the reply ({error.details()})")
        return tuple(found)

    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._target, interceptors=saying(QUIET_ONE))

    async def _open(self, stub: Any) -> bytes:
        call = stub.Exchange()
        opening = pb.Open(kernel_id="square", session_token=self._token, credit=pb.Credit(messages=1, bytes=1))
        await call.write(pb.ExchangeRequest(open=opening))
        answer = await call.read()
        assert isinstance(answer, pb.ExchangeResponse), "the stream has ended without an error"
        call.cancel()
        return answer.opened.session_token


def measure(flood: str, processes: Processes, limits: Sequence[str] = LIMITS, seconds: float = 5.0) -> Figures:
    """Start a daemon and the quiet one, flood the daemon, and return what came of it."""
    daemon = processes.run("daemon", "tests.chaos.believing_daemon", *limits)
    target = daemon.started()
    belongings = _Belongings(target)
    asyncio.run(belongings.leave())
    neighbour = processes.run("neighbour", "tests.chaos.neighbour", target, str(daemon.pid), QUIET_ONE)
    assert neighbour.line() == "under way"

    def waits() -> Waits:
        return Waits(**json.loads(neighbour.order("", PATIENCE)))

    sleep(0.5)
    waits()
    sleep(seconds)
    quiet = waits()
    flooder = processes.run("flooder", "tests.chaos.floods", flood, target, str(seconds))
    answer = flooder.line(PATIENCE)
    during = waits()
    flooder.wait(PATIENCE)
    lost = asyncio.run(belongings.lost())
    neighbour.kill()
    daemon.end()
    return Figures(flood, answer, quiet, during, lost)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.beside_a_flood", description=__doc__)
    parser.add_argument("floods", nargs="*", metavar="FLOOD", help=f"of {', '.join(FLOODS)}; all if there is none")
    parser.add_argument("--seconds", type=float, default=5.0, help="of quiet, and of each flood")
    parser.add_argument("--limit", action="append", metavar="NAME=VALUE", help=f"instead of {' and '.join(LIMITS)}")
    given = parser.parse_args()
    limits = LIMITS if given.limit is None else [each for each in given.limit if each]
    print(f"{os.cpu_count()} cores; {', '.join(limits) or 'no limits'}")
    problems: list[str] = []
    for flood in given.floods or FLOODS:
        with Processes(1) as processes:
            figures = measure(flood, processes, limits, given.seconds)
        print(figures, flush=True)
        problems += figures.problems()
    print("\n".join(problems))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
