"""Memory that a daemon and a client of the same host share, so that long bodies need not go through a connection.

There are two segments a session, one for each direction. The daemon makes both, without a name in any file system: so
they are gone with the processes, however these end. The client opens them as the daemon's open files, which the system
lets only a process of the same user do, in the same container. Their size is sealed, so that no access can fail.

In a segment, the side that sends lays out blocks: a head of which the first byte says whether the block is in use, and
the body. It sets that byte; the side that receives clears it, when nothing is left there that looks at the body.
"""

from __future__ import annotations

import bisect
import mmap
import os
import secrets
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

import numpy

from pydotcompute.exceptions import BackendUnavailableError
from pydotcompute.schema.codec import Codec
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange import ProtocolError

if sys.platform == "linux":
    from fcntl import F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl

__all__ = ["LONGEST_IN_FRAME", "Block", "Reader", "Segment", "Writer", "require"]

LONGEST_IN_FRAME = 64 << 10
"""Bodies that are not longer go in frames."""

_NAME = "pydotcompute"
_KEY_BYTES = 32
_ATTACHED = _KEY_BYTES
"""The byte, after the key, that the client sets when it has the segment."""
_FIRST = mmap.PAGESIZE
"""Where the first block begins."""
_HEAD_BYTES = _ALIGNMENT = 64
_FREE, _IN_USE = 0, 1

T = TypeVar("T")


def require() -> None:
    """Raises BackendUnavailableError where memory cannot be shared so."""
    if sys.platform != "linux":
        raise _unavailable(f"it needs Linux, this is {sys.platform}")


class Segment:
    """A piece of shared memory."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.memory = mmap.mmap(descriptor, size)
        self.size = size
        self.place = pb.SharedSegment()
        """How the other process finds it, if this one has made it."""
        self._close_descriptor: Callable[[], object] | None = None

    @classmethod
    def create(cls, size: int) -> Self:
        """A segment with room for blocks of so many bytes, their heads included.

        Raises:
            BackendUnavailableError: the system has none to give.
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
        """A segment that another process has made.

        Raises:
            BackendUnavailableError: it cannot be had from here.
        """
        require()
        path = f"/proc/{place.process_id}/fd/{place.file_descriptor}"
        try:
            # Of another host this is nothing, or anything: it is not opened before it looks right.
            if not os.readlink(path).startswith(f"/memfd:{_NAME} "):
                raise FileNotFoundError
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            raise _unavailable("the daemon runs as another user, or on another host") from None
        except OSError:
            raise _unavailable("the daemon is on another host, or in another container") from None
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid():
                raise _unavailable(f"the daemon runs as another user, of id {status.st_uid}")
            if not fcntl(descriptor, F_GET_SEALS) & F_SEAL_SHRINK or status.st_size <= _FIRST:
                raise _unavailable("what the daemon offers is no segment of ours")
            segment = cls(descriptor, status.st_size)
        finally:
            os.close(descriptor)
        if not secrets.compare_digest(segment.memory[:_KEY_BYTES], place.key):
            raise _unavailable("the daemon is on another host, or in another container")
        segment.memory[_ATTACHED] = 1
        return segment

    @property
    def attached(self) -> bool:
        """Whether the other process has opened it."""
        if self._close_descriptor is not None and self.memory[_ATTACHED]:
            self._forget_descriptor()
        return self._close_descriptor is None

    def close(self) -> bool:
        """Give it back; False if something still looks at it."""
        self._forget_descriptor()
        try:
            self.memory.close()
        except BufferError:
            return False
        return True

    def _forget_descriptor(self) -> None:
        if self._close_descriptor is not None:
            self._close_descriptor()
            self._close_descriptor = None


class Block:
    """A body in shared memory, on its way to the other side. Whoever puts it into a frame says that it is `sent`; then
    its place is the receiver's to free, and else it is free when the object goes."""

    __slots__ = ("_memory", "offset", "sent", "size")

    def __init__(self, memory: mmap.mmap, offset: int, size: int) -> None:
        self._memory = memory
        self.offset = offset
        self.size = size
        self.sent = False

    def __len__(self) -> int:
        return self.size

    def __del__(self) -> None:
        if not self.sent and not self._memory.closed:
            self._memory[self.offset - _HEAD_BYTES] = _FREE


class Writer:
    """Lays out bodies in a segment."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._used: list[tuple[int, int]] = []
        """Beginning and end of the blocks, in order."""

    def put(self, pieces: Iterable[Any], size: int) -> Block | None:
        """A body of these pieces, bytes or arrays of bytes, in the first gap that is large enough; None if there is
        none, or the other side is not there.
        """
        memory = self._segment.memory
        if memory.closed or not self._segment.attached:
            return None
        needed = -(-(_HEAD_BYTES + size) // _ALIGNMENT) * _ALIGNMENT
        self._used = [block for block in self._used if memory[block[0]] != _FREE]
        begin = _FIRST
        for start, end in (*self._used, (self._segment.size, 0)):
            if begin + needed <= start:
                break
            begin = end
        else:
            return None
        bisect.insort(self._used, (begin, begin + needed))
        memory[begin] = _IN_USE
        at = offset = begin + _HEAD_BYTES
        for piece in pieces:
            memory[at : at + len(piece)] = piece
            at += len(piece)
        return Block(memory, offset, size)

    def encoder(self, codec: Codec[T]) -> Callable[[T], bytes | Block]:
        """As `codec.encode`, but a long body goes straight to its place here, if there is one."""
        gather, encode = codec.gather, codec.encode

        def encode_here(message: T) -> bytes | Block:
            body = encode(message)
            if len(body) <= LONGEST_IN_FRAME:
                return body
            return self.put([body], len(body)) or body

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
    """The bytes of a block that something looks at. (A class of its own, so that arrays made of it keep it, and not
    only the memory below it.)"""

    export: memoryview
    """Keeps the memory from being closed, which NumPy does not."""


class Reader:
    """Looks at the bodies that the other side has laid out in a segment."""

    def __init__(self, segment: Segment, codecs: Sequence[Codec[Any]]) -> None:
        self._segment = segment
        self._codecs = codecs
        self._held: dict[int, int] = {}
        """Where the bodies are that something looks at, and where they end."""

    def view(self, place: pb.SharedBody) -> memoryview:
        """A body, read-only. Its place is free when the view, and all that was made of it without a copy, is gone.

        Raises:
            ProtocolError: there is none.
        """
        memory, offset, size = self._segment.memory, place.offset, place.bytes
        if (
            offset < _FIRST + _HEAD_BYTES
            or offset % _ALIGNMENT
            or not 0 < size <= self._segment.size - offset
            or memory[offset - _HEAD_BYTES] != _IN_USE
        ):
            raise ProtocolError(f"there is no body of {size} bytes at {offset} of the shared memory")
        self._held[offset] = offset + size
        held = _Held(size, numpy.uint8, memory, offset)
        held.export = memoryview(memory)
        weakref.finalize(held, _release, memory, self._held, offset).atexit = False
        return held.data.toreadonly()

    def body(self, place: pb.SharedBody, kind: int) -> bytes | memoryview:
        """What the codec of this index can decode: a `view`, if the message has arrays that may look at it, or else a
        copy."""
        view = self.view(place)
        return bytes(view) if self._codecs[kind].gather is None else view

    def close(self) -> None:
        """Give the segment back, but for what something still looks at."""
        if self._segment.close():
            return
        begin = 0
        for start, end in (*sorted(self._held.items()), (self._segment.size, 0)):
            _give_back(self._segment.memory, begin, start)
            begin = end


def _release(memory: mmap.mmap, held: dict[int, int], offset: int) -> None:
    del held[offset]
    memory[offset - _HEAD_BYTES] = _FREE


def _give_back(memory: mmap.mmap, begin: int, end: int) -> None:
    """Give the whole pages between these places back to the system."""
    begin = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    if (size := end // mmap.PAGESIZE * mmap.PAGESIZE - begin) > 0:
        memory.madvise(mmap.MADV_REMOVE, begin, size)


def _unavailable(problem: str) -> BackendUnavailableError:
    return BackendUnavailableError("shared memory", problem)
