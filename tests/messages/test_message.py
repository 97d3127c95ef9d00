"""What `@message` makes of a class."""

from __future__ import annotations  # So every annotation below is a text, as in many users' files.

import copy
import dataclasses
import pickle
import sys
from typing import Any, Generic, TypeVar
from uuid import uuid4

import pytest

from pydotcompute import message
from pydotcompute.exceptions import MessageTypeError
from pydotcompute.messages.message import is_message_class, message_classes
from pydotcompute.schema.introspect import introspect
from tests.messages.classes import (
    ALL,
    Declared,
    Frozen,
    Inheriting,
    Narrowed,
    Outer,
    Part,
    Plain,
    Validated,
    make,
)

T = TypeVar("T")


@message
class Box(Generic[T]):
    """A message class with a parameter."""

    item: T


@message
class Cooperative(Validated):
    """Extends the `__post_init__` it inherits."""

    width: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.width = self.high - self.low


@message
class Ancestor:
    """Counts how often its `__post_init__` runs, and is never made an instance of itself."""

    calls: int = 0

    def __post_init__(self) -> None:
        self.calls += 1


@message
class Descendant(Ancestor):
    """The first of its family to be made."""

    x: float = 0


@message
class Elder:
    """Like Ancestor."""

    calls: int = 0

    def __post_init__(self) -> None:
        self.calls += 1


@message
class Heir(Elder):
    """The first of its family to be made, and extends what it inherits."""

    double: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.double = 2 * self.calls


@pytest.mark.parametrize("cls", ALL)
def test_a_message_class_keeps_its_name_its_place_and_its_docstring(cls: Any) -> None:
    assert cls.__qualname__ == cls.__name__
    assert getattr(sys.modules[cls.__module__], cls.__name__) is cls
    assert cls.__doc__
    assert cls in message_classes()
    assert is_message_class(cls)


@pytest.mark.parametrize("cls", ALL)
def test_a_message_can_be_pickled_and_copied(cls: Any) -> None:
    made = make(cls, priority=9)
    for back in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
        assert type(back) is cls
        assert back == made
        assert (back.message_id, back.priority) == (made.message_id, 9)


@pytest.mark.parametrize("cls", ALL)
def test_messages_with_different_bodies_differ(cls: Any) -> None:
    header = {"message_id": uuid4()}
    assert cls(1, **header) == cls(1, **header)
    assert cls(1, **header) != cls(2, **header)


def test_messages_of_different_classes_differ() -> None:
    plain: object = Plain(1)
    assert plain != Inheriting(1)


def test_a_declared_header_takes_part_in_equality() -> None:
    assert Declared(1) != Declared(1)
    one = Declared(1)
    assert one == dataclasses.replace(one)


def test_a_message_without_a_declared_header_is_compared_by_its_body() -> None:
    assert Plain(1) == Plain(1)


@pytest.mark.parametrize("cls", ALL)
def test_an_int_in_a_float_field_becomes_a_float(cls: Any) -> None:
    body_field = next(f.name for f in dataclasses.fields(cls) if f.name in ("a", "x"))
    assert repr(getattr(make(cls), body_field)) == "1.0"


def test_a_frozen_message_is_normalized_and_then_stays_as_it_is() -> None:
    made = Frozen(1, (1, 2))
    assert repr((made.x, made.values)) == "(1.0, (1.0, 2.0))"
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.x = 2.0  # type: ignore[misc]
    assert hash(made) == hash(Frozen(1.0, (1.0, 2.0)))


def test_numbers_are_normalized_inside_parts_that_are_declared_later() -> None:
    made = Outer(Part(1), [Part(2), Part(3)])
    assert repr([made.part, *made.parts]) == "[Part(weight=1.0), Part(weight=2.0), Part(weight=3.0)]"


def test_the_users_own_post_init_runs_once_for_each_message() -> None:
    assert [Validated(1, 2).calls for _ in range(3)] == [1, 1, 1]
    with pytest.raises(ValueError, match=r"2 > 1"):
        Validated(2, 1)


def test_an_inherited_post_init_runs_once_for_each_message() -> None:
    assert [Narrowed(1, 2).calls for _ in range(3)] == [1, 1, 1]
    with pytest.raises(ValueError, match=r"2 > 1"):
        Narrowed(2, 1)
    assert repr(Narrowed(1, 2).step) == "1.0"


def test_a_post_init_that_calls_its_parents_runs_once_for_each_message() -> None:
    made = [Cooperative(1, 3) for _ in range(3)]
    assert [each.calls for each in made] == [1, 1, 1]
    assert repr([each.width for each in made]) == "[2.0, 2.0, 2.0]"


def test_a_post_init_is_inherited_also_by_the_first_of_the_family() -> None:
    assert [Descendant(x=1).calls for _ in range(3)] == [1, 1, 1]
    assert repr(Descendant(x=1).x) == "1.0"
    assert [(each.calls, each.double) for each in (Heir(), Heir())] == [(1, 2), (1, 2)]


def test_a_subclass_of_a_message_class_is_a_message_class_of_its_own() -> None:
    assert is_message_class(Narrowed)
    assert isinstance(Narrowed(1, 2), Validated)
    assert [f.name for f in dataclasses.fields(Narrowed)][:4] == ["low", "high", "calls", "message_id"]


def test_a_class_that_is_no_message_is_not_taken_for_one() -> None:
    for cls in (Part, int, object, None, make(Plain)):
        assert not is_message_class(cls)


def test_the_protobuf_package_can_be_named() -> None:
    @message(package="shop.v1")
    class Basket:
        apples: int = 0

    @message()
    class Bag:
        apples: int = 0

    assert introspect(Basket).full_name == "shop.v1.Basket"
    assert introspect(Bag).full_name == "test_message.v1.Bag"


class Model:
    """As pydantic's BaseModel: it has an `__init__` of its own, and is no dataclass."""

    def __init__(self, **data: Any) -> None:
        self.__dict__.update(data)


@pytest.mark.parametrize(
    ("module", "words"), [("pydantic.main", "a pydantic model"), ("shop.base", r"one with that of shop\.base\.Model")]
)
def test_a_class_that_inherits_an_init_is_refused(module: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "__module__", module)
    with pytest.raises(MessageTypeError, match=words):

        @message
        class Basket(Model):
            apples: int = 0


def test_a_generic_message_class_may_be_a_base_and_a_part() -> None:
    @message
    class IntBox(Box[int]):
        label: str = ""

    @message
    class Shelf:
        boxes: list[Box[float]]

    assert repr(IntBox(3).item) == "3"
    assert [str(each.node) for each in introspect(IntBox).fields] == ["int", "str"]
    assert repr(Shelf([Box[float](2)]).boxes[0].item) == "2.0"


def test_a_name_that_no_protobuf_package_can_have_is_refused_at_once() -> None:
    with pytest.raises(MessageTypeError, match=r"a protobuf package such as 'calculator\.v1', got 'Shop'"):

        @message(package="Shop")
        class Basket:
            apples: int = 0
