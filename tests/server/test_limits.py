"""The bounds of a daemon."""

from dataclasses import fields, replace
from math import inf, nan
from typing import Any

import pytest

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_server.limits import Limits


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [-1, nan, inf, True, "10", None])
def test_a_limit_that_is_none_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidConfigurationError) as refused:
        replace(Limits(), **{name: value})
    assert refused.value.parameter == name
    assert refused.value.problem


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("max_message_bytes", 0, "it is more than 0"),
        ("max_message_bytes", 1.5, "not a whole number"),
        ("keepalive", 0.0, "it is more than 0"),
        ("grace", -0.1, "it is at least 0"),
        ("shared_memory_bytes", 1_000, "at least 1048576 are of use"),
        ("dead_letters_default_page", 1_001, "more than dead_letters_page, which is 1000"),
    ],
)
def test_a_limit_that_cannot_work_is_refused_with_a_reason(name: str, value: Any, problem: str) -> None:
    with pytest.raises(InvalidConfigurationError) as refused:
        replace(Limits(), **{name: value})
    assert (refused.value.parameter, refused.value.value, refused.value.problem) == (name, str(value), problem)


def test_limits_that_say_that_there_is_none_are_taken() -> None:
    assert Limits(shared_memory_bytes=0, session_timeout=0, grace=0, answer_margin=0, last_calls=0, last_resort=0)
