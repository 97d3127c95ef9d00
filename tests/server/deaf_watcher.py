"""A client that watches a health, answers pings, and never has room for an answer: HTTP/2 by hand."""

import socket
import struct
import threading
from types import TracebackType
from typing import Self

SETTINGS, PING, HEADERS, DATA = 4, 6, 1, 0
INITIAL_WINDOW_SIZE = 4
ACK, END_HEADERS, END_STREAM = 1, 4, 1


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def headers(path: bytes) -> bytes:
    """A request's header block, with nothing compressed."""
    fields = [b":method", b"POST", b":scheme", b"http", b":path", path, b":authority", b"x"]
    fields += [b"te", b"trailers", b"content-type", b"application/grpc"]
    return b"".join(b"\0" * (at % 2 == 0) + bytes([len(field)]) + field for at, field in enumerate(fields))


class DeafWatcher:
    """Calls `Watch` for several services over one connection, whose windows are and stay 0."""

    def __init__(self, target: str, *services: str) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self.has_headers = threading.Event()
        """Set once the daemon has answered each call with its headers: then the calls run, and their data wait."""
        self._answered = 0
        self._calls = len(services)
        calls = b""
        for number, service in enumerate(services):
            stream = 2 * number + 1
            request = b"\x0a" + bytes([len(service)]) + service.encode()
            calls += frame(HEADERS, END_HEADERS, stream, headers(b"/grpc.health.v1.Health/Watch"))
            calls += frame(DATA, END_STREAM, stream, b"\0" + struct.pack(">I", len(request)) + request)
        settings = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + calls)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        data = b""
        while more := self._receive():
            data += more
            while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3], "big")):
                kind, flags, body, data = data[3], data[4], data[9 : 9 + size], data[9 + size :]
                assert kind != DATA or not body, "there was no room for data"
                if kind in (SETTINGS, PING) and not flags & ACK:
                    self._socket.sendall(frame(kind, ACK, 0, body if kind == PING else b""))
                if kind == HEADERS:
                    self._answered += 1
                    if self._answered == self._calls:
                        self.has_headers.set()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._thread.join()
