"""Why a caller waits: what has become of its request, for the errors of time-outs.

Nothing here is counted or kept while messages pass. What an error says is found out when a caller has given up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from pydotcompute.exceptions import TimeoutCause
from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.mail.asks import Ask, Asks, Place
from pydotcompute.ring_kernels.mail.gate import Gate, KernelState
from pydotcompute.ring_kernels.mail.inbox import Inbox

__all__ = ["UNKNOWN", "Delay", "Delays", "Hands"]


class Delay(NamedTuple):
    """Why nothing has come. The fields are those of QueueTimeoutError."""

    cause: str = TimeoutCause.UNKNOWN
    before: int = 0
    seconds: float = 0.0
    asking: str = ""


UNKNOWN = Delay()
"""Says that nobody knows why."""


class Hands(Protocol):
    """What an actor has in its hands. `KernelContext` is one."""

    def instances(self) -> Sequence[object]:
        """Return what takes messages: the actor, or each instance of it."""

    def holder(self, key: int) -> object | None:
        """Return which of `instances` has the request of this `message_id.int` in hand; None if none has."""

    @property
    def is_idle(self) -> bool:
        """True if nothing is in hand."""

    @property
    def seconds_in_hand(self) -> float:
        """The seconds that the actor has had in hand what it works on, at most; 0 if it has nothing in hand."""

    @property
    def seconds_in_send(self) -> float | None:
        """The seconds that the actor has waited in `ctx.send` for room in the output mailbox; None if it does not."""


class _NoHands:
    """The hands of a kernel without an actor."""

    is_idle, seconds_in_hand, seconds_in_send = True, 0.0, None

    def instances(self) -> Sequence[object]:
        """Return nothing."""
        return ()

    def holder(self, key: int) -> object | None:
        """Return None."""
        return None


class Delays:
    """Says why the requests of one kernel are not answered yet. It is the kernel's `Place`."""

    def __init__(self, gate: Gate, inbox: Inbox[Any]) -> None:
        self._gate = gate
        self.kernel_id = gate.kernel_id
        """The id of the kernel."""
        self.asks = Asks()
        """What the actor waits for in `ctx.ask`."""
        self._inbox = inbox
        self.hands: Hands = _NoHands()
        """What the actor has in its hands."""
        self.forwarded: dict[int, Delays] = {}
        """The requests that were forwarded and are not answered yet, by `message_id.int`, each with its receiver's."""

    # -- for those that look for circles -------------------------------------------------------------------------------

    def instances(self) -> Sequence[object]:
        """See `Place`."""
        return self.hands.instances()

    def whereabouts(self, key: int) -> tuple[Place, Sequence[object]] | None:
        """See `Place`."""
        holder = self.hands.holder(key)
        if holder is not None:
            return self, (holder,)
        receiver = self.forwarded.get(key)
        if receiver is not None:
            return receiver.whereabouts(key)
        waits = any(cast(Header, item[0]).message_id.int == key for item in self._inbox.in_order())
        return (self, self.instances()) if waits else None

    # -- for those that give up ----------------------------------------------------------------------------------------

    def of_waiting(self, before: int) -> Delay:
        """Return why a request in the mailbox is not answered yet. `before` messages come before it."""
        if self._gate.state is KernelState.DEACTIVATED:
            return Delay(TimeoutCause.PAUSED, before)
        if not self._gate.has_actor:
            return Delay(TimeoutCause.RESTARTING, before)
        if (stuck := self.hands.seconds_in_send) is not None:
            return Delay(TimeoutCause.STUCK_IN_SEND, before, stuck)
        held = self.asks.held
        if held and len(held) >= len(self.instances()):
            return _asking(next(iter(held.values())), before)
        return Delay(TimeoutCause.QUEUED, before, self.hands.seconds_in_hand)

    def of_taken(self, key: int) -> Delay:
        """Return why a request that is not in the mailbox any more is not answered yet."""
        holder = self.hands.holder(key)
        ask = self.asks.about(key) or (None if holder is None else self.asks.held.get(holder))
        if ask is not None:
            return _asking(ask)
        if holder is not None:
            if (stuck := self.hands.seconds_in_send) is not None:
                return Delay(TimeoutCause.STUCK_IN_SEND, 0, stuck)
            return Delay(TimeoutCause.IN_HAND, 0, self.hands.seconds_in_hand)
        receiver = self.forwarded.get(key)
        return Delay(TimeoutCause.NO_REPLY) if receiver is None else receiver.of_all({key})[key]

    def of_all(self, keys: Collection[int], not_yet: Mapping[int, int] | None = None) -> dict[int, Delay]:
        """Return why each of these requests is not answered yet, by `message_id.int`. One pass finds them all.

        Args:
            keys: the requests.
            not_yet: those that wait for room in the mailbox, with the number of messages that wait before them.
        """
        delays: dict[int, Delay] = {}
        for before, item in enumerate(self._inbox.in_order()):
            key = cast(Header, item[0]).message_id.int
            if key in keys:
                delays[key] = self.of_waiting(before)
        for key in keys:
            if key in delays:
                continue
            before_room = None if not_yet is None else not_yet.get(key)
            delays[key] = self.of_taken(key) if before_room is None else self.of_waiting(before_room)
        return delays

    def of_receive(self, unanswered: int = 0) -> Delay:
        """Return why there is nothing to receive for a caller with this number of unanswered requests."""
        if self._gate.state is KernelState.DEACTIVATED:
            return Delay(TimeoutCause.PAUSED, self._inbox.depth)
        if not self._gate.has_actor:
            return Delay(TimeoutCause.RESTARTING, self._inbox.depth)
        if (ask := self.asks.oldest) is not None:
            return _asking(ask, self._inbox.depth)
        if not self.hands.is_idle:
            return Delay(TimeoutCause.IN_HAND, self._inbox.depth, self.hands.seconds_in_hand)
        if depth := self._inbox.depth:
            return Delay(TimeoutCause.QUEUED, depth)
        return Delay(TimeoutCause.NO_REPLY if unanswered else TimeoutCause.IDLE)


def _asking(ask: Ask, before: int = 0) -> Delay:
    return Delay(TimeoutCause.ASKING, before, ask.seconds, ask.asked.kernel_id)
