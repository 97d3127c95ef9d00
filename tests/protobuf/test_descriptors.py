"""Protobuf types made of classes: their names, their files and their source text."""

import enum
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.export.render import render
from pydotcompute.protobuf.packages import by_package
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.ring_kernels.declaration import kernel_type_of
from pydotcompute.schema.introspect import introspect
from tests.protobuf.declared import (
    CalculationRequest,
    CalculationResponse,
    Even,
    Everything,
    Odd,
)
from tests.protobuf.kinds import PACKAGE, dataclass_named

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"


def files_of(*classes: type) -> dict[str, FileDescriptorProto]:
    pool = TypePool()
    return {
        file.name: file for cls in classes for file in pool.file_set(pool.add(cls).full_name).file if "v1" in file.name
    }


def source_of(*classes: type) -> str:
    packages = {introspect(cls).package for cls in classes}
    pool = TypePool()
    for cls in classes:
        pool.add(cls)
    (file,) = (file for file in by_package(pool.files) if file.package in packages)
    return render(file)


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
  // Required.
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


def test_each_class_has_a_file_and_those_that_contain_each_other_share_one() -> None:
    names = list(files_of(Everything))
    assert "declared/v1/circle.proto" in names
    assert "declared/v1/color.proto" in names
    assert "declared/v1/even.proto" in names
    assert "declared/v1/odd.proto" not in names
    assert names[-1] == "declared/v1/everything.proto"
    assert list(files_of(Odd)) == ["declared/v1/even.proto"]


def test_classes_that_contain_each_other_in_two_packages_are_refused() -> None:
    left = make_dataclass("Left", [("right", Any)], namespace={"__proto_package__": "left.v1"})
    right = make_dataclass("Right", [("left", left | None)], namespace={"__proto_package__": "right.v1"})
    left.__annotations__["right"] = right | None
    with pytest.raises(MessageTypeError, match=r"left\.v1 and right\.v1"):
        TypePool().add(left)


def test_two_classes_of_one_name_in_one_message_are_refused() -> None:
    with pytest.raises(MessageTypeError, match=rf"one class for {PACKAGE}\.Same"):
        TypePool().add(dataclass_named("Both", a=dataclass_named("Same", x=int), b=dataclass_named("Same", x=int)))
