"""What a worker tells its kernel. It gathers until the event loop has its next turn, and then goes in one frame."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.wire.exchange.batches import Packed
from pydotcompute.wire.worker.errors import to_values
from pydotcompute.wire.worker.frames import Frame, Letter, Note, Report, packed
from pydotcompute.wire.worker.memory import LONG, LinkMemory
from pydotcompute.wire.worker.types import LinkTypes

__all__ = ["OUTPUT", "Outbox"]

OUTPUT = 0
"""Stands in the place of the request that a message answers, if it is an output."""
AT_ONCE = 32
"""Messages that go without waiting for the next turn of the event loop. If the process dies, no more are lost."""


class Outbox:
    """Gathers reports.

    Args:
        send: sends a frame.
        types: the message classes of the link.
    """

    def __init__(self, send: Callable[[Frame], None], types: LinkTypes) -> None:
        self._send, self._types = send, types
        self.memory = LinkMemory(types.codecs)
        """The memory that is shared with the kernel, for long bodies."""
        self.taken: list[int] = []
        self.expired: list[int] = []
        self.done: list[int] = []
        self.batches: list[int] = []
        self._answers: list[int] = []
        self._messages: list[Packed] = []
        self._is_due = False

    def soon(self) -> None:
        """Send a report in the next turn of the event loop. Call this after an addition to one of the lists."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._is_due = False
        self.flush()

    def flush(self) -> None:
        """Send what has gathered."""
        if self.taken or self.done or self._messages or self.expired or self.batches:
            report = Report(self.taken, self.expired, self.done, self.batches, self._answers, self._messages)
            self.taken, self.expired, self.done, self.batches, self._answers, self._messages = [], [], [], [], [], []
            self._send(report)

    def tell(self, what: str, values: dict[str, Any] | None = None, body: bytes = b"") -> None:
        """Send a note, after all that has gathered before."""
        self.flush()
        self._send(Note(what, values or {}, body))

    def put(self, message: Any, answers: int) -> None:
        """Send a message of the actor. One that cannot be encoded is refused: its caller gets the error.

        Args:
            message: the message.
            answers: the `message_id.int` of the request that it answers, or `OUTPUT`.
        """
        try:
            packed_message = self._pack(message)  # This may send what has gathered.
        except PyDotComputeError as error:
            self.tell("refused", {"answers": answers, "error": to_values(error)})
            return
        self._messages.append(packed_message)
        self._answers.append(answers)
        if len(self._messages) >= AT_ONCE:
            self.flush()
        else:
            self.soon()

    def _pack(self, message: Any) -> Packed:
        """Return a message as a frame takes it. Raises MessageTypeError or MessageSerializationError."""
        cls = type(message)
        index = self._types.index(cls)
        if index is None:
            index = self._types.add(cls)
            self.tell("type", {"name": self._types.codecs[index].schema.full_name}, self._types.files(index))
        body = self.memory.encode(message, index)
        if len(body) > LONG and self.memory.want():
            self.tell("long")
        correlation_id = message.correlation_id
        return packed(
            body,
            message.message_id.int,
            message.priority,
            None if correlation_id is None else correlation_id.int,
            index,
        )

    def tell_message(self, what: str, message: Any, values: dict[str, Any]) -> None:
        """Send a letter about a message. Raises MessageTypeError or MessageSerializationError."""
        letter = Letter(what, values, [self._pack(message)])
        self.flush()
        self._send(letter)
