"""A TCP connection through which a client reaches a daemon, and that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

__all__ = ["Forwarder"]


class Forwarder:
    """Listens on a port of its own, and forwards what comes to the daemon; `async with Forwarder(target) as way:`."""

    def __init__(self, target: str) -> None:
        self.target = target
        """The daemon; another one for the connections to come, if it is changed."""
        self.is_open = True
        """Whether a new connection gets through; it is closed at once otherwise."""
        self.connections = 0
        """How many have got through."""
        self.refused = 0
        """How many have not."""
        self.bytes = 0
        """How many bytes have passed, there and back."""
        self.answers = asyncio.Event()
        """While it is not set, what the daemon sends is held back."""
        self.answers.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        """Where a client connects to."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        self.close()
        self.answers.set()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Close all connections, with what is on its way in them."""
        for writer in self._writers:
            writer.transport.abort()

    def close(self) -> None:
        """Cut, and let nobody connect until `is_open`."""
        self.is_open = False
        self.cut()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        host, _, port = self.target.rpartition(":")
        self._writers.add(writer)
        try:
            if not self.is_open:
                raise ConnectionRefusedError
            to_reader, to_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            self.refused += 1
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self.connections += 1
        self._writers.add(to_writer)
        if writer.transport.is_closing():  # It was cut meanwhile.
            to_writer.transport.abort()
        await asyncio.gather(self._forward(reader, to_writer), self._forward(to_reader, writer, self.answers))
        self._writers -= {writer, to_writer}

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event | None = None
    ) -> None:
        """Until either end is closed; then the other is, too."""
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                self.bytes += len(data)
                if passing is not None:
                    await passing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
