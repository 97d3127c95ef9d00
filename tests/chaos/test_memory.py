"""The judgement on growing memory."""

import random

from tests.chaos.memory import MIB, Memory


def sampled(sizes: list[float]) -> Memory:
    """Samples of these sizes in MiB, one a second."""
    memory = Memory("daemon")
    for when, size in enumerate(sizes):
        memory.add(when, round(size * MIB))
    return memory


def test_memory_that_goes_up_and_down_does_not_grow() -> None:
    dice = random.Random(1)
    assert not sampled([100 + dice.uniform(-20, 20) for _ in range(200)]).grows(warm_up=20)


def test_memory_that_rises_grows() -> None:
    dice = random.Random(2)
    memory = sampled([100 + when / 5 + dice.uniform(-20, 20) for when in range(200)])
    assert memory.grows(warm_up=20)
    assert 25 * MIB < memory.growth(warm_up=20) < 45 * MIB


def test_what_is_gained_while_it_warms_up_does_not_count() -> None:
    assert not sampled([60.0 + min(when, 20) * 5 for when in range(200)]).grows(warm_up=20)
