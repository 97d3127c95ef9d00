"""The store of dead letters: its bounds, its order, and what it takes out again."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from pydotcompute import message
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.dead_letters import (
    FROM_KERNEL,
    TO_KERNEL,
    DeadLetter,
    DeadLetterDirection,
    DeadLetterReason,
    DeadLetters,
)
from pydotcompute.v1 import dead_letter_service_pb2 as pb
from pydotcompute.wire.dead_letters import (
    direction_from_proto,
    direction_to_proto,
    reason_from_proto,
    reason_to_proto,
)

DROPPED = DeadLetterReason.DROPPED
MIB = 1 << 20


@dataclass
class Inner:
    data: bytes = b""


@message
class Load:
    number: int = 0
    text: str = ""
    anything: Any = None
    inner: Inner = field(default_factory=Inner)


def store(*messages: Any, limits: RuntimeLimits = DEFAULT_LIMITS) -> DeadLetters:
    kept = DeadLetters(limits)
    for each in messages:
        kept.add(each, "", DROPPED)
    return kept


def ids(kept: DeadLetters) -> list[int]:
    return [letter.id for letter in kept]


def test_the_oldest_go_when_there_are_too_many() -> None:
    kept = store(*[Load(number) for number in range(8)], limits=RuntimeLimits(dead_letters=3))
    assert ([letter.message.number for letter in kept], ids(kept)) == ([5, 6, 7], [6, 7, 8])
    assert (len(kept), kept.discarded, kept[0].id, kept[-1].id) == (3, 5, 6, 8)


def test_the_oldest_go_when_they_are_too_large_together() -> None:
    kept = store(*[Load(text="x" * 3 * MIB) for _ in range(5)], limits=RuntimeLimits(dead_letter_bytes=10 * MIB))
    assert (ids(kept), kept.discarded) == ([3, 4, 5], 2)
    kept.add(Load(), "", DROPPED)
    assert ids(kept) == [3, 4, 5, 6]
    kept.add(Load(text="x" * 9 * MIB), "", DROPPED)
    assert ids(kept) == [6, 7]


def test_the_newest_is_kept_whatever_its_size() -> None:
    kept = store(Load(), Load(text="x" * 2 * MIB), limits=RuntimeLimits(dead_letter_bytes=MIB))
    assert ids(kept) == [2]
    kept.add(Load(), "", DROPPED)
    assert ids(kept) == [3]
    assert kept.size < MIB


def test_what_is_taken_out_is_as_if_it_had_never_been_in() -> None:
    kept = store(*[Load(number, text="x" * 100) for number in range(4)])
    size = kept.size
    seen: list[int] = []

    def take_odd(letter: DeadLetter) -> bool:
        seen.append(letter.id)
        return letter.id % 2 == 1

    assert kept.requeue((3, 2, 1, 99), take_odd) == [1, 3]
    assert (seen, ids(kept), kept.discarded) == ([1, 2, 3], [2, 4], 0)
    assert kept.size == size // 2
    kept.add(Load(), "", DROPPED)
    assert ids(kept) == [2, 4, 5], "no id is given twice"


@pytest.mark.parametrize("reason", DeadLetterReason)
def test_a_reason_tells_the_direction_unless_it_is_said(reason: DeadLetterReason) -> None:
    kept = DeadLetters()
    kept.add(Load(), "", reason)
    kept.add(Load(), "", reason, FROM_KERNEL)
    kept.add(Load(), "", reason, TO_KERNEL)
    replies = (DeadLetterReason.CALLER_GONE, DeadLetterReason.UNDELIVERABLE)
    told = FROM_KERNEL if reason in replies else TO_KERNEL
    assert [letter.direction for letter in kept] == [told, FROM_KERNEL, TO_KERNEL]


def test_reasons_and_directions_cross_the_wire_and_the_wire_has_no_others() -> None:
    assert [reason_from_proto(reason_to_proto(each)) for each in DeadLetterReason] == [*DeadLetterReason]
    assert [direction_from_proto(direction_to_proto(each)) for each in DeadLetterDirection] == [*DeadLetterDirection]
    assert {reason_to_proto(each) for each in DeadLetterReason} == {*pb.DeadLetterReason.values()} - {0}
    assert {direction_to_proto(each) for each in DeadLetterDirection} == {*pb.DeadLetterDirection.values()} - {0}
