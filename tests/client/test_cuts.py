"""Which streams in a row count as tries of the same thing, what the client waits between them, and when it gives up."""

import pytest

from pydotcompute_client.exchange.cuts import Cuts, Obstacle
from pydotcompute_client.pauses import LONGEST_PAUSE

LONG, OTHER = Obstacle("long", "a message"), Obstacle("other", "another message")
IDLE = Obstacle("idle")


@pytest.fixture
def cuts() -> Cuts:
    return Cuts(10.0)


def cut(cuts: Cuts, obstacle: Obstacle | None, *times: float) -> None:
    for now in times:
        cuts.cut(obstacle, now)


def test_the_first_cut_costs_no_time(cuts: Cuts) -> None:
    cut(cuts, LONG, 1.0)
    assert (cuts.count, cuts.delay(), cuts.is_hopeless(100.0)) == (1, 0.0, False)


def test_the_delay_grows_up_to_a_limit(cuts: Cuts) -> None:
    delays = []
    for now in range(2, 40):
        cut(cuts, LONG, float(now))
        delays.append(cuts.delay())
    assert delays[1] < 0.05
    assert all(LONGEST_PAUSE / 2 <= delay <= LONGEST_PAUSE for delay in delays[-20:])


def test_what_does_not_get_through_for_too_long_is_hopeless(cuts: Cuts) -> None:
    cut(cuts, LONG, 1.0, 5.0, 10.9)
    assert (cuts.count, cuts.is_hopeless(10.9)) == (3, False)
    cut(cuts, LONG, 11.0)
    assert (cuts.seconds(11.0), cuts.is_hopeless(11.0)) == (10.0, True)


def test_one_stream_alone_is_never_hopeless_however_long_it_took(cuts: Cuts) -> None:
    cut(cuts, LONG, 1_000.0)
    assert not cuts.is_hopeless(2_000.0)


@pytest.mark.parametrize("between", [None, OTHER, IDLE])
def test_a_stream_that_came_further_begins_a_new_count(cuts: Cuts, between: Obstacle | None) -> None:
    cut(cuts, LONG, 1.0, 9.0)
    cut(cuts, between, 10.0)
    cut(cuts, LONG, 12.0)
    assert (cuts.count, cuts.delay(), cuts.is_hopeless(12.0)) == (1, 0.0, False)


def test_streams_that_end_without_anything_under_way_come_later_and_later_but_are_never_hopeless(cuts: Cuts) -> None:
    cut(cuts, IDLE, *map(float, range(100)))
    assert cuts.delay() >= LONGEST_PAUSE / 2
    assert not cuts.is_hopeless(1_000.0)


def test_streams_that_got_on_are_not_counted(cuts: Cuts) -> None:
    cut(cuts, None, *map(float, range(100)))
    assert (cuts.count, cuts.delay(), cuts.is_hopeless(1_000.0)) == (0, 0.0, False)
