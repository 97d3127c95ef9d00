"""The estimates of the bytes that messages take."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pydotcompute import message
from pydotcompute.ring_kernels.mail.sizes import MESSAGES_LOOKED_AT, estimated_size, estimated_sum

MIB = 1 << 20


@dataclass
class Inner:
    data: bytes = b""


@message
class Load:
    text: str = ""
    anything: Any = None
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    "large",
    [
        Load(text="x" * MIB),
        Load(anything=bytes(MIB)),
        Load(anything=np.zeros(MIB, np.uint8)),
        Load(anything=np.frombuffer(bytes(MIB), np.uint8)),
        Load(inner=Inner(bytes(MIB))),
        Load(anything=[Inner(bytes(1024)) for _ in range(1024)]),
        Load(anything={f"{number:0512}": bytes(512) for number in range(1024)}),
        Load(anything=([0.0] * 4, ["x" * MIB])),
    ],
    ids=["text", "bytes", "array", "view", "nested", "list", "dict", "tuple"],
)
def test_the_size_of_a_large_message_is_about_its_size(large: Load) -> None:
    assert MIB <= estimated_size(large) < 1.5 * MIB
    assert estimated_size(Load()) < 2048


def test_the_size_of_a_message_that_contains_itself_is_finite() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert estimated_size(Load(anything=endless)) < MIB


def test_the_sum_of_a_short_queue_is_that_of_its_messages() -> None:
    loads = [Load(text="x" * size) for size in range(0, 10 * MESSAGES_LOOKED_AT, 10)]
    assert estimated_sum(loads, len(loads)) == sum(map(estimated_size, loads))


def test_the_sum_of_a_long_queue_is_about_that_of_its_messages() -> None:
    loads = [Load(text="x" * (number % 7)) for number in range(100 * MESSAGES_LOOKED_AT)]
    assert estimated_sum(loads, len(loads)) == pytest.approx(sum(map(estimated_size, loads)), rel=0.05)


def test_the_sum_of_nothing_is_nothing() -> None:
    assert estimated_sum([], 0) == 0
