"""A daemon without its client: its services by their generated stubs, and the types that it made at run time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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

KERNELS = Path(__file__).parent / "contract" / "kernels.py"
VECTOR_ADD = Path(__file__).parents[1] / "examples" / "vector_add.py"
MAX_MESSAGE_BYTES = 100_000
PLENTY_OF_BYTES = 1 << 40
BUSY_MARGIN = "answer_margin=5"
"""A limit with which a daemon gives up a fifth of a call's time before its deadline: on a busy machine its answer takes
a while, and without one the client says less.
"""
PATIENCE = 30.0
"""Seconds that anything may take that ought to happen soon."""


@dataclass(frozen=True)
class Failure:
    """A `google.rpc.Status`, read as a program in any language reads it."""

    code: grpc.StatusCode
    reason: str
    detail: dict[str, Any]
    """The fields of the message of errors.proto."""
    violations: list[tuple[str, str]] = field(default_factory=list, compare=False)
    """The paths and the descriptions of its BadRequest."""


def read_status(status: status_pb2.Status) -> Failure:
    """What a status says; it must have an ErrorInfo of our domain, one detail, and for a request a BadRequest."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    info = error_details_pb2.ErrorInfo()
    packed, detail, *more = status.details
    retry = error_details_pb2.RetryInfo()
    retries = [each for each in more if each.Unpack(retry)]
    more = [each for each in more if each not in retries]
    assert packed.Unpack(info)
    assert info.domain == "pydotcompute"
    detail_type = errors_pb2.DESCRIPTOR.message_types_by_name[detail.type_url.rpartition(".")[2]]
    message = message_factory.GetMessageClass(detail_type)()
    assert detail.Unpack(message)
    assert status.message
    fields = {
        field.name: _plain(getattr(message, field.name))
        for field in detail_type.fields
        if not field.has_presence or message.HasField(field.name)
    }
    told = [fields["retry_after"]] if "retry_after" in fields else []
    assert [retry.retry_delay.ToNanoseconds() / 1e9 for _ in retries] == pytest.approx(told)
    bad_request = error_details_pb2.BadRequest()
    # With INTERNAL, what is wrong then is the answer, and nothing in the request.
    assert [each.Unpack(bad_request) for each in more] == [True] * (
        info.reason == "MESSAGE_INVALID" and code is not grpc.StatusCode.INTERNAL
    )
    violations = [(violation.field, violation.description) for violation in bad_request.field_violations]
    if "path" in fields and violations:
        assert violations[0][0] == fields["path"]
    return Failure(code, info.reason, fields, violations)


def _plain(value: Any) -> Any:
    if isinstance(value, errors_pb2.Violation):
        return value.path, value.problem
    return value if isinstance(value, str | int | float) else [_plain(each) for each in value]


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


@dataclass(frozen=True)
class Letter:
    """A message of Exchange by itself: what a batch has of it in its columns."""

    body: bytes
    message_id: bytes = field(default_factory=lambda: uuid4().bytes)
    priority: int = 128
    correlation_id: bytes | None = None
    type: int = 0
    output: bool = False
    timeout_us: int = field(default=0, compare=False)


def batch_of(first_sequence: int, letters: Sequence[Letter]) -> message_service_pb2.Batch:
    """The columns, in full; of the ids of requests only if there are any."""
    batch = message_service_pb2.Batch(
        first_sequence=first_sequence,
        message_ids=b"".join(letter.message_id for letter in letters),
        bodies=[letter.body for letter in letters],
        priorities=[letter.priority for letter in letters],
        types=[letter.type for letter in letters],
        outputs=[index for index, letter in enumerate(letters) if letter.output],
        timeouts_us=[letter.timeout_us for letter in letters],
    )
    if any(letter.correlation_id is not None for letter in letters):
        batch.correlation_ids = b"".join(letter.correlation_id or bytes(16) for letter in letters)
        batch.uncorrelated.extend(index for index, letter in enumerate(letters) if letter.correlation_id is None)
    return batch


def letters_of(batch: message_service_pb2.Batch, parts: bytes = b"") -> list[Letter]:
    """The messages of a batch, as a program in any language reads them; maybe one whose body has come in parts."""
    bodies = list(batch.bodies)
    if batch.body_in_parts:
        assert bodies == [b""]
        bodies = [parts]

    def ids(column: bytes) -> list[bytes]:
        assert len(column) == 16 * len(batch.bodies)
        return [column[at : at + 16] for at in range(0, len(column), 16)]

    def each(column: Sequence[int], default: int) -> list[int]:
        assert len(column) in (0, 1, len(batch.bodies))
        return list(column) if len(column) > 1 else (list(column) or [default]) * len(batch.bodies)

    correlation_ids: list[bytes | None] = [None] * len(batch.bodies)
    if batch.correlation_ids:
        correlation_ids = list(ids(batch.correlation_ids))
    for index in batch.uncorrelated:
        assert correlation_ids[index] == bytes(16)
        correlation_ids[index] = None
    columns = zip(
        bodies,
        ids(batch.message_ids),
        each(batch.priorities, 128),
        correlation_ids,
        each(batch.types, 0),
        [index in batch.outputs for index in range(len(batch.bodies))],
        strict=True,
    )
    return [Letter(*column) for column in columns]


class Talk:
    """A session by raw Exchange streams, one after the other: what the daemon says, frame by frame."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.calls: list[Any] = [wire.messages.Exchange()]
        """The streams, the current one last."""
        self.kernel_id = ""
        self.opened = message_service_pb2.Opened()
        self.accepted = message_service_pb2.Accepted()
        """What is known of the messages sent."""
        self.batches: list[message_service_pb2.Batch] = []
        """The batches, in order."""
        self.letters: list[Letter] = []
        """The messages in them."""
        self.refusals: list[message_service_pb2.Refusal] = []
        self.frames: list[message_service_pb2.ExchangeResponse] = []
        """Everything, in order."""
        self.seen = 0
        """The last sequence that has come."""
        self.sent = 0
        self.acks = 0
        """How many Acks were sent."""
        self.parts: list[message_service_pb2.Part] = []
        """Those that have come of a body."""
        self._credit = message_service_pb2.Credit()
        self._through = 0
        self._wish = 0

    @property
    def call(self) -> Any:
        """The current stream."""
        return self.calls[-1]

    async def open(
        self, kernel_id: str, credit: int = 1_000, credit_bytes: int = PLENTY_OF_BYTES, **fields: Any
    ) -> message_service_pb2.Opened:
        """Begin."""
        self.kernel_id = kernel_id
        self._credit = message_service_pb2.Credit(messages=credit, bytes=credit_bytes)
        return await self._open(kernel_id=kernel_id, **fields)

    async def resume(self, **fields: Any) -> message_service_pb2.Opened:
        """Go on with the session on a new stream; the old one may still be there."""
        going_on = {
            "kernel_id": self.kernel_id,
            "session_token": self.opened.session_token,
            "received_through": self.seen,
            **fields,
        }
        self._wish = 0
        self.calls.append(self._wire.messages.Exchange())
        return await self._open(**going_on)

    async def _open(self, **fields: Any) -> message_service_pb2.Opened:
        await self.say(open=message_service_pb2.Open(**{"credit": self._credit, **fields}))
        self.seen = fields.get("received_through", self.seen)
        opened: message_service_pb2.Opened = await self.hear("opened")
        self.opened = opened
        self.accepted.credit.CopyFrom(opened.credit)
        return opened

    def cut(self) -> None:
        """End the stream, and not the session."""
        self.call.cancel()

    async def say(self, **frame: Any) -> None:
        """Send a frame."""
        await self.call.write(message_service_pb2.ExchangeRequest(**frame))

    async def send(self, *letters: Letter, first: int | None = None, **beside: Any) -> None:
        """Send messages in one frame."""
        first = self.sent + 1 if first is None else first
        await self.say(batch=batch_of(first, letters), **beside)
        self.sent = max(self.sent, first + len(letters) - 1)

    async def send_part(self, body: bytes, offset: int, size: int = 1 << 20) -> int:
        """Send a part of a body, of at most so many bytes; returns where it ends."""
        data = body[offset : offset + size]
        await self.say(part=message_service_pb2.Part(body_bytes=len(body), offset=offset, data=data))
        return offset + len(data)

    async def send_parted(self, letter: Letter, first: int | None = None) -> None:
        """Send the message whose body has gone in parts."""
        first = self.sent + 1 if first is None else first
        batch = batch_of(first, [replace(letter, body=b"")])
        batch.body_in_parts = True
        await self.say(batch=batch)
        self.sent = max(self.sent, first)

    def make_ack(
        self, through: int | None = None, credit: int | None = None, credit_bytes: int | None = None, **fields: Any
    ) -> message_service_pb2.Ack:
        """The next acknowledgement. What is not stated is as before."""
        self.acks += 1
        self._through = self._through if through is None else through
        self._credit.messages = self._credit.messages if credit is None else credit
        self._credit.bytes = self._credit.bytes if credit_bytes is None else credit_bytes
        self._wish = fields.get("outputs", self._wish)
        return message_service_pb2.Ack(
            **{
                "number": self.acks,
                "through": self._through,
                "credit": self._credit,
                "outputs": self._wish,
                **fields,
            }
        )

    async def ack(self, through: int | None = None, credit: int | None = None, **fields: Any) -> None:
        """Acknowledge, and allow."""
        await self.say(ack=self.make_ack(through, credit, **fields))

    async def pull(self, outputs: int) -> None:
        """Ask for outputs."""
        await self.ack(outputs=outputs)

    async def heard(self) -> None:
        """Wait until the daemon has acted on every Ack."""
        while self.accepted.acks_received < self.acks:
            await self.hear("accepted")

    async def hear(self, *kinds: str, besides: tuple[str, ...] = ()) -> Any:
        """The next frame of one of these kinds, `accepted` also where it comes beside another. What is accepted and
        what is received meanwhile is noted; a frame of another kind is an error, but for those `besides`.
        """
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = await self.call.read()
                assert frame is not grpc.aio.EOF, f"ended: {await self.call.code()}"
                kind = frame.WhichOneof("frame")
                assert kind or frame.HasField("accepted"), "an empty frame"
                self._note(frame)
                if kind in kinds:
                    return getattr(frame, kind)
                assert kind in (None, "batch", "part", *besides), frame
                if "accepted" in kinds and frame.HasField("accepted"):
                    return frame.accepted

    def _note(self, frame: message_service_pb2.ExchangeResponse) -> None:
        self.frames.append(frame)
        if frame.HasField("batch"):
            assert frame.batch.first_sequence == self.seen + 1
            self.batches.append(frame.batch)
            self.letters += letters_of(frame.batch, b"".join(part.data for part in self.parts))
            if frame.batch.body_in_parts:
                assert sum(len(part.data) for part in self.parts) == self.parts[0].body_bytes
                self.parts.clear()
            self.seen += len(frame.batch.bodies)
        if frame.HasField("part"):
            if frame.part.offset == 0:
                self.parts.clear()
            assert frame.part.offset == sum(len(part.data) for part in self.parts)
            self.parts.append(frame.part)
        if frame.HasField("refused"):
            assert frame.refused.first_sequence == self.seen + 1
            self.refusals += frame.refused.refusals
            self.seen += len(frame.refused.refusals)
        if frame.HasField("accepted"):
            now, before = frame.accepted, self.accepted
            assert now.through >= before.through
            assert now.acks_received >= before.acks_received
            assert now.credit.messages >= before.credit.messages, "credit never falls"
            assert now.credit.bytes >= before.credit.bytes
            self.accepted = now

    async def received(self, count: int) -> list[Letter]:
        """The first `count` messages of the session."""
        while len(self.letters) < count:
            await self.hear("batch")
        assert len(self.letters) == count
        return self.letters

    async def refused(self, count: int = 1) -> list[message_service_pb2.Refusal]:
        """The first `count` refusals of the session."""
        while len(self.refusals) < count:
            await self.hear("refused")
        assert len(self.refusals) == count
        return self.refusals

    async def until_accepted(self, through: int, besides: tuple[str, ...] = ()) -> None:
        """Wait until the daemon has accepted everything through this sequence."""
        while self.accepted.through < through:
            await self.hear("accepted", besides=besides)

    async def ended(self) -> Failure | grpc.StatusCode:
        """How the daemon ends the stream, when it does; what it says before that is passed over."""
        return await how_it_ends(self.call)


async def how_it_ends(call: Any, *, read: bool = True) -> Failure | grpc.StatusCode:
    """How the daemon ends a stream, when it does; what it says before that is passed over.

    With `read=False` an error is raised as it is.
    """
    async with asyncio.timeout(PATIENCE):
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            if not read:
                raise
            return read_error(error)
        code: grpc.StatusCode = await call.code()
        return code


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
    size = str(MAX_MESSAGE_BYTES)
    return start_daemon(str(KERNELS), str(VECTOR_ADD), "--max-message-bytes", size, "--limit", BUSY_MARGIN)


@pytest.fixture
def talk(wire: Wire) -> Iterator[Callable[[], Talk]]:
    """Makes raw Exchange streams, which are cut after the test."""
    talks: list[Talk] = []

    def make() -> Talk:
        talks.append(Talk(wire))
        return talks[-1]

    yield make
    for made in talks:
        for call in made.calls:
            call.cancel()


@pytest.fixture
async def wire(daemon: Any) -> AsyncIterator[Wire]:
    """The daemon's services; what is launched through it is terminated after the test."""
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        wire = Wire(channel)
        yield wire
        for kernel_id in wire.launched:
            await wire.terminate(kernel_id, timeout=0.5)
