"""How far ahead of one of several actors: by the time that a message takes."""

import pytest

from pydotcompute.wire.worker.pace import MOMENT, Pace


def settled(seconds: float, count: int = 50) -> tuple[Pace, int]:
    """A pace that has seen messages of this length, and what should be ahead then."""
    pace, now, ahead = Pace(256), 0.0, 1
    pace.handed(now)
    for _ in range(count):
        now += seconds
        ahead = pace.done(1, now, left=True)
    return pace, ahead


@pytest.mark.parametrize(
    ("seconds", "ahead"), [(1.0, 1), (MOMENT, 1), (MOMENT / 10.5, 10), (MOMENT / 1000, 256), (0.0, 256)]
)
def test_as_much_is_ahead_as_takes_a_moment(seconds: float, ahead: int) -> None:
    assert settled(seconds)[1] == ahead


def test_the_time_without_work_does_not_count() -> None:
    pace = Pace(256)
    for start in range(0, 100, 10):
        pace.handed(float(start))
        ahead = pace.done(10, start + 0.001, left=False)
    assert 18 <= ahead <= 20


def test_a_slow_message_is_forgotten() -> None:
    pace, _ = settled(MOMENT / 100.5)
    now = 1000.0
    pace.done(1, now, left=False)
    pace.handed(now)
    assert pace.done(1, now + 1.0, left=True) == 1
    now += 1.0
    for _ in range(50):
        now += MOMENT / 100.5
        ahead = pace.done(1, now, left=True)
    assert ahead > 50
