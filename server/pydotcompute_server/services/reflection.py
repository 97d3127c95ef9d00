"""Server reflection in both versions, over the daemon's own pool of types."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Sequence

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb

from pydotcompute.protobuf.own_files import documented_files
from pydotcompute.protobuf.packages import by_package
from pydotcompute.protobuf.pool import TypePool
from pydotcompute_server.visible import Visible

__all__ = ["add_reflection"]

MOST_KEPT = 16
"""For how many sets of types that are not hidden the files are kept."""
V1ALPHA = "grpc.reflection.v1alpha"
V1 = "grpc.reflection.v1"


def add_reflection(server: grpc.aio.Server, files: Iterable[FileDescriptor], types: TypePool, visible: Visible) -> None:
    """Serve reflection of these files, and of every type and service in the pool.

    Types and services that are added to the pool later are served too. grpcio-reflection has only v1alpha. The messages
    of v1 are the same on the wire, so one handler serves both versions.
    """
    own = [*_with_imports([*files, pb.DESCRIPTOR]), _as_v1(pb.DESCRIPTOR)]
    types.add_files(own)
    handler = grpc.stream_stream_rpc_method_handler(
        _Reflection(types, visible, {file.name for file in own}).info,
        request_deserializer=pb.ServerReflectionRequest.FromString,
        response_serializer=pb.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(f"{version}.ServerReflection", methods) for version in (V1ALPHA, V1)]
    )


class _Reflection:
    """Answers reflection requests from the current contents of a pool.

    This class replaces the servicer of grpcio-reflection. That one lists only the services that existed at the start,
    does not find the file of a method, and omits the comments.
    """

    def __init__(self, types: TypePool, visible: Visible, own: Collection[str]) -> None:
        self._types = types
        self._visible = visible
        self._own = own
        self._documented = documented_files()
        self._shown: dict[frozenset[str] | None, TypePool] = {}  # By the names of the files that are not hidden.
        self._files_shown: tuple[object, int] = None, 0  # Of which pool they are, and how many.

    async def info(
        self, requests: AsyncIterable[pb.ServerReflectionRequest], _: object
    ) -> AsyncIterator[pb.ServerReflectionResponse]:
        """Yield one response for each request."""
        async for request in requests:
            response = self._answer(request)
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            yield response

    def _answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        kind = request.WhichOneof("message_request")
        try:
            match kind:
                case "list_services":
                    services = [pb.ServiceResponse(name=name) for name in self._packages.services()]
                    return pb.ServerReflectionResponse(list_services_response=pb.ListServiceResponse(service=services))
                case "file_by_filename":
                    return self._files(request.file_by_filename)
                case "file_containing_symbol":
                    return self._files(self._file_of(request.file_containing_symbol))
                case "file_containing_extension" | "all_extension_numbers_of_type":
                    return _error(grpc.StatusCode.NOT_FOUND, "there are no extensions")
                case _:
                    return _error(grpc.StatusCode.INVALID_ARGUMENT, "nothing is asked for")
        except KeyError:
            return _error(grpc.StatusCode.NOT_FOUND, f"{getattr(request, str(kind))} is not known here")

    @property
    def _packages(self) -> TypePool:
        """The types that are not hidden, with one file for each package.

        Some programs take no more than the first file of an answer.
        """
        files = self._types.files
        visible = self._visible.files(self._own)
        all_files = self._types.pool, len(files)
        if all_files != self._files_shown or len(self._shown) > MOST_KEPT:
            self._shown, self._files_shown = {}, all_files
        shown = self._shown.get(visible)
        if shown is None:
            shown = self._shown[visible] = TypePool()
            shown.add_files(by_package(file for file in files if visible is None or file.name in visible))
        return shown

    def _file_of(self, symbol: str) -> str:
        """Return the name of the file that declares this symbol. KeyError if there is none."""
        pool = self._packages.pool
        try:
            return str(pool.FindFileContainingSymbol(symbol).name)
        except KeyError:  # Protobuf's pool does not find the file of a method in this way.
            return str(pool.FindMethodByName(symbol).containing_service.file.name)

    def _files(self, name: str) -> pb.ServerReflectionResponse:
        """Return a file, and after it every file that it imports. KeyError if there is none of this name.

        The file itself comes first, because clients expect it there.
        """
        files = reversed(self._packages.with_imports(name))
        written = [self._documented.get(file.name, file).SerializeToString() for file in files]
        return pb.ServerReflectionResponse(
            file_descriptor_response=pb.FileDescriptorResponse(file_descriptor_proto=written)
        )


def _error(code: grpc.StatusCode, text: str) -> pb.ServerReflectionResponse:
    return pb.ServerReflectionResponse(error_response=pb.ErrorResponse(error_code=code.value[0], error_message=text))


def _with_imports(files: Sequence[FileDescriptor]) -> list[FileDescriptorProto]:
    """Return these files and all files that they import, each once, and each after its imports."""
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
