"""The client_ids of one kernel, with the replies that wait for them."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from pydotcompute.exceptions import LimitExceededError, MessageDeserializationError
from pydotcompute.ring_kernels.config import LONGEST_ID
from pydotcompute.ring_kernels.mail.callers import Caller
from pydotcompute.ring_kernels.mail.inbox import Inbox
from pydotcompute.ring_kernels.mail.sizes import estimated_sum
from pydotcompute.ring_kernels.places import COME_AGAIN
from pydotcompute_server.bounds.shares import Owner
from pydotcompute_server.connected import ConnectedClient, kicked
from pydotcompute_server.limits import Limits

__all__ = ["Client", "Clients"]


class Client(Caller[Any]):
    """The caller that stands for one client_id at one kernel."""

    __slots__ = ("__weakref__", "_inbox", "_kicked", "_receivers", "owner", "took", "used")

    def __init__(self, owner: Owner, inbox: Inbox[Any]) -> None:
        super().__init__(private=True, principal=owner.principal)
        self.took: Any = None
        """The last reply that was taken. By it, `receive` tells if `receive_as` returned a reply or an output."""
        self.owner = owner
        """Who has used the client_id last. That is always the same principal."""
        self.used = 0.0
        """When the client_id was used last."""
        self._inbox = inbox
        self._receivers: dict[asyncio.Task[Any], None] = {}
        self._kicked = ""

    def take(self) -> Any:
        """Take the next reply, as `Caller.take` does, and remember it in `took`."""
        self.took = item = super().take()
        return item

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Note that the current task receives for the client_id. Raise SessionLostError if `kick` ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._receivers[task] = None
        try:
            yield
        except asyncio.CancelledError:
            if not self._kicked:
                raise
            task.uncancel()
            raise kicked(self._kicked) from None
        finally:
            del self._receivers[task]

    def kick(self, reason: str) -> None:
        """End all calls that receive for the client_id."""
        self._kicked = reason or "the client_id"
        for task in self._receivers:
            task.cancel()

    @property
    def under_way(self) -> tuple[int, int]:
        """The messages that wait in the mailbox, and the bytes of the replies that wait to be received."""
        return min(self.unanswered, len(self._inbox)), estimated_sum(self.ready, self.ready.size)

    @property
    def is_busy(self) -> bool:
        """True while a call receives for the client_id, or the kernel owes it a reply."""
        return bool(self.arrived.waiters or self.unanswered)


class Clients:
    """The client_ids of one kernel, at most `Limits.client_ids` of them.

    A client_id is of the principal that uses it: another principal's client_id is another one, though its text is the
    same.

    Args:
        limits: the limits of the daemon.
        inbox: the mailbox of the kernel.
        clock: returns the time in seconds.
    """

    def __init__(self, limits: Limits, inbox: Inbox[Any], clock: Callable[[], float] = monotonic) -> None:
        self._inbox = inbox
        self._most, self._time = limits.client_ids, limits.client_id_time
        self._clock = clock
        # By the principal and the client_id. The one that was quiet longest is the first.
        self._clients: OrderedDict[tuple[str, str], Client] = OrderedDict()

    def values(self) -> Iterable[Client]:
        """Return the clients, the one that was quiet longest first."""
        return self._clients.values()

    def held_by(self, principal: str) -> int:
        """Return the bytes of the replies that wait for the client_ids of this principal."""
        waiting = (client for key, client in self._clients.items() if key[0] == principal and client.ready.size)
        return sum(client.under_way[1] for client in waiting)

    def take(self, principal: str, client_id: str) -> list[Client]:
        """Forget this client_id of the principal, or of all if that is empty. Return the callers that stood for it."""
        keys = [key for key in self._clients if key[1] == client_id and principal in ("", key[0])]
        return [self._clients.pop(key) for key in keys]

    def find(self, client_id: str, user: ConnectedClient, forget: Callable[[Client], None]) -> Client:
        """Return the caller that unary calls with this client_id send and receive as. A new one may displace another.

        Args:
            user: who uses the client_id.
            forget: called with the client that is displaced, and with it the replies that wait for it.

        Raises:
            MessageDeserializationError: the client_id is too long.
            LimitExceededError: there are too many, and none of them may be displaced.
        """
        owner = user.owner
        key = owner.principal, client_id
        client = self._clients.get(key)
        if client is None:
            if len(client_id) > LONGEST_ID:
                raise MessageDeserializationError("client_id", f"more than {LONGEST_ID} characters", "$.client_id")
            if len(self._clients) >= self._most:
                forget(self._clients.pop(self._least_needed(owner)))
            client = self._clients[key] = Client(owner, self._inbox)
            if user.account is not None:
                user.account.add(client)
        else:
            self._clients.move_to_end(key)
        client.owner = owner
        client.used = self._clock()
        return client

    def _least_needed(self, newcomer: Owner) -> tuple[str, str]:
        """Return the client_id that goes for a new one of this owner. LimitExceededError if none may go.

        One that has nothing goes first, because nothing is lost with it. Otherwise it is one of the principal that has
        most of them.
        """
        for key, client in self._clients.items():
            if not (client.is_busy or client.ready.size):
                return key
        counts = Counter(client.owner.principal for client in self._clients.values())
        counts[newcomer.principal] += 1
        principal = max(counts, key=lambda each: (counts[each], each == newcomer.principal))
        theirs = [(key, client) for key, client in self._clients.items() if key[0] == principal]
        idle = [(key, client) for key, client in theirs if not client.is_busy]
        if idle and idle[0][1].used < self._clock() - self._time:
            return idle[0][0]
        connections = Counter(client.owner.connection for _, client in theirs)
        if principal == newcomer.principal:
            connections[newcomer.connection] += 1
        connection, most = connections.most_common(1)[0]
        if most == 1 and principal == newcomer.principal:
            raise LimitExceededError("client_ids", self._most, len(self._clients) + 1, COME_AGAIN)
        of_it = [key for key, client in theirs if client.owner.connection == connection]
        return next((key for key, client in idle if client.owner.connection == connection), of_it[0])
