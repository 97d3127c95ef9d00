"""Types that the daemon has and a kernel's description has not, by server reflection."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from pydotcompute.protobuf.pool import TypePool
from pydotcompute_client.cli.connection import CALL_SECONDS, Connection

__all__ = ["add_reflected"]


def add_reflected(daemon: Connection, full_name: str, types: TypePool) -> None:
    """Add the type of this name, and what it refers to, as far as the daemon has it.

    Raises:
        RpcError: the daemon does not answer, or without reflection.
        MessageTypeError: what it answers contradicts the types that are there.
    """
    request = ServerReflectionRequest(file_containing_symbol=full_name)
    # This daemon answers with all that the file imports, too.
    for answer in ServerReflectionStub(daemon.channel).ServerReflectionInfo(iter([request]), timeout=CALL_SECONDS):
        files = answer.file_descriptor_response.file_descriptor_proto
        types.add_files(FileDescriptorProto.FromString(file) for file in files)
