"""The client_ids of one kernel, with the replies that wait for them."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, TypeAlias

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

Key: TypeAlias = tuple[str, str]
"""A principal and a client_id."""

LOOK_AT_ALL_EVERY = 1.0
"""Seconds between two looks at all client_ids of a kernel for one that has nothing."""
IDLE_LOOKED_AT = 64
"""How many of the client_ids of one principal, or connection, are looked at for one that is idle."""


class Client(Caller[Any]):
    """The caller that stands for one client_id at one kernel."""

    __slots__ = ("__weakref__", "_has_received", "_inbox", "_kicked", "_receivers", "owner", "took", "used")

    def __init__(self, owner: Owner, inbox: Inbox[Any], has_received: Callable[[], None]) -> None:
        super().__init__(private=True, principal=owner.principal)
        self.took: Any = None
        """The last reply that was taken. By it, `receive` tells if `receive_as` returned a reply or an output."""
        self.owner = owner
        """Who has used the client_id last. That is always the same principal."""
        self.used = 0.0
        """When the client_id was used last."""
        self._inbox = inbox
        self._has_received = has_received
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
            self._has_received()

    def kick(self, reason: str) -> None:
        """End all calls that receive for the client_id."""
        self._kicked = reason or "the client_id"
        for task in self._receivers:
            task.cancel()

    @property
    def messages_under_way(self) -> int:
        """The messages that wait in the mailbox."""
        return min(self.unanswered, len(self._inbox))

    @property
    def under_way(self) -> tuple[int, int]:
        """The messages that wait in the mailbox, and the bytes of the replies that wait to be received."""
        return self.messages_under_way, estimated_sum(self.ready, self.ready.size)

    @property
    def is_busy(self) -> bool:
        """True while a call receives for the client_id, or the kernel owes it a reply."""
        return bool(self.arrived.waiters or self.unanswered)


class _Share:
    """The client_ids of one principal: all of them, and those of each of its connections. The last one used is last."""

    def __init__(self) -> None:
        self.clients: OrderedDict[Key, Client] = OrderedDict()
        self.connections: dict[str, OrderedDict[Key, None]] = {}


class Clients:
    """The client_ids of one kernel, at most `Limits.client_ids` of them.

    A client_id is of the principal that uses it: another principal's client_id is another one, though its text is the
    same. To find the one that goes for a new one, not all are looked at: somebody may use ever new ones.

    Args:
        limits: the limits of the daemon.
        inbox: the mailbox of the kernel.
        clock: returns the time in seconds.
    """

    def __init__(self, limits: Limits, inbox: Inbox[Any], clock: Callable[[], float] = monotonic) -> None:
        self._inbox = inbox
        self._most, self._time = limits.client_ids, limits.client_id_time
        self._clock = clock
        self._clients: dict[Key, Client] = {}
        self._shares: dict[str, _Share] = {}
        # Those that may have nothing: others have something until they are used again.
        self._perhaps_empty: dict[Key, None] = {}
        self._look_at_all_at = 0.0

    def values(self) -> Iterable[Client]:
        """Return the clients."""
        return self._clients.values()

    def held_by(self, principal: str) -> int:
        """Return the bytes of the replies that wait for the client_ids of this principal."""
        share = self._shares.get(principal)
        clients = () if share is None else share.clients.values()
        return sum(client.under_way[1] for client in clients if client.ready.size)

    def take(self, principal: str, client_id: str) -> list[Client]:
        """Forget this client_id of the principal, or of all if that is empty. Return the callers that stood for it."""
        names = (principal,) if principal else tuple(self._shares)
        return [self._pop((name, client_id)) for name in names if (name, client_id) in self._clients]

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
                forget(self._pop(self._least_needed(owner)))
            client = self._clients[key] = Client(owner, self._inbox, partial(self._used, key))
            if user.account is not None:
                user.account.add(client)
        else:
            self._take_out(key, client)
        self._put_in(key, client, owner)
        self._used(key)
        client.used = self._clock()
        return client

    def _used(self, key: Key) -> None:
        """Note that the client_id may have nothing after this."""
        self._perhaps_empty.pop(key, None)
        self._perhaps_empty[key] = None

    def _put_in(self, key: Key, client: Client, owner: Owner) -> None:
        """Note whose the client_id is, and that it was used last."""
        client.owner = owner
        share = self._shares.get(owner.principal)
        if share is None:
            share = self._shares[owner.principal] = _Share()
        share.clients[key] = client
        share.connections.setdefault(owner.connection, OrderedDict())[key] = None

    def _take_out(self, key: Key, client: Client) -> None:
        owner = client.owner
        share = self._shares[owner.principal]
        del share.clients[key]
        connection = share.connections[owner.connection]
        del connection[key]
        if not connection:
            del share.connections[owner.connection]
            if not share.clients:
                del self._shares[owner.principal]

    def _pop(self, key: Key) -> Client:
        client = self._clients.pop(key)
        self._perhaps_empty.pop(key, None)
        self._take_out(key, client)
        return client

    def _least_needed(self, newcomer: Owner) -> Key:
        """Return the client_id that goes for a new one of this owner. LimitExceededError if none may go.

        One that has nothing goes first, because nothing is lost with it. Otherwise it is one of the principal that has
        most of them.
        """
        if (empty := self._empty()) is not None:
            return empty
        sizes = {name: len(share.clients) for name, share in self._shares.items()}
        sizes[newcomer.principal] = sizes.get(newcomer.principal, 0) + 1
        principal = max(sizes, key=lambda each: (sizes[each], each == newcomer.principal))
        share = self._shares.get(principal) or _Share()
        oldest = _first_idle(share.clients, share.clients)
        if oldest is not None and share.clients[oldest].used < self._clock() - self._time:
            return oldest
        connections = Counter({name: len(keys) for name, keys in share.connections.items()})
        if principal == newcomer.principal:
            connections[newcomer.connection] += 1
        connection, most = connections.most_common(1)[0]
        if most == 1 and principal == newcomer.principal:
            raise LimitExceededError("client_ids", self._most, len(self._clients) + 1, COME_AGAIN)
        of_it = share.connections[connection]
        return _first_idle(of_it, share.clients) or next(iter(of_it))

    def _empty(self) -> Key | None:
        """Return a client_id that has nothing, perhaps the one that was quiet longest. None if there is none.

        A request may also be forgotten without a reply, so all are looked at now and then.
        """
        if not self._perhaps_empty and self._clock() >= self._look_at_all_at:
            self._look_at_all_at = self._clock() + LOOK_AT_ALL_EVERY
            self._perhaps_empty = dict.fromkeys(self._clients)
        while self._perhaps_empty:
            key = next(iter(self._perhaps_empty))
            del self._perhaps_empty[key]
            client = self._clients.get(key)
            if client is not None and not (client.is_busy or client.ready.size):
                return key
        return None


def _first_idle(keys: Iterable[Key], clients: Mapping[Key, Client]) -> Key | None:
    """Return the first of the first of these client_ids for which no call receives, and no reply is owed."""
    return next((key for key in islice(keys, IDLE_LOOKED_AT) if not clients[key].is_busy), None)
