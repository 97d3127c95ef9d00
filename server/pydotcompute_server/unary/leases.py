"""The leases of one kernel: messages that were received with a lease and are not acknowledged yet."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

from pydotcompute.messages.ids import new_message_id
from pydotcompute_server.limits import Limits

__all__ = ["Leases"]


class Leases:
    """Open leases by their delivery ids. Each lease ends in one of two ways: it is acknowledged, or given up.

    This class knows nothing of messages: whoever is granted a lease says what to call when it is given up.

    Args:
        most: how many leases may be open at once.
    """

    def __init__(self, most: int, limits: Limits) -> None:
        self._most = most
        self._remembered = limits.acknowledged_deliveries
        self._open: dict[str, tuple[asyncio.TimerHandle, Callable[[], None], int]] = {}
        self.held_bytes = 0
        """The bytes of the messages that are leased."""
        self._acknowledged: OrderedDict[str, None] = OrderedDict()
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._open)

    def reserve(self) -> bool:
        """Reserve a place for a lease, until `grant` or `free`. Return False if there is no place left."""
        if len(self._open) + self._reserved >= self._most:
            return False
        self._reserved += 1
        return True

    def free(self) -> None:
        """Free a reserved place. It must be called once after each `reserve`, also after `grant`."""
        self._reserved -= 1

    def grant(self, seconds: float, give_up: Callable[[], None], size: int = 0) -> str:
        """Open a lease in a reserved place, and return its delivery id. After `seconds` it calls `give_up`.

        Args:
            seconds: the time of the lease.
            give_up: called when the lease is given up.
            size: the bytes of the message.
        """
        delivery_id = str(new_message_id())
        timer = asyncio.get_running_loop().call_later(seconds, self.give_up, delivery_id)
        self._open[delivery_id] = timer, give_up, size
        self.held_bytes += size
        return delivery_id

    def acknowledge(self, delivery_ids: Iterable[str]) -> list[str]:
        """End these leases. Return the ids of no open lease, without those that were acknowledged lately."""
        unknown = []
        for delivery_id in delivery_ids:
            lease = self._open.pop(delivery_id, None)
            if lease is not None:
                lease[0].cancel()
                self.held_bytes -= lease[2]
                self._acknowledged[delivery_id] = None
                if len(self._acknowledged) > self._remembered:
                    self._acknowledged.popitem(last=False)
            elif delivery_id not in self._acknowledged:
                unknown.append(delivery_id)
        return unknown

    def give_up(self, delivery_id: str) -> None:
        """End a lease as if its time were over, and call its `give_up`. Does nothing if the lease is not open."""
        lease = self._open.pop(delivery_id, None)
        if lease is not None:
            timer, give_up, size = lease
            timer.cancel()
            self.held_bytes -= size
            give_up()

    def give_up_all(self) -> None:
        """Give up all leases."""
        for delivery_id in tuple(self._open):
            self.give_up(delivery_id)

    def close(self) -> None:
        """End all leases, without giving up or acknowledging any."""
        for timer, *_ in self._open.values():
            timer.cancel()
        self._open.clear()
        self.held_bytes = 0
