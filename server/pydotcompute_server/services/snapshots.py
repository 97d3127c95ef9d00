"""Snapshots of kernels' counters. One snapshot serves all who watch the same kernels at the same interval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from itertools import islice
from time import monotonic, thread_time
from weakref import WeakValueDictionary

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.ring_kernels.places import Places
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import telemetry_service_pb2 as pb
from pydotcompute.wire.kernels import telemetry_to_proto
from pydotcompute_server.limits import Limits
from pydotcompute_server.visible import Visible

__all__ = ["Snapshots"]

PORTION = 16
"""How many kernels a portion of a snapshot has at most."""
WORK = 0.001
"""After this many seconds of work on snapshots the daemon does other things."""
REST = 3
"""For how many times as long it does other things. So snapshots take at most a quarter of its time."""


class _Feed:
    """The snapshots of some kernels at one interval."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.number = 0
        self.made_at = 0.0
        self.newest = b""


class Snapshots:
    """Makes snapshots in portions, so that other calls have their turn in between.

    Args:
        watchers: the places of those who watch. The more are taken, the less often each gets a snapshot.
    """

    def __init__(self, runtime: RingKernelRuntime, visible: Visible, watchers: Places, limits: Limits) -> None:
        self._runtime = runtime
        self._visible = visible
        self._watchers = watchers
        self._shortest = limits.shortest_watch_interval
        self._most_per_second = limits.snapshots_per_second
        self._working = asyncio.Lock()
        self._worked = 0.0  # Seconds, since the last rest.
        self._feeds: WeakValueDictionary[tuple[float, tuple[str, ...], Hashable], _Feed] = WeakValueDictionary()

    async def make(self, kernel_ids: Sequence[str]) -> bytes:
        """Return a snapshot of these kernels, or of all if none is named, as an encoded response.

        `GetTelemetryResponse` and `WatchTelemetryResponse` have the same fields, so it is either of them.

        Raises:
            KernelNotFoundError: there is no such kernel.
        """
        left = iter(dict.fromkeys(kernel_ids) or self._visible.kernel_ids())
        portions: list[bytes] = []
        while portion := list(islice(left, PORTION)):
            async with self._working:
                began = thread_time()  # Of this thread alone: it does not count what other programs do meanwhile.
                portions.append(self._encode(portion, all_kernels=not kernel_ids))
                self._worked += thread_time() - began
                if self._worked > WORK:
                    rest, self._worked = REST * self._worked, 0.0
                    await asyncio.sleep(rest)
        return b"".join(portions)

    def _encode(self, kernel_ids: Sequence[str], *, all_kernels: bool) -> bytes:
        response = pb.WatchTelemetryResponse()
        for kernel_id in kernel_ids:
            try:
                kernel = self._runtime.kernel(kernel_id)
            except PyDotComputeError:  # There is no such kernel; while the daemon ends, the error says that.
                if all_kernels:
                    continue  # It was terminated, and then forgotten, since the snapshot was begun.
                raise
            told = telemetry_to_proto(kernel.get_telemetry())
            if not self._visible.failures(kernel_id):
                told.last_error = told.last_error.partition(":")[0]
                told.last_crash = told.last_crash.partition(":")[0]
            response.kernels.append(told)
        return response.SerializeToString()

    async def watch(self, kernel_ids: Sequence[str], interval: float) -> AsyncIterator[bytes]:
        """Yield a snapshot at once, and then one every `interval` seconds, or as often as the limits allow.

        Who asks for the next too late gets the newest, and misses those between.

        Raises:
            KernelNotFoundError: there is no such kernel, or no longer.
        """
        key = max(interval, self._shortest), tuple(dict.fromkeys(kernel_ids)), self._visible.sight
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = _Feed()
        async with feed.lock:
            if monotonic() - feed.made_at > self._shortest:
                await self._renew(feed, key[1])
            seen, newest = feed.number, feed.newest
        while True:
            yield newest
            # The first that comes here makes the next snapshot; the others wait for it, and then take it in turn.
            async with feed.lock:
                if feed.number == seen:
                    pause = max(key[0], self._watchers.taken / self._most_per_second)
                    await asyncio.sleep(feed.made_at + pause - monotonic())
                    await self._renew(feed, key[1])
                seen, newest = feed.number, feed.newest

    async def _renew(self, feed: _Feed, kernel_ids: Sequence[str]) -> None:
        began = monotonic()
        feed.newest = await self.make(kernel_ids)
        feed.made_at = began
        feed.number += 1
