"""The client_ids of one kernel, with the replies that wait for them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from pydotcompute.exceptions import LimitExceededError, MessageDeserializationError
from pydotcompute.ring_kernels.config import LONGEST_ID
from pydotcompute.ring_kernels.mail.callers import Caller
from pydotcompute_server.limits import Limits

__all__ = ["Client", "Clients"]


class Client(Caller[Any]):
    """The caller that stands for one client_id at one kernel."""

    __slots__ = ("owner", "took", "used")

    def __init__(self) -> None:
        super().__init__(private=True)
        self.took: Any = None
        """The last reply that was taken. By it, `receive` tells if `receive_as` returned a reply or an output."""
        self.owner = ""
        """Who has used the client_id last, as `owner_of` says."""
        self.used = 0.0
        """When the client_id was used last."""

    def take(self) -> Any:
        """Take the next reply, as `Caller.take` does, and remember it in `took`."""
        self.took = item = super().take()
        return item

    @property
    def is_busy(self) -> bool:
        """True while a call receives for the client_id, or the kernel owes it a reply."""
        return bool(self.arrived.waiters or self.unanswered)


class Clients:
    """The client_ids of one kernel, at most `Limits.client_ids` of them."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self._most, self._time = limits.client_ids, limits.client_id_time
        self._clock = clock
        self._clients: OrderedDict[str, Client] = OrderedDict()  # The one that was quiet longest is the first.

    def values(self) -> Iterable[Client]:
        """Return the clients, the one that was quiet longest first."""
        return self._clients.values()

    def find(self, client_id: str, owner: str, forget: Callable[[Client], None]) -> Client:
        """Return the caller that unary calls with this client_id send and receive as. A new one may displace another.

        Args:
            owner: who uses the client_id, as `owner_of` says.
            forget: called with the client that is displaced, and with it the replies that wait for it.

        Raises:
            MessageDeserializationError: the client_id is too long.
            LimitExceededError: there are too many, and none of them may be displaced.
        """
        client = self._clients.get(client_id)
        if client is None:
            if len(client_id) > LONGEST_ID:
                raise MessageDeserializationError("client_id", f"more than {LONGEST_ID} characters", "$.client_id")
            if len(self._clients) >= self._most:
                forget(self._clients.pop(self._least_needed(owner)))
            client = self._clients[client_id] = Client()
        else:
            self._clients.move_to_end(client_id)
        client.owner = owner
        client.used = self._clock()
        return client

    def _least_needed(self, newcomer: str) -> str:
        """Return the client_id that goes for a new one of this owner. LimitExceededError if none may go."""
        longest_ago = self._clock() - self._time
        idle = [(client_id, client) for client_id, client in self._clients.items() if not client.is_busy]
        for client_id, client in idle:
            if not client.ready.size:
                return client_id
        if idle and idle[0][1].used < longest_ago:
            return idle[0][0]
        counts = Counter(client.owner for client in self._clients.values())
        counts[newcomer] += 1
        owner, most = counts.most_common(1)[0]
        if most > 1:
            of_the_owner = [(client_id, client) for client_id, client in self._clients.items() if client.owner == owner]
            waiting = (client_id for client_id, client in of_the_owner if not client.is_busy)
            return next(waiting, of_the_owner[0][0])
        raise LimitExceededError("client_ids", self._most, len(self._clients) + 1)
