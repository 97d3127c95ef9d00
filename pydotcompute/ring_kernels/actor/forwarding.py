"""Requests that one kernel hands on to another, whose reply goes back the same way."""

from __future__ import annotations

import asyncio
import copy
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pydotcompute.exceptions import KernelNotFoundError, MessageError, MessageSerializationError, PyDotComputeError
from pydotcompute.messages.header import DEFAULT_PRIORITY
from pydotcompute.messages.ids import uuid_from_int
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.ring_kernels.mail.inbox import Item, Terms

if TYPE_CHECKING:
    from pydotcompute.ring_kernels.lifecycle import RingKernel

__all__ = ["find_receiver", "forward"]


def find_receiver(kernel: RingKernel[Any, Any], kernel_id: str) -> RingKernel[Any, Any]:
    """The kernel of this id, to which another may forward. Raises KernelNotFoundError."""
    if kernel.find is None:
        raise KernelNotFoundError(kernel_id, [kernel.kernel_id])
    return kernel.find(kernel_id)


async def forward(kernel: RingKernel[Any, Any], other: RingKernel[Any, Any], message: Any) -> None:
    """See `KernelContext.forward`. What is on a device in the message is ready for the other kernel."""
    key = kernel.request_of(message)
    if not kernel.replies.is_awaited(key):
        raise _refused(message, "nobody waits for a reply to it: what is forwarded is a request, or names one")
    if other.replies.is_awaited(key):
        raise _refused(
            message, f"kernel {other.kernel_id!r} waits for a reply to the same request: it goes round in a circle"
        )
    item = kernel.item_in_hand(key)
    reply = await other.hand_over(_forwarded(message, key, item), _terms(item), None)
    kernel.complete(key)
    reply.add_done_callback(partial(_relay, kernel, key))


def _refused(message: Any, problem: str) -> MessageSerializationError:
    path = "$.message_id" if message.correlation_id is None else "$.correlation_id"
    return MessageSerializationError(type(message).__name__, problem, path)


def _terms(item: Item[Any] | None) -> Terms | None:
    """The deadline of the request goes along."""
    terms = None if item is None else item[2]
    return None if terms is None or terms.deadline is None else Terms(terms.timeout, terms.deadline)


def _forwarded(message: Any, key: int, item: Item[Any] | None) -> Any:
    """The message as the other kernel gets it: the request's id is its own."""
    if message.message_id.int == key:
        return message
    forwarded = copy.copy(message)
    values: dict[str, object] = {"message_id": uuid_from_int(key), "correlation_id": None}
    if item is not None and message.priority == DEFAULT_PRIORITY:
        values["priority"] = item[0].priority
    for name, value in values.items():
        object.__setattr__(forwarded, name, value)  # Its class may be frozen.
    return forwarded


def _relay(kernel: RingKernel[Any, Any], key: int, reply: asyncio.Future[Any]) -> None:
    """The other kernel has answered, or will not."""
    message_id = uuid_from_int(key)
    error = reply.exception()
    if error is not None:
        kernel.replies.fail(message_id, cast(PyDotComputeError, error))
        return
    message = reply.result()
    try:
        kernel.check_output(message)
    except MessageError as refusal:
        kernel.bury(message, str(refusal), DeadLetterReason.UNDELIVERABLE)
        kernel.replies.fail(message_id, refusal)
        return
    if not kernel.replies.deliver(message, key):
        kernel.bury(message, "its caller is gone")
