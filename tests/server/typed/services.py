"""Kernels' own services, called as programs in other languages call them."""

import asyncio
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.empty_pb2 import Empty

from pydotcompute.v1 import dead_letter_service_pb2, kernel_service_pb2
from tests.stubs import PATIENCE, Wire
from tests.tools import tool

TYPED_KERNELS = Path(__file__).parent / "typed_kernels.py"
EOF = grpc.aio.EOF


class Service:
    """A kernel type's own service, by what DescribeKernel tells of it."""

    def __init__(self, wire: Wire, described: kernel_service_pb2.DescribeKernelResponse) -> None:
        self.wire = wire
        self.name = described.kernel_type.service
        for file in described.service_files.file:
            if file.name not in wire._known:
                wire.pool.Add(file)
                wire._known.add(file.name)
        self.methods = wire.pool.FindServiceByName(self.name).methods_by_name

    def message(self, **fields: Any) -> Any:
        """A request."""
        made = message_factory.GetMessageClass(self.methods["Ask"].input_type)()
        return json_format.ParseDict(fields, made, descriptor_pool=self.wire.pool)

    def _call(self, name: str, kind: str) -> Any:
        method = self.methods[name]
        answers = message_factory.GetMessageClass(method.output_type)
        return getattr(self.wire.channel, kind)(
            f"/{self.name}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answers.FromString,
        )

    def ask(self, metadata: dict[str, str], timeout: float = PATIENCE, **fields: Any) -> Any:
        """A call of Ask, whose result is the reply."""
        return self._call("Ask", "unary_unary")(self.message(**fields), timeout=timeout, metadata=keys(metadata))

    def send(self, metadata: dict[str, str], timeout: float = PATIENCE, **fields: Any) -> Any:
        """A call of Send."""
        return self._call("Send", "unary_unary")(self.message(**fields), timeout=timeout, metadata=keys(metadata))

    def receive(self, metadata: dict[str, str], timeout: float = PATIENCE) -> Any:
        """A call of Receive."""
        return self._call("Receive", "unary_unary")(Empty(), timeout=timeout, metadata=keys(metadata))

    def stream(self, metadata: dict[str, str], timeout: float = 60.0) -> Any:
        """A call of Stream, to be written to and read from."""
        return self._call("Stream", "stream_stream")(timeout=timeout, metadata=keys(metadata))


def keys(metadata: dict[str, str]) -> list[tuple[str, str]]:
    """Metadata, with the prefix left out of our keys."""
    return [(f"pydotcompute-{key}", value) for key, value in metadata.items()]


async def header(call: Any) -> dict[str, str]:
    """The initial metadata of ours, without the prefix."""
    metadata = await call.initial_metadata()
    return {key.removeprefix("pydotcompute-"): value for key, value in metadata if key.startswith("pydotcompute-")}


async def service_of(wire: Wire, name: str) -> Service:
    """The service of a kernel or a kernel type."""
    return Service(wire, await wire.describe(name))


async def launched(wire: Wire, kernel_type: str, **config: Any) -> tuple[Service, dict[str, str]]:
    """A new kernel of this type: the service, and the metadata that name the kernel."""
    kernel_id = await wire.launch(kernel_type, **config)
    return await service_of(wire, kernel_id), {"kernel-id": kernel_id}


async def dead_letters(wire: Wire, kernel_id: str) -> list[dead_letter_service_pb2.DeadLetter]:
    """The dead letters of a kernel."""
    request = dead_letter_service_pb2.ListDeadLettersRequest(kernel_id=kernel_id)
    return list((await wire.dead_letters.ListDeadLetters(request)).dead_letters)


def grpcurl(*arguments: str, fails: bool = False) -> str:
    """What grpcurl says; of one that fails, its error."""
    done = subprocess.run([tool("grpcurl"), "-plaintext", *arguments], capture_output=True, text=True, timeout=20)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


async def refusal_of(wire: Wire, path: str, kind: str = "unary_unary") -> tuple[grpc.StatusCode, str]:
    """How a call of a method fails that does not exist."""
    call: Any = getattr(wire.channel, kind)(path)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await (call(b"", timeout=PATIENCE) if kind == "unary_unary" else call(timeout=PATIENCE).read())
    return failed.value.code(), failed.value.details() or ""


async def write_all(call: Any, messages: Iterable[Any]) -> None:
    """Send all, and end our side."""
    for message in messages:
        await call.write(message)
    await call.done_writing()


async def read_all(call: Any) -> list[Any]:
    """What comes until the stream ends well."""
    found = []
    while (answer := await call.read()) is not EOF:
        found.append(answer)
    assert await call.code() is grpc.StatusCode.OK, await call.details()
    return found


async def read_to_error(call: Any) -> tuple[list[Any], grpc.aio.AioRpcError]:
    """What comes until the stream fails, and how."""
    found: list[Any] = []

    async def read() -> None:
        while (answer := await call.read()) is not EOF:
            found.append(answer)

    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await read()
    return found, failed.value


async def exchange(call: Any, messages: Sequence[Any]) -> list[Any]:
    """Send all and read all at once."""
    writing = asyncio.create_task(write_all(call, messages))
    try:
        return await read_all(call)
    finally:
        await writing
