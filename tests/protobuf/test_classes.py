"""Message classes made of protobuf types."""

from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.messages.message import message
from pydotcompute.protobuf.classes import dataclass_from
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.check import checker
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.names import type_name
from pydotcompute.schema.nodes import HEADER_FIELDS, EnumNode, reachable, walk
from tests.protobuf.declared import (
    CalculationRequest,
    Everything,
)
from tests.protobuf.kinds import PACKAGE, Color, dataclass_named


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
    module = "declared.v1"
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


@pytest.mark.parametrize("decorate", [lambda cls: cls, message], ids=["plain", "message"])
def test_the_module_of_made_classes_and_enums_is_their_package(decorate: Callable[[type], type]) -> None:
    near = dataclass_named("Thing", colors=list[Color])
    far = make_dataclass("Thing", [("near", near)], namespace={"__proto_package__": "far.v2"})
    outer: Any = dataclass_from(TypePool().add(far), decorate)
    reached = {schema.full_name: schema for schema in reachable(introspect(outer))}
    assert [type_name(schema.cls) for schema in reached.values()] == ["far.v2.Thing", f"{PACKAGE}.Thing"]
    (colors,) = reached[f"{PACKAGE}.Thing"].fields
    (color,) = [node for node in walk(colors.node) if isinstance(node, EnumNode)]
    assert type_name(color.cls) == "kinds.v1.Color"
    with pytest.raises(MessageTypeError) as caught:
        checker(outer)(outer(near=outer()))
    assert (caught.value.expected, caught.value.actual) == (f"{PACKAGE}.Thing", "far.v2.Thing")
