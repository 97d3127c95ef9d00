"""What the daemon keeps between the unary calls to each kernel."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.sizes import estimated_sum
from pydotcompute_server.bounds.shares import Owner, SharedTable
from pydotcompute_server.clients import leave
from pydotcompute_server.connected import ConnectedClient
from pydotcompute_server.limits import Limits
from pydotcompute_server.unary.clients import Client, Clients
from pydotcompute_server.unary.leases import Leases
from pydotcompute_server.unary.sends import Sends

__all__ = ["Desk", "Desks"]

Kernel = RingKernel[Any, Any]

logger = logging.getLogger(__name__)


class Desk:
    """The state that the daemon keeps between the unary calls to one kernel.

    A desk does not refer to its kernel, so both are freed together.
    """

    def __init__(self, kernel: Kernel, limits: Limits) -> None:
        self.clients = Clients(limits, kernel.mail.inbox)
        """The client_ids, with the replies that wait for them."""
        self.sends = Sends(limits)
        """The ids of the messages that were sent lately."""
        self.leases = Leases(kernel.mail.outputs.capacity, limits)
        """The messages that were received with a lease."""
        self.returned: SharedTable[int, bool] = SharedTable(limits.returned_messages)
        """The ids (`message_id.int`) of messages that were in a response and came back."""

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages that are leased, or wait for a client_id."""
        waiting = (client.ready for client in self.clients.values() if client.ready.size)
        return self.leases.held_bytes + sum(estimated_sum(ready, ready.size) for ready in waiting)

    def held_by(self, principal: str) -> int:
        """Return the bytes of `held_bytes` that are this principal's."""
        return self.leases.held_by(principal) + self.clients.held_by(principal)

    def client(self, kernel: Kernel, client_id: str, user: ConnectedClient) -> Client:
        """Return the caller that unary calls with this client_id send and receive as; see `Clients.find`."""
        return self.clients.find(client_id, user, partial(leave, kernel, why="its caller has not asked for it"))

    def put_back(self, kernel: Kernel, receiver: Client | None, message: Any, owner: Owner) -> None:
        """Put a message that was in a response back to the front of its priority, to be received again.

        Args:
            receiver: the client_id whose reply it is. None if it is an output.
            owner: who has received it.
        """
        self.returned.put(message.message_id.int, True, owner)
        if receiver is None:
            kernel.mail.replies.give_back(message)
        elif receiver.gone:
            kernel.mail.bury(message, "its caller has not asked for it")
        else:
            # Not `give_back`: after some thousand other replies a kernel forgets whose reply this was.
            receiver.ready.push_front(message, message.priority)
            receiver.arrived.notify()


class Desks:
    """The desks of all kernels to which there were unary calls."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._desks: WeakKeyDictionary[Kernel, Desk] = WeakKeyDictionary()
        self._kernels: WeakValueDictionary[str, Kernel] = WeakValueDictionary()  # Those that have a desk, by their ids.

    def of(self, kernel: Kernel) -> Desk:
        """Return the desk of this kernel."""
        desk = self._desks.get(kernel)
        if desk is None:
            self.forget_predecessor(kernel)
            desk = self._desks[kernel] = Desk(kernel, self._limits)
            self._kernels[kernel.kernel_id] = kernel
        return desk

    def forget_predecessor(self, kernel: Kernel) -> None:
        """Make the replies of an earlier kernel of this id dead letters: nobody can ask for them any more."""
        earlier = self._kernels.get(kernel.kernel_id)
        if earlier is None or earlier is kernel:
            return
        del self._kernels[kernel.kernel_id]
        desk = self._desks.pop(earlier)
        desk.leases.give_up_all()
        for client in desk.clients.values():
            leave(earlier, client, "its kernel was launched again before its caller asked for it")

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages that are leased, or wait for a client_id."""
        return sum(desk.held_bytes for desk in self._desks.values())

    def held_by(self, principal: str) -> int:
        """Return the bytes of `held_bytes` that are this principal's."""
        return sum(desk.held_by(principal) for desk in self._desks.values())

    def add_waiting(self, to: Counter[str]) -> None:
        """Add the bytes of the messages of each kernel that are leased, or wait for a client_id, by the kernel's id."""
        for kernel, desk in self._desks.items():
            to[kernel.kernel_id] += desk.held_bytes

    def kick(self, principal: str, client_id: str, reason: str) -> int:
        """Forget a client_id of this principal, or of all if that is empty, at every kernel. Return at how many.

        Calls that receive with it end. Replies that wait for it become dead letters.
        """
        count = 0
        for kernel, desk in list(self._desks.items()):
            for client in desk.clients.take(principal, client_id):
                client.kick(reason)
                leave(kernel, client, "an operator has ended its caller")
                count += 1
        return count

    def close(self) -> None:
        """End all leases, because the daemon ends."""
        for kernel, desk in self._desks.items():
            if unacknowledged := len(desk.leases):
                logger.warning(
                    "the daemon ends before what was received is acknowledged",
                    extra={"kernel_id": kernel.kernel_id, "messages": unacknowledged},
                )
            desk.leases.close()
