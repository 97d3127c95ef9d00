"""The step that holds each principal to its share of calls, and to its rate."""

from __future__ import annotations

from typing import Any

from pydotcompute.ring_kernels.places import Places, Share
from pydotcompute_server.bounds.accounts import Accounts
from pydotcompute_server.calls.pipeline import Call, Method, Proceed
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import current

__all__ = ["Quotas"]

HEALTH = "grpc.health.v1.Health"
"""The service whose calls are not counted: whoever watches over a daemon must hear of it also when it is busy."""


class Quotas:
    """A step that refuses the calls of a principal that has too many, or that come too fast.

    It comes after the step that finds out who is calling. What comes in a stream is counted by the stream, which waits
    and refuses nothing.
    """

    def __init__(self, accounts: Accounts, limits: Limits) -> None:
        self._accounts = accounts
        share = Share("max_calls_per_principal", limits.per_principal("max_calls"))
        self._places = Places("max_calls", limits.max_calls, share)

    def __call__(self, method: Method, proceed: Proceed) -> Proceed:
        """Return the function that calls of the method pass."""
        if method.service == HEALTH:
            return proceed
        accounts, places = self._accounts, self._places

        async def count(call: Call) -> None:
            principal = current()
            account = accounts.of(principal)
            if account is not None:
                account.require_rate(_size(call.request))
            places.take((principal.name,))
            try:
                await proceed(call)
            finally:
                places.leave((principal.name,))

        return count


def _size(request: Any) -> int:
    """Return the bytes of a request: of the body of its message, if it has one."""
    if request is None:
        return 0
    if isinstance(request, bytes):
        return len(request)
    message = getattr(request, "message", None)
    return len(message.body.value) if message is not None else int(request.ByteSize())
