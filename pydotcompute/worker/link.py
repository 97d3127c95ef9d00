"""One end of the link between a kernel and its worker, on an event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from pydotcompute.wire.exchange.bodies import Opens
from pydotcompute.wire.worker.frames import Frame, LinkError, Reader, to_bytes

__all__ = ["Link"]


class Link(asyncio.Protocol):
    """Sends and receives frames. Make it with `open`.

    Args:
        on_frame: called with each frame that comes. If it raises LinkError, the link is closed.
        on_end: called once when no more frames come, with the reason if the other side broke the rules.
    """

    def __init__(self, on_frame: Callable[[Frame], None], on_end: Callable[[LinkError | None], None]) -> None:
        self._on_frame, self._on_end = on_frame, on_end
        self._reader = Reader()
        self._broken: LinkError | None = None
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()

    @classmethod
    async def open(
        cls, end: socket.socket, on_frame: Callable[[Frame], None], on_end: Callable[[LinkError | None], None]
    ) -> Link:
        """Return a link over this end of a socket pair, which the link then owns."""
        _, link = await asyncio.get_running_loop().create_unix_connection(lambda: cls(on_frame, on_end), sock=end)
        return link

    def send(self, frame: Frame) -> None:
        """Send a frame. If the other side is gone, nothing happens: `on_end` is, or was, called."""
        if self._transport is not None:
            self._transport.write(to_bytes(frame))

    def open_bodies_with(self, bodies: Opens) -> None:
        """Open bodies by this that do not travel in their frames."""
        self._reader.bodies = bodies

    def finish(self) -> None:
        """Send nothing more, and go on receiving until the other side closes the link.

        If a socket is closed while something is unread in it, the other side may lose what it has not read yet.
        """
        if self._transport is not None:
            self._transport.write_eof()

    def close(self) -> None:
        """Close the link once everything is out."""
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self) -> None:
        """Wait until the link is closed, and everything is out."""
        await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._broken is not None:
            return
        try:
            for frame in self._reader.feed(data):
                self._on_frame(frame)
        except LinkError as error:
            self._broken = error
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        self._closed.set()
        self._on_end(self._broken)
