"""The memory that a kernel and its worker both map: what the actor has taken, if it is stuck, and a sign of life."""

from __future__ import annotations

import mmap
import os
import struct

__all__ = ["Marks"]

_SINCE, _BEAT = struct.Struct("<q"), struct.Struct("<q")
_HEAD = _SINCE.size + _BEAT.size


class Marks:
    """The marks of one worker. The worker writes them, the kernel reads them, also when the worker has died.

    Args:
        descriptor: the file that both map.
        count: the number of messages that may be marked.
    """

    def __init__(self, descriptor: int, count: int) -> None:
        self._map = mmap.mmap(descriptor, _HEAD + count)
        self.taken = memoryview(self._map)[_HEAD:]
        """A byte for each message that may be ahead, 1 once the actor has taken the message."""

    @classmethod
    def create(cls, count: int) -> tuple[Marks, int]:
        """Return new marks, and the descriptor of their file, which the caller closes."""
        descriptor = os.memfd_create("pydotcompute-marks")
        try:
            os.ftruncate(descriptor, _HEAD + count)
            return cls(descriptor, count), descriptor
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def stuck_since_ns(self) -> int:
        """Since when the actor waits in `send` for room, by `time.perf_counter_ns()`; 0 if it does not."""
        since: int = _SINCE.unpack_from(self._map)[0]
        return since

    @stuck_since_ns.setter
    def stuck_since_ns(self, since: int) -> None:
        _SINCE.pack_into(self._map, 0, since)

    @property
    def beat(self) -> int:
        """A number that the worker changes all the time, if it was told to show that it lives."""
        beat: int = _BEAT.unpack_from(self._map, _SINCE.size)[0]
        return beat

    @beat.setter
    def beat(self, beat: int) -> None:
        _BEAT.pack_into(self._map, _SINCE.size, beat)

    def close(self) -> None:
        """Unmap the memory. Nothing may use `taken` any more."""
        self.taken.release()
        self._map.close()
