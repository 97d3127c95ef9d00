"""The rules of restarts and of messages that are given again, without an actor."""

from typing import Any

import pytest

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.ring_kernels import RuntimeLimits
from pydotcompute.ring_kernels.supervision import LONGEST_PAUSE, Restarts, Supervision
from pydotcompute.ring_kernels.worker_limits import WorkerLimits


def test_an_actor_that_fails_again_and_again_waits_longer_each_time() -> None:
    restarts = Restarts(20, 1e9)
    pauses = [restarts.next_pause(now=float(number)) for number in range(13)]
    assert pauses[0] == 0.0
    for pause, expected in zip(pauses[1:], [0.1 * 2**number for number in range(12)], strict=True):
        assert pause is not None
        assert 0.75 <= pause / min(LONGEST_PAUSE, expected) <= 1.25


def test_an_actor_that_has_done_a_message_is_started_again_at_once() -> None:
    restarts = Restarts(20, 1e9)
    assert [restarts.next_pause(now=0.0, has_progressed=True) for _ in range(5)] == [0.0] * 5
    assert restarts.next_pause(now=0.0) != 0.0
    assert restarts.next_pause(now=0.0, has_progressed=True) == 0.0


def test_returns_are_no_failures() -> None:
    restarts = Restarts(1, 1e9)
    assert [restarts.pause_after_return(has_progressed=True) for _ in range(5)] == [0.0] * 5
    assert restarts.pause_after_return(has_progressed=False) > 0.0
    assert restarts.next_pause(now=0.0) is not None


def test_there_are_no_more_restarts_than_the_most_within_the_window() -> None:
    restarts = Restarts(2, 10.0)
    assert restarts.next_pause(now=0.0) == 0.0
    assert restarts.next_pause(now=9.0) is not None
    assert restarts.next_pause(now=9.9) is None
    assert restarts.next_pause(now=10.0) is not None  # The first is longer ago than the window.
    assert restarts.next_pause(now=11.0) is None
    assert restarts.next_pause(now=30.0) == 0.0  # All are.


def test_the_pause_is_finite_after_very_many_restarts() -> None:
    restarts = Restarts(10_000, 1e9)
    assert all((restarts.next_pause(now=0.0) or 0.0) <= LONGEST_PAUSE * 1.25 for _ in range(5_000))


def test_the_limits_of_the_runtime_hold_where_the_type_says_nothing() -> None:
    limits = RuntimeLimits(max_restarts=1)
    restarts = Restarts.of(Supervision("on_failure"), limits)
    assert [restarts.next_pause(now=0.0) is None for _ in range(2)] == [False, True]
    restarts = Restarts.of(Supervision("on_failure", max_restarts=2), limits)
    assert [restarts.next_pause(now=0.0) is None for _ in range(3)] == [False, False, True]


def test_a_message_is_given_at_most_as_often_as_the_type_says() -> None:
    supervision = Supervision("on_failure", on_crash="redeliver", max_deliveries=2)
    assert [supervision.gives_again(deliveries) for deliveries in (1, 2, 3)] == [True, False, False]
    assert not Supervision("on_failure").gives_again(1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"restart": "sometimes"}, "choose never, on_failure or always"),
        ({"restart": "always", "on_crash": "ignore"}, "choose dead_letter or redeliver"),
        ({"restart": "always", "max_restarts": 0}, "at least 1"),
        ({"restart": "always", "max_deliveries": True}, "at least 1"),
        ({"restart": "always", "restart_window": float("nan")}, "more than 0"),
        ({"max_restarts": 5}, "only an actor that is started again"),
        ({"restart_window": 5.0}, "only an actor that is started again"),
        ({"on_crash": "redeliver"}, "only an actor that is started again"),
    ],
)
def test_a_setting_that_is_wrong_or_has_no_effect_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidConfigurationError, match=text):
        Supervision(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"time_limit": 0}, {"hang_timeout": "1"}, {"cpus": ()}, {"cpus": "01"}, {"cpus": 1}, {"nice": 20}, {"nice": 1.0}],
)
def test_a_limit_of_a_worker_that_is_none_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigurationError, match="must be"):
        WorkerLimits(**settings)


def test_cpus_are_sorted_and_named_once() -> None:
    assert WorkerLimits(cpus=[1, 0, 1]).cpus == (0, 1)  # type: ignore[arg-type]
