"""The door for durable kernels: where the accepted messages of a kernel are kept until they are done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from uuid import UUID

__all__ = ["Journal"]


class Journal(Protocol):
    """Keeps the messages of one kernel. Its mail calls it; a kernel without one is not durable.

    A message is *accepted* before it enters the mailbox. It is *done* when the actor has answered it, forwarded it or
    asked for the next one, when its caller has taken it back, or when it has become a dead letter.
    """

    def accept(self, messages: Sequence[Any]) -> None:
        """Keep these messages, in this order. It neither raises nor waits: they are on disk after `sync`."""

    async def sync(self) -> None:
        """Wait until every message accepted so far is on disk. `send` returns only then.

        Raises:
            PyDotComputeError: they cannot be kept. Their senders are told, who do not know then whether the kernel has
                handled them.
        """

    def done(self, message_id: UUID) -> None:
        """Forget a message. Its id may be unknown: then this does nothing."""

    def replay(self) -> Iterable[Any]:
        """Return the messages that were accepted and are not done, in the order in which they were accepted.

        Asked once, when the kernel is launched: they are in its mailbox before any other message.
        """
