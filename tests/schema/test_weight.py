"""The weight of a message says, before it is written, if that is much work."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pydotcompute import message
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.weight import ELEMENT_BYTES, weigher

MOST = 1 << 40


@message
@dataclass
class Leaf:
    """A message in others."""

    name: str = ""


@message
@dataclass
class Tree:
    """A message that can contain itself, and everything else."""

    note: str = ""
    leaves: list[Leaf] = field(default_factory=list)
    numbers: tuple[float, ...] = ()
    by_name: dict[str, list[int]] = field(default_factory=dict)
    branches: list["Tree"] = field(default_factory=list)
    one: "Leaf | Tree | None" = None
    array: np.ndarray | None = None


@message
@dataclass
class Numbers:
    """A message of numbers and arrays only."""

    x: float = 0.0
    flag: bool = False
    array: np.ndarray = field(default_factory=lambda: np.zeros(0))


@message
@dataclass
class Note:
    """A message with a text."""

    text: str = ""


@pytest.mark.parametrize(
    ("tree", "weight"),
    [
        (Tree(), 0),
        (Tree(note="abc"), 3),
        (Tree(leaves=[Leaf("ab"), Leaf()]), 2 * ELEMENT_BYTES + 2),
        (Tree(numbers=(1.0,) * 5), 5 * ELEMENT_BYTES),
        (Tree(by_name={"a": [1, 2], "b": []}), 4 * ELEMENT_BYTES),
        (Tree(branches=[Tree(branches=[Tree("xy")])]), 2 * ELEMENT_BYTES + 2),
        (Tree(one=Leaf("abcd")), 4),
        (Tree(array=np.zeros(1_000)), 0),
    ],
)
def test_texts_weigh_their_length_and_elements_a_fixed_weight(tree: Tree, weight: int) -> None:
    weigh = weigher(introspect(Tree), texts=True)
    assert weigh is not None
    assert weigh(tree, MOST) == weight


def test_texts_can_be_left_out() -> None:
    weigh = weigher(introspect(Tree), texts=False)
    assert weigh is not None
    assert weigh(Tree("abc", [Leaf("abc")]), MOST) == ELEMENT_BYTES


def test_what_is_always_light_is_not_weighed() -> None:
    assert weigher(introspect(Numbers), texts=True) is None
    assert weigher(introspect(Note), texts=False) is None
    assert weigher(introspect(Note), texts=True) is not None


def test_weighing_ends_as_soon_as_a_message_is_heavy() -> None:
    class Watched(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("it is heavy already")

    weigh = weigher(introspect(Tree), texts=True)
    assert weigh is not None
    assert weigh(Tree(leaves=Watched([Leaf()] * 100)), 50 * ELEMENT_BYTES) >= 50 * ELEMENT_BYTES


def test_a_message_that_does_not_fit_its_annotations_is_light() -> None:
    weigh = weigher(introspect(Tree), texts=True)
    assert weigh is not None
    tree = Tree()
    tree.leaves = 3  # type: ignore[assignment]
    assert weigh(tree, MOST) == 0
