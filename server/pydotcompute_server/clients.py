"""What every lane that keeps a client at a kernel does for it, and when it leaves."""

from __future__ import annotations

from typing import Any

from google.rpc import code_pb2, status_pb2

from pydotcompute.ring_kernels.lifecycle import KernelState, RingKernel
from pydotcompute.ring_kernels.mail.inbox import Terms
from pydotcompute.ring_kernels.mail.replies import Caller, Unanswered

__all__ = [
    "LARGE_BYTES",
    "MAILBOX_BYTES",
    "SHUTTING_DOWN",
    "leave",
    "may_put",
    "pass_outputs_on",
    "require_activated",
    "terms_of",
]

LARGE_BYTES = 4_096
"""The bytes of a message in a mailbox are counted if they are as many as this."""
MAILBOX_BYTES = 256 << 20
"""Bytes of large messages in a mailbox beyond which clients that wait for room put no more into it."""
SHUTTING_DOWN = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="the daemon is shutting down")

Kernel = RingKernel[Any, Any]


def require_activated(kernel: Kernel) -> None:
    """Raise KernelStateError if the kernel is not activated yet."""
    if kernel.state in (KernelState.CREATED, KernelState.LAUNCHED):
        refusal = kernel.refusal
        assert refusal is not None
        raise refusal.again()


def may_put(kernel: Kernel, caller: Caller[Any]) -> bool:
    """Whether a client that waits for room may put more into the mailbox, if there is room: it receives its replies,
    and the mailbox has not too many bytes.
    """
    return caller.ready.size < kernel.outputs.capacity and kernel.inbox.bytes < MAILBOX_BYTES


def terms_of(size: int) -> Terms | None:
    """What goes with a message of so many bytes into the mailbox."""
    return Terms(size=size) if size >= LARGE_BYTES else None


def pass_outputs_on(kernel: Kernel) -> None:
    """Wake another for the outputs that this client may have been woken for."""
    if kernel.outputs.items.size:
        kernel.replies.wanted.notify()


def leave(kernel: Kernel, caller: Caller[Any], why: str = "its caller is gone") -> None:
    """Nobody receives for this client any more: the replies that wait for it are dead letters."""
    caller.gone = True
    while (item := caller.take()) is not None:
        if not isinstance(item, Unanswered):
            kernel.bury(item, why)
