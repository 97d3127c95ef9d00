"""Protobuf types made of classes: their names, their source text, and whether two of them fit."""

import enum
import importlib.util
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field, make_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import google.protobuf
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.classes import dataclass_from
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.compatible import compatible
from pydotcompute.protobuf.export.render import render
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.ring_kernels.declaration import kernel_type_of
from pydotcompute.schema.introspect import FieldNumber, introspect
from pydotcompute.schema.nodes import HEADER_FIELDS

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"


@dataclass
class CalculationRequest:
    """Two numbers, and what to do with them."""

    __proto_package__ = "calculator.v1"

    a: float = 0.0
    b: float = 0.0
    operation: Literal["add", "sub", "mul", "div"] = "add"
    message_id: UUID = field(default_factory=uuid.uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


@dataclass
class CalculationResponse:
    """What came of it."""

    __proto_package__ = "calculator.v1"

    result: float = field(default=0.0, metadata={"doc": "Only if it was a success."})
    success: bool = True
    error: str | None = None
    message_id: UUID = field(default_factory=uuid.uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


class Color(enum.Enum):
    """Belongs to the package of its module."""

    RED = "r"
    DARK_RED = "dr"


@dataclass
class Circle:
    radius: float


@dataclass
class Square:
    side: float


@dataclass
class Even:
    """Contains Odd, which contains Even."""

    odd: "Odd | None" = None


@dataclass
class Odd:
    even: "Even | None" = None


@dataclass
class Everything:
    """One field of each kind.

    A second paragraph, with "quotes" and */ signs.
    """

    real: float
    whole: int
    flag: bool
    text: str
    data: bytes
    unique: UUID
    color: Color
    word: Literal["a", "b"]
    moment: datetime
    duration: timedelta
    array: np.ndarray[Any, Any]
    maybe: float | None
    maybe_list: list[int] | None
    maybe_map: dict[str, Circle] | None
    items: list[Circle]
    grid: list[list[float | None]]
    pair: tuple[float, float]
    scores: dict[str, float]
    shapes: dict[int, list[Circle | Square]]
    shape: Circle | Square
    maybe_shape: Circle | Square | None
    colors: list[Color]
    even: Even
    pinned: Annotated[int, FieldNumber(100)] = 5


def files_of(*classes: type) -> dict[str, FileDescriptorProto]:
    pool = TypePool()
    return {
        file.name: file for cls in classes for file in pool.file_set(pool.add(cls).full_name).file if "v1" in file.name
    }


def source_of(*classes: type) -> str:
    packages = {introspect(cls).package for cls in classes}
    return render(file for file in files_of(*classes).values() if file.package in packages)


def compiled(tmp_path: Path, source: str) -> FileDescriptorProto:
    """What a protobuf compiler makes of `.proto` source."""
    (tmp_path / "made.proto").write_text(source)
    tensor = Path("pydotcompute/v1/tensor.proto")
    (tmp_path / tensor).parent.mkdir(parents=True)
    (tmp_path / tensor).write_bytes((REPOSITORY / "proto" / tensor).read_bytes())
    buf = str(Path(sys.executable).with_name("buf"))
    command = [buf, "build", str(tmp_path), "--as-file-descriptor-set", "-o", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    files = FileDescriptorSet.FromString(done.stdout).file
    return next(file for file in files if file.name == "made.proto")


EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


def example_classes(example: Path) -> list[type]:
    """The message classes of the kernel types that an example declares, as the daemon loads it."""
    specification = importlib.util.spec_from_file_location(f"golden_examples.{example.stem}", example)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module
    specification.loader.exec_module(module)
    types = [kernel_type_of(value) for value in vars(module).values() if callable(value)]
    classes = [cls for kernel_type in types if kernel_type for cls in (kernel_type.input_type, kernel_type.output_type)]
    return [cls for cls in dict.fromkeys(classes) if cls is not None]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_the_types_of_an_example_are_those_of_its_golden_file(example: Path) -> None:
    source = source_of(*example_classes(example))
    golden = GOLDEN / f"{example.stem}.proto"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(source)
    assert source == golden.read_text(), "the wire type has changed; if that is meant, run with UPDATE_GOLDEN=1"


@pytest.mark.parametrize("classes", [(CalculationRequest, CalculationResponse), (Everything,), (Even,)])
def test_a_compiler_reads_the_source_as_the_same_types(classes: tuple[type, ...], tmp_path: Path) -> None:
    made = compiled(tmp_path, source_of(*classes))
    files = [file for file in files_of(*classes).values() if file.package == made.package]
    for kind in ("message_type", "enum_type"):
        ours = {type_.name: type_ for file in files for type_ in getattr(file, kind)}
        theirs = {type_.name: type_ for type_ in getattr(made, kind)}
        for type_ in [*ours.values(), *theirs.values()]:
            normalize(type_)
        assert theirs == ours


def normalize(message: Any) -> None:
    """Removes what the compiler fills in, and what has no order."""
    for made in getattr(message, "field", ()):
        made.ClearField("json_name")
    for nested in getattr(message, "nested_type", ()):
        normalize(nested)
    if hasattr(message, "nested_type"):
        message.nested_type.sort(key=lambda nested: nested.name)


def test_the_source_has_the_documentation_of_messages_fields_and_enums() -> None:
    source = source_of(Everything)
    assert (
        '// One field of each kind.\n//\n// A second paragraph, with "quotes" and */ signs.\nmessage Everything {'
        in source
    )
    assert "// Belongs to the package of its module.\nenum Color {" in source
    assert "  // If absent: 5.\n  optional int64 pinned = 100;" in source
    assert "  // One of: 'a', 'b'.\n  string word = 8;" in source


class Shade(enum.Enum):
    DARK = "dark"
    LIGHT = "light"


@dataclass
class Noted:
    ident: UUID
    shade: Shade
    parent: UUID | None
    friends: list[UUID]
    point: tuple[float, float, float]
    line: list[tuple[int, int]]
    any_length: tuple[int, ...]
    other: Shade = Shade.DARK
    origin: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, str] = field(default_factory=lambda: ("a", "b"))


NOTED = """\
  // A UUID.
  // Required.
  optional string ident = 1;
  // Required.
  optional Shade shade = 2;
  // A UUID.
  optional string parent = 3;
  // Each must be a UUID.
  repeated string friends = 4;
  // Exactly 3.
  repeated double point = 5;
  // Each of exactly 2.
  repeated Noted.LineValue line = 6;
  repeated int64 any_length = 7;
  // If absent: SHADE_DARK.
  optional Shade other = 8;
  // Exactly 2.
  // If empty: [0.0, 1.0].
  repeated double origin = 9;
  // Exactly 2.
  // If empty: made by the receiver.
  repeated string names = 10;
"""


def test_the_comment_of_a_field_says_what_its_protobuf_type_does_not() -> None:
    assert NOTED in source_of(Noted)


def test_a_name_that_is_hidden_inside_a_message_is_written_in_full(tmp_path: Path) -> None:
    hiding = make_dataclass("ShapeValue", [("x", int)], namespace={"__proto_package__": "hide.v1"})
    cls = make_dataclass(
        "Hiding", [("shape", list[int] | None), ("other", hiding)], namespace={"__proto_package__": "hide.v1"}
    )
    made = compiled(tmp_path, source_of(cls))
    (found,) = (message for message in made.message_type if message.name == "Hiding")
    assert [own.type_name for own in found.field] == [".hide.v1.Hiding.ShapeValue", ".hide.v1.ShapeValue"]


def test_files_of_two_packages_make_no_single_source() -> None:
    with pytest.raises(ValueError, match="one package"):
        render(files_of(CalculationRequest, Circle).values())


def test_a_type_that_two_messages_use_is_defined_once() -> None:
    first = make_dataclass("First", [("item", Circle)])
    second = make_dataclass("Second", [("items", list[Circle]), ("color", Color)])
    pool = TypePool()
    for cls in (second, first, Circle, second):
        pool.add(cls)
    one = pool.descriptor("types.v1.First").fields_by_name["item"].message_type
    other = pool.descriptor("types.v1.Second").fields_by_name["items"].message_type
    assert one is not None
    assert one == other == pool.add(Circle)


def test_each_class_has_a_file_and_those_that_contain_each_other_share_one() -> None:
    names = list(files_of(Everything))
    assert "test_descriptors/v1/circle.proto" in names
    assert "test_descriptors/v1/color.proto" in names
    assert "test_descriptors/v1/even.proto" in names
    assert "test_descriptors/v1/odd.proto" not in names
    assert names[-1] == "test_descriptors/v1/everything.proto"
    assert list(files_of(Odd)) == ["test_descriptors/v1/even.proto"]


def test_a_file_set_has_every_import_before_its_importer_and_builds_a_pool() -> None:
    pool = TypePool()
    full_name = pool.add(Everything).full_name
    file_set = pool.file_set(full_name)
    seen: set[str] = set()
    for file in file_set.file:
        assert seen.issuperset(file.dependency)
        seen.add(file.name)
    assert {"google/protobuf/timestamp.proto", "pydotcompute/v1/tensor.proto"} <= seen
    learnt = TypePool()
    learnt.add_files(file_set.SerializeToString())
    compatible(introspect(Everything), learnt.descriptor(full_name))
    reordered = TypePool()
    reordered.add_files(list(file_set.file)[::-1])
    assert reordered.file_set(full_name) == file_set


def test_classes_that_contain_each_other_in_two_packages_are_refused() -> None:
    left = make_dataclass("Left", [("right", Any)], namespace={"__proto_package__": "left.v1"})
    right = make_dataclass("Right", [("left", left | None)], namespace={"__proto_package__": "right.v1"})
    left.__annotations__["right"] = right | None
    with pytest.raises(MessageTypeError, match=r"left\.v1 and right\.v1"):
        TypePool().add(left)


def test_another_structure_of_the_same_name_is_refused() -> None:
    pool = TypePool()
    pool.add(make_dataclass("Same", [("x", int)]))
    pool.add(make_dataclass("Same", [("x", int)]))
    with pytest.raises(MessageTypeError, match=r"types\.v1\.Same"):
        pool.add(make_dataclass("Same", [("x", float)]))
    pool.add(make_dataclass("Another", [("x", float)]))


def test_two_classes_of_one_name_in_one_message_are_refused() -> None:
    a, b = make_dataclass("Same", [("x", int)]), make_dataclass("Same", [("x", int)])
    with pytest.raises(MessageTypeError, match=r"one class for types\.v1\.Same"):
        TypePool().add(make_dataclass("Both", [("a", a), ("b", b)]))


def test_files_that_cannot_be_read_or_miss_an_import_are_refused() -> None:
    with pytest.raises(MessageTypeError, match="FileDescriptorSet"):
        TypePool().add_files(b"\xff")
    with pytest.raises(MessageTypeError, match=r"missing\.proto"):
        TypePool().add_files([FileDescriptorProto(name="a.proto", dependency=["missing.proto"], syntax="proto3")])


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(MessageTypeError, match=r"no\.such\.Type"):
        TypePool().message_class("no.such.Type")


# Ours against theirs.


def mismatch(ours: list[tuple[str, Any]], theirs: list[tuple[str, Any]]) -> MessageTypeError:
    descriptor = TypePool().add(make_dataclass("Theirs", theirs))
    with pytest.raises(MessageTypeError) as caught:
        compatible(introspect(make_dataclass("Ours", ours)), descriptor)
    with pytest.raises(MessageTypeError):
        Codec(make_dataclass("Ours", ours), TypePool(), descriptor)
    return caught.value


def test_the_same_structure_under_other_names_fits() -> None:
    theirs = TypePool().add(CalculationRequest)
    ours = make_dataclass("Mine", [("a", float), ("b", float), ("operation", str)])
    codec: Codec[Any] = Codec(ours, TypePool(), theirs)
    assert codec.descriptor.full_name == "calculator.v1.CalculationRequest"
    message = ours(1.0, 2.0, "")
    assert codec.decode(codec.encode(message), message_id=None, priority=0, correlation_id=None) == message  # type: ignore[arg-type]


def test_an_enum_of_another_name_fits() -> None:
    compatible(introspect(make_dataclass("A", [("x", OtherName)])), TypePool().add(make_dataclass("B", [("x", Color)])))


def test_recursive_types_are_compared_once_around() -> None:
    mine = make_dataclass("Mine", [("odd", Odd | None)])
    compatible(introspect(mine), TypePool().add(Even))
    wrong = make_dataclass("Wrong", [("odd", Even | None)])
    with pytest.raises(MessageTypeError) as caught:
        compatible(introspect(wrong), TypePool().add(Even))
    assert caught.value.path == "$.odd.odd"


class OtherMembers(enum.Enum):
    RED = 1
    BLUE = 2


class OtherNumbers(enum.Enum):
    RED = 5
    DARK_RED = 6


class OtherName(enum.Enum):
    RED = 1
    DARK_RED = 2


@pytest.mark.parametrize(
    ("ours", "theirs", "path", "expected", "actual"),
    [
        ([("x", int)], [("x", float)], "$.x", "double", "int64"),
        ([("x", int)], [("x", list[int])], "$.x", "repeated int64", "int64"),
        ([("x", int)], [("x", str | None)], "$.x", "optional string", "int64"),
        ([("x", int | None)], [("x", int)], "$.x", "int64", "optional int64"),
        ([], [("x", int)], "$.x", "int64", "no such field"),
        ([("x", int)], [], "$.x", "no such field", "int64"),
        ([("y", int)], [("x", int)], "$.y", "no such field", "int64"),
        (
            [("y", int), ("x", int)],
            [("x", int), ("y", int)],
            "$.y",
            "field number 2",
            "field number 1",
        ),
        ([("x", Circle)], [("x", Square)], "$.x.radius", "no such field", "double"),
        ([("x", list[Circle])], [("x", list[Square])], "$.x[].radius", "no such field", "double"),
        ([("x", dict[str, Circle])], [("x", dict[str, Square])], "$.x[].radius", "no such field", "double"),
        ([("x", dict[str, int])], [("x", dict[int, int])], "$.x[]", "int64", "string"),
        ([("x", list[list[int]])], [("x", list[list[str]])], "$.x[]", "repeated string", "repeated int64"),
        ([("x", list[int | None])], [("x", list[int])], "$.x", "repeated int64", None),
        ([("x", datetime)], [("x", timedelta)], "$.x", "google.protobuf.Duration", "google.protobuf.Timestamp"),
        ([("x", Circle | Square)], [("x", Circle | Even)], "$.x.square", "no such field", None),
        ([("x", OtherMembers)], [("x", Color)], "$.x", "an enum of RED = 1, DARK_RED = 2", "one of RED = 1, BLUE = 2"),
        (
            [("x", OtherNumbers)],
            [("x", Color)],
            "$.x",
            "an enum of RED = 1, DARK_RED = 2",
            "one of RED = 5, DARK_RED = 6",
        ),
    ],
)
def test_a_mismatch_names_the_field_and_both_sides(
    ours: Any, theirs: Any, path: str, expected: str, actual: str | None
) -> None:
    error = mismatch(ours, theirs)
    assert (error.path, error.expected) == (path, expected)
    if actual is not None:
        assert error.actual == actual


def test_a_default_on_one_side_alone_does_no_harm() -> None:
    """The other side may leave the field out only where we have a value to put there."""
    with_default, without = make_dataclass("A", [("x", str, "add")]), make_dataclass("B", [("x", str)])
    header: Any = {"message_id": None, "priority": 0, "correlation_id": None}
    for ours, theirs in [(with_default, without), (without, with_default)]:
        near: Codec[Any] = Codec(ours, TypePool(), TypePool().add(theirs))
        far: Codec[Any] = Codec(theirs, TypePool())
        for text in ("", "sub"):
            assert far.decode(near.encode(ours(text)), **header).x == text
            assert near.decode(far.encode(theirs(text)), **header).x == text


# Classes made of types.


def test_a_class_without_source_has_the_header_and_defaults_that_leave_the_choice_to_the_other_side() -> None:
    descriptor = TypePool().add(CalculationRequest)
    cls: Any = dataclass_from(descriptor)
    schema = introspect(cls)
    assert (schema.full_name, schema.header) == ("calculator.v1.CalculationRequest", HEADER_FIELDS)
    request = cls(10.0, b=5.0)
    assert (request.a, request.b, request.operation, request.priority) == (10.0, 5.0, None, 128)
    sent = Codec(cls, TypePool(), descriptor).encode(request)
    arrived = Codec(CalculationRequest, TypePool()).decode(
        sent, message_id=request.message_id, priority=1, correlation_id=None
    )
    assert arrived.operation == "add"


def test_every_kind_of_field_comes_back_as_an_annotation() -> None:
    cls: Any = dataclass_from(TypePool().add(Everything))
    made = {own.name: str(own.node) for own in introspect(cls).fields}
    module = __name__.rpartition(".")[2] + ".v1"
    assert made["grid"] == "list[list[float | None]]"
    assert made["shapes"] == f"dict[int, list[{module}.Circle | {module}.Square]]"
    assert made["maybe_map"] == f"dict[str, {module}.Circle] | None"
    assert made["colors"] == f"list[{module}.Color]"
    assert made["array"] == "ndarray | None"
    assert made["pinned"] == "int | None"
    assert introspect(cls).fields[-1].number == 100


def test_the_decorator_is_applied_before_a_class_refers_to_itself() -> None:
    def decorate(cls: type) -> type:
        return dataclass(type(cls.__name__, (cls,), {"decorated": True}))

    tree = make_dataclass("Tree", [("children", "list[Tree]")])
    cls: Any = dataclass_from(TypePool().add(tree), decorate)
    (children,) = introspect(cls).fields
    assert children.node.item.cls is cls  # type: ignore[union-attr]


def test_a_kind_of_field_that_no_annotation_makes_is_refused() -> None:
    pool = TypePool()
    file = FileDescriptorProto(name="foreign.proto", package="foreign.v1", syntax="proto3")
    file.message_type.add(name="M").field.add(name="x", number=1, type=5, label=3)  # repeated int32
    pool.add_files([file])
    with pytest.raises(MessageTypeError) as caught:
        dataclass_from(pool.descriptor("foreign.v1.M"))
    assert (caught.value.actual, caught.value.path) == ("repeated int32", "$.x[]")


def test_the_installed_protobuf_is_the_fast_one() -> None:
    from google.protobuf.internal import api_implementation

    assert api_implementation.Type() == "upb", google.protobuf.__version__
