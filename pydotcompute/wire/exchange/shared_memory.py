"""Memory that a daemon and a client of the same host share, so that long bodies need not go through a connection.

There are two segments for each session, one for each direction. The daemon makes both, without a name in any file
system. So the segments are gone when the processes end, however they end. The client opens the segments through the
daemon's open files in `/proc`. The system allows this only to a process of the same user in the same container. The
size of a segment is sealed, so that no access can fail.

In a segment, the side that sends lays out blocks. A block is a head and a body. The first byte of the head says if the
block is in use. The sender sets this byte. The receiver clears it when no array or view looks at the body any more.

The daemon *settles* a segment at the client's first frame: it records if the client has opened the segment, and closes
its file, so that nobody can open the segment later.
"""

from __future__ import annotations

import bisect
import mmap
import os
import secrets
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Self, TypeVar

import numpy

from pydotcompute.exceptions import BackendUnavailableError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.flow import ProtocolError

if sys.platform == "linux":
    from fcntl import F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl

__all__ = ["LONGEST_IN_FRAME", "Block", "Reader", "Segment", "SharedMemory", "Writer", "require"]

LONGEST_IN_FRAME = 64 << 10
"""The longest body, in bytes, that goes in a frame although there is shared memory."""

_NAME = "pydotcompute"
_KEY_BYTES = 32
_ATTACHED = _KEY_BYTES
"""The place of the byte, after the key, that the client sets when it has opened the segment."""
_FIRST = mmap.PAGESIZE
"""The place where the first block begins, in bytes from the start of the segment."""
_HEAD_BYTES = _ALIGNMENT = 64
_FREE, _IN_USE = 0, 1
_FEW = 64
"""The number of blocks up to which all blocks are looked through for each new body."""
_FULL_SECONDS = 0.01
"""Seconds for which a segment with more than `_FEW` blocks counts as full after no room was found."""

T = TypeVar("T")


def require() -> None:
    """Raise BackendUnavailableError if this system cannot share memory in this way."""
    if sys.platform != "linux":
        raise _unavailable(f"it needs Linux, this is {sys.platform}")


class Segment:
    """A piece of memory that two processes share, for the bodies of one direction."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.memory = _map(descriptor, size)
        self.size = size
        self.place = pb.SharedSegment()
        """The data with which the other process finds the segment. Empty if the other process has made the segment."""
        self._close_descriptor: Callable[[], object] | None = None
        self.attached = False
        """True if the other process is known to have opened the segment."""

    @classmethod
    def create(cls, size: int) -> Self:
        """Make a segment.

        Args:
            size: the bytes for blocks, including their heads.

        Raises:
            BackendUnavailableError: the system cannot share memory, or has none to give.
        """
        require()
        size += _FIRST
        try:
            descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise _unavailable(str(error)) from None
        try:
            os.ftruncate(descriptor, size)
            fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
            segment = cls(descriptor, size)
        except (OSError, OverflowError) as error:
            os.close(descriptor)
            raise _unavailable(f"a segment of {size} bytes cannot be made ({error})") from None
        key = secrets.token_bytes(_KEY_BYTES)
        segment.memory[:_KEY_BYTES] = key
        segment.place = pb.SharedSegment(process_id=os.getpid(), file_descriptor=descriptor, key=key)
        segment._close_descriptor = weakref.finalize(segment, os.close, descriptor)
        return segment

    @classmethod
    def open(cls, place: pb.SharedSegment) -> Self:
        """Open a segment that another process has made.

        Args:
            place: the `place` of the segment in the other process.

        Raises:
            BackendUnavailableError: this process cannot open the segment: it runs on another host, in another
                container, or as another user.
        """
        require()
        path = f"/proc/{place.process_id}/fd/{place.file_descriptor}"
        try:
            # If the daemon is on another host, this path may be any file of ours: look at its name before opening it.
            if not os.readlink(path).startswith(f"/memfd:{_NAME} "):
                raise FileNotFoundError
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            raise _unavailable("the daemon runs as another user, or on another host") from None
        except FileNotFoundError:
            raise _unavailable("the daemon is on another host, or in another container") from None
        except OSError as error:
            raise _unavailable(str(error)) from None
        try:
            segment = cls._look_at(descriptor)
        except OSError as error:
            raise _unavailable(str(error)) from None
        finally:
            os.close(descriptor)
        if not secrets.compare_digest(segment.memory[:_KEY_BYTES], place.key):
            raise _unavailable("the daemon is on another host, or in another container")
        segment.memory[_ATTACHED] = 1
        segment.attached = True
        return segment

    @classmethod
    def _look_at(cls, descriptor: int) -> Self:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise _unavailable(f"the daemon runs as another user, of id {status.st_uid}")
        if not fcntl(descriptor, F_GET_SEALS) & F_SEAL_SHRINK or status.st_size <= _FIRST:
            raise _unavailable("what the daemon offers is no segment of ours")
        return cls(descriptor, status.st_size)

    def settle(self) -> None:
        """Record if the other process has opened the segment. From now on it cannot be opened any more."""
        self.attached = self.memory[_ATTACHED] == 1
        self._hide()

    def _hide(self) -> None:
        if self._close_descriptor is not None:
            self._close_descriptor()
            self._close_descriptor = None

    def close(self) -> bool:
        """Give the segment back. Return False if something still looks at it, so that the memory must stay."""
        self._hide()
        try:
            self.memory.close()
        except BufferError:
            return False
        return True


def _map(descriptor: int, size: int) -> mmap.mmap:
    # Before Python 3.13, every mapping keeps a file open.
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, trackfd=False)
    return mmap.mmap(descriptor, size)


class Block:
    """A body in shared memory, on its way to the other side.

    Once a frame refers to the block, the block is `sent`, and the receiver frees its place. The place of a block that
    was never sent is freed when this object is collected.
    """

    __slots__ = ("_memory", "_process_id", "offset", "sent", "size")

    def __init__(self, memory: mmap.mmap, offset: int, size: int) -> None:
        self._memory = memory
        self._process_id = os.getpid()  # In a child process the object is a copy, which must not free the place.
        self.offset = offset
        self.size = size
        self.sent = False

    def __len__(self) -> int:
        return self.size

    def refer(self, batch: pb.Batch, index: int) -> None:
        """Write into the batch where the body is. `index` is the index of the body's message in the batch."""
        self.sent = True
        batch.shared_bodies.add(index=index, offset=self.offset, bytes=self.size)

    def __del__(self) -> None:
        if not self.sent and not self._memory.closed and os.getpid() == self._process_id:
            self._memory[self.offset - _HEAD_BYTES] = _FREE


class Writer:
    """Lays out the bodies that this side sends, in a segment."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._used: list[tuple[int, int]] = []
        """The beginning and the end of each block, in order."""
        self._gap = (_FIRST, _FIRST)
        self._full_until = 0.0

    def put(self, pieces: Iterable[Any], size: int) -> Block | None:
        """Copy a body into the segment, and return its block.

        Args:
            pieces: the pieces of the body, each bytes or an array of bytes.
            size: the length of all pieces together, in bytes.

        Returns:
            None if no gap is large enough, or the other side has not opened the segment.
        """
        memory = self._segment.memory
        if memory.closed or not self._segment.attached:
            return None
        needed = -(-(_HEAD_BYTES + size) // _ALIGNMENT) * _ALIGNMENT
        # To look through few blocks costs little, and the beginning of the segment already has its memory pages.
        if len(self._used) <= _FEW or self._gap[1] - self._gap[0] < needed:
            self._gap = self._find_gap(needed)
        begin, end = self._gap
        if end - begin < needed:
            return None
        self._gap = (begin + needed, end)
        bisect.insort(self._used, (begin, begin + needed))
        memory[begin] = _IN_USE
        at = offset = begin + _HEAD_BYTES
        for piece in pieces:
            memory[at : at + len(piece)] = piece
            at += len(piece)
        return Block(memory, offset, size)

    def _find_gap(self, needed: int) -> tuple[int, int]:
        """Return the beginning and the end of the first gap of at least this size; an empty gap if there is none.

        After a search in vain among many blocks, there is no further search for `_FULL_SECONDS`.
        """
        if len(self._used) > _FEW and monotonic() < self._full_until:
            return _FIRST, _FIRST
        memory = self._segment.memory
        self._used = [block for block in self._used if memory[block[0]] != _FREE]
        begin = _FIRST
        for start, end in (*self._used, (self._segment.size, 0)):
            if begin + needed <= start:
                return begin, start
            begin = end
        self._full_until = monotonic() + _FULL_SECONDS
        return _FIRST, _FIRST

    def place(self, body: bytes) -> bytes | Block:
        """Copy a long body into the segment, if there is room. Return its block, or else the body itself."""
        if len(body) <= LONGEST_IN_FRAME:
            return body
        return self.put([body], len(body)) or body

    def encoder(self, codec: Codec[T]) -> Callable[[T], bytes | Block]:
        """Return a function like `codec.encode_aligned` that puts a long body into the segment, if there is room."""
        gather, encode = codec.gather, codec.encode

        def encode_here(message: T) -> bytes | Block:
            return self.place(encode(message))

        def gather_here(message: T) -> bytes | Block:
            assert gather is not None
            pieces = gather(message)
            size = sum(map(len, pieces))
            if size > LONGEST_IN_FRAME and (block := self.put(pieces, size)) is not None:
                return block
            return b"".join(pieces)

        return encode_here if gather is None else gather_here

    def close(self) -> None:
        """Give the segment back."""
        self._segment.close()


class _Held(numpy.ndarray[Any, Any]):
    """The bytes of a block that something looks at.

    This is a class of its own so that arrays made from it keep this object alive, and not only the memory below it.
    """

    export: memoryview
    """A view that keeps the memory from being closed. NumPy itself does not."""


class Reader:
    """Reads the bodies that the other side has laid out in a segment."""

    def __init__(self, segment: Segment, codecs: Sequence[Codec[Any]]) -> None:
        self.size = segment.size
        self._segment = segment
        self._codecs = codecs
        self._places = _Places(segment.memory)

    def view(self, place: pb.SharedBody) -> memoryview:
        """Return a read-only view of a body.

        The place of the body is freed when the view, and all that was made of the view without a copy, is gone.

        Raises:
            ProtocolError: there is no body at this place.
        """
        memory, offset, size = self._segment.memory, place.offset, place.bytes
        if (
            offset < _FIRST + _HEAD_BYTES
            or offset % _ALIGNMENT
            or not 0 < size <= self._segment.size - offset
            or memory[offset - _HEAD_BYTES] != _IN_USE
            or offset in self._places.held
        ):
            raise ProtocolError(f"there is no body of {size} bytes at {offset} of the shared memory")
        self._places.held[offset] = offset + size
        held = _Held(size, numpy.uint8, memory, offset)
        held.setflags(write=False)
        held.export = memoryview(memory)
        weakref.finalize(held, self._places.release, offset, os.getpid()).atexit = False
        return held.data

    def body(self, place: pb.SharedBody, kind: int) -> bytes | memoryview:
        """Return a body for the codec of index `kind`.

        This is a `view` if the codec's messages have arrays that can look at the shared memory; else it is a copy.

        Raises:
            ProtocolError: there is no body at this place.
        """
        view = self.view(place)
        return bytes(view) if self._codecs[kind].gather is None else view

    def close(self) -> None:
        """Give the segment back. A body at which something still looks is given back when nothing does any more."""
        if not self._segment.close():
            self._places.give_back_all_but_held(self.size)


class SharedMemory:
    """The two segments of a session, one for each direction, at one of its ends."""

    def __init__(self, to_read: Segment, to_write: Segment, codecs: Sequence[Codec[Any]]) -> None:
        """Join two segments.

        Args:
            to_read: the segment with the bodies that this side receives.
            to_write: the segment with the bodies that this side sends.
            codecs: the codecs of the message types that this side receives.
        """
        self._segments = to_read, to_write
        self.reader = Reader(to_read, codecs)
        self.writer = Writer(to_write)

    @classmethod
    def create(cls, size: int, codecs: Sequence[Codec[Any]]) -> Self:
        """Make the daemon's end.

        Args:
            size: the bytes of each of the two segments.
            codecs: the codecs of the message types that this side receives.

        Raises:
            BackendUnavailableError: the system cannot share memory, or has none to give.
        """
        requests = Segment.create(size)
        try:
            return cls(requests, Segment.create(size), codecs)
        except BaseException:
            requests.close()
            raise

    @classmethod
    def open(cls, opened: pb.Opened, codecs: Sequence[Codec[Any]]) -> Self:
        """Open the client's end.

        Args:
            opened: the daemon's first frame, with the places of the two segments.
            codecs: the codecs of the message types that this side receives.

        Raises:
            BackendUnavailableError: the daemon offers no shared memory, or this process cannot open it.
        """
        if not opened.HasField("shared_memory"):
            raise _unavailable("the daemon does not share any; it would with --shared-memory-bytes")
        requests = Segment.open(opened.shared_memory.requests)
        return cls(Segment.open(opened.shared_memory.replies), requests, codecs)

    @property
    def offer(self) -> pb.SharedMemory:
        """The places of both segments, for the client. Only the daemon's end has them."""
        requests, replies = self._segments
        return pb.SharedMemory(requests=requests.place, replies=replies.place)

    def settle(self) -> None:
        """Record if the client has opened the memory. From now on the memory cannot be opened any more."""
        for segment in self._segments:
            segment.settle()

    def close(self) -> None:
        """Give the memory back, except for bodies at which something still looks."""
        self.reader.close()
        self.writer.close()


class _Places:
    """The places of the bodies at which something looks. This object outlives the reader."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.held: dict[int, int] = {}
        """The end of each such body, by its beginning."""
        self._memory = memory
        self._over = False

    def release(self, offset: int, process_id: int) -> None:
        """Free the place of a body at which nothing looks any more."""
        if os.getpid() != process_id:  # A child process has only a copy of the object, which must not free the place.
            return
        end = self.held.pop(offset)
        self._memory[offset - _HEAD_BYTES] = _FREE
        if self._over:
            _give_back(self._memory, offset - _HEAD_BYTES, end)

    def give_back_all_but_held(self, size: int) -> None:
        """End the session: give back the whole segment of `size` bytes, except for the bodies in `held`."""
        self._over = True
        begin = 0
        for offset, end in sorted(self.held.items()):
            _give_back(self._memory, begin, offset - _HEAD_BYTES)
            begin = end
        _give_back(self._memory, begin, size)


def _give_back(memory: mmap.mmap, begin: int, end: int) -> None:
    """Give the whole memory pages between these places back to the system."""
    begin = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    if (size := end // mmap.PAGESIZE * mmap.PAGESIZE - begin) > 0:
        memory.madvise(mmap.MADV_REMOVE, begin, size)


def _unavailable(problem: str) -> BackendUnavailableError:
    return BackendUnavailableError("shared memory", problem)
