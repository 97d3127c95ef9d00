"""The elements of a message are counted in its bytes."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pydotcompute import message
from pydotcompute.messages.ids import new_message_id
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.elements import counter
from pydotcompute.protobuf.pool import TypePool

ALL = 1 << 40


@message(package="elements.v1")
@dataclass
class Inner:
    """A message in a message."""

    x: float = 0.0
    names: list[str] = field(default_factory=list)


@message(package="elements.v1")
@dataclass
class Outer:
    """A message of every kind of field that can hold much."""

    number: int = 0
    text: str = ""
    data: bytes = b""
    inner: Inner = field(default_factory=Inner)
    inners: list[Inner] = field(default_factory=list)
    integers: list[int] = field(default_factory=list)
    floats: list[float] = field(default_factory=list)
    flags: list[bool] = field(default_factory=list)
    by_name: dict[str, Inner] = field(default_factory=dict)
    array: np.ndarray = field(default_factory=lambda: np.zeros(0))


CODEC = Codec(Outer, TypePool())
EMPTY = CODEC.count(CODEC.encode(Outer()), ALL)
"""The elements of a message of defaults: some fields are written all the same."""


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"text": "x" * 100_000}, 1),
        ({"data": bytes(100_000)}, 1),
        ({"integers": [0, 1, -1, 1 << 62]}, 1 + 4),
        ({"floats": [0.5] * 7}, 1 + 7),
        ({"flags": [True, False]}, 1 + 2),
        ({"inners": [Inner(), Inner(1.0, ["a", "b"])]}, 2 + 1 + 2),
        ({"by_name": {"a": Inner(), "b": Inner()}}, 2 * (1 + 1 + 1)),
        ({"array": np.zeros((10, 100))}, None),
    ],
)
def test_everything_that_makes_work_is_counted(fields: dict[str, Any], more: int | None) -> None:
    encoded = CODEC.encode(Outer(**fields))
    found = CODEC.count(encoded, ALL)
    assert found == CODEC.count(memoryview(encoded), ALL)
    if more is None:
        assert found < EMPTY + 10  # The numbers of an array are not counted.
    else:
        assert found == EMPTY + more


def test_the_count_stops_at_the_limit() -> None:
    encoded = CODEC.encode(Outer(inners=[Inner()] * 10_000))
    assert 100 < CODEC.count(encoded, 100) < 110
    encoded = CODEC.encode(Outer(integers=[1] * 10_000))
    assert CODEC.count(encoded, 100) > 100


def test_unknown_fields_and_groups_are_counted() -> None:
    for unknown in (b"\xf8\x06\x01", b"\xf9\x06" + bytes(8), b"\xfd\x06" + bytes(4), b"\xfa\x06\x02ab"):
        assert CODEC.count(unknown * 50, ALL) == 50
    assert CODEC.count(b"\xfb\x06\xfc\x06" * 50, ALL) == 100


def test_what_the_parser_reads_was_counted_before() -> None:
    rng = random.Random(5)
    whole = CODEC.encode(
        Outer(3, "text", b"data", Inner(2.0, ["a"]), [Inner()] * 3, [1, 300], [0.5], [True], {"k": Inner()}, np.ones(3))
    )
    read = 0
    for _ in range(3_000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        mutated = bytes(data[: rng.randint(1, len(data))])
        found = CODEC.count(mutated, ALL)  # It never fails.
        try:
            decoded = CODEC.decode(mutated, new_message_id(), 128, None)
        except Exception:
            continue
        read += 1
        made = len(decoded.inners) + len(decoded.integers) + len(decoded.floats) + len(decoded.flags)
        assert found >= made + len(decoded.by_name) + sum(len(inner.names) for inner in decoded.inners)
    assert read > 50


@message(package="elements.v1")
@dataclass
class Chain:
    """A message that can contain itself."""

    next: "Chain | None" = None


def test_messages_that_contain_themselves_are_counted_to_any_depth() -> None:
    data = b""
    for _ in range(50):
        data = b"\x0a" + bytes([len(data)]) + data
    assert counter(Codec(Chain, TypePool()).descriptor)(data, ALL) == 50


def test_only_types_without_messages_and_texts_in_lists_are_plain() -> None:
    @message(package="elements.v1")
    @dataclass
    class Plain:
        """Numbers, and what is copied."""

        a: float = 0.0
        b: bytes = b""
        c: str | None = None
        d: list[int] = field(default_factory=list)
        e: np.ndarray = field(default_factory=lambda: np.zeros(0))

    assert Codec(Plain, TypePool()).is_plain
    assert not CODEC.is_plain
    assert not Codec(Inner, TypePool()).is_plain
