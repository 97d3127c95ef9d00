"""The asks of actors: the requests that they send to other kernels, and whose replies they wait for.

An actor that waits for a reply in its own task, or its own thread, takes no message meanwhile: it is *held*. So a
request that only held actors can take, and whose replies wait for that very request, is never answered: it goes in a
*circle*. What an actor waits for in other tasks does not hold it, because it can take messages meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from pydotcompute.exceptions import PyDotComputeError, RequestWithdrawnError

__all__ = ["Ask", "Asks", "Place", "circle"]


class Place(Protocol):
    """A kernel, as a circle sees it."""

    kernel_id: str
    asks: Asks

    def instances(self) -> Sequence[object]:
        """Return what takes the messages of the kernel: its actor, or each instance of it."""

    def whereabouts(self, key: int) -> tuple[Place, Sequence[object]] | None:
        """Return the kernel at which the request of this `message_id.int` now is, and which instances may answer it.

        None if the actor has neither got it in hand nor has yet to take it. Then another task of the actor may answer.
        """


@dataclass(eq=False, slots=True)
class Ask:
    """One request of an actor."""

    asked: Place
    """The kernel that was asked."""
    key: int
    """The `message_id.int` of the request."""
    about: int | None
    """The `message_id.int` of the request that the actor had got and asks for; None if it asks for none of them."""
    taker: object
    """The actor, or the instance of it, that asks."""
    holds: bool
    """True if the actor takes no message until it has the reply."""
    task: asyncio.Task[object]
    """The task that waits for the reply."""
    is_sent: bool = False
    """True once the request is in the other kernel's mailbox."""
    since: float = field(default_factory=monotonic)
    """When the actor asked, by `time.monotonic()`."""
    error: PyDotComputeError | None = None
    """The error that was given to `stop`."""

    @property
    def seconds(self) -> float:
        """For how long the actor has waited."""
        return monotonic() - self.since

    def sent(self) -> None:
        """Note that the request is in the other kernel's mailbox."""
        self.is_sent = True

    def stop(self, error: PyDotComputeError) -> None:
        """Let the ask end with this error. Its task is cancelled, and has to raise `error` in place of that."""
        if self.error is None:
            self.error = error
            self.task.cancel()

    def whereabouts(self) -> tuple[Place, Sequence[object]] | None:
        """Return where the request is; see `Place`. What waits for room in a mailbox is as good as in it."""
        return self.asked.whereabouts(self.key) if self.is_sent else (self.asked, self.asked.instances())


class Asks:
    """The asks of one kernel that are not answered yet."""

    __slots__ = ("held", "under_way")

    def __init__(self) -> None:
        self.under_way: dict[Ask, None] = {}
        """All of them, the oldest first."""
        self.held: dict[object, Ask] = {}
        """For each instance of the actor that takes no message meanwhile, what it waits for; the oldest first."""

    def add(self, ask: Ask) -> None:
        """Note that the actor asks."""
        self.under_way[ask] = None
        if ask.holds:
            self.held[ask.taker] = ask

    def remove(self, ask: Ask) -> None:
        """Note that an ask is over."""
        del self.under_way[ask]
        if self.held.get(ask.taker) is ask:
            del self.held[ask.taker]

    @property
    def oldest(self) -> Ask | None:
        """The ask that waits the longest; None if there is none."""
        return next(iter(self.under_way), None)

    def about(self, key: int) -> Ask | None:
        """Return an ask for the request of this `message_id.int`; None if there is none."""
        return next((ask for ask in self.under_way if ask.about == key), None)

    def withdraw(self, which: Callable[[int], bool]) -> None:
        """Withdraw the asks for requests that nobody wants any more. `which` gets the `message_id.int` of a request."""
        for ask in list(self.under_way):
            if ask.about is not None and which(ask.about):
                ask.stop(RequestWithdrawnError(ask.asked.kernel_id))

    def end(self, error: PyDotComputeError) -> None:
        """End all asks with this error: the actor has ended."""
        for ask in list(self.under_way):
            ask.stop(error.again())


def circle(asker: str, taker: object | None, to: Place, forwarded: int | None = None) -> list[str] | None:
    """Return the kernels of the circle in which a new request would go; None if it would go in none.

    A request can be answered if an actor can take it that is not held, or that waits for one that can be answered.

    Args:
        asker: the id of the kernel that asks or forwards.
        taker: the actor that asks, or the instance of it, if it takes no message until it has the reply; else None.
        to: the kernel that is to get the request.
        forwarded: the `message_id.int` of the request, if `asker` forwards it.
    """
    met: set[object] = set()
    path = [asker]
    closed: list[str] | None = None
    left: list[tuple[Place, Sequence[object], list[str]]] = [(to, to.instances(), path)]
    while left:
        place, takers, way = left.pop()
        path = [*way, place.kernel_id]
        for each in takers:
            if each is taker:
                closed = closed or path
            if each is taker or each in met:
                continue
            met.add(each)
            ask = place.asks.held.get(each)
            if ask is None:
                return None
            if ask.key == forwarded:
                closed = closed or [*path, asker]
                continue
            whereabouts = ask.whereabouts()
            if whereabouts is None:
                return None
            left.append((*whereabouts, path))
    return closed or path
