"""The leases of one kernel: messages that were received with a lease and are not acknowledged yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydotcompute.messages.ids import new_message_id
from pydotcompute.ring_kernels.places import Places
from pydotcompute_server.bounds.shares import Owner, SharedTable, shares_of
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import own_most

__all__ = ["Leases"]


@dataclass(frozen=True, slots=True)
class _Lease:
    timer: asyncio.TimerHandle
    give_up: Callable[[], None]
    owner: Owner
    size: int


class Leases:
    """Open leases by their delivery ids. Each lease ends in one of two ways: it is acknowledged, or given up.

    This class knows nothing of messages: whoever is granted a lease says what to call when it is given up.

    Args:
        most: how many leases may be open at once.
    """

    def __init__(self, most: int, limits: Limits) -> None:
        self._most = most
        self._open: dict[str, _Lease] = {}
        self.held_bytes = 0
        """The bytes of the messages that are leased."""
        self._acknowledged: SharedTable[str, str] = SharedTable(limits.acknowledged_deliveries)
        self._places = Places("max_leases", limits.max_leases, *shares_of("max_leases", limits))

    def __len__(self) -> int:
        return len(self._open)

    def held_by(self, principal: str) -> int:
        """Return the bytes of the messages that this principal has leased."""
        return sum(lease.size for lease in self._open.values() if lease.owner.principal == principal)

    def reserve(self, owner: Owner) -> bool:
        """Reserve a place for a lease, until `grant` or `free`. Return False if `most` are open or reserved.

        Raises:
            LimitExceededError: there are more leases than `limits` allow, together or of this owner.
        """
        if self._places.taken >= self._most:
            return False
        self._places.take(owner, own_most("max_leases"))
        return True

    def free(self, owner: Owner) -> None:
        """Free a reserved place for which no lease was granted."""
        self._places.leave(owner)

    def grant(self, owner: Owner, seconds: float, give_up: Callable[[], None], size: int = 0) -> str:
        """Open a lease in the reserved place, and return its delivery id. After `seconds` it calls `give_up`.

        Args:
            owner: who reserved the place.
            seconds: the time of the lease.
            give_up: called when the lease is given up.
            size: the bytes of the message.
        """
        delivery_id = str(new_message_id())
        timer = asyncio.get_running_loop().call_later(seconds, self.give_up, delivery_id)
        self._open[delivery_id] = _Lease(timer, give_up, owner, size)
        self.held_bytes += size
        return delivery_id

    def _end(self, delivery_id: str) -> _Lease | None:
        lease = self._open.pop(delivery_id, None)
        if lease is not None:
            lease.timer.cancel()
            self.held_bytes -= lease.size
            self._places.leave(lease.owner)
        return lease

    def acknowledge(self, delivery_ids: Iterable[str], principal: str) -> list[str]:
        """End these leases of this principal.

        Return the ids of no open lease of this principal, without those that it has acknowledged lately.
        """
        unknown = []
        for delivery_id in delivery_ids:
            lease = self._open.get(delivery_id)
            if lease is not None and lease.owner.principal == principal:
                self._end(delivery_id)
                self._acknowledged.put(delivery_id, principal, lease.owner)
            elif self._acknowledged.get(delivery_id) != principal:
                unknown.append(delivery_id)
        return unknown

    def give_up(self, delivery_id: str) -> None:
        """End a lease as if its time were over, and call its `give_up`. Does nothing if the lease is not open."""
        lease = self._end(delivery_id)
        if lease is not None:
            lease.give_up()

    def give_up_all(self) -> None:
        """Give up all leases."""
        for delivery_id in tuple(self._open):
            self.give_up(delivery_id)

    def close(self) -> None:
        """End all leases, without giving up or acknowledging any."""
        for delivery_id in list(self._open):
            self._end(delivery_id)
