"""The step that holds each principal to its share of calls, and to its rate."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydotcompute.exceptions import LimitExceededError
from pydotcompute.ring_kernels.places import COME_AGAIN
from pydotcompute_server.access.refusals import Refusals
from pydotcompute_server.bounds.accounts import Accounts
from pydotcompute_server.calls.answers import seconds_left
from pydotcompute_server.calls.pipeline import Call, Method, Proceed
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import current

__all__ = ["Quotas"]

HEALTH = "grpc.health.v1.Health"
"""The service whose calls are not counted: whoever watches over a daemon must hear of it also when it is busy."""


class Quotas:
    """A step that refuses the calls of a principal that has too many, or that come too fast.

    It comes after the step that finds out who is calling. What comes in a stream is counted by the stream, which waits
    and refuses nothing. If many calls of a principal are over a limit, this one or another, they are answered one by
    one.
    """

    def __init__(self, accounts: Accounts, limits: Limits) -> None:
        self._accounts = accounts
        self._most = limits.per_principal("max_calls")
        self._most_connections = limits.max_connections_per_principal
        # How many calls of each principal run over each of its connections. Only those with a limit are there.
        self._connections: dict[str, Counter[str]] = {}
        self._running: dict[str, int] = {}  # How many calls of each principal run. A name without any is not there.
        self._limits = limits
        self._refusals = Refusals(limits.max_request_bytes)

    def __call__(self, method: Method, proceed: Proceed) -> Proceed:
        """Return the function that calls of the method pass."""
        if method.service == HEALTH:
            return proceed
        accounts, running = self._accounts, self._running
        most_calls, most_connections = self._most, self._most_connections

        async def count(call: Call) -> None:
            principal = current()
            name, most, connections = principal.name, most_calls, most_connections
            if principal.limits:
                most = principal.limits.get("max_calls", most)
                connections = principal.limits.get("max_connections", connections)
            try:
                if accounts.in_use or principal.limits:
                    account = accounts.of(principal)
                    if account is not None:
                        account.require_rate(_size(call.request))
                calls = running.get(name, 0) + 1
                if calls > most:
                    raise LimitExceededError("max_calls_per_principal", most, calls, COME_AGAIN)
                if connections:
                    self._take_connection(name, call.peer, connections)
                running[name] = calls
                try:
                    await proceed(call)
                finally:
                    calls = running[name] - 1
                    if calls:
                        running[name] = calls
                    else:
                        del running[name]
                    if connections:
                        self._leave_connection(name, call.peer)
            except LimitExceededError:
                await self._hold_back(name, call)
                raise

        return count

    def _take_connection(self, principal: str, peer: str, most: int) -> None:
        """Count a call over a connection. Raise LimitExceededError if other connections have calls, and are enough."""
        calls = self._connections.setdefault(principal, Counter())
        if peer not in calls and len(calls) >= most:
            raise LimitExceededError("max_connections_per_principal", most, len(calls) + 1, COME_AGAIN)
        calls[peer] += 1

    def _leave_connection(self, principal: str, peer: str) -> None:
        calls = self._connections[principal]
        calls[peer] -= 1
        if not calls[peer]:
            del calls[peer]
            if not calls:
                del self._connections[principal]

    async def _hold_back(self, principal: str, call: Call) -> None:
        """Wait until the principal may have the refusal of a call with a single request."""
        if call.request is not None:  # Else it is not known how many bytes are kept meanwhile.
            request = call.request
            size = len(request) if isinstance(request, bytes) else request.ByteSize()
            await self._refusals.hold(principal, size, seconds_left(call.context, self._limits))


def _size(request: Any) -> int:
    """Return the bytes of a request: of the body of its message, if it has one."""
    if request is None:
        return 0
    if isinstance(request, bytes):
        return len(request)
    message = getattr(request, "message", None)
    return len(message.body.value) if message is not None else int(request.ByteSize())
