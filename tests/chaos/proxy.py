"""A TCP proxy that mistreats the connections through it, at random moments or when it is told to.

    python -m tests.chaos.proxy --to 127.0.0.1:50051 --every 50-300 --faults cut=3,reset=1 --seed 7

With `--stream-bytes` and `--stream-seconds` it ends each HTTP/2 stream after so many bytes in one direction, or so many
seconds, as nginx does by default.

Its first line of output is `listening on HOST:PORT`. A line of input names a fault for all connections that there are;
the answer is the fault and how many they were. The line `statistics` is answered with a line of JSON, and so is
SIGTERM, which ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

from tests.chaos.streams import StreamLimits

__all__ = ["FAULTS", "Link", "Options", "Proxy", "Statistics", "options"]

CLOCK_SECONDS = 0.05
"""How often to look for streams that have lasted too long."""
CHUNK = 64 << 10
"""Bytes read at once."""
STALL_SECONDS = (0.005, 0.4)
"""How long a stalled link forwards nothing."""
TRICKLE_BYTES = 512
"""What a link that trickles forwards at once."""
TRICKLE_PAUSE = 0.002
"""Seconds between two such portions."""
TRICKLE_SECONDS = (0.05, 0.5)
"""How long a link trickles."""


class Statistics(TypedDict):
    """What has happened."""

    seed: int
    connections: int
    refused: int
    bytes: int
    faults: dict[str, int]


class _Pipe:
    """One direction of a link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.lock = asyncio.Lock()
        """Held while bytes are written, which may be a part of a frame."""
        self.closed = False
        """Whether what comes is thrown away, because this direction was closed on purpose."""


class Link:
    """A client's connection and the one to the daemon that belongs to it."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        daemon: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        dice: random.Random,
        limits: StreamLimits | None = None,
    ) -> None:
        self._dice = dice
        self._limits = limits
        self._pipes = (_Pipe(client[0], daemon[1]), _Pipe(daemon[0], client[1]))
        self._writers = (client[1], daemon[1])
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._trickling = False
        self.silent = False
        """Whether nothing passes any more, the news of its end included."""
        self.bytes = 0
        """How many bytes have passed."""

    async def run(self) -> None:
        """Forward until both directions have ended."""
        clock = None if self._limits is None else asyncio.create_task(self._end_expired(), name="clock")
        try:
            await asyncio.gather(*(self._forward(pipe) for pipe in self._pipes))
        finally:
            if clock is not None:
                clock.cancel()
            for writer in self._writers:
                writer.close()

    async def _forward(self, pipe: _Pipe) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await pipe.reader.read(CHUNK):
                await self._flowing.wait()
                if self.silent or pipe.closed:
                    continue
                self.bytes += len(data)
                await self._pass_as_limited(pipe, data)
        # Also after a reset: the other side hears of an end.
        if not (self.silent or pipe.closed or pipe.writer.is_closing()):
            await self._flowing.wait()
            with contextlib.suppress(OSError):
                pipe.writer.write_eof()

    async def _pass_as_limited(self, pipe: _Pipe, data: bytes) -> None:
        if self._limits is None:
            await self._pass(pipe.writer, data)
            return
        to_daemon, to_client = self._pipes
        back = to_client if pipe is to_daemon else to_daemon
        now = asyncio.get_running_loop().time()
        passed = self._limits.from_client(data, now) if pipe is to_daemon else self._limits.from_daemon(data)
        for direction, allowed in ((pipe, passed.on), (back, passed.back)):
            async with direction.lock:
                await self._pass(direction.writer, bytes(allowed))

    async def _end_expired(self) -> None:
        assert self._limits is not None
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            told = self._limits.expired(asyncio.get_running_loop().time())
            for pipe in self._pipes:
                async with pipe.lock:
                    await self._pass(pipe.writer, told)

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._trickling:
                portion = data[at : at + TRICKLE_BYTES]
                await asyncio.sleep(TRICKLE_PAUSE)
            else:
                portion = data[at:]
            writer.write(portion)
            at += len(portion)
            await writer.drain()

    # -- faults --------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Close both ends."""
        for writer in self._writers:
            writer.close()

    def reset(self) -> None:
        """Close both ends with RST."""
        for writer in self._writers:
            connection = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # It may have just ended.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def stall(self) -> None:
        """Forward nothing for a while."""
        self._flowing.clear()
        asyncio.get_running_loop().call_later(self._dice.uniform(*STALL_SECONDS), self._flowing.set)

    def half_open(self) -> None:
        """Forward nothing from now on, and close nothing."""
        self.silent = True

    def halve(self) -> None:
        """Close one direction; the other goes on."""
        pipe = self._dice.choice(self._pipes)
        if not (pipe.closed or pipe.writer.is_closing()):
            pipe.closed = True
            with contextlib.suppress(OSError):
                pipe.writer.write_eof()

    def trickle(self) -> None:
        """Forward little at a time for a while."""
        self._trickling = True

        def end() -> None:
            self._trickling = False

        asyncio.get_running_loop().call_later(self._dice.uniform(*TRICKLE_SECONDS), end)


FAULTS: dict[str, Callable[[Link], None]] = {
    "cut": Link.cut,
    "reset": Link.reset,
    "stall": Link.stall,
    "half_open": Link.half_open,
    "halve": Link.halve,
    "trickle": Link.trickle,
}
"""What the proxy can do to a link."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    to: tuple[str, int]
    """The daemon."""
    every: tuple[float, float] | None = None
    """Seconds from one fault to the next, at least and at most; None: only those that are asked for."""
    faults: tuple[tuple[str, float], ...] = (("cut", 1.0),)
    """Which there are, and how often each in proportion."""
    seed: int = 0
    """Of all that is random."""
    stream_bytes: float = float("inf")
    """How many bytes may go on one HTTP/2 stream in one direction."""
    stream_seconds: float = float("inf")
    """How long such a stream may last."""


class Proxy:
    """Listens, links, and does its damage."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._dice = random.Random(options.seed)
        self._links: list[Link] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: Counter[str] = Counter()
        self._connections = 0
        self._refused = 0
        self._bytes = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        """Where it listens."""
        self._doing_damage = asyncio.create_task(self._damage(), name="damage")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self._doing_damage.cancel()
        for link in self._links:
            link.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._doing_damage, *self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            daemon = await asyncio.open_connection(*self._options.to)
        except OSError:
            self._refused += 1
            writer.close()
            return
        self._connections += 1
        options = self._options
        limits = None
        if min(options.stream_bytes, options.stream_seconds) < float("inf"):
            limits = StreamLimits(options.stream_bytes, options.stream_seconds, self._done)
        link = Link((reader, writer), daemon, self._dice, limits)
        self._links.append(link)
        try:
            await link.run()
        finally:
            self._links.remove(link)
            self._bytes += link.bytes

    async def _damage(self) -> None:
        if self._options.every is None:
            return
        names = [name for name, _ in self._options.faults]
        weights = [weight for _, weight in self._options.faults]
        while True:
            await asyncio.sleep(self._dice.uniform(*self._options.every))
            (fault,) = self._dice.choices(names, weights)
            whole = [link for link in self._links if not link.silent]
            if whole:
                self._inflict(fault, self._dice.choice(whole))

    def _inflict(self, fault: str, link: Link) -> None:
        self._done[fault] += 1
        FAULTS[fault](link)

    def inflict_on_all(self, fault: str) -> int:
        """Do this to every link that there is; returns how many they were."""
        links = [link for link in self._links if not link.silent]
        for link in links:
            self._inflict(fault, link)
        return len(links)

    def statistics(self) -> Statistics:
        """What has happened."""
        return {
            "seed": self._options.seed,
            "connections": self._connections,
            "refused": self._refused,
            "bytes": self._bytes + sum(link.bytes for link in self._links),
            "faults": dict(self._done),
        }


def options(arguments: list[str] | None = None) -> Options:
    """What a command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.proxy", description=__doc__)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--every", metavar="MIN-MAX", help="milliseconds between faults")
    parser.add_argument("--faults", default="cut=1", metavar="NAME=WEIGHT,…", help=", ".join(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stream-bytes", type=float, default=float("inf"), metavar="N")
    parser.add_argument("--stream-seconds", type=float, default=float("inf"), metavar="S")
    given = parser.parse_args(arguments)
    host, _, port = given.to.rpartition(":")
    faults = []
    for each in given.faults.split(","):
        name, _, weight = each.partition("=")
        if name not in FAULTS:
            parser.error(f"no such fault: {name}")
        faults.append((name, float(weight or 1)))
    every = None
    if given.every is not None:
        least, _, most = given.every.partition("-")
        every = (float(least) / 1000, float(most or least) / 1000)
    limits = (given.stream_bytes, given.stream_seconds)
    return Options((host, int(port)), every, tuple(faults), given.seed, *limits)


async def _serve(options: Options) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with Proxy(options) as proxy:
        print(f"listening on {proxy.address}", flush=True)
        orders = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)

        async def obey() -> None:
            while line := await orders.readline():
                order = line.decode().strip()
                if order == "statistics":
                    print(json.dumps(proxy.statistics()), flush=True)
                else:
                    print(order, proxy.inflict_on_all(order), flush=True)

        obeying = asyncio.create_task(obey())
        stopping = asyncio.create_task(stop.wait())
        # Without its orders it has no owner any more: it must not outlive a test run that was killed.
        await asyncio.wait((obeying, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (obeying, stopping):
            task.cancel()
        print(json.dumps(proxy.statistics()), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(options()))
