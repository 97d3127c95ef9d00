"""One end of the link between a kernel and its worker, on an event loop."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
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
        self._sender: _Sender
        self._closed = asyncio.Event()

    @classmethod
    async def open(
        cls, end: socket.socket, on_frame: Callable[[Frame], None], on_end: Callable[[LinkError | None], None]
    ) -> Link:
        """Return a link over this end of a socket pair, which the link then owns."""
        link = cls(on_frame, on_end)
        sender = link._sender = _Sender(end)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=end)
        except BaseException:
            sender.abort()
            raise
        return link

    def send(self, frame: Frame) -> None:
        """Send a frame. If the other side is gone, nothing happens: `on_end` is, or was, called."""
        if self._transport is not None:
            self._sender.send(to_bytes(frame))

    def open_bodies_with(self, bodies: Opens) -> None:
        """Open bodies by this that do not travel in their frames."""
        self._reader.bodies = bodies

    def finish(self) -> None:
        """Send nothing more, and go on receiving until the other side closes the link.

        If a socket is closed while something is unread in it, the other side may lose what it has not read yet.
        """
        self._sender.finish()

    def close(self) -> None:
        """Close the link once everything is out."""
        if self._transport is not None:
            self._transport.close()
        self._sender.close()

    async def wait_closed(self) -> None:
        """Wait until no more frames come."""
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
        if self._broken is None:
            self._sender.close()
        else:
            self._sender.abort()
        self._closed.set()
        self._on_end(self._broken)


class _Sender:
    """Sends bytes over a socket from which somebody else reads.

    A transport of the event loop that can send no more reads no more either. But what a process has sent before its end
    must be read, also if something was sent to it after its end.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end.dup()  # The event loop knows it apart from the one from which it reads.
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[memoryview] = deque()  # What the socket has had no room for.
        self._is_ending = self._is_closing = False

    def send(self, data: bytes) -> None:
        """Send bytes, at once if there is room."""
        if self._is_ending:
            return
        if self._waiting:
            self._waiting.append(memoryview(data))
        elif (rest := self._sent(memoryview(data))) is not None:
            self._waiting.append(rest)
            self._loop.add_writer(self._socket.fileno(), self._has_room)

    def _sent(self, data: memoryview) -> memoryview | None:
        """Send as much as there is room for. Return the rest; None if there is none, or nobody to send it to."""
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return data
        except OSError:  # The other side is gone.
            self.abort()
            return None
        return None if sent == len(data) else data[sent:]

    def _has_room(self) -> None:
        while self._waiting:
            rest = self._sent(self._waiting[0])
            if not self._waiting:  # Aborted.
                return
            if rest is not None:
                self._waiting[0] = rest
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._socket.fileno())
        self._end()

    def finish(self) -> None:
        """Tell the other side that nothing more comes, once everything is out."""
        self._is_ending = True
        self._end()

    def close(self) -> None:
        """Close the socket once everything is out."""
        self._is_ending = self._is_closing = True
        self._end()

    def _end(self) -> None:
        if self._waiting or not self._is_ending or self._socket.fileno() < 0:
            return
        if self._is_closing:
            self._socket.close()
        else:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close the socket at once."""
        if self._waiting:
            self._loop.remove_writer(self._socket.fileno())
            self._waiting.clear()
        self._is_ending = self._is_closing = True
        self._socket.close()
