"""Fetches types that a kernel's description lacks from the daemon, by server reflection."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from pydotcompute.protobuf.pool import TypePool
from pydotcompute_client.cli.connection import CALL_SECONDS, Connection

__all__ = ["add_reflected"]


def add_reflected(daemon: Connection, full_name: str, types: TypePool) -> None:
    """Add the type of this name to `types`, and the types that it refers to, as far as the daemon has them.

    Raises:
        RpcError: the daemon does not answer, or has no reflection.
        MessageTypeError: a type in the answer contradicts one in `types`.
    """
    request = ServerReflectionRequest(file_containing_symbol=full_name)
    # This daemon's answer has the imports of the file too.
    for answer in ServerReflectionStub(daemon.channel).ServerReflectionInfo(iter([request]), timeout=CALL_SECONDS):
        files = answer.file_descriptor_response.file_descriptor_proto
        types.add_files(FileDescriptorProto.FromString(file) for file in files)
