"""When a worker takes too much, as the looks at it say."""

from collections.abc import Hashable

from pydotcompute.wire.worker.overuse import Look, Overuse


def cause_after(overuse: Overuse, *looks: Look) -> str | None:
    """The verdict after the last of these looks; there is none before it."""
    *before, last = looks
    assert not any(overuse.judge(look) for look in before)
    verdict = overuse.judge(last)
    return None if verdict is None else verdict.cause_type


def every(seconds: float, count: int, in_hand: Hashable = None, beat: int = 0, *, start: float = 0.0) -> list[Look]:
    return [Look(start + number * seconds, beat, in_hand=in_hand) for number in range(count)]


def test_without_limits_there_is_nothing_to_look_at() -> None:
    overuse = Overuse(None, None, None)
    assert overuse.interval is None
    assert cause_after(overuse, *every(100.0, 3, "a")) is None


def test_looks_are_as_frequent_as_the_shortest_limit_needs() -> None:
    assert Overuse(0.8, 80.0, None).interval == 0.1
    assert Overuse(None, None, 1).interval == 0.25
    assert Overuse(1e-9, None, None).interval == 0.01
    assert Overuse(1e9, 1e9, None).interval == 1.0


def test_the_same_message_in_hand_for_too_long() -> None:
    assert cause_after(Overuse(0.8, None, None), *every(0.1, 9, "a")) is None
    assert cause_after(Overuse(0.8, None, None), *every(0.1, 10, "a")) == "TimeLimitExceeded"
    assert cause_after(Overuse(0.8, None, None), *every(0.1, 20)) is None  # Nothing is in hand.


def test_each_message_has_its_own_time() -> None:
    overuse = Overuse(0.8, None, None)
    assert cause_after(overuse, *every(0.1, 8, "a"), *every(0.1, 8, "b", start=0.8), *every(0.1, 2, start=1.6)) is None


def test_time_in_which_others_do_not_receive_is_not_the_actors() -> None:
    overuse = Overuse(0.8, None, None)
    waiting = [Look(0.8 + number * 0.1, in_hand="a", is_waiting=True) for number in range(50)]
    assert cause_after(overuse, *every(0.1, 8, "a"), *waiting) is None
    assert cause_after(overuse, *every(0.1, 2, "a", start=5.8)) == "TimeLimitExceeded"


def test_a_worker_whose_beat_stands_still_shows_no_life() -> None:
    assert cause_after(Overuse(None, 0.8, None), *every(0.1, 10)) == "HangTimeoutExceeded"
    beating = [Look(number * 0.1, beat=number // 5) for number in range(50)]
    assert cause_after(Overuse(None, 0.8, None), *beating) is None


def test_a_long_time_without_a_look_counts_little() -> None:
    # This process was stopped, and the worker with it perhaps.
    assert cause_after(Overuse(0.8, 0.8, None), *every(100.0, 5, "a")) is None


def test_too_much_memory() -> None:
    overuse = Overuse(None, None, 100)
    assert cause_after(overuse, Look(0.0, allocated=100), Look(0.1, allocated=101)) == "MemoryLimitExceeded"
