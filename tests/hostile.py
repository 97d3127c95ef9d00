"""A daemon that means harm: a gRPC server whose answers no real daemon gives."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute.v1 import (
    kernel_service_pb2_grpc,
    server_service_pb2,
    server_service_pb2_grpc,
    telemetry_service_pb2,
    telemetry_service_pb2_grpc,
)

__all__ = ["CHAINS", "NAMES", "POISON", "a_chain", "an_enum", "hostile_daemon", "with_field"]

POISON = "\x1b]52;c;eA==\x07\x1b[2J\x9b31m\u202e\r\n2026-01-01 forged"
"""Writes the clipboard of some terminals, clears the screen, and turns the direction of writing."""

NAMES = ("class", "None", "message_id", "priority", "__post_init__", "__init__", "__slots__", "__new__", "__debug__")
"""Names of fields that a class cannot have, or has for something else."""
CHAINS = (100, 3_000)
"""How many messages are inside each other."""


def _file(*names: str) -> FileDescriptorProto:
    file = FileDescriptorProto(name="hostile.proto", package="hostile.v1", syntax="proto3")
    for name in names:
        file.message_type.add(name=name)
    return file


def _add(file: FileDescriptorProto, at: int, name: str, kind: Any, type_name: str = "") -> FileDescriptorProto:
    label = Field.LABEL_OPTIONAL
    file.message_type[at].field.add(name=name, number=1, type=kind, type_name=type_name or None, label=label)
    return file


def with_field(name: str) -> FileDescriptorProto:
    """A message with a field of this name."""
    return _add(_file("Hostile"), 0, name, Field.TYPE_INT64)


def an_enum(value: str) -> FileDescriptorProto:
    """A message with an enum that has a value of this name."""
    file = _add(_file("Hostile"), 0, "kind", Field.TYPE_ENUM, ".hostile.v1.Kind")
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="KIND_UNSPECIFIED", number=0)
    kind.value.add(name=f"KIND_{value}", number=1)
    return file


def a_chain(length: int) -> FileDescriptorProto:
    """A message that contains one, and so on."""
    names = ["Hostile", *(f"Hostile{at}" for at in range(1, length))]
    file = _file(*names)
    for at, name in enumerate(names[1:]):
        _add(file, at, "inside", Field.TYPE_MESSAGE, f".hostile.v1.{name}")
    return _add(file, length - 1, "last", Field.TYPE_INT64)


class _Kernels(kernel_service_pb2_grpc.KernelServiceServicer):
    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file

    def ListKernelTypes(self, request: Any, context: Any) -> pb.ListKernelTypesResponse:
        return pb.ListKernelTypesResponse(kernel_types=[self._type()])

    def ListKernels(self, request: Any, context: Any) -> pb.ListKernelsResponse:
        return pb.ListKernelsResponse(kernels=[self._kernel()])

    def Activate(self, request: Any, context: Any) -> pb.ActivateResponse:
        return pb.ActivateResponse(kernel=self._kernel())

    def Deactivate(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.INTERNAL, POISON)

    def DescribeKernel(self, request: Any, context: Any) -> pb.DescribeKernelResponse:
        response = pb.DescribeKernelResponse(
            kernel=self._kernel(), kernel_type=self._type(), sample_json=f'{{"a": "{POISON}"}}'
        )
        response.input_type.full_name = f"{self._file.package}.Hostile"
        response.input_type.files.file.append(self._file)
        return response

    def _type(self) -> pb.KernelType:
        return pb.KernelType(name=POISON, documentation=POISON, service=POISON, input_type=POISON, device=POISON)

    def _kernel(self) -> pb.Kernel:
        state = pb.KERNEL_STATE_FAILED
        return pb.Kernel(kernel_id=POISON, kernel_type=POISON, state=state, failure=POISON, device=POISON)


class _Telemetry(telemetry_service_pb2_grpc.TelemetryServiceServicer):
    def GetTelemetry(self, request: Any, context: Any) -> telemetry_service_pb2.GetTelemetryResponse:
        kernel = telemetry_service_pb2.KernelTelemetry(
            kernel_id=POISON, state=pb.KERNEL_STATE_FAILED, last_error=POISON
        )
        return telemetry_service_pb2.GetTelemetryResponse(kernels=[kernel])

    def GetMemory(self, request: Any, context: Any) -> telemetry_service_pb2.GetMemoryResponse:
        return telemetry_service_pb2.GetMemoryResponse(places=[telemetry_service_pb2.MemoryPlace(name=POISON)])

    def GetDevices(self, request: Any, context: Any) -> telemetry_service_pb2.GetDevicesResponse:
        device = telemetry_service_pb2.DeviceTelemetry(name=POISON)
        return telemetry_service_pb2.GetDevicesResponse(devices=[device])


class _Server(server_service_pb2_grpc.ServerServiceServicer):
    def GetServerInfo(self, request: Any, context: Any) -> server_service_pb2.GetServerInfoResponse:
        return server_service_pb2.GetServerInfoResponse(
            version=POISON, daemon_epoch=POISON, limits={POISON: 1}, features=[POISON]
        )


@contextmanager
def hostile_daemon(file: FileDescriptorProto) -> Iterator[str]:
    """The address of a daemon whose only kernel takes the message `Hostile` of this file."""
    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool)
        kernel_service_pb2_grpc.add_KernelServiceServicer_to_server(_Kernels(file), server)  # type: ignore[abstract]
        server_service_pb2_grpc.add_ServerServiceServicer_to_server(_Server(), server)
        telemetry_service_pb2_grpc.add_TelemetryServiceServicer_to_server(_Telemetry(), server)  # type: ignore[abstract]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
