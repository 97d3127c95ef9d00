"""Asking: an actor sends a request to another kernel, and waits for the reply."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

from pydotcompute.exceptions import CircularAskError
from pydotcompute.messages.header import DEFAULT_PRIORITY, Header
from pydotcompute.messages.raw import opened
from pydotcompute.ring_kernels.mail.asks import Ask, circle
from pydotcompute.ring_kernels.mail.gate import OPEN
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.mail import Mail

__all__ = ["Asker", "ask", "with_priority"]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and for which message."""

    mail: Mail[Any, Any]
    """The mail of the kernel whose actor asks."""
    taker: object
    """The actor that asks, or the instance of it: one of `Hands.instances`."""
    holds: bool
    """True if the actor takes no message until it has the reply."""
    about: int | None
    """The `message_id.int` of the request that the actor has got and asks for; None if it asks for none."""
    item: Item[Any] | None
    """The item of that request, if it is in the actor's hands."""


async def ask(asker: Asker, to: Mail[Any, Any], message: Any, timeout: float | None) -> Any:
    """Send a request of an actor to another kernel, and return the reply. See `KernelContext.ask`.

    Args:
        asker: who asks, and for which message.
        to: the mail of the kernel that is asked.
        message: the request.
        timeout: the most seconds to wait; None waits as long as the sender of the message asked for does.
    """
    mail, item = asker.mail, asker.item
    if mail.gate.has_ended:
        raise mail.gate.state_error("ask", *OPEN)
    if found := circle(mail.kernel_id, asker.taker if asker.holds else None, to.delays):
        raise CircularAskError(found)
    principal = None if asker.about is None else mail.replies.principal_of(asker.about)
    if item is not None:
        message = with_priority(message, item[0].priority)
        if item[2] is not None and item[2].deadline is not None:
            left = max(0.0, item[2].deadline - monotonic())
            timeout = left if timeout is None else min(timeout, left)
    if not to.takes_raw:
        message = opened(message)
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    key = cast(Header, message).message_id.int
    waiting = Ask(to.delays, key, asker.about, asker.taker, asker.holds, task)
    asks = mail.delays.asks
    asks.add(waiting)
    try:
        reply = await to.ask(message, timeout, principal=principal, sent=waiting.sent)
        return reply if mail.takes_raw else opened(reply)
    except asyncio.CancelledError:
        if waiting.error is None or task.uncancel() > cancelled:
            raise
        raise waiting.error from None
    finally:
        asks.remove(waiting)


def with_priority(message: Any, priority: int) -> Any:
    """Return the message with this priority, if its own is the default. A message that differs is a copy."""
    if message.priority != DEFAULT_PRIORITY or priority == DEFAULT_PRIORITY:
        return message
    urgent = copy.copy(message)
    object.__setattr__(urgent, "priority", priority)  # The message's class may be frozen.
    return urgent
