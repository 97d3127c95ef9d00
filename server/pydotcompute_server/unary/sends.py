"""The ids of messages that one kernel was sent lately, so that no message is put into its mailbox twice."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from time import monotonic
from typing import TypeAlias

from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute_server.bounds.shares import Owner, SharedTable
from pydotcompute_server.limits import Limits

__all__ = ["Key", "Sends", "digest_of"]

Key: TypeAlias = tuple[str, int]


def digest_of(request: pb.SendRequest) -> bytes:
    """Return a digest of 16 bytes, which is equal for requests with the same message and the same client."""
    digest = blake2b(request.client_id.encode(), digest_size=16)
    digest.update(b"\xff")  # This byte is in no UTF-8 text, so it separates the client_id from the message.
    digest.update(request.message.SerializeToString(deterministic=True))
    return digest.digest()


class Sends:
    """The ids of messages that are on their way into a mailbox, or were put into it lately.

    A key is the principal that sends the message, and its `message_id.int`. A digest is that of `digest_of`.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._waiting: dict[Key, tuple[bytes, Signal]] = {}
        # In the order of their times.
        self._taken: SharedTable[Key, tuple[bytes, float]] = SharedTable(limits.sent_ids)

    def was_taken(self, key: Key, digest: bytes, message_type: str) -> bool:
        """Return True if the mailbox has taken this message.

        Raises:
            MessageDeserializationError: the mailbox has taken, or is about to take, another message with this id.
        """
        oldest = self._clock() - self._limits.sent_ids_time
        while (first := self._taken.oldest()) is not None and first[1][1] < oldest:
            self._taken.pop(first[0])
        earlier = self._taken.get(key) or self._waiting.get(key)
        if earlier is not None and earlier[0] != digest:
            problem = "another message was sent with this id"
            raise MessageDeserializationError(message_type, problem, "$.message_id")
        return key in self._taken

    def is_waiting(self, key: Key) -> Signal | None:
        """Return a signal that is notified when the call that puts this message ends; None if no call puts it."""
        waiting = self._waiting.get(key)
        return None if waiting is None else waiting[1]

    def begin(self, key: Key, digest: bytes) -> None:
        """Note that a call is about to put this message."""
        self._waiting[key] = digest, Signal()

    def end(self, key: Key, owner: Owner, *, taken: bool) -> None:
        """Note that the call of this owner has put this message (`taken`), or has failed to."""
        digest, settled = self._waiting.pop(key)
        if taken:
            self._taken.put(key, (digest, self._clock()), owner)
        settled.notify_all()
