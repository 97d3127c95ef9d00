"""The other kernels, as an actor in a worker sees them: it forwards to them and asks them over the link."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

from pydotcompute.device.lease import HOST, DeviceLease
from pydotcompute.exceptions import MessageDeserializationError, PyDotComputeError
from pydotcompute.protobuf.runtime_helpers import text_of
from pydotcompute.ring_kernels.actor.asking import Asker
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.mail import Mail
from pydotcompute.wire.exchange.batches import Columns
from pydotcompute.wire.worker.errors import from_values
from pydotcompute.wire.worker.frames import Letter
from pydotcompute.wire.worker.types import LinkTypes
from pydotcompute.worker.outbox import Outbox

__all__ = ["Others"]


class Others:
    """The other kernels.

    Args:
        outbox: takes what goes to the other end of the link.
        types: the message classes of the link.
    """

    def __init__(self, outbox: Outbox, types: LinkTypes) -> None:
        self._outbox, self._types = outbox, types
        self._calls: dict[int, asyncio.Future[Any]] = {}  # The calls that are not answered yet.
        self._numbers = count(1)

    def find(self, kernel_id: str) -> Other:
        """Return the kernel of this id. Whether there is one is known at the other end of the link."""
        return Other(kernel_id, self)

    async def call(self, what: str, message: Any, item: Item[Any] | None, values: dict[str, Any]) -> Any:
        """Send a call about a message to the other end of the link, and return what it answers.

        Args:
            what: what is to be done with the message, "forward" or "ask".
            message: the message.
            item: the item of the request that the call is about, if it is in the actor's hands.
            values: says more.

        Raises:
            PyDotComputeError: what went wrong.
        """
        number = next(self._numbers)
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        arrival: Any = None if item is None else item[1]
        about = {"call": number, "sequence": None if arrival is None else arrival.sequence}
        try:
            self._outbox.tell_message(what, message, about | values)
            return await answer
        except asyncio.CancelledError:
            self._outbox.tell("never mind", {"call": number})
            raise
        finally:
            del self._calls[number]

    def answered(self, letter: Letter) -> None:
        """Take the answer to a call: an error, a message, or nothing."""
        values, columns = letter.values, letter.messages
        answer = self._calls.get(values["call"])
        if answer is None or answer.done():
            return
        try:
            if values["error"] is not None:
                raise from_values(values["error"])
            answer.set_result(self._message(values["type"], columns) if isinstance(columns, Columns) else None)
        except PyDotComputeError as error:
            answer.set_exception(error)

    def _message(self, name: str, columns: Columns) -> Any:
        codec = self._types.named(name)
        ((body, message_id, priority, correlation_id, _),) = zip(*columns, strict=True)
        try:
            return codec.decode_checked(body, message_id, priority, correlation_id)
        except PyDotComputeError:
            raise
        except Exception as error:  # The class may have a constructor of its own.
            raise MessageDeserializationError(name, text_of(error)) from error


class Other:
    """A kernel that an actor in a worker forwards to, or asks."""

    lease: DeviceLease = HOST

    def __init__(self, kernel_id: str, others: Others) -> None:
        self.kernel_id = kernel_id
        self._others = others

    async def take_forwarded(self, mail: Mail[Any, Any], message: Any, key: int, item: Item[Any] | None) -> None:
        """See `Receiver`."""
        await self._others.call("forward", message, item, {"kernel_id": self.kernel_id, "key": key})

    async def answer(self, asker: Asker, message: Any, timeout: float | None) -> Any:
        """See `Receiver`."""
        values = {"kernel_id": self.kernel_id, "key": asker.about, "holds": asker.holds, "timeout": timeout}
        return await self._others.call("ask", message, asker.item, values)
