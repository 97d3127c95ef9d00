"""A daemon without its client: its services by their generated stubs, and the types that it made at run time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf import any_pb2, json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from pydotcompute.v1 import errors_pb2, kernel_service_pb2, message_service_pb2
from pydotcompute.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub

KERNELS = Path(__file__).parents[1] / "contract" / "kernels.py"
VECTOR_ADD = Path(__file__).parents[2] / "examples" / "vector_add.py"
MAX_MESSAGE_BYTES = 100_000
PATIENCE = 10.0
"""Seconds that anything may take that ought to happen soon."""


@dataclass(frozen=True)
class Failure:
    """A `google.rpc.Status`, read as a program in any language reads it."""

    code: grpc.StatusCode
    reason: str
    detail: dict[str, Any]
    """The fields of the message of errors.proto."""


def read_status(status: status_pb2.Status) -> Failure:
    """What a status says; it must have an ErrorInfo of our domain, and then one detail."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    info = error_details_pb2.ErrorInfo()
    packed, detail = status.details
    assert packed.Unpack(info)
    assert info.domain == "pydotcompute"
    detail_type = errors_pb2.DESCRIPTOR.message_types_by_name[detail.type_url.rpartition(".")[2]]
    message = message_factory.GetMessageClass(detail_type)()
    assert detail.Unpack(message)
    assert status.message
    return Failure(
        code, info.reason, {field.name: _plain(getattr(message, field.name)) for field in detail_type.fields}
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else list(value)


def read_error(error: grpc.aio.AioRpcError) -> Failure:
    """What a failed call says."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    return read_status(status)


async def failure_of(call: Any) -> Failure:
    """How this call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return read_error(failed.value)


class Wire:
    """A daemon's services, and bodies of its kernels' types."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.kernels: Any = KernelServiceStub(channel)
        self.messages: Any = MessageServiceStub(channel)
        self.telemetry: Any = TelemetryServiceStub(channel)
        self.dead_letters: Any = DeadLetterServiceStub(channel)
        self.launched: list[str] = []
        self.pool = DescriptorPool()
        self._known: set[str] = set()

    async def launch(self, kernel_type: str, *, activate: bool = True, **config: Any) -> str:
        """Launch a kernel of this type under an id of its own."""
        kernel_id = f"{kernel_type}-{uuid4().hex[:8]}"
        request = kernel_service_pb2.LaunchRequest(
            kernel_id=kernel_id, kernel_type=kernel_type, config=kernel_service_pb2.KernelConfig(**config)
        )
        await self.kernels.Launch(request)
        self.launched.append(kernel_id)
        if activate:
            await self.kernels.Activate(kernel_service_pb2.ActivateRequest(kernel_id=kernel_id))
        return kernel_id

    async def terminate(self, kernel_id: str, timeout: float = 5.0) -> None:
        """End a kernel."""
        await self.kernels.Terminate(
            kernel_service_pb2.TerminateRequest(kernel_id=kernel_id, timeout=duration(timeout))
        )

    async def describe(self, kernel_id: str) -> kernel_service_pb2.DescribeKernelResponse:
        """What the daemon tells of a kernel; its types are in `pool` from then on."""
        request = kernel_service_pb2.DescribeKernelRequest(kernel_id=kernel_id)
        answer: kernel_service_pb2.DescribeKernelResponse = await self.kernels.DescribeKernel(request)
        self.learn(answer.input_type)
        self.learn(answer.output_type)
        return answer

    def learn(self, message_type: message_service_pb2.MessageType) -> None:
        """Take in a type that the daemon described."""
        for file in message_type.files.file:
            if file.name not in self._known:
                self.pool.Add(file)
                self._known.add(file.name)

    def body(self, full_name: str, **fields: Any) -> any_pb2.Any:
        """A body of a type of the daemon, with these fields in protobuf's JSON form."""
        message = self.message(full_name)
        json_format.ParseDict(fields, message, descriptor_pool=self.pool)
        packed = any_pb2.Any()
        packed.Pack(message)
        return packed

    def message(self, full_name: str) -> Any:
        """An empty message of a type of the daemon."""
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(full_name))()

    def fields(self, body: any_pb2.Any) -> dict[str, Any]:
        """The fields of a body, in protobuf's JSON form."""
        message = self.message(body.TypeName())
        assert body.Unpack(message)
        return self.as_dict(message)

    def as_dict(self, message: Any) -> dict[str, Any]:
        """The fields of a message, zeros included; 64-bit numbers are texts, as protobuf's JSON has it."""
        found: dict[str, Any] = json_format.MessageToDict(
            message,
            descriptor_pool=self.pool,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        return found

    async def send(self, kernel_id: str, timeout: float = PATIENCE, client_id: str = "", **fields: Any) -> str:
        """Send a body with these fields; returns the id of the message."""
        name = (await self.describe(kernel_id)).input_type.full_name
        message = message_service_pb2.Message(body=self.body(name, **fields))
        request = message_service_pb2.SendRequest(
            kernel_id=kernel_id, message=message, timeout=duration(timeout), client_id=client_id
        )
        answer: message_service_pb2.SendResponse = await self.messages.Send(request)
        return answer.message_id

    async def receive(
        self, kernel_id: str, timeout: float = PATIENCE, client_id: str = ""
    ) -> message_service_pb2.Message:
        """Receive a message."""
        request = message_service_pb2.ReceiveRequest(
            kernel_id=kernel_id, timeout=duration(timeout), client_id=client_id
        )
        answer: message_service_pb2.ReceiveResponse = await self.messages.Receive(request)
        return answer.message

    async def lease(
        self, kernel_id: str, lease: float, timeout: float = PATIENCE, client_id: str = ""
    ) -> message_service_pb2.ReceiveResponse:
        """Receive a message with a lease."""
        request = message_service_pb2.ReceiveRequest(
            kernel_id=kernel_id, timeout=duration(timeout), client_id=client_id, lease=duration(lease)
        )
        answer: message_service_pb2.ReceiveResponse = await self.messages.Receive(request)
        return answer

    async def acknowledge(self, kernel_id: str, *delivery_ids: str) -> list[str]:
        """Acknowledge; returns the ids that the daemon does not know."""
        request = message_service_pb2.AcknowledgeRequest(kernel_id=kernel_id, delivery_ids=delivery_ids)
        answer: message_service_pb2.AcknowledgeResponse = await self.messages.Acknowledge(request)
        return list(answer.unknown_delivery_ids)

    async def ask(self, kernel_id: str, timeout: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Send a request with these fields; returns the fields of its reply."""
        name = (await self.describe(kernel_id)).input_type.full_name
        message = message_service_pb2.Message(body=self.body(name, **fields))
        request = message_service_pb2.AskRequest(kernel_id=kernel_id, message=message, timeout=duration(timeout))
        answer: message_service_pb2.AskResponse = await self.messages.Ask(request)
        return self.fields(answer.message.body)

    async def counters(self, kernel_id: str) -> Any:
        """A snapshot of a kernel's telemetry."""
        from pydotcompute.v1 import telemetry_service_pb2

        answer = await self.telemetry.GetTelemetry(telemetry_service_pb2.GetTelemetryRequest(kernel_ids=[kernel_id]))
        return answer.kernels[0]

    async def until(self, kernel_id: str, **counters: Any) -> None:
        """Wait until a kernel's telemetry has these figures."""
        async with asyncio.timeout(PATIENCE):
            while True:
                now = await self.counters(kernel_id)
                if all(getattr(now, name) == value for name, value in counters.items()):
                    return


class Talk:
    """One raw Exchange stream: what the daemon says, frame by frame."""

    def __init__(self, wire: Wire) -> None:
        self.call: Any = wire.messages.Exchange()
        self.opened = message_service_pb2.Opened()
        self.accepted = message_service_pb2.Accepted()
        """The last frame of this kind."""
        self.batches: list[message_service_pb2.Batch] = []
        """The batches, in order."""
        self.sent = 0

    async def open(self, kernel_id: str, credit: int = 1_000) -> message_service_pb2.Opened:
        """Begin."""
        await self.say(open=message_service_pb2.Open(kernel_id=kernel_id, credit=credit))
        opened: message_service_pb2.Opened = await self.hear("opened")
        self.opened = opened
        self.accepted.credit = opened.credit
        return opened

    async def say(self, **frame: Any) -> None:
        """Send a frame."""
        await self.call.write(message_service_pb2.ExchangeRequest(**frame))

    async def send(self, *envelopes: message_service_pb2.Envelope, first: int | None = None) -> None:
        """Send messages in one frame."""
        first = self.sent + 1 if first is None else first
        await self.say(batch=message_service_pb2.Batch(first_sequence=first, messages=envelopes))
        self.sent += len(envelopes)

    async def ack(self, through: int, credit: int = 0, undeliverable: tuple[int, ...] = ()) -> None:
        """Acknowledge."""
        await self.say(ack=message_service_pb2.Ack(through=through, credit=credit, undeliverable=undeliverable))

    async def pull(self, outputs: int) -> None:
        """Ask for outputs."""
        await self.say(pull=message_service_pb2.Pull(outputs=outputs))

    async def hear(self, *kinds: str, besides: tuple[str, ...] = ()) -> Any:
        """The next frame of one of these kinds. What is accepted and what is received meanwhile is noted; a frame of
        another kind is an error, but for those `besides`."""
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = await self.call.read()
                assert frame is not grpc.aio.EOF, f"ended: {await self.call.code()}"
                kind = frame.WhichOneof("frame")
                content = getattr(frame, kind)
                if kind == "accepted":
                    assert content.through >= self.accepted.through
                    assert content.credit >= self.accepted.credit, "credit never falls"
                    self.accepted = content
                elif kind == "batch":
                    assert content.first_sequence == sum(len(batch.messages) for batch in self.batches) + 1
                    self.batches.append(content)
                if kind in kinds:
                    return content
                assert kind in ("accepted", "batch", *besides), frame

    async def received(self, count: int) -> list[message_service_pb2.Envelope]:
        """The first `count` messages of the conversation."""
        while sum(len(batch.messages) for batch in self.batches) < count:
            await self.hear("batch")
        envelopes = [envelope for batch in self.batches for envelope in batch.messages]
        assert len(envelopes) == count
        return envelopes

    async def until_accepted(self, through: int) -> None:
        """Wait until the daemon has accepted everything through this sequence."""
        while self.accepted.through < through:
            await self.hear("accepted")

    async def ended(self) -> Failure | grpc.StatusCode:
        """How the daemon ends the stream, when it does; what it says before that is passed over."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                return read_error(error)
            code: grpc.StatusCode = await self.call.code()
            return code


def envelope(body: bytes, priority: int = 128, **fields: Any) -> message_service_pb2.Envelope:
    """A message for Exchange, with an id of its own."""
    return message_service_pb2.Envelope(**{"message_id": uuid4().bytes, "priority": priority, "body": body, **fields})


def duration(seconds: float) -> Duration:
    """Seconds, for a request."""
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


@cache
def job_bytes(number: int = 0, note: str = "") -> bytes:
    """The bytes of a `Job` of the contract's kernels, written by hand: field 1 is its number, field 3 its note."""
    encoded = note.encode()
    assert 0 <= number < 128
    assert len(encoded) < 128
    return bytes([0x08, number]) + (bytes([0x1A, len(encoded)]) + encoded if encoded else b"")


@pytest.fixture(scope="session")
def daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with the kernel types of the contract suite and of an example, and a low limit for a message's size."""
    return start_daemon(str(KERNELS), str(VECTOR_ADD), "--max-message-bytes", str(MAX_MESSAGE_BYTES))


@pytest.fixture
def talk(wire: Wire) -> Iterator[Callable[[], Talk]]:
    """Makes raw Exchange streams, which are cut after the test."""
    talks: list[Talk] = []

    def make() -> Talk:
        talks.append(Talk(wire))
        return talks[-1]

    yield make
    for made in talks:
        made.call.cancel()


@pytest.fixture
async def wire(daemon: Any) -> AsyncIterator[Wire]:
    """The daemon's services; what is launched through it is terminated after the test."""
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        wire = Wire(channel)
        yield wire
        for kernel_id in wire.launched:
            await wire.terminate(kernel_id, timeout=0.5)
