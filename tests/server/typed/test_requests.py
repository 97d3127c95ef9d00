"""One request to a kernel's own service: its body, its metadata and its reply."""

import json
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from tests.server.typed.services import (
    grpcurl,
    header,
    launched,
    service_of,
)
from tests.stubs import PATIENCE, Wire, failure_of


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
        assert set(await header(call)) == {"message-id", "daemon-epoch"}
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
    assert set(await header(call)) == {"message-id", "priority", "correlation-id", "daemon-epoch"}


async def test_the_deadline_of_the_call_is_the_time_out(wire: Wire) -> None:
    service, kernel = await launched(wire, "sink")
    failure = await failure_of(service.ask(kernel, timeout=4.0, number=1))
    assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "QUEUE_TIMEOUT")


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
        ("ask", {"message-id": "{00000000-0000-4000-8000-000000000000}"}, "message-id", "of 36 characters"),
        ("ask", {"message-id": "0" * 32}, "message-id", "of 36 characters"),
        ("send", {"correlation-id": f"urn:uuid:{uuid4()}"}, "correlation-id", "of 36 characters"),
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
