"""What message classes may look like, and what is read from them."""

import dataclasses
import enum
import gc
import subprocess
import sys
import typing
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID, uuid4

import numpy as np
import pytest

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.schema import nodes
from pydotcompute.schema.introspect import FieldNumber, introspect
from pydotcompute.schema.nodes import HEADER_FIELDS


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 10
    HIGH = 20


class Shouting(enum.Enum):
    a = 1
    A = 2


class Unspecified(enum.Enum):
    UNSPECIFIED = 1


class Nothing(enum.Enum):
    pass


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Circle:
    radius: float


@dataclass
class Square:
    side: float


@dataclass
class Tree:
    label: str
    children: "list[Tree]"


UserId = typing.NewType("UserId", int)
UserName = typing.NewType("UserName", str)


def only_node(annotation: Any) -> nodes.Node:
    """The node of a class that has this annotation alone."""
    (made,) = introspect(make_dataclass("Only", [("x", annotation)])).fields
    return made.node


SUPPORTED: list[tuple[Any, nodes.Node]] = [
    (float, nodes.Float()),
    (int, nodes.Int()),
    (bool, nodes.Bool()),
    (str, nodes.Str()),
    (bytes, nodes.Bytes()),
    (UUID, nodes.Uuid()),
    (Color, nodes.EnumNode(Color, "test_introspect.v1")),
    (Literal["add", "sub"], nodes.Literal(("add", "sub"))),
    (datetime, nodes.Timestamp()),
    (timedelta, nodes.Duration()),
    (np.ndarray, nodes.Array()),
    (np.ndarray[Any, np.dtype[np.float32]], nodes.Array()),
    (float | None, nodes.Optional(nodes.Float())),
    (typing.Optional[float], nodes.Optional(nodes.Float())),  # noqa: UP045
    (list[float], nodes.List(nodes.Float())),
    (typing.List[float], nodes.List(nodes.Float())),  # noqa: UP006
    (list[list[int]], nodes.List(nodes.List(nodes.Int()))),
    (list[int] | None, nodes.Optional(nodes.List(nodes.Int()))),
    (list[int | None], nodes.List(nodes.Optional(nodes.Int()))),
    (tuple[int, ...], nodes.Tuple(nodes.Int(), None)),
    (tuple[float, float], nodes.Tuple(nodes.Float(), 2)),
    (dict[str, float], nodes.Map(nodes.Str(), nodes.Float())),
    (dict[int, list[bool]], nodes.Map(nodes.Int(), nodes.List(nodes.Bool()))),
    (dict[bool, bytes] | None, nodes.Optional(nodes.Map(nodes.Bool(), nodes.Bytes()))),
    (Circle, nodes.Message(Circle)),
    (Circle | Square, nodes.Union((nodes.Message(Circle), nodes.Message(Square)))),
    (Circle | None | Square, nodes.Optional(nodes.Union((nodes.Message(Circle), nodes.Message(Square))))),
    (Annotated[int, "ignored"], nodes.Int()),
    (Any, nodes.Basic("Any")),
    (Any | None, nodes.Optional(nodes.Basic("Any"))),
    (list, nodes.Basic("list")),
    (typing.List, nodes.Basic("list")),  # noqa: UP006
    (dict, nodes.Basic("dict")),
    (typing.Dict | None, nodes.Optional(nodes.Basic("dict"))),  # noqa: UP006
    (list[Any], nodes.List(nodes.Basic("Any"))),
    (dict[str, dict], nodes.Map(nodes.Str(), nodes.Basic("dict"))),  # type: ignore[type-arg]
    (UserId, nodes.Int()),
    (dict[UserName, list[UserId] | None], nodes.Map(nodes.Str(), nodes.Optional(nodes.List(nodes.Int())))),
]


@pytest.mark.parametrize(("annotation", "node"), SUPPORTED, ids=lambda value: str(value))
def test_every_supported_annotation_has_its_node(annotation: Any, node: nodes.Node) -> None:
    assert only_node(annotation) == node


def test_the_table_above_has_every_kind_of_node() -> None:
    met = {type(inner) for _, node in SUPPORTED for inner in nodes.walk(node)}
    assert met == set(typing.get_args(nodes.Node))


def test_cupy_arrays_are_recognised_without_cupy() -> None:
    stand_in = type("ndarray", (), {"__module__": "cupy"})
    assert only_node(stand_in) == nodes.Array(on_device=True)


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    item: T


@dataclass
class Forever(Generic[T]):
    again: "Forever[list[T]] | None" = None


@pytest.mark.parametrize(
    ("annotation", "path"),
    [
        (complex, "$.x"),
        (object, "$.x"),
        (None, "$.x"),
        (date, "$.x"),
        (Decimal, "$.x"),
        (np.float64, "$.x"),
        (set[int], "$.x"),
        (frozenset[int], "$.x"),
        (Sequence[int], "$.x"),
        (tuple, "$.x"),
        (tuple[()], "$.x"),
        (tuple[int, str], "$.x"),
        (int | str, "$.x"),
        (Circle | int, "$.x"),
        (Literal["a", 1], "$.x"),
        (Literal[1], "$.x"),
        (Permission, "$.x"),
        (Shouting, "$.x"),
        (Unspecified, "$.x"),
        (Nothing, "$.x"),
        (Box[complex], "$.x.item"),
        (Box[int] | Box[str], "$.x"),
        (Box, "$.x.item"),
        (type[int], "$.x"),
        (list[complex], "$.x[]"),
        (list[dict[str, complex]], "$.x[][]"),
        (dict[str, set[int]], "$.x[]"),
        (dict[float, int], "$.x[key]"),
        (dict[Color, int], "$.x[key]"),
        (tuple[complex, ...], "$.x[]"),
        (complex | None, "$.x"),
        (Annotated[list[complex], "note"], "$.x[]"),
        (list[Annotated[int, FieldNumber(3)]], "$.x[]"),
    ],
    ids=str,
)
def test_any_other_annotation_is_refused_with_its_path(annotation: Any, path: str) -> None:
    with pytest.raises(MessageTypeError) as caught:
        only_node(annotation)
    assert caught.value.path == path


# -- generic classes ---------------------------------------------------------------------------------------------------

K = TypeVar("K")


@dataclass
class Page(Generic[K, T]):
    items: dict[K, list[T]]
    box: Box[T]
    more: "Page[K, T] | None" = None


@dataclass
class Pages(Page[str, T], Generic[T]):
    """The T of this class stands in the place of another variable of its base."""

    first: T | None = None


@dataclass
class Numbers(Pages[float]):
    total: float = 0.0


def annotations_of(schema: nodes.MessageSchema) -> dict[str, str]:
    return {each.name: str(each.node).replace(f"{__name__}.", "") for each in schema.fields}


def test_a_generic_class_with_arguments_has_a_schema_of_its_own() -> None:
    node = only_node(list[Page[str, UserId]])
    assert isinstance(node, nodes.List)
    assert isinstance(node.item, nodes.Message)
    schema = node.item.schema
    assert (schema.cls, schema.name) == (Page, "PageStrUserId")
    assert annotations_of(schema)["items"] == "dict[str, list[int]]"
    assert annotations_of(schema)["more"].startswith("Page[str, ")
    (box,) = [found for found in nodes.reachable(schema) if found.cls is Box]
    assert (box.name, annotations_of(box)) == ("BoxUserId", {"item": "int"})
    other = only_node(Page[str, list[float]])
    assert isinstance(other, nodes.Message)
    assert other.schema.name == "PageStrListFloat"


def test_a_class_gets_the_annotations_of_the_generic_classes_that_it_inherits_from() -> None:
    assert annotations_of(introspect(Numbers)) == {
        "items": "dict[str, list[float]]",
        "box": "Box[float]",
        "more": "Page[str, float] | None",
        "first": "float | None",
        "total": "float",
    }
    assert introspect(Numbers).name == "Numbers"


def test_a_class_that_contains_itself_with_ever_longer_arguments_is_refused() -> None:
    with pytest.raises(MessageTypeError, match="contains itself only as it is"):
        only_node(Forever[int])


# -- classes of functions ----------------------------------------------------------------------------------------------

LOCAL = """
from __future__ import annotations
from dataclasses import dataclass
from typing import NewType
from pydotcompute import message, ring_kernel

def outside():
    @dataclass
    class Outer:
        x: int = 0

    def inside():
        Weight = NewType("Weight", float)

        @dataclass
        class Inner:
            outer: Outer
            weight: Weight = Weight(1.0)

        @message
        class Early:
            inner: Inner

        @message
        class Late:
            later: Later

        @dataclass
        class Later:
            outer: Outer
            early: Early

        @ring_kernel(input_type=Late, output_type=Early, auto_register=False)
        async def actor(ctx): ...

        assert Outer
        return Early, Late, Inner, Outer

    return inside()
"""


def test_classes_of_a_function_find_each_other_though_their_annotations_are_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "declares_in_functions.py").write_text(LOCAL)
    monkeypatch.syspath_prepend(tmp_path)
    from declares_in_functions import outside  # type: ignore[import-not-found]

    early, late, inner, outer = outside()
    assert [type(each.node).__name__ for each in introspect(inner).fields] == ["Message", "Float"]
    assert early(inner(outer())).inner.weight == 1.0
    assert str(introspect(late).fields[0].node).endswith(".Later")


def test_the_path_leads_through_nested_messages() -> None:
    item = make_dataclass("Item", [("weight", complex)])
    with pytest.raises(MessageTypeError) as caught:
        only_node(list[item])  # type: ignore[valid-type]
    assert caught.value.path == "$.x[].weight"
    assert caught.value.actual == "complex"


def test_what_is_no_dataclass_is_refused() -> None:
    with pytest.raises(MessageTypeError) as caught:
        introspect(Color)
    assert (caught.value.expected, caught.value.path) == ("a dataclass", "$")


def test_a_refused_class_leaves_nothing_behind() -> None:
    inner = make_dataclass("Inner", [("x", int)])
    outer = make_dataclass("Outer", [("inner", inner), ("bad", complex)])
    for _ in range(2):
        with pytest.raises(MessageTypeError, match=r"\$\.bad"):
            introspect(outer)
    assert introspect(inner).name == "Inner"


def test_a_message_can_contain_itself() -> None:
    tree = introspect(Tree)
    assert tree.fields[1].node == nodes.List(nodes.Message(Tree))
    assert tree.fields[1].node.item.schema is tree  # type: ignore[union-attr]


def test_a_local_class_can_contain_itself_and_use_its_own_inner_classes() -> None:
    @dataclass
    class Local:
        class Kind(enum.Enum):
            ONE = 1

        kind: "Kind"
        next: "Local | None" = None

    kind, following = introspect(Local).fields
    assert kind.node == nodes.EnumNode(Local.Kind, "test_introspect.v1")
    assert following.node == nodes.Optional(nodes.Message(Local))


def test_a_field_may_be_called_like_its_type() -> None:
    @dataclass
    class Local:
        bytes: "bytes" = b""

    assert introspect(Local).fields[0].node == nodes.Bytes()


def test_an_unknown_name_in_an_annotation_names_the_field() -> None:
    @dataclass
    class Local:
        fine: "int"
        wrong: "list[Missing]"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(MessageTypeError) as caught:
        introspect(Local)
    assert caught.value.path == "$.wrong"


def test_fields_are_numbered_in_the_order_of_declaration() -> None:
    @dataclass
    class Base:
        message_id: UUID = field(default_factory=uuid4)
        first: int = 0
        priority: int = 128

    @dataclass
    class Derived(Base):
        second: int = 0
        correlation_id: UUID | None = None
        third: int = 0

    schema = introspect(Derived)
    assert [(made.name, made.number) for made in schema.fields] == [("first", 1), ("second", 2), ("third", 3)]
    assert schema.header == HEADER_FIELDS


def test_a_pinned_number_leaves_the_others_alone() -> None:
    @dataclass
    class Pinned:
        a: int
        b: Annotated[int, FieldNumber(7)]
        c: int

    assert [made.number for made in introspect(Pinned).fields] == [1, 7, 3]


@pytest.mark.parametrize("number", [0, -1, 19_000, 19_999, 2**29])
def test_numbers_that_protobuf_reserves_are_refused(number: int) -> None:
    with pytest.raises(MessageTypeError) as caught:
        only_node(Annotated[int, FieldNumber(number)])
    assert (caught.value.actual, caught.value.path) == (str(number), "$.x")


def test_clashing_numbers_are_refused() -> None:
    with pytest.raises(MessageTypeError) as caught:
        introspect(make_dataclass("Clash", [("a", Annotated[int, FieldNumber(2)]), ("b", int)]))
    assert (caught.value.actual, caught.value.path) == ("2, as a", "$.b")


@pytest.mark.parametrize("names", [("größe",), ("foo_bar", "fooBar"), ("foo", "foo_")])
def test_field_names_that_protobuf_cannot_hold_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(MessageTypeError) as caught:
        introspect(make_dataclass("Names", [(name, int) for name in names]))
    assert caught.value.path == f"$.{names[-1]}"


def test_a_field_that_the_constructor_does_not_take_is_refused() -> None:
    with pytest.raises(MessageTypeError) as caught:
        introspect(make_dataclass("Derived", [("x", int, field(init=False, default=0))]))
    assert caught.value.path == "$.x"

    @dataclass
    class WithInitVar:
        x: InitVar[int]

    with pytest.raises(
        MessageTypeError, match=r"\$\.x: expected a field that an instance holds: .*, got InitVar"
    ) as caught:
        introspect(WithInitVar)
    assert caught.value.path == "$.x"


@pytest.mark.parametrize(
    ("scalar", "instead"),
    [
        (np.float32, "float"),
        (np.float64, "float"),
        (np.int64, "int"),
        (np.uint8, "int"),
        (np.number, "ndarray"),
        (np.bool_, "bool"),
        (np.str_, "str"),
        (np.bytes_, "bytes"),
        (np.datetime64, "datetime"),
        (np.timedelta64, "timedelta"),
        (np.complex128, "ndarray"),
    ],
)
def test_a_scalar_of_numpy_is_refused_with_what_to_write_instead(scalar: type, instead: str) -> None:
    for annotation, path in ((scalar, "$.x"), (list[scalar], "$.x[]"), (scalar | None, "$.x")):  # type: ignore[valid-type]
        with pytest.raises(MessageTypeError) as caught:
            introspect(make_dataclass("Numbers", [("x", annotation)]))
        assert caught.value.path == path
        assert caught.value.expected.startswith(f"{instead}, ")


def test_a_header_of_other_types_is_refused() -> None:
    wrong = make_dataclass("Wrong", [("message_id", str), ("priority", int), ("correlation_id", UUID | None)])
    with pytest.raises(MessageTypeError) as caught:
        introspect(wrong)
    assert caught.value.path == "$.message_id"


def test_a_class_with_part_of_the_header_names_keeps_them_in_its_body() -> None:
    schema = introspect(make_dataclass("Task", [("priority", int)]))
    assert schema.header == ()
    assert [made.name for made in schema.fields] == ["priority"]


def test_a_nested_message_needs_defaults_for_its_header() -> None:
    inner = make_dataclass("Inner", [("message_id", UUID), ("priority", int), ("correlation_id", UUID | None)])
    introspect(inner)
    with pytest.raises(MessageTypeError) as caught:
        only_node(inner)
    assert caught.value.path == "$.x.message_id"


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("calculator", "calculator.v1"),
        ("actors.VectorAdd", "vectoradd.v1"),
        ("my-actor", "my_actor.v1"),
        ("2d", "m_2d.v1"),
        ("_private", "private.v1"),
    ],
)
def test_the_package_is_named_after_the_module(module: str, package: str) -> None:
    cls: type[Any] = dataclass(type("M", (), {"__module__": module}))
    assert introspect(cls).full_name == f"{package}.M"


def test_a_script_is_named_after_its_file(tmp_path: Path) -> None:
    script = tmp_path / "my_script.py"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    script.write_text(
        "from dataclasses import dataclass\n"
        "from pydotcompute.schema.introspect import introspect\n"
        "@dataclass\nclass M:\n    x: int\n"
        "print(introspect(M).full_name)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "my_script.v1.M\n"


def test_an_explicit_package_wins_and_is_inherited() -> None:
    base = make_dataclass("Base", [], namespace={"__proto_package__": "acme.billing.v2"})
    derived: type = dataclass(type("Derived", (base,), {}))
    assert introspect(derived).full_name == "acme.billing.v2.Derived"


def test_a_package_that_protobuf_cannot_hold_is_refused() -> None:
    with pytest.raises(MessageTypeError, match="package"):
        introspect(make_dataclass("M", [], namespace={"__proto_package__": "no package"}))


def test_documentation_comes_from_the_docstring_and_the_metadata() -> None:
    @dataclass
    class Documented:
        """One line.

        And another.
        """

        x: int = field(default=0, metadata={"doc": "A number."})

    schema = introspect(Documented)
    assert (schema.doc, schema.fields[0].doc) == ("One line.\n\nAnd another.", "A number.")
    assert introspect(Circle).doc == ""  # not the text that dataclasses generate


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (float, dataclasses.MISSING, False),
        (float, 0.0, False),
        (float, 0, False),
        (float, -0.0, True),
        (float, 1.0, True),
        (float, float("nan"), True),
        (str, "", False),
        (str, "add", True),
        (bool, False, False),
        (bool, True, True),
        (str | None, None, True),
        (Color, dataclasses.MISSING, True),
        (UUID, dataclasses.MISSING, True),
        (Circle, dataclasses.MISSING, True),
        (tuple[int, ...], (), False),
    ],
)
def test_absent_differs_from_zero_where_zero_would_say_something_else(
    annotation: Any, default: Any, expected: bool
) -> None:
    cls = make_dataclass("M", [("x", annotation, field(default=default))])
    assert introspect(cls).fields[0].has_presence is expected


def test_a_made_default_differs_from_zero() -> None:
    cls = make_dataclass("M", [("x", str, field(default_factory=lambda: str(uuid.uuid4())))])
    assert introspect(cls).fields[0].has_presence


def test_enums_keep_usable_numbers_and_get_others_by_position() -> None:
    def values(cls: type[enum.Enum]) -> list[tuple[str, int]]:
        return [(name, number) for _, name, number in nodes.EnumNode(cls, "p").values()]

    assert values(Level) == [("LEVEL_LOW", 10), ("LEVEL_HIGH", 20)]
    assert values(Color) == [("COLOR_RED", 1), ("COLOR_GREEN", 2)]


def test_a_schema_is_made_once_and_dies_with_its_class() -> None:
    cls = make_dataclass("Shortlived", [("x", int)])
    assert introspect(cls) is introspect(cls)
    gone = weakref.ref(cls)
    del cls
    gc.collect()
    assert gone() is None


def test_neither_a_subclass_nor_a_slotted_copy_takes_the_schema_of_another() -> None:
    base = make_dataclass("Base", [("x", int)])
    introspect(base)
    derived: type = dataclass(type("Derived", (base,), {"__annotations__": {"y": int}}))
    assert [made.name for made in introspect(derived).fields] == ["x", "y"]
    copy: type = dataclass(slots=True)(type("Base", (), {"__annotations__": {"x": int}, **_attributes(base)}))
    assert introspect(copy).cls is copy


def _attributes(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if name.startswith("__pydotcompute")}


def test_introspection_loads_neither_protobuf_nor_grpc() -> None:
    program = (
        "import sys; from pydotcompute.schema.introspect import introspect;"
        "from pydotcompute.schema.check import door_check;"
        "print([m for m in ('google.protobuf', 'grpc', 'cupy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
