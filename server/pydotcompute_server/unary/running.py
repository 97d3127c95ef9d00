"""Counts what the unary calls that run now have: the bytes of their messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc

from pydotcompute.ring_kernels.mail.sizes import estimated_size
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.connected import Connected, ConnectedClient
from pydotcompute_server.limits import Limits

__all__ = ["RunningCalls"]

Context = grpc.aio.ServicerContext[Any, Any]


class RunningCalls:
    """The unary calls that run now.

    Args:
        limits: the limits of the daemon.
        memory: the budget for messages.
        connected: the clients of the daemon.
    """

    def __init__(self, limits: Limits, memory: Memory, connected: Connected) -> None:
        self._limits = limits
        self._memory = memory
        self._connected = connected
        self.held_bytes = 0
        """The bytes of their messages."""
        self._answering: Counter[str] = Counter()  # Those of replies to Ask, by the id of the kernel.

    def held_by(self, principal: str) -> int:
        """Return the bytes of the messages that have come from this principal."""
        in_calls = self._connected.listed(which=lambda owner: owner.principal == principal)
        return sum(client.in_calls for client in in_calls)

    def add_answering(self, to: Counter[str]) -> None:
        """Add the bytes of the replies of each kernel that are on their way to callers, by the kernel's id."""
        to.update(self._answering)

    @contextmanager
    def taking(self, size: int, context: Context) -> Iterator[ConnectedClient]:
        """Take a message of `size` bytes in a call, and count its bytes. Return whose call it is.

        Raises:
            MemoryExhaustedError: there is no room for it.
            LimitExceededError: the principal has too much under way.
            SessionLostError: an operator has ended the call.
        """
        client = self._connected.client(context)
        account = client.account
        if account is not None:
            account.require_room(size)
        self._memory.require(size, client.owner.principal)
        client.received(1, size)
        self.held_bytes += size
        client.in_calls += size
        if account is not None:
            account.carry(1, size)
        try:
            with client.calling():
                yield client
        finally:
            self.held_bytes -= size
            client.in_calls -= size
            if account is not None:
                account.carry(-1, -size)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count the bytes of a message that is in a call."""
        self.held_bytes += size
        try:
            yield
        finally:
            self.held_bytes -= size

    def hold_reply(self, kernel_id: str, reply: Any, context: Context) -> None:
        """Count the bytes of a large reply until its call is over, and so until the client has read it."""
        size = estimated_size(reply)
        if size >= self._limits.large_message_bytes:
            self.held_bytes += size
            self._answering[kernel_id] += size
            cast(Any, context).add_done_callback(lambda _: self._release_reply(kernel_id, size))

    def _release_reply(self, kernel_id: str, size: int) -> None:
        self.held_bytes -= size
        self._answering[kernel_id] -= size
        if not self._answering[kernel_id]:
            del self._answering[kernel_id]
