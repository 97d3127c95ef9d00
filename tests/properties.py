"""How much is tried. The profiles of Hypothesis say it, and `tests/conftest.py` chooses one.

`quick` is for `make test`, `thorough` for CI. In `quick` there are fewer examples of what is random, and the tests with
the mark `thorough` are left out: those that take many processes, or much time.
"""

import os
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

THOROUGH = 100
"""Examples of a property in the profile `thorough`; in `quick` they are a fifth of that."""

IN_CI = os.environ.get("CI") == "true"

PROFILES = {"quick": THOROUGH // 5, "thorough": THOROUGH}


def use_profile() -> None:
    """Register the profiles and use one: what HYPOTHESIS_PROFILE says, or `thorough` in CI and `quick` elsewhere."""
    for name, count in PROFILES.items():
        settings.register_profile(
            name,
            max_examples=count,
            # A busy machine is slow, which is no fault of what is tested.
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            # In CI a failure is to belong to the change it is told of, and to be the same when it is run again; new
            # examples are searched by everybody else, whose failures are kept in .hypothesis and told with a blob.
            derandomize=IN_CI,
            print_blob=True,
        )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "thorough" if IN_CI else "quick"))


def is_thorough() -> bool:
    """Returns True in the profile `thorough`, in which the tests with the mark `thorough` run too."""
    return bool(settings().max_examples == THOROUGH)


def examples(thorough: int) -> int:
    """How many to try, of so many in the profile `thorough`."""
    return max(1, thorough * settings().max_examples // THOROUGH)


def cases(values: Iterable[Any], *, quick: Iterable[Any]) -> list[Any]:
    """Return the parameters of a test of which only those in `quick` run in the profile `quick`."""
    few = list(quick)
    return [each if each in few else pytest.param(each, marks=pytest.mark.thorough) for each in values]
