"""A principal that floods a daemon costs another one no session, no reply, and no right answer."""

import pytest

from tests.chaos.beside_a_flood import measure
from tests.chaos.floods import FLOODS
from tests.chaos.processes import Processes, seed_of

FEW = (
    "messages_under_way_per_principal=64",
    "client_ids=50",
    "sessions_kept=50",
    "max_sessions=64",
    "sent_ids=50",
    "requests=5000",
)
"""Limits that each flood reaches soon."""


@pytest.mark.thorough
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_costs_the_quiet_one_nothing(flood: str) -> None:
    with Processes(seed_of(1)) as processes:
        figures = measure(flood, processes, FEW, seconds=1.0)
    assert (figures.lost, figures.during.wrong) == ((), 0), figures
