"""Functions that the lanes share for a client of a kernel: what it may send, and what happens when it leaves."""

from __future__ import annotations

from typing import Any

from pydotcompute.exceptions import ConnectionLostError
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.callers import Caller, Unanswered
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.inbox import Terms
from pydotcompute.wire.errors import to_status
from pydotcompute_server.limits import Limits

__all__ = [
    "ENDING",
    "SHUTTING_DOWN",
    "leave",
    "may_put",
    "pass_outputs_on",
    "require_activated",
    "terms_of",
]

ENDING = ConnectionLostError("", "the daemon is shutting down")
"""The error for everyone whom the daemon refuses because it is about to end. Raise `ENDING.again()`, a copy."""
SHUTTING_DOWN = to_status(ENDING)
"""The same as a status."""

Kernel = RingKernel[Any, Any]


def require_activated(kernel: Kernel) -> None:
    """Raise KernelStateError if the kernel is not activated yet."""
    if kernel.state in (KernelState.CREATED, KernelState.LAUNCHED):
        refusal = kernel.gate.refusal
        assert refusal is not None
        raise refusal.again()


def may_put(kernel: Kernel, caller: Caller[Any], limits: Limits) -> bool:
    """Return True if a client that waits for room may put more into the mailbox once there is room.

    It may if it receives its replies, and if the mailbox has not too many bytes.
    """
    return caller.ready.size < kernel.mail.outputs.capacity and kernel.mail.inbox.bytes < limits.mailbox_bytes


def terms_of(size: int, limits: Limits) -> Terms | None:
    """Return the terms of a message whose body has `size` bytes: its size if it is large, or else None."""
    return Terms(size=size) if size >= limits.large_message_bytes else None


def pass_outputs_on(kernel: Kernel) -> None:
    """Wake another client if there are outputs: perhaps only this client was woken for them."""
    if kernel.mail.outputs.items.size:
        kernel.mail.replies.wanted.notify()


def leave(kernel: Kernel, caller: Caller[Any], why: str = "its caller is gone") -> None:
    """Mark the client as gone, and make the replies that wait for it dead letters, with `why` as their detail."""
    caller.gone = True
    while (item := caller.take()) is not None:
        if not isinstance(item, Unanswered):
            kernel.mail.bury(item, why)
