"""The launches of late, so that a request that comes again launches nothing and is answered as it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import blake2b
from time import monotonic
from typing import NamedTuple

from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.schema.names import shortened
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute_server.bounds.shares import Owner, SharedTable
from pydotcompute_server.limits import Limits

__all__ = ["Launches"]


_Key = tuple[str, str]


class _Answered(NamedTuple):
    digest: bytes
    response: pb.LaunchResponse
    time: float


class Launches:
    """The requests to launch that are being worked on, or were answered lately, by their principal and `request_id`.

    A request that failed is forgotten, because nothing was launched: if it comes again, it is tried again.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._waiting: dict[_Key, tuple[bytes, Signal]] = {}
        # In the order of their times.
        self._answered: SharedTable[_Key, _Answered] = SharedTable(limits.launches_kept)

    async def once(
        self, request: pb.LaunchRequest, owner: Owner, launch: Callable[[], Awaitable[pb.LaunchResponse]]
    ) -> pb.LaunchResponse:
        """Return the answer to a request: that of `launch`, or the one that the request had before.

        If the same request is being worked on, this waits until that has ended.

        Raises:
            MessageDeserializationError: the `request_id` is not a UUID, or another request had the same.
        """
        request_id = request.request_id.lower()
        if not request_id:
            return await launch()
        if not _is_uuid(request_id):
            raise _wrong(f"not a UUID: {shortened(request.request_id)!r}")
        digest = blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()
        key = owner.principal, request_id
        self._forget_old()
        while (earlier := self._answered.get(key)) is None:
            if (waiting := self._waiting.get(key)) is None:
                return await self._first(key, digest, owner, launch)
            if waiting[0] != digest:
                raise _wrong("another launch has this id")
            await waiting[1].wait()
        if earlier.digest != digest:
            raise _wrong("another launch had this id")
        return earlier.response

    async def _first(
        self, key: _Key, digest: bytes, owner: Owner, launch: Callable[[], Awaitable[pb.LaunchResponse]]
    ) -> pb.LaunchResponse:
        settled = Signal()
        self._waiting[key] = digest, settled
        try:
            response = await launch()
            self._answered.put(key, _Answered(digest, response, self._clock()), owner)
            return response
        finally:
            del self._waiting[key]
            settled.notify_all()

    def _forget_old(self) -> None:
        oldest = self._clock() - self._limits.launches_kept_time
        while (first := self._answered.oldest()) is not None and first[1].time < oldest:
            self._answered.pop(first[0])


def _is_uuid(text: str) -> bool:
    parts = text.split("-")
    return [*map(len, parts)] == [8, 4, 4, 4, 12] and set(text) <= set("0123456789abcdef-")


def _wrong(problem: str) -> MessageDeserializationError:
    return MessageDeserializationError("LaunchRequest", problem, "$.request_id")
