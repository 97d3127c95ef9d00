"""The services of the kernels themselves, as programs in other languages call them."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from grpc_reflection.v1alpha import reflection_pb2

from pydotcompute import RingKernelRuntime
from pydotcompute.ring_kernels.declaration import KernelType, RingKernelConfig
from pydotcompute.v1 import dead_letter_service_pb2, kernel_service_pb2
from pydotcompute_server.calls.handlers import Handlers
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.limits import Limits
from pydotcompute_server.services.reflection import add_reflection
from pydotcompute_server.typed.service import TypedServices
from pydotcompute_server.unary.lane import UnaryLane
from tests.server import typed_kernels
from tests.stubs import KERNELS, MAX_MESSAGE_BYTES, PATIENCE, VECTOR_ADD, Wire, failure_of, read_error
from tests.tools import tool

TYPED_KERNELS = Path(__file__).parent / "typed_kernels.py"
EOF = grpc.aio.EOF


@pytest.fixture(scope="module")
def daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with more kernels than the others have."""
    options = ("--max-message-bytes", str(MAX_MESSAGE_BYTES), "--launch", "till", "--launch", "vector_add")
    return start_daemon(str(KERNELS), str(VECTOR_ADD), str(TYPED_KERNELS), *options)


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


# -- names -------------------------------------------------------------------------------------------------------------


async def test_kernel_types_tell_the_name_of_their_service(wire: Wire) -> None:
    types = (await wire.kernels.ListKernelTypes(kernel_service_pb2.ListKernelTypesRequest())).kernel_types
    services = {kernel_type.name: kernel_type.service for kernel_type in types}
    assert services["vector_add"] == "vector_add.v1.VectorAdd"
    assert services["square"] == "kernels.v1.Square"
    assert services["till"] == "shop.v1.CashDesk"
    assert services["parrot"] == "shop.parrots.v1.Parrot"
    assert services["hermit"] == ""


async def test_a_kernel_under_another_id_has_the_service_of_its_type(wire: Wire) -> None:
    kernel_id = await wire.launch("till")
    described = await wire.describe(kernel_id)
    assert described.kernel_type.service == "shop.v1.CashDesk"
    assert [file.name for file in described.service_files.file][-1] == "shop/v1/cash_desk_service.proto"


async def test_a_kernel_without_an_input_type_has_no_service(wire: Wire) -> None:
    described = await wire.describe("hermit")
    assert (described.kernel_type.service, len(described.service_files.file)) == ("", 0)


async def test_the_service_files_are_complete_and_have_comments(wire: Wire) -> None:
    files = (await wire.describe("till")).service_files.file
    assert {"google/protobuf/empty.proto", "shop/v1/order.proto", "shop/v1/receipt.proto"} < {f.name for f in files}
    comments = {tuple(each.path): each.leading_comments for each in files[-1].source_code_info.location}
    assert comments[6, 0].startswith(" Takes orders.\n")
    assert all("Errors:" in comments[6, 0, 2, index] for index in range(4))


def test_reflection_lists_and_describes_the_services(daemon: Any) -> None:
    services = grpcurl(daemon.target, "list").split()
    assert {"shop.v1.CashDesk", "shop.parrots.v1.Parrot", "vector_add.v1.VectorAdd"} <= set(services)
    described = grpcurl(daemon.target, "describe", "shop.v1.CashDesk")
    assert "// Takes orders." in described
    assert "rpc Stream ( stream .shop.v1.Order ) returns ( stream .shop.v1.Receipt );" in described
    assert "google.protobuf.Any" in grpcurl(daemon.target, "describe", "shop.parrots.v1.Parrot.Ask")


async def refusal_of(wire: Wire, path: str, kind: str = "unary_unary") -> tuple[grpc.StatusCode, str]:
    """How a call of a method fails that does not exist."""
    call: Any = getattr(wire.channel, kind)(path)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await (call(b"", timeout=PATIENCE) if kind == "unary_unary" else call(timeout=PATIENCE).read())
    return failed.value.code(), failed.value.details() or ""


async def test_who_asks_for_a_service_that_does_not_exist_hears_of_those_that_do(wire: Wire) -> None:
    for kind in ("unary_unary", "stream_stream"):
        code, text = await refusal_of(wire, "/shop.v1.CashDest/Ask", kind)
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert text.startswith("there is no service 'shop.v1.CashDest'; those here are shop.v1.CashDesk, ")


async def test_who_asks_for_a_method_that_does_not_exist_hears_of_those_that_do(wire: Wire) -> None:
    code, text = await refusal_of(wire, "/shop.v1.CashDesk/Asks")
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert text == "service shop.v1.CashDesk has no method 'Asks'; it has Ask, Send, Stream, Receive"
    _, text = await refusal_of(wire, "/pydotcompute.v1.KernelService/Lunch")
    assert "it has Launch, " in text


async def test_a_name_of_any_length_is_refused(wire: Wire) -> None:
    code, text = await refusal_of(wire, "/" + "x" * 6000 + "/Ask")
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert len(text) < 2000


# -- one request -------------------------------------------------------------------------------------------------------


def test_grpcurl_asks_in_the_kernels_own_json(daemon: Any) -> None:
    assert json.loads(grpcurl("-d", '{"amount": 7}', daemon.target, "shop.v1.CashDesk/Ask")) == {"amount": "7"}


def test_grpcurl_sends_and_receives(daemon: Any) -> None:
    client = ("-H", f"pydotcompute-client-id: {uuid4()}")
    assert json.loads(grpcurl(*client, "-d", '{"amount": 8}', daemon.target, "shop.v1.CashDesk/Send")) == {}
    assert json.loads(grpcurl(*client, daemon.target, "shop.v1.CashDesk/Receive")) == {"amount": "8"}


def test_grpcurl_streams(daemon: Any) -> None:
    said = grpcurl("-d", '{"amount": 1} {"amount": 2} {"amount": 3}', daemon.target, "shop.v1.CashDesk/Stream")
    decoder, amounts = json.JSONDecoder(), []
    while said := said.strip():
        answer, end = decoder.raw_decode(said)
        amounts.append(answer["amount"])
        said = said[end:]
    assert amounts == ["1", "2", "3"]


async def test_the_kernel_of_the_types_name_answers(wire: Wire) -> None:
    assert (await (await service_of(wire, "till")).ask({}, amount=3)).amount == 3


async def test_an_answer_has_the_header_in_its_metadata(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    message_id = str(uuid4())
    call = service.ask({**kernel, "message-id": message_id, "priority": "7"}, amount=3)
    assert (await call).amount == 3
    found = await header(call)
    assert found.pop("correlation-id") == message_id
    assert UUID(found.pop("message-id")) != UUID(message_id)
    assert found == {"priority": "128"}


async def test_the_header_of_a_request_is_its_metadata(wire: Wire) -> None:
    service, kernel = await launched(wire, "parrot")
    said = {"message-id": str(uuid4()), "priority": "0", "correlation-id": str(uuid4())}
    call = service.ask({**kernel, **said}, note="hello")
    await call
    assert await header(call) == said


async def test_an_answer_of_no_declared_type_is_an_any(wire: Wire) -> None:
    service, kernel = await launched(wire, "parrot")
    reply = await service.ask(kernel, note="hello")
    assert reply.DESCRIPTOR.full_name == "google.protobuf.Any"
    assert wire.fields(AnyMessage.FromString(reply.SerializeToString())) == {"amount": "0", "note": "hello"}


async def test_send_and_receive_share_a_client_id(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    for client in ("a", "b"):
        call = service.send({**kernel, "client-id": client}, amount=ord(client))
        assert (await call).SerializeToString() == b""
        assert set(await header(call)) == {"message-id"}
    assert (await service.receive({**kernel, "client-id": "b"})).amount == ord("b")
    assert (await service.receive({**kernel, "client-id": "a"})).amount == ord("a")


async def test_what_is_sent_again_with_its_id_is_put_once(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    once = {**kernel, "message-id": str(uuid4())}
    for _ in range(3):
        call = service.send(once, amount=1)
        await call
        assert (await header(call))["message-id"] == once["message-id"]
    await wire.until(kernel["kernel-id"], messages_processed=1)


async def test_the_typed_and_the_general_service_are_one(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    await service.send({**kernel, "client-id": "me"}, amount=5)
    message = await wire.receive(kernel["kernel-id"], client_id="me")
    assert wire.fields(message.body) == {"amount": "5"}


async def test_a_lease_is_acknowledged_as_that_of_the_general_service(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    await service.send(kernel, amount=5)
    call = service.receive({**kernel, "lease": "0.05s"})
    await call
    first = await header(call)
    assert first["redelivered"] == "false"
    call = service.receive({**kernel, "lease": "600"})
    assert (await call).amount == 5
    second = await header(call)
    assert second["redelivered"] == "true"
    assert second["message-id"] == first["message-id"]
    assert await wire.acknowledge(kernel["kernel-id"], second["delivery-id"]) == []


async def test_without_a_lease_there_is_no_delivery_id(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    await service.send(kernel, amount=5)
    call = service.receive(kernel)
    await call
    assert set(await header(call)) == {"message-id", "priority", "correlation-id"}


async def test_the_deadline_of_the_call_is_the_time_out(wire: Wire) -> None:
    service, kernel = await launched(wire, "sink")
    failure = await failure_of(service.ask(kernel, timeout=0.3, number=1))
    assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "QUEUE_TIMEOUT")


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "metadata", "key", "problem"),
    [
        ("ask", {"lease": "3s"}, "lease", "Ask takes no such metadata; it takes pydotcompute-kernel-id, "),
        ("ask", {"color": "red"}, "color", "Ask takes no such metadata"),
        ("send", {"outputs": "true"}, "outputs", "pydotcompute-client-id"),
        ("receive", {"priority": "3"}, "priority", "it takes pydotcompute-kernel-id, pydotcompute-client-id, "),
        ("receive", {"lease": "soon"}, "lease", "as in 30s"),
        ("receive", {"lease": "0"}, "lease", "as in 30s"),
        ("receive", {"lease": "601s"}, "lease", "at most 600 s"),
        ("ask", {"priority": "256"}, "priority", "from 0 to 255"),
        ("ask", {"priority": "-1"}, "priority", "from 0 to 255"),
        ("ask", {"message-id": "7"}, "message-id", "not a UUID"),
        ("ask", {"message-id": ""}, "message-id", "not a UUID"),
        ("ask", {"kernel-id": ""}, "kernel-id", "a kernel has a name"),
        ("stream", {"kernel-id": ""}, "kernel-id", "a kernel has a name"),
        ("send", {"correlation-id": "x"}, "correlation-id", "not a UUID"),
        ("stream", {"message-id": str(uuid4())}, "message-id", "it takes pydotcompute-kernel-id, "),
        ("stream", {"outputs": "yes"}, "outputs", "true or false"),
    ],
)
async def test_metadata_that_a_method_does_not_take_is_refused(
    wire: Wire, method: str, metadata: dict[str, str], key: str, problem: str
) -> None:
    service = await service_of(wire, "till")
    call = getattr(service, method)(metadata)
    failure = await failure_of(call.read() if method == "stream" else call)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONFIGURATION_INVALID")
    assert failure.detail["parameter"] == f"pydotcompute-{key}"
    assert problem in failure.detail["problem"]


async def test_metadata_that_is_given_twice_is_refused(wire: Wire) -> None:
    service = await service_of(wire, "till")
    twice = [("pydotcompute-priority", "1"), ("pydotcompute-priority", "2")]
    call: Any = wire.channel.unary_unary(f"/{service.name}/Ask")
    assert (await failure_of(call(b"", metadata=twice))).detail["problem"] == "it is given twice"


async def test_metadata_of_others_is_none_of_our_business(wire: Wire) -> None:
    service = await service_of(wire, "till")
    call: Any = wire.channel.unary_unary(f"/{service.name}/Ask")
    await call(b"", metadata=[("x-request-id", "7"), ("x-trace-bin", b"\xff\x00")], timeout=PATIENCE)


@pytest.mark.parametrize("method", ["ask", "send", "receive", "stream"])
async def test_a_kernel_of_another_type_is_refused_with_the_name_of_its_service(wire: Wire, method: str) -> None:
    service = await service_of(wire, "till")
    kernel_id = await wire.launch("square")
    call = getattr(service, method)({"kernel-id": kernel_id})
    failure = await failure_of(call.read() if method == "stream" else call)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONFIGURATION_INVALID")
    assert "'square', which has the service kernels.v1.Square" in failure.detail["problem"]


@pytest.mark.parametrize("method", ["ask", "send", "receive", "stream"])
async def test_a_kernel_that_does_not_exist_is_refused_with_those_that_do(wire: Wire, method: str) -> None:
    service = await service_of(wire, "till")
    call = getattr(service, method)({"kernel-id": "tilt"})
    failure = await failure_of(call.read() if method == "stream" else call)
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "KERNEL_NOT_FOUND")
    assert "till" in failure.detail["available"]


async def test_a_type_of_which_no_kernel_is_launched_is_not_unknown(wire: Wire) -> None:
    service = await service_of(wire, "slow_till")
    for metadata, is_type in (({}, True), ({"kernel-id": "tilt"}, False)):
        call = service.ask(metadata)
        failure = await failure_of(call)
        assert (failure.reason, failure.detail["is_type"]) == ("KERNEL_NOT_FOUND", is_type)
        assert ("`pydotcompute launch slow_till --activate`" in await call.details()) is is_type


async def test_a_body_that_is_none_is_refused_with_its_path(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    for method in ("Ask", "Send"):
        call: Any = wire.channel.unary_unary(f"/{service.name}/{method}")
        failure = await failure_of(call(b"\x08", metadata=keys(kernel), timeout=PATIENCE))
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")
        assert failure.detail["path"] == "$"


async def test_a_body_that_is_too_long_is_refused(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    failure = await failure_of(service.ask(kernel, note="x" * MAX_MESSAGE_BYTES))
    assert (failure.reason, failure.detail["limit"]) == ("MESSAGE_INVALID", MAX_MESSAGE_BYTES)


@pytest.mark.parametrize("method", ["ask", "receive", "stream"])
async def test_a_reply_of_another_class_than_declared_is_a_dead_letter(wire: Wire, method: str) -> None:
    service, kernel = await launched(wire, "till")
    if method == "ask":
        failure = await failure_of(service.ask(kernel, note="back"))
    elif method == "receive":
        await service.send(kernel, note="back")
        failure = await failure_of(service.receive(kernel))
    else:
        stream = service.stream(kernel)
        await stream.write(service.message(note="back"))
        failure = await failure_of(stream.read())
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "MESSAGE_INVALID")
    assert failure.detail == {"expected": "shop.v1.Receipt", "actual": "shop.v1.Order", "path": "$"}
    assert not failure.violations
    (letter,) = await dead_letters(wire, kernel["kernel-id"])
    promise = f"kernel {kernel['kernel-id']!r} answered with shop.v1.Order; the service promises shop.v1.Receipt"
    assert letter.detail == promise
    assert letter.reason == dead_letter_service_pb2.DEAD_LETTER_REASON_UNDELIVERABLE


async def test_a_kernel_that_is_not_active_is_refused(wire: Wire) -> None:
    service, kernel = await launched(wire, "till", activate=False)
    for call in (service.ask(kernel), service.stream(kernel).read()):
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KERNEL_STATE_INVALID")


# -- many requests -----------------------------------------------------------------------------------------------------


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


async def test_ten_thousand_messages_come_back_in_order(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    answers = await exchange(service.stream(kernel), [service.message(amount=number) for number in range(10_000)])
    assert [answer.amount for answer in answers] == list(range(10_000))
    assert await dead_letters(wire, kernel["kernel-id"]) == []


async def test_a_client_that_does_not_read_is_not_read_from(wire: Wire) -> None:
    service, kernel = await launched(wire, "parrot", input_queue_size=16, output_queue_size=16)
    call = service.stream(kernel)
    message = service.message(note="x" * 10_000)
    written = 0

    async def write() -> None:
        nonlocal written
        for _ in range(10_000):
            await call.write(message)
            written += 1
        await call.done_writing()

    writing = asyncio.create_task(write())
    before = -1
    async with asyncio.timeout(PATIENCE):
        while before != written:  # Half a second in which nothing moves.
            before = written
            await asyncio.sleep(0.5)
    assert written < 5_000
    processed = (await wire.counters(kernel["kernel-id"])).messages_processed
    answers = 0
    while (answer := await call.read()) is not EOF:
        assert len(answer.value) > 10_000
        answers += 1
    await writing
    assert processed <= written
    assert answers == 10_000


async def test_replies_come_as_the_kernel_sends_them(wire: Wire) -> None:
    service, kernel = await launched(wire, "shuffler")
    call = service.stream(kernel)
    answers = await exchange(call, [service.message(number=number) for number in range(500)])
    assert [answer.number for answer in answers] != [number**2 for number in range(500)]
    assert sorted(answer.number for answer in answers) == [number**2 for number in range(500)]


async def test_a_stream_may_hold_many_requests_that_the_kernel_collects(wire: Wire) -> None:
    service, kernel = await launched(wire, "gate")
    messages = [service.message(number=number) for number in range(10_000)] + [service.message(note="open")]
    answers = await exchange(service.stream(kernel), messages)
    assert [answer.number for answer in answers] == [number**2 for number in range(10_000)] + [0]


async def test_a_stream_answers_while_the_client_goes_on_sending(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    call = service.stream(kernel)
    for number in range(20):
        await call.write(service.message(amount=number))
        assert (await call.read()).amount == number
    await call.done_writing()
    assert await call.read() is EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_of_nothing_ends_well(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    assert await exchange(service.stream(kernel), []) == []


async def test_further_replies_to_a_request_come_too(wire: Wire) -> None:
    service, kernel = await launched(wire, "repeater")
    call = service.stream(kernel)
    await call.write(service.message(number=3))
    assert [(await call.read()).position for _ in range(3)] == [0, 1, 2]
    await call.done_writing()
    assert await call.read() is EOF


async def test_the_priority_of_a_stream_is_that_of_its_messages(wire: Wire) -> None:
    service, kernel = await launched(wire, "square")
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id=kernel["kernel-id"]))
    calls = [service.stream({**kernel, "priority": priority}) for priority in ("1", "200")]
    for depth, call in enumerate(calls, 1):
        await call.write(service.message(number=3))
        await wire.until(kernel["kernel-id"], queue_depth=depth)
    await wire.kernels.Reactivate(kernel_service_pb2.ReactivateRequest(kernel_id=kernel["kernel-id"]))
    assert [(await call.read()).position for call in calls] == [1, 0]
    for call in calls:
        call.cancel()


async def test_many_streams_share_a_kernel_and_none_gets_anothers_replies(wire: Wire) -> None:
    service, kernel = await launched(wire, "hesitant")

    async def client(number: int) -> None:
        messages = [service.message(number=each, client=number) for each in range(100)]
        answers = await exchange(service.stream(kernel), messages)
        assert [(answer.client, answer.number) for answer in answers] == [(number, each**2) for each in range(100)]

    async with asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(client(number))


async def test_a_paused_kernel_answers_a_stream_when_it_goes_on(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id=kernel["kernel-id"]))
    call = service.stream(kernel)
    await write_all(call, [service.message(amount=number) for number in range(5)])
    await wire.until(kernel["kernel-id"], queue_depth=5)
    await wire.kernels.Reactivate(kernel_service_pb2.ReactivateRequest(kernel_id=kernel["kernel-id"]))
    assert [answer.amount for answer in await read_all(call)] == list(range(5))


async def test_a_bad_message_ends_the_stream_after_what_was_accepted_is_answered(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    kernel_id = kernel["kernel-id"]
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id=kernel_id))
    call: Any = wire.channel.stream_stream(f"/{service.name}/Stream")(metadata=keys(kernel))
    for body in (b"\x08\x01", b"\x08\x02", b"\x08", b"\x08\x04"):
        await call.write(body)
    await wire.until(kernel_id, queue_depth=2)
    await wire.kernels.Reactivate(kernel_service_pb2.ReactivateRequest(kernel_id=kernel_id))
    answers, error = await read_to_error(call)
    assert answers == [b"\x08\x01", b"\x08\x02"]
    assert (error.details() or "").startswith("message 3 of the stream: cannot deserialize Order: ")
    failure = read_error(error)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")


async def test_a_message_that_is_too_long_ends_the_stream(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    call = service.stream(kernel)
    await write_all(call, [service.message(amount=1), service.message(note="x" * MAX_MESSAGE_BYTES)])
    answers, error = await read_to_error(call)
    assert [answer.amount for answer in answers] == [1]
    assert (error.details() or "").startswith("message 2 of the stream: ")
    assert read_error(error).detail["limit"] == MAX_MESSAGE_BYTES


async def test_a_full_mailbox_that_rejects_ends_the_stream_after_what_was_accepted(wire: Wire) -> None:
    service, kernel = await launched(wire, "small")
    kernel_id = kernel["kernel-id"]
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id=kernel_id))
    call = service.stream(kernel)
    for number in range(6):
        await call.write(service.message(number=number))
    await wire.until(kernel_id, queue_depth=4)
    await wire.kernels.Reactivate(kernel_service_pb2.ReactivateRequest(kernel_id=kernel_id))
    answers, error = await read_to_error(call)
    failure = read_error(error)
    # Those that came after it was full may have found room again.
    assert [answer.number for answer in answers][:4] == [0, 1, 4, 9]
    if len(answers) == 4:
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert (error.details() or "").startswith("message 5 of the stream: ")


async def test_a_request_that_is_dropped_to_make_room_ends_the_stream(wire: Wire) -> None:
    dropping = kernel_service_pb2.KernelConfig(backpressure_strategy=3).backpressure_strategy
    service, kernel = await launched(wire, "till", input_queue_size=3, backpressure_strategy=dropping)
    kernel_id = kernel["kernel-id"]
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id=kernel_id))
    call = service.stream(kernel)
    for number in range(4):
        await call.write(service.message(amount=number))
    await wire.until(kernel_id, messages_dropped=1)
    await wire.kernels.Reactivate(kernel_service_pb2.ReactivateRequest(kernel_id=kernel_id))
    answers, error = await read_to_error(call)
    assert [answer.amount for answer in answers] == [1, 2, 3]
    assert read_error(error).reason == "QUEUE_FULL"
    assert (error.details() or "").startswith("message 1 of the stream: ")


async def test_a_kernel_that_fails_in_the_middle_ends_the_stream(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    kernel_id = kernel["kernel-id"]
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id=kernel_id))
    call = service.stream(kernel)
    messages = [service.message(amount=1), service.message(amount=2), service.message(note="boom")]
    for message in [*messages, service.message(amount=3)]:
        await call.write(message)
    await wire.until(kernel_id, queue_depth=4)
    await wire.kernels.Reactivate(kernel_service_pb2.ReactivateRequest(kernel_id=kernel_id))
    answers, error = await read_to_error(call)
    assert [answer.amount for answer in answers] == [1, 2]
    failure = read_error(error)
    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "KERNEL_FAILED")
    assert failure.detail["cause_message"] == "out of paper"
    assert (error.details() or "").startswith("message 3 of the stream: ")


async def test_a_request_that_a_failing_kernel_holds_ends_the_stream(wire: Wire) -> None:
    service, kernel = await launched(wire, "fragile")
    call = service.stream(kernel)
    await write_all(call, [service.message(number=2), service.message(note="hold"), service.message(number=3)])
    assert [(await call.read()).number for _ in range(2)] == [4, 9]
    await wire.send(kernel["kernel-id"], note="boom")
    _, error = await read_to_error(call)
    assert read_error(error).reason == "KERNEL_FAILED"
    assert (error.details() or "").startswith("message 2 of the stream: ")


async def test_a_kernel_that_is_terminated_ends_the_streams_that_wait(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    call = service.stream(kernel)
    await call.write(service.message(amount=1))
    await call.read()
    await wire.terminate(kernel["kernel-id"])
    _, error = await read_to_error(call)
    assert read_error(error).reason == "KERNEL_STATE_INVALID"


async def test_a_stream_that_is_cancelled_withdraws_what_the_kernel_has_not_taken(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    kernel_id = kernel["kernel-id"]
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id=kernel_id))
    other = service.stream(kernel)
    await other.write(service.message(amount=77))
    await wire.until(kernel_id, queue_depth=1)
    call = service.stream(kernel)
    for number in range(1000):
        await call.write(service.message(amount=number))
    await wire.until(kernel_id, queue_depth=1001)
    call.cancel()
    await wire.until(kernel_id, queue_depth=1)
    await wire.kernels.Reactivate(kernel_service_pb2.ReactivateRequest(kernel_id=kernel_id))
    assert (await other.read()).amount == 77
    await wire.until(kernel_id, messages_processed=1)
    assert await dead_letters(wire, kernel_id) == []
    other.cancel()


async def test_a_stream_whose_deadline_passes_withdraws_too(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id=kernel["kernel-id"]))
    call = service.stream(kernel, timeout=1.0)
    await call.write(service.message(amount=1))
    await wire.until(kernel["kernel-id"], queue_depth=1)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call.read()
    failure = read_error(failed.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "QUEUE_TIMEOUT")
    assert (failed.value.details() or "").startswith("message 1 of the stream: kernel ")
    await wire.until(kernel["kernel-id"], queue_depth=0)


async def test_a_reply_to_a_stream_that_is_gone_is_a_dead_letter(wire: Wire) -> None:
    service, kernel = await launched(wire, "gate")
    call = service.stream(kernel)
    await call.write(service.message(number=2))
    await call.write(service.message(number=3))
    async with asyncio.timeout(PATIENCE):
        while (await wire.counters(kernel["kernel-id"])).queue_depth or not (
            await wire.counters(kernel["kernel-id"])
        ).messages_processed:
            pass
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    async with asyncio.timeout(PATIENCE):
        await wire.ask(kernel["kernel-id"], note="open")
        while len(letters := await dead_letters(wire, kernel["kernel-id"])) < 2:
            pass
    assert {letter.detail for letter in letters} == {"its caller is gone"}


async def test_outputs_come_where_they_are_wished_for(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    call = service.stream({**kernel, "outputs": "true"})
    await write_all(call, [service.message(amount=1, note="advert"), service.message(amount=2)])
    assert {(await call.read()).amount for _ in range(2)} == {1, 2}
    await service.send(kernel, amount=3, note="advert")  # The client has ended its side, and still gets outputs.
    assert (await call.read()).amount == 3
    call.cancel()


async def test_outputs_are_left_to_others_where_they_are_not_wished_for(wire: Wire) -> None:
    service, kernel = await launched(wire, "emitter")
    call = service.stream(kernel)
    await call.write(service.message(number=2))
    assert [(await service.receive(kernel)).number for _ in range(2)] == [0, 1]
    call.cancel()


async def test_a_stream_of_outputs_ends_with_its_kernel(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    call = service.stream({**kernel, "outputs": "true"})
    await call.done_writing()
    await call.initial_metadata()
    await wire.terminate(kernel["kernel-id"])
    answers, error = await read_to_error(call)
    assert (answers, read_error(error).reason) == ([], "KERNEL_STATE_INVALID")


# -- types that come later ---------------------------------------------------------------------------------------------


async def test_a_service_is_there_as_soon_as_its_type_is_known() -> None:
    catalog = Catalog()
    kernel_type = KernelType(typed_kernels.till, RingKernelConfig("late"), typed_kernels.Order, typed_kernels.Receipt)
    async with RingKernelRuntime(kernel_types={"late": kernel_type}) as runtime:
        await runtime.launch("late")
        await runtime.activate("late")
        handlers: Any = Handlers(catalog.pool, Limits())
        add_reflection(handlers, [], catalog.pool)
        unary = UnaryLane(runtime, catalog, Limits())
        handlers.add_generic_rpc_handlers([TypedServices(runtime, catalog, unary, Limits())])
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert (await refusal_of(Wire(channel), "/shop.v1.Late/Ask"))[0] is grpc.StatusCode.UNIMPLEMENTED
            catalog.add(kernel_type)
            call: Any = channel.unary_unary("/shop.v1.Late/Ask")
            assert await call(b"\x08\x05", timeout=PATIENCE) == b"\x08\x05"
            for version in ("v1", "v1alpha"):
                ask: Any = channel.stream_stream(
                    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
                )
                stream = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=PATIENCE)
                listed = (await stream.read()).list_services_response.service
                assert "shop.v1.Late" in {service.name for service in listed}
        await server.stop(0)


# -- the end of the daemon ---------------------------------------------------------------------------------------------


@pytest.fixture
async def mortal(start_daemon: Callable[..., Any]) -> AsyncIterator[tuple[Any, Wire]]:
    """A daemon for one test, with a grace period of some seconds."""
    daemon = start_daemon(str(TYPED_KERNELS), "--launch", "all", "--grace", "5")
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        yield daemon, Wire(channel)


async def test_a_daemon_that_ends_answers_what_it_has_accepted(mortal: tuple[Any, Wire]) -> None:
    daemon, wire = mortal
    service = await service_of(wire, "slow_till")
    call = service.stream({})
    for _ in range(10):
        await call.write(service.message(amount=50))
    await wire.until("slow_till", queue_depth=9)
    daemon.process.terminate()
    answers, error = await read_to_error(call)
    assert len(answers) == 10
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the daemon is shutting down"
    assert await asyncio.to_thread(daemon.process.wait, PATIENCE) == 0


async def test_a_daemon_that_ends_lets_a_stream_end_well_that_was_about_to(mortal: tuple[Any, Wire]) -> None:
    daemon, wire = mortal
    service = await service_of(wire, "slow_till")
    call = service.stream({})
    await write_all(call, [service.message(amount=50)] * 10)
    await wire.until("slow_till", queue_depth=9)
    daemon.process.terminate()
    assert len(await read_all(call)) == 10
    assert await asyncio.to_thread(daemon.process.wait, PATIENCE) == 0


async def test_a_daemon_that_ends_says_which_message_is_not_answered(mortal: tuple[Any, Wire]) -> None:
    daemon, wire = mortal
    service = await service_of(wire, "till")
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id="till"))
    call = service.stream({})
    await call.write(service.message(amount=1))
    await wire.until("till", queue_depth=1)
    daemon.process.terminate()
    _, error = await read_to_error(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert (error.details() or "").startswith("the daemon is shutting down: message 1 of the stream: ")
    assert await asyncio.to_thread(daemon.process.wait, PATIENCE) == 0


async def test_a_client_that_does_not_read_does_not_keep_the_daemon(mortal: tuple[Any, Wire]) -> None:
    daemon, wire = mortal
    service = await service_of(wire, "parrot")
    call = service.stream({})
    writing = asyncio.create_task(write_all(call, [service.message(note="x" * 100_000)] * 1000))
    await wire.until("parrot", error_count=0)
    async with asyncio.timeout(PATIENCE):
        while (await wire.counters("parrot")).messages_processed < 10:
            pass
    await asyncio.to_thread(daemon.stop)
    writing.cancel()
    call.cancel()
