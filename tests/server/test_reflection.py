"""Server reflection: a program that knows nothing but the address can read every type and call every method."""

import base64
import json
import struct
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from pydotcompute.schema.names import json_name
from pydotcompute.v1 import (
    client_service_pb2,
    dead_letter_service_pb2,
    kernel_service_pb2,
    message_service_pb2,
    server_service_pb2,
    telemetry_service_pb2,
)
from tests.stubs import Wire
from tests.tools import tool

SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "pydotcompute.v1.DeadLetterService",
    "pydotcompute.v1.KernelService",
    "pydotcompute.v1.MessageService",
    "pydotcompute.v1.ClientService",
    "pydotcompute.v1.ServerService",
    "pydotcompute.v1.TelemetryService",
}
LIFE = "pydotcompute.v1.KernelService"
KERNELS_PACKAGES = ("kernels.v1.", "vector_add.v1.")
"""Where the services of the kernels themselves are."""
OWN_MODULES = (kernel_service_pb2, message_service_pb2, telemetry_service_pb2, dead_letter_service_pb2)
MODULES = (*OWN_MODULES, server_service_pb2, client_service_pb2, health_pb2)
Request = reflection_pb2.ServerReflectionRequest


class Reflection:
    """The reflection service, in one of its versions; their messages are the same on the wire."""

    def __init__(self, channel: grpc.Channel, version: str) -> None:
        self._method = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=Request.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    def ask(self, *requests: reflection_pb2.ServerReflectionRequest) -> list[Any]:
        """The answers to requests that go over one stream."""
        return list(self._method(iter(requests), timeout=10))

    def services(self) -> list[str]:
        """The names of all services."""
        (answer,) = self.ask(Request(list_services=""))
        return [service.name for service in answer.list_services_response.service]

    def files(self, symbol: str) -> dict[str, FileDescriptorProto]:
        """The file that defines a symbol, and all that it needs, asked for one by one."""
        (answer,) = self.ask(Request(file_containing_symbol=symbol))
        found: dict[str, FileDescriptorProto] = {}
        waiting = [FileDescriptorProto.FromString(f) for f in answer.file_descriptor_response.file_descriptor_proto]
        assert waiting, answer
        while waiting:
            file = waiting.pop()
            found[file.name] = file
            if missing := [name for name in file.dependency if name not in found]:
                for answer in self.ask(*(Request(file_by_filename=name) for name in missing)):
                    response = answer.file_descriptor_response
                    waiting += [FileDescriptorProto.FromString(f) for f in response.file_descriptor_proto]
        return found


@pytest.fixture
def channel(daemon: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(daemon.target) as channel:
        yield channel


@pytest.fixture(params=["v1", "v1alpha"])
def reflection(channel: grpc.Channel, request: pytest.FixtureRequest) -> Reflection:
    return Reflection(channel, request.param)


def pool_of(files: dict[str, FileDescriptorProto]) -> DescriptorPool:
    """A pool with these files and no others."""
    pool = DescriptorPool()
    added: set[str] = set()

    def add(name: str) -> None:
        if name not in added:
            added.add(name)
            for dependency in files[name].dependency:
                add(dependency)
            pool.Add(files[name])

    for name in files:
        add(name)
    return pool


def messages(files: Iterable[FileDescriptorProto]) -> dict[str, DescriptorProto]:
    """The messages that files define, by full name."""
    return {
        f"{file.package}.{message.name}": message for file in map(structure, files) for message in file.message_type
    }


def structure(file: FileDescriptorProto) -> FileDescriptorProto:
    """A file without what reflection may leave out."""
    file = FileDescriptorProto.FromString(file.SerializeToString())
    file.ClearField("source_code_info")
    for field in fields_of(file.message_type):
        field.ClearField("json_name")
    return file


def fields_of(messages: Iterable[DescriptorProto]) -> Iterator[FieldDescriptorProto]:
    """All fields of these messages, and of those inside them."""
    for message in messages:
        yield from message.field
        yield from fields_of(message.nested_type)


def test_every_service_is_listed_and_no_other(reflection: Reflection) -> None:
    services = reflection.services()
    assert len(services) == len(set(services))
    assert {name for name in services if not name.startswith(KERNELS_PACKAGES)} == SERVICES


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_the_files_of_every_service_are_complete(reflection: Reflection, service: str) -> None:
    pool = pool_of(reflection.files(service))
    for method in pool.FindServiceByName(service).methods:
        for message in (method.input_type, method.output_type):
            message_factory.GetMessageClass(message)()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.DESCRIPTOR.name)
def test_a_service_is_reflected_as_it_was_compiled(reflection: Reflection, module: Any) -> None:
    compiled = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(compiled)
    (service,) = module.DESCRIPTOR.services_by_name.values()
    assert structure(reflection.files(service.full_name)[compiled.name]) == structure(compiled)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_field_has_its_name_in_json(reflection: Reflection, service: str) -> None:
    fields = [field for file in reflection.files(service).values() for field in fields_of(file.message_type)]
    assert [field.json_name for field in fields] == [json_name(field.name) for field in fields]


@pytest.mark.parametrize("symbol", ["pydotcompute.v1.QueueFullDetail", "google.rpc.Status", "pydotcompute.v1.Tensor"])
def test_types_that_only_an_any_names_are_reflected(reflection: Reflection, symbol: str) -> None:
    pool_of(reflection.files(symbol)).FindMessageTypeByName(symbol)


def test_a_method_and_a_field_can_be_asked_for_too(reflection: Reflection) -> None:
    for symbol in ("pydotcompute.v1.KernelService.Launch", "kernels.v1.Job.number"):
        assert any("proto" in name for name in reflection.files(symbol))


def test_what_does_not_exist_is_not_found(reflection: Reflection) -> None:
    answers = reflection.ask(Request(file_containing_symbol="no.such.Thing"), Request(file_by_filename="no/such.proto"))
    codes = [answer.error_response.error_code for answer in answers]
    assert codes == [grpc.StatusCode.NOT_FOUND.value[0]] * 2


async def test_the_types_of_every_kernel_are_reflected(reflection: Reflection, wire: Wire) -> None:
    request = kernel_service_pb2.ListKernelTypesRequest()
    types = (await wire.kernels.ListKernelTypes(request)).kernel_types
    names = {name for kernel_type in types for name in (kernel_type.input_type, kernel_type.output_type)}
    assert {"kernels.v1.Job", "vector_add.v1.VectorAddRequest"} <= names
    for name in names - {""}:
        pool_of(reflection.files(name)).FindMessageTypeByName(name)


async def test_a_kernel_describes_the_same_types_as_reflection(reflection: Reflection, wire: Wire) -> None:
    described = (await wire.describe("vector_add")).input_type
    reflected = messages(reflection.files(described.full_name).values())
    for name, message in messages(described.files.file).items():
        assert reflected[name] == message


async def test_a_service_and_its_messages_are_in_the_first_file(reflection: Reflection) -> None:
    (answer,) = reflection.ask(Request(file_containing_symbol="kernels.v1.Square"))
    first, *others = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
    assert (first.name, first.package) == ("kernels/v1/kernels.proto", "kernels.v1")
    assert {"Job", "Result"} < {message.name for message in first.message_type}
    assert "Square" in {service.name for service in first.service}
    assert "kernels.v1" not in {file.package for file in others}


async def test_the_services_of_the_daemon_have_their_comments(reflection: Reflection) -> None:
    (file,) = (
        file for file in reflection.files(f"{LIFE}.Launch").values() if file.name.endswith("kernel_service.proto")
    )
    comments = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}
    methods = [method.name for method in file.service[0].method]
    assert "KERNEL_ALREADY_EXISTS" in comments[6, 0, 2, methods.index("Launch")]


# -- with nothing but the address --------------------------------------------------------------------------------------


class Stranger:
    """Calls methods by name, with JSON, knowing only what reflection tells: what grpcurl does."""

    def __init__(self, channel: grpc.Channel, pool: DescriptorPool) -> None:
        self._channel = channel
        self._pool = pool

    def call(self, method: str, request: dict[str, Any]) -> dict[str, Any]:
        """The response to one unary call."""
        service, _, name = method.rpartition(".")
        descriptor = self._pool.FindServiceByName(service).methods_by_name[name]
        call: Any = self._channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(descriptor.output_type).FromString,
        )
        message = message_factory.GetMessageClass(descriptor.input_type)()
        json_format.Parse(json.dumps(request), message, descriptor_pool=self._pool)
        response = call(message, timeout=10)
        answer: dict[str, Any] = json.loads(json_format.MessageToJson(response, descriptor_pool=self._pool))
        return answer


@pytest.fixture(params=["the library's database", "v1 by hand"])
def stranger(channel: grpc.Channel, request: pytest.FixtureRequest) -> Stranger:
    if request.param == "v1 by hand":
        reflection = Reflection(channel, "v1")
        symbols = [*reflection.services(), "kernels.v1.Job", "kernels.v1.Result", "vector_add.v1.VectorAddRequest"]
        symbols.append("vector_add.v1.VectorAddResponse")
        files = {name: file for symbol in symbols for name, file in reflection.files(symbol).items()}
        return Stranger(channel, pool_of(files))
    return Stranger(channel, DescriptorPool(ProtoReflectionDescriptorDatabase(channel)))


async def test_a_stranger_can_ask_a_kernel_in_json(stranger: Stranger, wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    body = {"@type": "type.googleapis.com/kernels.v1.Job", "number": 12, "note": "ü"}
    answer = stranger.call(
        "pydotcompute.v1.MessageService.Ask", {"kernelId": kernel_id, "message": {"body": body}, "timeout": "5s"}
    )
    assert answer["message"]["body"] == {"@type": "type.googleapis.com/kernels.v1.Result", "number": "144"}
    assert answer["message"]["priority"] == 128


async def test_a_stranger_can_send_an_array_in_json(stranger: Stranger, wire: Wire) -> None:
    kernel_id = await wire.launch("vector_add")

    def tensor(*values: float) -> dict[str, Any]:
        data = base64.b64encode(struct.pack(f"<{len(values)}d", *values)).decode()
        return {"dtype": "<f8", "shape": [str(len(values))], "data": data}

    body = {"@type": "type.googleapis.com/vector_add.v1.VectorAddRequest", "a": tensor(1, 2), "b": tensor(0.5, -2)}
    answer = stranger.call(
        "pydotcompute.v1.MessageService.Ask", {"kernelId": kernel_id, "message": {"body": body}, "timeout": "5s"}
    )
    assert answer["message"]["body"]["total"] == tensor(1.5, 0.0)


async def test_a_stranger_can_lead_a_kernel_through_its_life(stranger: Stranger, wire: Wire) -> None:
    kernel_id = await wire.launch("square", activate=False)
    service = "pydotcompute.v1.KernelService"
    for method, state in (("Activate", "ACTIVE"), ("Deactivate", "DEACTIVATED"), ("Terminate", "TERMINATED")):
        answer = stranger.call(f"{service}.{method}", {"kernelId": kernel_id})
        assert answer["kernel"]["state"] == f"KERNEL_STATE_{state}"
    assert stranger.call("grpc.health.v1.Health.Check", {}) == {"status": "SERVING"}


# -- with grpcurl ------------------------------------------------------------------------------------------------------


async def test_grpcurl_lists_describes_and_asks(daemon: Any, wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    program = tool("grpcurl")

    def grpcurl(*arguments: str) -> str:
        return subprocess.run(
            [program, "-plaintext", *arguments], check=True, capture_output=True, text=True, timeout=20
        ).stdout

    assert set(grpcurl(daemon.target, "list").split()) >= SERVICES
    assert "int64 number = 1;" in grpcurl(daemon.target, "describe", "kernels.v1.Job")
    body = {"@type": "type.googleapis.com/kernels.v1.Job", "number": 5}
    request = json.dumps({"kernel_id": kernel_id, "message": {"body": body}})
    answer = json.loads(grpcurl("-d", request, daemon.target, "pydotcompute.v1.MessageService/Ask"))
    assert answer["message"]["body"]["number"] == "25"
