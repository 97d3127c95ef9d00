"""Server reflection in both versions, over the daemon's own pool of types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from pydotcompute.schema.descriptors import TypePool

__all__ = ["add_reflection"]

V1ALPHA = "grpc.reflection.v1alpha"
V1 = "grpc.reflection.v1"


def add_reflection(server: grpc.aio.Server, files: Iterable[FileDescriptor], types: TypePool) -> None:
    """Serve reflection of the services of these files, and of every type in the pool, those added later included.

    grpcio-reflection has v1alpha alone. The messages of v1 are the same on the wire, so the same handler serves both.
    """
    types.add_files(_with_imports([*files, reflection_pb2.DESCRIPTOR]))
    types.add_files([_as_v1(reflection_pb2.DESCRIPTOR)])
    services = [service.full_name for file in files for service in file.services_by_name.values()]
    reflections = [f"{version}.ServerReflection" for version in (V1ALPHA, V1)]
    servicer = reflection.aio.ReflectionServicer([*services, *reflections], pool=_Symbols(types.pool))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(f"{V1}.ServerReflection", {"ServerReflectionInfo": handler}),)
    )


class _Symbols:
    """A pool that also finds the file of a method, for `grpcurl describe`; protobuf's own does not."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """The file that declares this. KeyError if there is none."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            file: FileDescriptor = self._pool.FindMethodByName(symbol).containing_service.file
            return file


def _with_imports(files: Sequence[FileDescriptor]) -> list[FileDescriptorProto]:
    """The files and all they import, each once, each after those it imports."""
    found: dict[str, FileDescriptorProto] = {}

    def visit(file: FileDescriptor) -> None:
        if file.name in found:
            return
        for imported in file.dependencies:
            visit(imported)
        found[file.name] = FileDescriptorProto()
        file.CopyToProto(found[file.name])

    for file in files:
        visit(file)
    return list(found.values())


def _as_v1(v1alpha: FileDescriptor) -> FileDescriptorProto:
    file = FileDescriptorProto()
    v1alpha.CopyToProto(file)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = V1
    references = [field for message in file.message_type for field in message.field if field.type_name]
    for field in references:
        field.type_name = field.type_name.replace(V1ALPHA, V1)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(V1ALPHA, V1)
            method.output_type = method.output_type.replace(V1ALPHA, V1)
    return file
