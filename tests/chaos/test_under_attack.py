"""An attack on a daemon, in its short form; `make fuzz` runs all of them."""

from dataclasses import replace

import pytest

from tests.chaos.neighbour import Waits
from tests.chaos.processes import Processes
from tests.chaos.under_attack import Figures, measure

MIB = 1 << 20
QUIET = Waits(asked=600, median=0.001, p99=0.002, worst=0.3, longest_work=0.002, wrong=0)
FIGURES = Figures("attack", "OK", 1.0, QUIET, QUIET, 60 * MIB, 70 * MIB, 65 * MIB, 0, 1.0)


@pytest.mark.thorough
@pytest.mark.timeout(120)
def test_a_client_beside_an_attack_is_answered() -> None:
    figures: list[Figures] = []
    while len(figures) < 3 and (not figures or figures[-1].problems(512 * MIB)):
        with Processes(1) as processes:
            figures.append(measure("dimensions", processes))
    assert figures[-1].problems(512 * MIB) == []
    assert figures[-1].during.asked > 0
    assert "INVALID_ARGUMENT" in figures[-1].answer


def test_an_answer_that_waits_for_other_programs_is_no_finding() -> None:
    assert replace(FIGURES, during=replace(QUIET, worst=5.0)).problems(512 * MIB) == []


def test_every_bound_is_a_finding() -> None:
    def problems(**changes: object) -> list[str]:
        return replace(FIGURES, **changes).problems(512 * MIB)  # type: ignore[arg-type]

    assert problems() == []
    assert problems(during=replace(QUIET, longest_work=0.2)) == [
        "attack: the client beside it waited 200 times its quiet median"
    ]
    assert problems(during=replace(QUIET, worst=11.0)) == ["attack: the client beside it waited 11.0 s"]
    assert problems(during=replace(QUIET, wrong=1)) == ["attack: 1 answers to the client beside it were wrong"]
    assert problems(peak=660 * MIB) == ["attack: the daemon took 600 MiB more"]
    assert problems(exit_code=3) == ["attack: the daemon ended with 3"]
