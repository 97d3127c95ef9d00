"""The protocol of a journal, which keeps the accepted messages of a durable kernel until they are done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from uuid import UUID

__all__ = ["Journal"]


class Journal(Protocol):
    """Keeps the messages of one kernel. The kernel's mail calls the journal. A kernel without one is not durable.

    A message is *accepted* before it enters the mailbox. It is *done* when the actor has answered it, forwarded it or
    asked for the next one; or when the caller has taken the message back; or when it has become a dead letter.
    """

    def accept(self, messages: Sequence[Any]) -> None:
        """Keep these messages, in this order. This neither raises nor waits: the messages are on disk after `sync`."""

    async def sync(self) -> None:
        """Wait until every message accepted so far is on disk. `send` returns only then.

        Raises:
            PyDotComputeError: the messages cannot be kept. Their senders get this error; the kernel may handle the
                messages all the same.
        """

    def done(self, message_id: UUID) -> None:
        """Forget the message of this id. If the id is unknown, this does nothing."""

    def replay(self) -> Iterable[Any]:
        """Return the messages that were accepted and are not done, in the order in which they were accepted.

        Called once, when the kernel is launched. The messages enter the mailbox before any other message.
        """
