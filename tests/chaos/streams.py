"""Ends HTTP/2 streams that are too long, as proxies do: after so many bytes in one direction, or so many seconds."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["StreamLimits"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9
DATA, HEADERS, RST_STREAM, WINDOW_UPDATE = 0, 1, 3, 8
INTERNAL_ERROR = 2


def frame(kind: int, stream: int, payload: bytes) -> bytes:
    """A frame without flags."""
    return len(payload).to_bytes(3) + bytes([kind, 0]) + stream.to_bytes(4) + payload


@dataclass
class Passed:
    """What goes on after some bytes have come: `on` in their direction, `back` in the other."""

    on: bytearray = field(default_factory=bytearray)
    back: bytearray = field(default_factory=bytearray)


class _Frames:
    """Cuts one direction into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def cut(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The kind, the stream and all bytes of each frame that is complete; -1 is the kind of the preface."""
        self._data += data
        if self._data.startswith(PREFACE):
            del self._data[: len(PREFACE)]
            yield -1, 0, PREFACE
        while len(self._data) >= HEAD and not PREFACE.startswith(self._data[: len(PREFACE)]):
            size = HEAD + int.from_bytes(self._data[:3])
            if len(self._data) < size:
                return
            whole = bytes(self._data[:size])
            del self._data[:size]
            yield whole[3], int.from_bytes(whole[5:HEAD]) & 0x7FFFFFFF, whole


class StreamLimits:
    """The limits of the streams of one connection. It does no I/O, and is told the time.

    Args:
        most_bytes: how many bytes may go on a stream in one direction.
        most_seconds: how long a stream may last.
        ended: counts the streams that were ended, by the reason.
    """

    def __init__(self, most_bytes: float, most_seconds: float, ended: Counter[str]) -> None:
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds
        self._from_client, self._from_daemon = _Frames(), _Frames()
        self._bytes_up: Counter[int] = Counter()
        self._bytes_down: Counter[int] = Counter()
        self._begun: dict[int, float] = {}
        self._ended: set[int] = set()
        self._ended_for = ended

    def from_client(self, data: bytes, now: float) -> Passed:
        """Let bytes of the client's pass, as far as they may."""
        passed = Passed()
        for kind, stream, whole in self._from_client.cut(data):
            if kind == HEADERS and stream not in self._ended:
                self._begun.setdefault(stream, now)
            self._pass(kind, stream, whole, passed, self._bytes_up)
        return passed

    def from_daemon(self, data: bytes) -> Passed:
        """Let bytes of the daemon's pass, as far as they may."""
        passed = Passed()
        for kind, stream, whole in self._from_daemon.cut(data):
            self._pass(kind, stream, whole, passed, self._bytes_down)
        return passed

    def expired(self, now: float) -> bytes:
        """What both sides are told because streams have lasted too long."""
        passed = Passed()
        for stream, begun in list(self._begun.items()):
            if now - begun > self._most_seconds:
                self._end(stream, "stream_seconds", passed)
        return bytes(passed.on)

    def _end(self, stream: int, why: str, passed: Passed) -> None:
        self._ended.add(stream)
        self._begun.pop(stream, None)
        self._ended_for[why] += 1
        reset = frame(RST_STREAM, stream, struct.pack(">I", INTERNAL_ERROR))
        passed.on += reset
        passed.back += reset

    def _pass(self, kind: int, stream: int, whole: bytes, passed: Passed, counted: Counter[int]) -> None:
        if kind == DATA and stream not in self._ended:
            counted[stream] += len(whole) - HEAD
            if counted[stream] > self._most_bytes:
                self._end(stream, "stream_bytes", passed)
        if kind == RST_STREAM:
            self._begun.pop(stream, None)
        if stream not in self._ended or kind not in (DATA, RST_STREAM, WINDOW_UPDATE):
            passed.on += whole  # Headers pass in any case, because both sides keep a table of them.
        elif kind == DATA and len(whole) > HEAD:  # What is dropped must not use up the window of the connection.
            passed.back += frame(WINDOW_UPDATE, 0, struct.pack(">I", len(whole) - HEAD))
