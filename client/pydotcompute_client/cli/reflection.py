"""Fetches types from the daemon by server reflection."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from pydotcompute.protobuf.pool import TypePool
from pydotcompute_client.cli.connection import CALL_SECONDS, Connection

__all__ = ["OWN_PACKAGE", "own_files", "reflected"]


OWN_PACKAGE = "pydotcompute."
"""The names of the daemon's own types and services begin so."""
_WITHOUT_SERVICE = (
    "google/rpc/code.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "pydotcompute/v1/errors.proto",
    "pydotcompute/v1/tensor.proto",
)
"""The files that programs need beside those of the daemon's services: what errors consist of, and arrays."""


def reflected(daemon: Connection, full_name: str) -> TypePool:
    """Return the type of this name, with the types that it refers to; nothing if the daemon does not have it.

    Raises:
        RpcError: the daemon does not answer, or has no reflection.
        MessageTypeError: the answer makes no sense.
    """
    types = TypePool()
    types.add_files(_files(daemon, [ServerReflectionRequest(file_containing_symbol=full_name)]))
    return types


def own_files(daemon: Connection) -> list[FileDescriptorProto]:
    """Return the files of the daemon's own services and types, with their comments and all that they import.

    Raises:
        RpcError: the daemon does not answer, or has no reflection.
    """
    (listed,) = _answers(daemon, [ServerReflectionRequest(list_services="")])
    names = [service.name for service in listed.list_services_response.service]
    requests = [ServerReflectionRequest(file_containing_symbol=each) for each in names if each.startswith(OWN_PACKAGE)]
    return _files(daemon, [*requests, *(ServerReflectionRequest(file_by_filename=each) for each in _WITHOUT_SERVICE)])


def _files(daemon: Connection, requests: list[ServerReflectionRequest]) -> list[FileDescriptorProto]:
    """Return the files that the daemon answers with, each once. This daemon's answers have the imports too."""
    found: dict[str, FileDescriptorProto] = {}
    for answer in _answers(daemon, requests):
        for serialized in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(serialized)
            found[file.name] = file
    return list(found.values())


def _answers(daemon: Connection, requests: list[ServerReflectionRequest]) -> list[ServerReflectionResponse]:
    return list(ServerReflectionStub(daemon.channel).ServerReflectionInfo(iter(requests), timeout=CALL_SECONDS))
