"""How often what is random is tried. The profiles of Hypothesis say it, and `tests/conftest.py` chooses one."""

import os

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
    """True in the profile `thorough`: what takes minutes is tried too."""
    return bool(settings().max_examples == THOROUGH)


def examples(thorough: int) -> int:
    """How many to try, of so many in the profile `thorough`."""
    return max(1, thorough * settings().max_examples // THOROUGH)
