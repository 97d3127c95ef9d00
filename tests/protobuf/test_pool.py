"""The pool of protobuf types."""

import google.protobuf
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.compatible import compatible
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.introspect import introspect
from tests.protobuf.declared import (
    Circle,
    Color,
    Everything,
)
from tests.protobuf.kinds import PACKAGE, dataclass_named


def test_a_type_that_two_messages_use_is_defined_once() -> None:
    first = dataclass_named("First", item=Circle)
    second = dataclass_named("Second", items=list[Circle], color=Color)
    pool = TypePool()
    for cls in (second, first, Circle, second):
        pool.add(cls)
    one = pool.descriptor(f"{PACKAGE}.First").fields_by_name["item"].message_type
    other = pool.descriptor(f"{PACKAGE}.Second").fields_by_name["items"].message_type
    assert one is not None
    assert one == other == pool.add(Circle)


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


def test_another_structure_of_the_same_name_is_refused() -> None:
    pool = TypePool()
    pool.add(dataclass_named("Same", x=int))
    pool.add(dataclass_named("Same", x=int))
    with pytest.raises(MessageTypeError, match=rf"{PACKAGE}\.Same"):
        pool.add(dataclass_named("Same", x=float))
    pool.add(dataclass_named("Another", x=float))


def test_files_that_cannot_be_read_or_miss_an_import_are_refused() -> None:
    with pytest.raises(MessageTypeError, match="FileDescriptorSet"):
        TypePool().add_files(b"\xff")
    with pytest.raises(MessageTypeError, match=r"missing\.proto"):
        TypePool().add_files([FileDescriptorProto(name="a.proto", dependency=["missing.proto"], syntax="proto3")])


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(MessageTypeError, match=r"no\.such\.Type"):
        TypePool().message_class("no.such.Type")


def test_the_installed_protobuf_is_the_fast_one() -> None:
    from google.protobuf.internal import api_implementation

    assert api_implementation.Type() == "upb", google.protobuf.__version__
