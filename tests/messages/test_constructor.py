"""The constructors of message classes."""

from __future__ import annotations  # So every annotation below is a text, as in many users' files.

import contextlib
import inspect
from dataclasses import InitVar, dataclass, field
from typing import Any

import pytest

from pydotcompute import message
from pydotcompute.exceptions import MessageSerializationError
from tests.messages.classes import (
    ALL,
    Narrowed,
    Outer,
    Plain,
)


@message
class Named:
    """Fields with the names of what a constructor may use."""

    type: str = ""
    float: str = ""
    len: int = 0


@message
class Numbered:
    """Fields with the names that generated code likes."""

    cls_0: float = 0
    item1: list[float] = field(default_factory=list)
    item2: tuple[float, ...] = ()
    message: bool = False


@message
class Selfish:
    """A field with the name of the instance."""

    self: float = 0


@message
@dataclass(kw_only=True)
class ByName:
    """Only keyword arguments, and a field without a default after one that has one."""

    x: float = 0
    y: float  # type: ignore[misc]  # Behind `@message` mypy does not see `kw_only`.


@message
class Shared:
    """Makes its default."""

    items: list[float] = field(default_factory=lambda: [1])


@message
class Partly:
    """Has a field that the constructor does not take."""

    x: float = 0
    seen: list[int] = field(default_factory=list, init=False)


@message
class Scaled:
    """Is told something that it does not keep."""

    x: float
    factor: InitVar[float] = 2.0

    def __post_init__(self, factor: float) -> None:
        self.x *= factor


@message
class Hurried:
    """A default that no mailbox takes."""

    x: float = 0
    priority: int = 256


CONSTRUCTED: list[Any] = [*ALL, Numbered, Selfish, Shared, Outer, Narrowed, ByName, Named, Partly, Scaled, Hurried]


@pytest.mark.parametrize("cls", CONSTRUCTED)
def test_a_constructor_has_the_signature_that_dataclass_gives(cls: Any) -> None:
    frozen = cls.__dataclass_params__.frozen
    plain: type[Any] = dataclass(frozen=frozen)(type(cls.__name__, (cls,), {"__module__": cls.__module__}))
    for _ in range(2):
        assert inspect.signature(cls) == inspect.signature(plain)
        assert inspect.get_annotations(cls.__init__) == inspect.get_annotations(plain.__init__)
        with contextlib.suppress(TypeError, MessageSerializationError):
            cls(1)  # The first instance changes the constructor.


def test_a_missing_argument_is_named_as_in_a_dataclass() -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^Plain\.__init__\(\) missing 1 required positional argument: 'x'$"):
            Plain()  # type: ignore[call-arg]
        Plain(1)


def test_fields_may_be_called_like_anything_that_the_constructor_uses() -> None:
    assert (Named("a", "b", True).len, Named("a").type, Named(float="b").float) == (1, "a", "b")
    made = Numbered(1, [1], (1,), message=True)
    assert repr((made.cls_0, made.item1, made.item2, made.message)) == "(1.0, [1.0], (1.0,), True)"
    assert repr(Selfish(self=1).self) == "1.0"


def test_keyword_arguments_without_a_default_may_follow_those_with_one() -> None:
    assert repr(ByName(y=1)).startswith("ByName(x=0.0, y=1.0")


def test_a_default_that_is_made_is_made_for_each_message() -> None:
    first, second = Shared(), Shared()
    assert repr(first.items) == "[1.0]"
    assert first.items is not second.items
    assert Partly().seen is not Partly().seen


def test_a_post_init_is_given_what_the_instance_does_not_hold() -> None:
    assert [Scaled(1.5).x, Scaled(1.5, 3).x, Scaled(1.5, factor=4).x] == [3.0, 4.5, 6.0]


def test_a_default_priority_out_of_range_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(MessageSerializationError):
            Hurried()
    assert Hurried(priority=1).priority == 1


class AtMostNine:
    """A field that does not keep what it is given."""

    def __get__(self, made: Any, owner: Any) -> Any:
        return 0.0 if made is None else made.kept

    def __set__(self, made: Any, value: float) -> None:
        made.kept = min(value, 9)


@message
class Clamped:
    """Changes what it is given."""

    x: float = AtMostNine()  # type: ignore[assignment]


@message
class Limited:
    """Changes what it is given, in another way."""

    x: float

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, min(value, 9) if name == "x" else value)


@pytest.mark.parametrize("cls", [Clamped, Limited])
def test_what_a_class_makes_of_its_values_is_normalized_for_each_message(cls: Any) -> None:
    assert [repr(cls(10.5).x) for _ in range(3)] == ["9.0"] * 3


@message
class InProcess(Plain):
    """Holds what cannot travel, and inherits a float."""

    thing: object = None


def test_what_is_inherited_is_normalized_also_where_the_rest_cannot_travel() -> None:
    assert [repr(InProcess(1).x) for _ in range(3)] == ["1.0"] * 3


def test_subclasses_that_are_not_decorated_keep_their_own_post_init() -> None:
    class Bare(Plain):
        def __post_init__(self) -> None:
            super().__post_init__()  # type: ignore[misc]
            self.label = "bare"

    @dataclass
    class Undecorated(Plain):
        z: float = 0

        def __post_init__(self) -> None:
            super().__post_init__()  # type: ignore[misc]
            self.label = "undecorated"

    Plain(1)
    for _ in range(2):
        assert (Bare(1).label, repr(Bare(1).x)) == ("bare", "1.0")
        assert (Undecorated(1, z=2).label, Undecorated(1, z=2).z) == ("undecorated", 2)
        with pytest.raises(MessageSerializationError):
            Bare(1, priority=256)  # type: ignore[call-arg]


def test_a_first_instance_may_be_made_in_many_threads() -> None:
    @message
    class Raced:
        x: float = 0

    begun = Raced.__new__(Raced)
    check = begun.__post_init__  # type: ignore[attr-defined]  # What a thread holds that is overtaken here.
    Raced(1)
    Raced.__init__(begun, 2)
    check()
    assert repr((Raced(3).x, begun.x)) == "(3.0, 2.0)"
