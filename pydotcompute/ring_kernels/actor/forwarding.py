"""Forwarding: one kernel hands a request on to another, and the reply comes back the same way."""

from __future__ import annotations

import asyncio
import copy
from functools import partial
from typing import Any, Protocol, cast

from pydotcompute.device.lease import DeviceLease
from pydotcompute.exceptions import CircularAskError, MessageError, MessageSerializationError, PyDotComputeError
from pydotcompute.messages.header import DEFAULT_PRIORITY
from pydotcompute.messages.ids import uuid_from_int
from pydotcompute.messages.raw import opened
from pydotcompute.ring_kernels.actor.asking import Asker
from pydotcompute.ring_kernels.mail.asks import circle
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.ring_kernels.mail.inbox import Item, Terms
from pydotcompute.ring_kernels.mail.mail import Mail

__all__ = ["Receiver", "forward"]


class Receiver(Protocol):
    """A kernel to which an actor can forward, or which it can ask."""

    @property
    def kernel_id(self) -> str:
        """The id of the kernel."""

    @property
    def lease(self) -> DeviceLease:
        """The kernel's share of its device."""

    async def take_forwarded(self, mail: Mail[Any, Any], message: Any, key: int, item: Item[Any] | None) -> None:
        """Take a request that the actor of the kernel with this mail hands on. For the arguments see `forward`."""

    async def answer(self, asker: Asker, message: Any, timeout: float | None) -> Any:
        """Return the reply to a request of another kernel's actor. For the arguments see `ask`."""


async def forward(mail: Mail[Any, Any], to: Mail[Any, Any], message: Any, key: int, item: Item[Any] | None) -> None:
    """Hand a request on to another kernel, and arrange that its reply comes back. See `KernelContext.forward`.

    Args:
        mail: the mail of the kernel that forwards.
        to: the mail of the kernel that gets the request.
        message: the request, or a message that names it.
        key: the `message_id.int` of the request.
        item: the item of the request, if it is in the actor's hands.

    Raises:
        MessageSerializationError: nobody waits for a reply to the request, or the request would go in a circle.
        CircularAskError: the other kernel waits in `ctx.ask` for the reply to this very request.
    """
    if not mail.replies.is_awaited(key):
        raise _refused(message, "nobody waits for a reply to it: what is forwarded is a request, or names one")
    if to.replies.is_awaited(key):
        raise _refused(
            message, f"kernel {to.kernel_id!r} waits for a reply to the same request: it goes round in a circle"
        )
    if to.delays.asks.held and (found := circle(mail.kernel_id, None, to.delays, key)):
        raise CircularAskError(found)
    if not to.takes_raw:
        message = opened(message)
    principal = mail.replies.principal_of(key)
    reply = await to.hand_over(_forwarded(message, key, item), _terms(item), None, principal=principal)
    mail.delays.forwarded[key] = to.delays
    reply.add_done_callback(partial(_relay, mail, key))


def _refused(message: Any, problem: str) -> MessageSerializationError:
    path = "$.message_id" if message.correlation_id is None else "$.correlation_id"
    return MessageSerializationError(type(message).__name__, problem, path)


def _terms(item: Item[Any] | None) -> Terms | None:
    """Return the terms of the forwarded message, which are those of the request."""
    terms = None if item is None else item[2]
    return None if terms is None else Terms(terms.timeout, terms.deadline, terms.size)


def _forwarded(message: Any, key: int, item: Item[Any] | None) -> Any:
    """Return the message for the other kernel. Its `message_id` is that of the request."""
    if message.message_id.int == key:
        return message
    forwarded = copy.copy(message)
    values: dict[str, object] = {"message_id": uuid_from_int(key), "correlation_id": None}
    if item is not None and message.priority == DEFAULT_PRIORITY:
        values["priority"] = item[0].priority
    for name, value in values.items():
        object.__setattr__(forwarded, name, value)  # The message's class may be frozen.
    return forwarded


def _relay(mail: Mail[Any, Any], key: int, reply: asyncio.Future[Any]) -> None:
    """Pass the reply of the other kernel, or its error, on to the caller of the request."""
    message_id = uuid_from_int(key)
    mail.delays.forwarded.pop(key, None)
    error = reply.exception()
    if error is not None:
        mail.replies.fail(message_id, cast(PyDotComputeError, error))
        return
    message = reply.result()
    try:
        if not mail.takes_raw:
            message = opened(message)
        mail.check_out(message)
    except MessageError as refusal:
        mail.bury(message, str(refusal), DeadLetterReason.UNDELIVERABLE)
        mail.replies.fail(message_id, refusal)
        return
    if not mail.replies.deliver(message, key):
        mail.bury(message, "its caller is gone")
