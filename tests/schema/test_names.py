"""The names of a field in its different places."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from pydotcompute.schema.names import json_name


@pytest.mark.parametrize("name", ["a", "a_b", "a__b", "a_", "a__", "_a", "__a_b_", "a_1", "aB_c", "A_b", "_1", "a_B"])
def test_the_name_in_json_is_that_of_protobuf(name: str) -> None:
    file = FileDescriptorProto(name="m.proto", package="m.v1", syntax="proto3")
    file.message_type.add(name="M").field.add(name=name, number=1, label=1, type=3)
    pool = DescriptorPool()
    pool.Add(file)
    assert json_name(name) == pool.FindMessageTypeByName("m.v1.M").fields[0].json_name
