"""The rule by which an ask goes in a circle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from pydotcompute.ring_kernels.mail.asks import Ask, Asks, Place, circle

NO_TASK = cast("asyncio.Task[object]", None)


class FakePlace:
    """A kernel with some instances, at which requests are in the mailbox, with an instance, or kept."""

    def __init__(self, kernel_id: str, count: int) -> None:
        self.kernel_id = kernel_id
        self.asks = Asks()
        self.members = [f"{kernel_id}/{number}" for number in range(count)]
        self.holders: dict[int, str] = {}
        self.kept: set[int] = set()

    def instances(self) -> Sequence[object]:
        """See `Place`."""
        return self.members

    def whereabouts(self, key: int) -> tuple[Place, Sequence[object]] | None:
        """See `Place`."""
        if key in self.kept:
            return None
        return self, ([self.holders[key]] if key in self.holders else self.members)


def can_end(places: list[FakePlace]) -> set[object]:
    """The instances that will take messages again, found the other way round: from those that can, step by step."""
    able: set[object] = {each for place in places for each in place.members if each not in place.asks.held}
    while True:
        more = set()
        for place in places:
            for each, ask in place.asks.held.items():
                there = ask.whereabouts()
                if each not in able and (there is None or able.intersection(there[1])):
                    more.add(each)
        if not more:
            return able
        able |= more


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_only_what_cannot_end_is_refused(counts: list[int], data: st.DataObject) -> None:
    places = [FakePlace(f"k{number}", count) for number, count in enumerate(counts)]
    key = 0
    for _ in range(data.draw(st.integers(0, 10))):
        asker = data.draw(st.sampled_from(places))
        free = [each for each in asker.members if each not in asker.asks.held]
        if not free:
            continue
        taker = data.draw(st.sampled_from(free))
        to = data.draw(st.sampled_from(places))
        key += 1
        ask = Ask(to, key, None, taker, True, NO_TASK, is_sent=data.draw(st.booleans()))
        found = circle(asker.kernel_id, taker, to)
        asker.asks.add(ask)
        ends = taker in can_end(places)
        assert (found is None) == ends
        if found is not None:
            assert found[0] == found[-1] == asker.kernel_id
            assert found[1] == to.kernel_id
            asker.asks.remove(ask)
        elif ask.is_sent and data.draw(st.booleans()):  # Somebody who can takes it.
            takers = [each for each in to.members if each not in to.asks.held]
            is_kept = data.draw(st.booleans())
            if takers and not is_kept:
                to.holders[key] = data.draw(st.sampled_from(takers))
            elif takers:
                to.kept.add(key)


def test_an_ask_that_does_not_hold_the_actor_closes_no_circle() -> None:
    place = FakePlace("k", 1)
    place.asks.add(Ask(place, 1, None, place.members[0], False, NO_TASK))
    assert circle("k", None, place) is None
    assert place.asks.oldest is not None
    assert place.asks.held == {}


def test_the_oldest_ask_is_told() -> None:
    place, other = FakePlace("k", 1), FakePlace("o", 1)
    asks: list[Any] = [Ask(other, number, number, place.members[0], False, NO_TASK) for number in (1, 2)]
    for ask in asks:
        place.asks.add(ask)
    assert place.asks.oldest is asks[0]
    assert place.asks.about(2) is asks[1]
    first, _ = asks
    place.asks.remove(first)
    assert place.asks.oldest is asks[1]
