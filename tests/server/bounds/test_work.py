"""A request's work is bounded before it is done: what is over a bound is refused with its name."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import grpc
import pytest

from pydotcompute.v1 import kernel_service_pb2
from pydotcompute.v1 import message_service_pb2 as pb
from tests.chaos import overload
from tests.server.bounds import long_messages as long
from tests.server.bounds.long_messages import FULL_NAME, ask_load, body
from tests.stubs import Failure, Letter, Talk, Wire, batch_of, failure_of, how_it_ends, read_error, read_status

MOST = 500


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with long.daemon(max_message_elements=MOST, max_control_bytes=10_000, max_control_items=100) as daemon:
        yield daemon


def limit_of(failure: Any) -> tuple[grpc.StatusCode, str, str, int]:
    assert failure.detail["asked"] > failure.detail["limit"]
    return failure.code, failure.reason, failure.detail["name"], failure.detail["limit"]


ELEMENTS = (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", "max_message_elements", MOST)


# -- elements ----------------------------------------------------------------------------------------------------------


async def call(wire: Wire, path: str, data: bytes) -> Any:
    method: Any = wire.channel.unary_unary(path)
    return await method(data)


async def service(wire: Wire) -> str:
    return str((await wire.describe("taking")).kernel_type.service)


async def by_ask(wire: Wire, data: bytes) -> Any:
    return await failure_of(wire.messages.Ask(overload.ask("taking", FULL_NAME, data)))


async def by_send(wire: Wire, data: bytes) -> Any:
    message = overload.ask("taking", FULL_NAME, data).message
    return await failure_of(wire.messages.Send(pb.SendRequest(kernel_id="taking", message=message)))


async def by_typed_ask(wire: Wire, data: bytes) -> Any:
    return await failure_of(call(wire, f"/{await service(wire)}/Ask", data))


async def by_typed_stream(wire: Wire, data: bytes) -> Any:
    stream: Any = wire.channel.stream_stream(f"/{await service(wire)}/Stream")()
    await stream.write(data)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stream.read()
    return read_error(failed.value)


async def by_exchange(wire: Wire, data: bytes) -> Any:
    talk = Talk(wire)
    await talk.open("taking")
    await talk.send(Letter(body(1, "")), Letter(data), Letter(body(2, "")))
    (refusal,) = await talk.refused()
    assert refusal.sequence == 2
    assert [each.body for each in await talk.received(2)] == [b"\x08\x01", b"\x08\x02"]
    return read_status(refusal.status)


WAYS = [by_ask, by_send, by_typed_ask, by_typed_stream, by_exchange]


@pytest.mark.parametrize("send", WAYS)
@pytest.mark.parametrize("make", [overload.messages, overload.texts, overload.unknown_fields])
async def test_a_message_of_too_many_elements_is_refused_with_the_limit(
    wire: Wire, send: Callable[[Wire, bytes], Any], make: Callable[[int], bytes]
) -> None:
    assert limit_of(await send(wire, make(MOST + 1))) == ELEMENTS
    assert await wire.ask("short", amount=3) == {"amount": "3"}


async def test_a_message_of_as_many_elements_as_allowed_is_taken(wire: Wire) -> None:
    answer = await wire.messages.Ask(ask_load(MOST - 1, ""))  # The note is one too.
    assert answer.message.body.value == b"\x08\xf3\x03"


async def test_a_json_body_of_too_many_elements_is_refused(wire: Wire) -> None:
    request = overload.struct_ask("taking", overload.struct_of_nulls("items", MOST + 1))
    assert limit_of(await failure_of(wire.messages.Ask(request))) == ELEMENTS


async def test_the_envelope_of_a_message_has_few_fields(wire: Wire) -> None:
    failure = await failure_of(call(wire, "/pydotcompute.v1.MessageService/Ask", overload.repeated_body(10_000)))
    assert failure.reason == "MESSAGE_INVALID"
    assert failure.detail["problem"] == "more than 1000 fields around the message"


@pytest.mark.parametrize("frame", [overload.frame_of_bodies, overload.part_of_heads])
async def test_a_frame_of_too_many_elements_ends_the_session(wire: Wire, frame: Callable[[int], bytes]) -> None:
    stream: Any = wire.channel.stream_stream("/pydotcompute.v1.MessageService/Exchange")()
    opening = pb.ExchangeRequest(open=pb.Open(kernel_id="taking", credit=pb.Credit(messages=9, bytes=9)))
    await stream.write(opening.SerializeToString())
    await stream.read()
    await stream.write(frame(200_000))
    ended = await how_it_ends(stream)
    assert isinstance(ended, Failure)
    assert "elements" in ended.detail["problem"]
    assert await wire.ask("short", amount=3) == {"amount": "3"}


async def test_the_greatest_frame_that_a_client_may_send_is_taken(wire: Wire) -> None:
    talk = Talk(wire)
    await talk.open("taking", max_message_bytes=1 << 20)
    letters = [Letter(body(50, "")) for _ in range(64)]
    assert batch_of(1, letters).ByteSize() > 0
    await talk.send(*letters)
    assert len(await talk.received(64)) == 64


# -- control calls -----------------------------------------------------------------------------------------------------

CONTROL = [
    ("MessageService/Acknowledge", overload.acknowledge_ids),
    ("DeadLetterService/RequeueDeadLetters", overload.requeue_ids),
    ("TelemetryService/GetTelemetry", overload.watch_of_ids),
    ("TelemetryService/WatchTelemetry", overload.watch_of_ids),
]


@pytest.mark.parametrize(("path", "make"), CONTROL, ids=[path for path, _ in CONTROL])
@pytest.mark.parametrize(
    ("count", "limit"), [(20_000, ("max_control_bytes", 10_000)), (101, ("max_control_items", 100))]
)
async def test_a_control_call_is_short(
    wire: Wire, path: str, make: Callable[[str, int], Any], count: int, limit: tuple[str, int]
) -> None:
    data = make("taking", count).SerializeToString()
    stream: Any = wire.channel.unary_stream(f"/pydotcompute.v1.{path}")(data)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stream.read()
    assert limit_of(read_error(failed.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", *limit)


@pytest.mark.parametrize("path", ["grpc.health.v1.Health/Check", "pydotcompute.v1.KernelService/Launch"])
async def test_every_other_call_is_short_too(wire: Wire, path: str) -> None:
    failure = await failure_of(call(wire, f"/{path}", b"\x0a\x81\x80\x01" + b"x" * 16_385))
    assert limit_of(failure)[2] == "max_control_bytes"


async def test_reflection_requests_are_short(wire: Wire) -> None:
    stream: Any = wire.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")()
    await stream.write(b"\x22\x81\x80\x01" + b"x" * 16_385)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stream.read()
    assert limit_of(read_error(failed.value))[2] == "max_control_bytes"


async def test_an_acknowledgement_withdraws_as_many_requests_as_wait(wire: Wire) -> None:
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id="taking"))
    talk = Talk(wire)
    await talk.open("taking")
    letters = [Letter(body(1, "")) for _ in range(90)]
    await talk.send(*letters)
    await talk.until_accepted(90)
    kept = letters[::30]
    await talk.ack(withdrawn=[each.message_id for each in letters if each not in kept] + [uuid4().bytes])
    await talk.heard()
    assert (await wire.counters("taking")).queue_depth == len(kept)
