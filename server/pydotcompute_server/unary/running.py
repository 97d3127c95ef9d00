"""Counts what the unary calls that run now have: the bytes of their messages."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc

from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.connected import Calling, Connected, ConnectedClient

__all__ = ["RunningCalls", "Taking"]

Context = grpc.aio.ServicerContext[Any, Any]


class Taking(Calling):
    """A message that a call takes: its bytes count while the `with` statement lasts."""

    __slots__ = ("_account", "_calls", "_size")

    def __init__(self, client: ConnectedClient, calls: RunningCalls, size: int) -> None:
        self.client = client
        self._account = client.account
        self._calls = calls
        self._size = size

    def __enter__(self) -> ConnectedClient:
        client, size = self.client, self._size
        client.received_messages += 1
        client.received_bytes += size
        client.in_calls += size
        self._calls.held_bytes += size
        if self._account is not None:
            self._account.carry(1, size)
        self._task = task = cast("asyncio.Task[Any]", asyncio.current_task())
        client.calls[task] = None
        return client

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        client, size = self.client, self._size
        client.in_calls -= size
        self._calls.held_bytes -= size
        if self._account is not None:
            self._account.carry(-1, -size)
        Calling.__exit__(self, kind, error, trace)


class RunningCalls:
    """The unary calls that run now.

    Args:
        memory: the budget for messages.
        connected: the clients of the daemon.
    """

    def __init__(self, memory: Memory, connected: Connected) -> None:
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

    def taking(self, size: int, context: Context) -> Taking:
        """Take a message of `size` bytes in a call. In the `with` statement of the result, its bytes count.

        The result raises SessionLostError if an operator ends the call.

        Raises:
            MemoryExhaustedError: there is no room for it.
            LimitExceededError: the principal has too much under way.
        """
        client = self._connected.client(context)
        if client.account is not None:
            client.account.require_room(size)
        principal = client.owner.principal
        if not self._memory.has_room_for(size, principal):
            raise self._memory.error(size, principal)
        return Taking(client, self, size)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count the bytes of a message that is in a call."""
        self.held_bytes += size
        try:
            yield
        finally:
            self.held_bytes -= size

    def hold_reply(self, kernel_id: str, size: int, context: Context) -> None:
        """Count the bytes of a large reply until its call is over, and so until the client has read it."""
        self.held_bytes += size
        self._answering[kernel_id] += size
        cast(Any, context).add_done_callback(lambda _: self._release_reply(kernel_id, size))

    def _release_reply(self, kernel_id: str, size: int) -> None:
        self.held_bytes -= size
        self._answering[kernel_id] -= size
        if not self._answering[kernel_id]:
            del self._answering[kernel_id]
