"""What `@message` makes of a class."""

from __future__ import annotations  # So every annotation below is a text, as in many users' files.

import contextlib
import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import textwrap
import threading
from dataclasses import InitVar, dataclass, field
from typing import Any
from uuid import RFC_4122, UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydotcompute import RingKernelMessage, message
from pydotcompute.exceptions import MessageSerializationError, MessageTypeError
from pydotcompute.messages.ids import new_message_id, uuids_from_bytes, uuids_from_ints
from pydotcompute.messages.message import is_message_class, message_classes
from pydotcompute.schema.introspect import introspect


@message
class Plain:
    """A class that is no dataclass yet."""

    x: float
    y: float = 0.0
    label: str = ""


@message()
@dataclass
class Declared:
    """The header written out, as PyDotCompute's examples do."""

    a: float = 0.0
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


@message
class Inheriting(RingKernelMessage):
    """The header inherited."""

    x: float = 0.0


@message
@dataclass(frozen=True)
class Frozen:
    """Cannot be changed, not even from an int to a float after it was made."""

    x: float = 0.0
    values: tuple[float, ...] = ()


@message
@dataclass(slots=True)
class Slotted:
    """With slots of its own."""

    x: float = 0.0


@message
class Outer:
    """Names classes that are declared after it."""

    part: Part | None = None
    parts: list[Part] = field(default_factory=list)


@dataclass
class Part:
    """A plain dataclass inside a message."""

    weight: float = 0.0


@message
class Validated:
    """Has a `__post_init__` of its own."""

    low: float
    high: float
    calls: int = 0

    def __post_init__(self) -> None:
        self.calls += 1
        if self.low > self.high:
            raise ValueError(f"{self.low} > {self.high}")


@message
class Narrowed(Validated):
    """Inherits a message class, and its `__post_init__`."""

    step: float = 1


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


ALL: list[Any] = [Plain, Declared, Inheriting, Frozen, Slotted]


def make(cls: Any, **header: Any) -> Any:
    return cls(1, **header)


@pytest.mark.parametrize("cls", ALL)
def test_every_message_has_the_header_with_its_defaults(cls: Any) -> None:
    first, second = make(cls), make(cls)
    assert first.message_id.version == 4
    assert first.message_id != second.message_id
    assert (first.priority, first.correlation_id) == (128, None)


@pytest.mark.parametrize("cls", ALL)
def test_the_header_can_be_given_by_name(cls: Any) -> None:
    header = {"message_id": uuid4(), "priority": 7, "correlation_id": uuid4()}
    made = make(cls, **header)
    assert {name: getattr(made, name) for name in header} == header
    assert dataclasses.replace(made, priority=8).message_id == header["message_id"]


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
    assert Plain(1) != Inheriting(1)


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
    assert [f.name for f in dataclasses.fields(Narrowed)][:4] == ["low", "high", "calls", "message_id"]  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("priority", [-1, 256, 2**40])
def test_a_priority_out_of_range_is_refused(cls: Any, priority: int) -> None:
    with pytest.raises(MessageSerializationError) as refused:
        make(cls, priority=priority)
    assert (refused.value.message_type, refused.value.path) == (cls.__name__, "$.priority")


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("priority", [0, 255])
def test_the_extremes_of_priority_are_taken(cls: Any, priority: int) -> None:
    assert make(cls, priority=priority).priority == priority


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("message_id", None),
        ("message_id", "0b9c7f4e-5d5c-4b1a-9d5c-0f3a3f3c2b1a"),
        ("priority", "high"),
        ("priority", 1.0),
        ("priority", True),
        ("correlation_id", 7),
    ],
)
def test_a_header_of_the_wrong_type_is_refused(cls: Any, name: str, value: object) -> None:
    with pytest.raises(MessageTypeError) as refused:
        make(cls, **{name: value})
    assert (refused.value.actual, refused.value.path) == (type(value).__name__, f"$.{name}")


def test_a_class_that_is_no_message_is_not_taken_for_one() -> None:
    for cls in (Part, int, object, None, make(Plain)):
        assert not is_message_class(cls)


# -- constructors ------------------------------------------------------------------------------------------------------


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
    y: float


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
    plain = dataclass(frozen=frozen)(type(cls.__name__, (cls,), {"__module__": cls.__module__}))
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
    begun.__init__(2)
    check()
    assert repr((Raced(3).x, begun.x)) == "(3.0, 2.0)"


# -- ids ---------------------------------------------------------------------------------------------------------------


def test_ids_are_random_uuids_of_version_4() -> None:
    ids = [new_message_id() for _ in range(1_000)]
    assert {(each.version, each.variant) for each in ids} == {(4, RFC_4122)}
    assert all(UUID(str(each)) == each and hash(UUID(str(each))) == hash(each) for each in ids)
    assert pickle.loads(pickle.dumps(ids)) == ids
    # Each of the 122 random bits is set in some and clear in others.
    union, intersection = 0, -1
    for each in ids:
        union |= each.int
        intersection &= each.int
    assert (union & ~intersection).bit_count() == 122


@given(st.lists(st.uuids(), max_size=20))
def test_many_uuids_are_made_of_bytes_or_ints_at_once(uuids: list[UUID]) -> None:
    for made in (
        uuids_from_bytes(b"".join(each.bytes for each in uuids)),
        uuids_from_ints([each.int for each in uuids]),
    ):
        assert made == uuids
        assert [(type(each), hash(each), each.is_safe) for each in made] == [(UUID, hash(e), e.is_safe) for e in uuids]


@pytest.mark.parametrize("length", [1, 15, 17])
def test_bytes_that_are_no_whole_uuids_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"and {length} is no multiple of 16"):
        uuids_from_bytes(bytes(length))


def test_ids_are_never_the_same_in_many_threads() -> None:
    batches: list[list[UUID]] = []

    def draw() -> None:
        batches.append([new_message_id() for _ in range(5_000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each for batch in batches for each in batch}) == 20_000


def test_a_child_process_does_not_repeat_its_parents_ids() -> None:
    program = """
        import os
        from pydotcompute.messages.message import new_message_id

        def draw():
            return "".join(f"{new_message_id()}\\n" for _ in range(600)).encode()

        new_message_id()  # A pool that both could go on drawing from.
        readers = []
        for _ in range(2):
            reader, writer = os.pipe()
            if os.fork() == 0:
                os.write(writer, draw())
                os._exit(0)
            os.close(writer)
            readers.append(reader)
        print(draw().decode(), end="")
        for reader in readers:
            with os.fdopen(reader) as lines:
                print(lines.read(), end="")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    ids = ran.stdout.split()
    assert len(ids) == 1_800
    assert len(set(ids)) == 1_800


@given(st.integers(0, 255), st.floats(allow_nan=False) | st.integers(-(2**53), 2**53))
def test_whatever_fits_is_taken_as_it_is(priority: int, x: float) -> None:
    made = Plain(x, priority=priority)  # type: ignore[call-arg]
    assert (made.x, made.priority) == (float(x), priority)  # type: ignore[attr-defined]


def test_the_protobuf_package_can_be_named() -> None:
    @message(package="shop.v1")
    class Basket:
        apples: int = 0

    @message()
    class Bag:
        apples: int = 0

    assert introspect(Basket).full_name == "shop.v1.Basket"
    assert introspect(Bag).full_name == "test_message.v1.Bag"


def test_a_name_that_no_protobuf_package_can_have_is_refused_at_once() -> None:
    with pytest.raises(MessageTypeError, match=r"a protobuf package such as 'calculator\.v1', got 'Shop'"):

        @message(package="Shop")
        class Basket:
            apples: int = 0
