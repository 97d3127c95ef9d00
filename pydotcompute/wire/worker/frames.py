"""The frames between a kernel and its worker.

A frame is its length in four bytes, its kind in one, and its content. Messages travel as columns: those of a `Batch` of
Exchange, and beside it columns of numbers. Everything that is rare is a `Note`, which is JSON, or a `Letter`, which
is a note with a message.

Both sides run the same version of this package, so there are no versions here. But a worker may be broken by the code
that it runs, so whatever comes from it is checked.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from pydotcompute.exceptions import MessageError, PyDotComputeError
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.batches import Columns, Packed, fill, read
from pydotcompute.wire.exchange.bodies import Body, Opens
from pydotcompute.wire.exchange.flow import ProtocolError

__all__ = ["Frame", "Handed", "Letter", "LinkError", "Note", "Reader", "Recall", "Report", "Returned", "packed"]

LONGEST = (1 << 32) - 1
"""The most bytes of a frame."""
MOST_TYPES = 255
"""The most message classes that a worker may use on one link."""

_HEAD = struct.Struct("<IB")
_MALFORMED = struct.error, DecodeError, MessageError, ProtocolError


class LinkError(PyDotComputeError):
    """The other side of the link broke its rules."""


@dataclass(frozen=True)
class Handed:
    """To the worker: messages for its actor."""

    sequences: Sequence[int]
    """The number of each message on this link. It only grows."""
    messages: Sequence[Packed] | Columns
    """The messages: as `Packed` where they are sent, as `Columns` where they were received."""
    slots: Sequence[int]
    """For each message, the byte of the marks that says whether the actor has taken it."""
    arrivals: Sequence[int]
    """When each message arrived in the mailbox, in nanoseconds of `time.perf_counter_ns()`."""
    deadlines: Sequence[float]
    """When each message is overdue, by `time.monotonic()`; infinity for never."""
    awaited: Sequence[int]
    """Who waits for a reply to each message: 0 nobody, 1 a sender, 2 somebody who has asked."""
    principals: Sequence[str | None]
    """The name of who has sent each message; None if nobody knows."""


@dataclass(frozen=True)
class Recall:
    """To the worker: give back those of these messages that the actor has not taken."""

    sequences: Sequence[int]


@dataclass(frozen=True)
class Returned:
    """From the worker: messages that the actor has not taken and will not get."""

    sequences: Sequence[int]


@dataclass(frozen=True)
class Report:
    """From the worker: what has happened since the last report, and what the actor has sent."""

    taken: Sequence[int] = ()
    """The messages that the actor was handed, by sequence."""
    expired: Sequence[int] = ()
    """Those of them that were overdue: the actor did not get them."""
    done: Sequence[int] = ()
    """The messages that the actor is done with."""
    batches: Sequence[int] = ()
    """The sizes of the batches that the actor was handed."""
    answers: Sequence[int] = ()
    """For each message sent, the `message_id.int` of the request that it answers, or 0 for an output."""
    messages: Sequence[Packed] | Columns = ()


@dataclass(frozen=True)
class Note:
    """To either side: anything else."""

    what: str
    """What the note is about. It says which values there are."""
    values: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Letter:
    """To either side: a note about a message, whose body may be long."""

    what: str
    values: dict[str, Any] = field(default_factory=dict)
    messages: Sequence[Packed] | Columns = ()
    """The message; nothing if there is none."""


Frame: TypeAlias = Handed | Recall | Returned | Report | Note | Letter

HANDED, RECALL, RETURNED, REPORT, NOTE, LETTER = range(6)


def packed(body: bytes | Body, message_id: int, priority: int, correlation_id: int | None, type_index: int) -> Packed:
    """Return a message as a frame takes it."""
    return body, message_id, priority, correlation_id, type_index, False, None, None


def to_bytes(frame: Frame) -> bytes:
    """Return a frame as bytes. Raises LinkError if it would be longer than a frame may be."""
    match frame:
        case Handed():
            kind = HANDED
            content = b"".join((
                struct.pack("<I", len(frame.sequences)),
                array("Q", frame.sequences).tobytes(),
                array("I", frame.slots).tobytes(),
                array("q", frame.arrivals).tobytes(),
                array("d", frame.deadlines).tobytes(),
                bytes(frame.awaited),
                _names(frame.principals),
                _batch(frame.messages),
            ))  # fmt: skip
        case Report():
            kind = REPORT
            columns = (frame.taken, frame.expired, frame.done, frame.batches)
            content = b"".join((
                struct.pack("<5I", *map(len, columns), len(frame.answers)),
                *(array("Q", column).tobytes() for column in columns),
                b"".join([key.to_bytes(16) for key in frame.answers]),
                _batch(frame.messages) if frame.messages else b"",
            ))  # fmt: skip
        case Recall() | Returned():
            kind = RECALL if isinstance(frame, Recall) else RETURNED
            content = array("Q", frame.sequences).tobytes()
        case Note():
            kind = NOTE
            content = b"".join((_head(frame), frame.body))
        case Letter():
            kind = LETTER
            content = b"".join((_head(frame), _batch(frame.messages) if frame.messages else b""))
    if len(content) > LONGEST:
        raise LinkError(f"a frame has at most {LONGEST} bytes, and this one has {len(content)}")
    return _HEAD.pack(len(content), kind) + content


def _head(frame: Note | Letter) -> bytes:
    head = json.dumps([frame.what, frame.values]).encode()
    return struct.pack("<I", len(head)) + head


def _names(names: Sequence[str | None]) -> bytes:
    """Return a column of names: those that occur, once each, and then the place of each among them."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    table = json.dumps(list(places)).encode()
    return b"".join((struct.pack("<I", len(table)), table, array("I", [places[name] for name in names]).tobytes()))


def _batch(messages: Any) -> bytes:
    batch = pb.Batch()
    fill(batch, 1, messages)
    return batch.SerializeToString()


class Reader:
    """Makes frames of bytes, in whatever pieces they come."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.bodies: Opens | None = None
        """Opens the bodies that do not travel in their frames; None if all do."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes, and yield the frames that are complete.

        Raises:
            LinkError: the bytes are no frame of this link.
        """
        self._data += data
        start = 0
        try:
            while len(self._data) - start >= _HEAD.size:
                length, kind = _HEAD.unpack_from(self._data, start)
                end = start + _HEAD.size + length
                if len(self._data) < end:
                    break
                content = bytes(memoryview(self._data)[start + _HEAD.size : end])
                start = end
                yield _frame(kind, content, self.bodies)
        finally:
            del self._data[:start]


def _frame(kind: int, content: bytes, bodies: Opens | None) -> Frame:
    try:
        match kind:
            case 0:
                return _handed(content, bodies)
            case 1:
                return Recall(_numbers("Q", content))
            case 2:
                return Returned(_numbers("Q", content))
            case 3:
                return _report(content, bodies)
            case 4:
                return Note(*_note(content))
            case 5:
                what, values, rest = _note(content)
                return Letter(what, values, _columns(rest, 1, bodies) if rest else ())
    except (
        struct.error,
        ValueError,
        DecodeError,
        TypeError,
        RecursionError,
        LookupError,
        MessageError,
        ProtocolError,
    ) as error:
        raise LinkError(f"a frame of kind {kind} is malformed: {error}") from error
    raise LinkError(f"there are no frames of kind {kind}")


def _handed(content: bytes, bodies: Opens | None) -> Handed:
    cut = _Cut(content)
    (count,) = cut.unpack("<I")
    sequences = cut.column("Q", count)
    slots, arrivals, deadlines = cut.column("I", count), cut.column("q", count), cut.column("d", count)
    awaited = cut.take(count)
    (length,) = cut.unpack("<I")
    table = json.loads(cut.take(length))
    principals = [table[place] for place in cut.column("I", count)]
    return Handed(sequences, _columns(cut.rest(), count, bodies), slots, arrivals, deadlines, awaited, principals)


def _report(content: bytes, bodies: Opens | None) -> Report:
    cut = _Cut(content)
    *counts, sent = cut.unpack("<5I")
    taken, expired, done, batches = (cut.column("Q", count) for count in counts)
    ids = cut.take(16 * sent)
    answers = [int.from_bytes(ids[start : start + 16]) for start in range(0, 16 * sent, 16)]
    rest = cut.rest()
    if not sent and rest:
        raise ValueError("it has messages and does not say what they answer")
    return Report(taken, expired, done, batches, answers, _columns(rest, sent, bodies) if sent else ())


def _note(content: bytes) -> tuple[str, dict[str, Any], bytes]:
    cut = _Cut(content)
    (length,) = cut.unpack("<I")
    what, values = json.loads(cut.take(length))
    if not isinstance(what, str) or not isinstance(values, dict):
        raise ValueError("a note is a text and its values")
    return what, values, cut.rest()


def _columns(data: bytes, count: int, bodies: Opens | None) -> Columns:
    columns = read(pb.Batch.FromString(data), MOST_TYPES, bodies)
    if len(columns.bodies) != count:
        raise ValueError(f"{len(columns.bodies)} messages instead of {count}")
    return columns


def _numbers(code: str, data: bytes) -> array[Any]:
    numbers: array[Any] = array(code)
    numbers.frombytes(data)
    return numbers


class _Cut:
    """Cuts the content of a frame into its columns."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, length: int) -> bytes:
        taken = self._content[self._at : self._at + length]
        if len(taken) != length:
            raise ValueError("it is too short")
        self._at += length
        return taken

    def unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def column(self, code: str, count: int) -> array[Any]:
        return _numbers(code, self.take(count * array(code).itemsize))

    def rest(self) -> bytes:
        return self._content[self._at :]
