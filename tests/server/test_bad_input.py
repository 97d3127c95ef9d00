"""What a client can do wrong: each gets its error, and the daemon goes on serving the others."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf import any_pb2

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from tests.stubs import (
    MAX_MESSAGE_BYTES,
    Failure,
    Letter,
    Talk,
    Wire,
    batch_of,
    duration,
    failure_of,
    job_bytes,
    read_status,
)

NOT_PROTOBUF = b"\xff\xff\xff"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
JOB_OR_STRUCT = "kernels.v1.Job, or google.protobuf.Struct with its fields"
EXCHANGE = "/pydotcompute.v1.MessageService/Exchange"


@pytest.fixture
async def healthy(wire: Wire, daemon: Any) -> AsyncIterator[Talk]:
    """A client that is in the middle of a conversation while another one misbehaves, and notices nothing of it."""
    kernel_id = await wire.launch("square")
    talk = Talk(wire)
    await talk.open(kernel_id)
    await talk.send(Letter(job_bytes(3)))
    await talk.received(1)
    logged = daemon.log.stat().st_size
    yield talk
    await talk.send(*[Letter(job_bytes(n)) for n in range(100)])
    await talk.received(101)
    await wire.ask(kernel_id, number=3)
    assert daemon.process.poll() is None
    assert "Traceback" not in daemon.log_text(logged), "no fault of the daemon's"
    await talk.say(bye=pb.Bye())
    assert await talk.ended() is grpc.StatusCode.OK


@pytest.fixture
async def job(wire: Wire) -> Callable[..., pb.Message]:
    """Makes messages with a body of the type `Job`, unless other bytes or another type are given."""

    def make(value: bytes = b"", type_name: str = "kernels.v1.Job", **header: Any) -> pb.Message:
        body = any_pb2.Any(type_url=f"type.googleapis.com/{type_name}", value=value)
        return pb.Message(body=body, **header)

    return make


Put = Callable[[str, pb.Message], Awaitable[Any]]


@pytest.fixture(params=["Send", "Ask"])
def put(wire: Wire, request: pytest.FixtureRequest) -> Put:
    """Gives a message to a kernel, in both ways."""
    if request.param == "Send":
        return lambda kernel_id, message: wire.messages.Send(pb.SendRequest(kernel_id=kernel_id, message=message))
    return lambda kernel_id, message: wire.messages.Ask(pb.AskRequest(kernel_id=kernel_id, message=message))


# -- unary: messages ---------------------------------------------------------------------------------------------------


def deserialization(problem: str, path: str, message_type: str = "Job") -> Failure:
    detail = {"message_type": message_type, "problem": problem, "path": path, "violations": [(path, problem)]}
    return Failure(INVALID, "MESSAGE_INVALID", detail)


def wrong_type(expected: str, actual: str, path: str) -> Failure:
    return Failure(INVALID, "MESSAGE_INVALID", {"expected": expected, "actual": actual, "path": path})


@pytest.mark.usefixtures("healthy")
async def test_a_message_of_the_wrong_class_is_refused(wire: Wire, put: Put, job: Callable[..., pb.Message]) -> None:
    kernel_id = await wire.launch("square")
    failure = await failure_of(put(kernel_id, job(type_name="kernels.v1.Bare")))
    assert failure == wrong_type(JOB_OR_STRUCT, "kernels.v1.Bare", "$.message.body")


@pytest.mark.usefixtures("healthy")
async def test_a_message_without_a_body_is_refused(wire: Wire, put: Put) -> None:
    kernel_id = await wire.launch("square")
    assert await failure_of(put(kernel_id, pb.Message())) == wrong_type(JOB_OR_STRUCT, "no body", "$.message.body")


@pytest.mark.usefixtures("healthy")
async def test_a_body_that_is_no_protobuf_is_refused(wire: Wire, put: Put, job: Callable[..., pb.Message]) -> None:
    kernel_id = await wire.launch("square")
    failure = await failure_of(put(kernel_id, job(NOT_PROTOBUF)))
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert (failure.detail["message_type"], failure.detail["path"]) == ("Job", "$.message.body")
    assert failure.detail["problem"]


@pytest.mark.usefixtures("healthy")
async def test_a_text_that_is_not_unicode_is_refused(wire: Wire, put: Put, job: Callable[..., pb.Message]) -> None:
    kernel_id = await wire.launch("square")
    failure = await failure_of(put(kernel_id, job(b"\x1a\x01\xff")))
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert failure.detail["message_type"] == "Job"


@pytest.mark.usefixtures("healthy")
async def test_a_priority_out_of_range_is_refused(wire: Wire, put: Put, job: Callable[..., pb.Message]) -> None:
    kernel_id = await wire.launch("square")
    for priority in (256, 2**32 - 1):
        failure = await failure_of(put(kernel_id, job(priority=priority)))
        assert failure == deserialization(f"{priority} is outside 0 to 255", "$.message.priority")


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("field", ["message_id", "correlation_id"])
async def test_an_id_that_is_no_uuid_is_refused(
    wire: Wire, put: Put, job: Callable[..., pb.Message], field: str
) -> None:
    kernel_id = await wire.launch("square")
    failure = await failure_of(put(kernel_id, job(**{field: "42"})))
    assert failure == deserialization("not a UUID in its form of 36 characters: '42'", f"$.message.{field}")
    other_form = "{00000000-0000-4000-8000-000000000000}"
    failure = await failure_of(put(kernel_id, job(**{field: other_form})))
    assert failure == deserialization(f"not a UUID in its form of 36 characters: '{other_form}'", f"$.message.{field}")


@pytest.mark.usefixtures("healthy")
async def test_a_payload_over_the_limit_is_refused_and_one_of_just_the_limit_is_not(wire: Wire, put: Put) -> None:
    kernel_id = await wire.launch("echo_job")
    await wire.describe(kernel_id)
    frame = len(wire.body("kernels.v1.Job", note="x" * (MAX_MESSAGE_BYTES - 10)).value) - (MAX_MESSAGE_BYTES - 10)
    longest = pb.Message(body=wire.body("kernels.v1.Job", note="x" * (MAX_MESSAGE_BYTES - frame)))
    assert len(longest.body.value) == MAX_MESSAGE_BYTES
    await put(kernel_id, longest)
    too_long = pb.Message(body=wire.body("kernels.v1.Job", note="x" * (MAX_MESSAGE_BYTES - frame + 1)))
    detail = {"message_type": "Job", "size": MAX_MESSAGE_BYTES + 1, "limit": MAX_MESSAGE_BYTES}
    failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID", detail)
    assert await failure_of(put(kernel_id, too_long)) == failure


@pytest.mark.usefixtures("healthy")
async def test_a_request_over_the_limit_of_the_connection_is_refused(
    wire: Wire, put: Put, job: Callable[..., pb.Message]
) -> None:
    kernel_id = await wire.launch("square")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await put(kernel_id, job(bytes(MAX_MESSAGE_BYTES + (2 << 20))))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.usefixtures("healthy")
async def test_a_second_request_of_an_id_that_waits_for_its_reply_is_refused(
    wire: Wire, put: Put, job: Callable[..., pb.Message]
) -> None:
    kernel_id = await wire.launch("sink")
    message_id = str(uuid4())
    request = pb.SendRequest(kernel_id=kernel_id, message=job(message_id=message_id), client_id="a")
    await wire.messages.Send(request)
    failure = await failure_of(put(kernel_id, job(message_id=message_id)))
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert failure.detail["path"] == "$.message.message_id"


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    "method",
    [
        "KernelService/Launch",
        "MessageService/Send",
        "MessageService/Ask",
        "MessageService/Receive",
        "TelemetryService/GetTelemetry",
    ],
)
async def test_a_request_that_is_no_protobuf_is_refused(wire: Wire, method: str) -> None:
    call: Any = wire.channel.unary_unary(f"/pydotcompute.v1.{method}")
    failure = await failure_of(call(NOT_PROTOBUF))
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert failure.detail["message_type"] == method.partition("/")[2] + "Request"


@pytest.mark.usefixtures("healthy")
async def test_a_watch_that_is_no_protobuf_is_refused(wire: Wire) -> None:
    watch: Any = wire.channel.unary_stream("/pydotcompute.v1.TelemetryService/WatchTelemetry")
    failure = await failure_of(watch(NOT_PROTOBUF).read())
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert failure.detail["message_type"] == "WatchTelemetryRequest"


@pytest.mark.usefixtures("healthy")
async def test_a_method_that_does_not_exist_is_unimplemented(wire: Wire) -> None:
    call: Any = wire.channel.unary_unary("/pydotcompute.v1.KernelService/Explode")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


# -- unary: kernels ----------------------------------------------------------------------------------------------------

UNKNOWN: list[tuple[str, str, Any]] = [
    ("kernels", "DescribeKernel", kernel_pb.DescribeKernelRequest(kernel_id="nobody")),
    ("kernels", "Launch", kernel_pb.LaunchRequest(kernel_id="nobody")),
    ("kernels", "Activate", kernel_pb.ActivateRequest(kernel_id="nobody")),
    ("kernels", "Deactivate", kernel_pb.DeactivateRequest(kernel_id="nobody")),
    ("kernels", "Reactivate", kernel_pb.ReactivateRequest(kernel_id="nobody")),
    ("kernels", "Terminate", kernel_pb.TerminateRequest(kernel_id="nobody")),
    ("messages", "Send", pb.SendRequest(kernel_id="nobody")),
    ("messages", "Receive", pb.ReceiveRequest(kernel_id="nobody")),
    ("messages", "Ask", pb.AskRequest(kernel_id="nobody")),
    ("telemetry", "GetTelemetry", telemetry_pb.GetTelemetryRequest(kernel_ids=["nobody"])),
]


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(("service", "method", "request_"), UNKNOWN, ids=[method for _, method, _ in UNKNOWN])
async def test_an_unknown_kernel_is_not_found(wire: Wire, service: str, method: str, request_: Any) -> None:
    kernel_id = await wire.launch("square")
    failure = await failure_of(getattr(getattr(wire, service), method)(request_))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "KERNEL_NOT_FOUND")
    assert failure.detail["kernel_id"] == "nobody"
    assert ("batched" if method == "Launch" else kernel_id) in failure.detail["available"]


@pytest.mark.usefixtures("healthy")
async def test_a_kernel_that_is_launched_twice_already_exists(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    failure = await failure_of(wire.kernels.Launch(kernel_pb.LaunchRequest(kernel_id=kernel_id, kernel_type="square")))
    already = Failure(grpc.StatusCode.ALREADY_EXISTS, "KERNEL_ALREADY_EXISTS", {"kernel_id": kernel_id})
    assert failure == already
    assert await wire.ask(kernel_id, number=2) == {"number": "4", "client": "0", "position": "0", "note": ""}


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("operation", "allowed"),
    [("activate", ["LAUNCHED"]), ("reactivate", ["DEACTIVATED"]), ("deactivate", ["ACTIVE"])],
)
async def test_a_step_that_the_state_does_not_allow_is_refused(wire: Wire, operation: str, allowed: list[str]) -> None:
    kernel_id = await wire.launch("square", activate=operation != "deactivate")
    request = getattr(kernel_pb, f"{operation.title()}Request")(kernel_id=kernel_id)
    failure = await failure_of(getattr(wire.kernels, operation.title())(request))
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KERNEL_STATE_INVALID")
    state = "LAUNCHED" if operation == "deactivate" else "ACTIVE"
    expected = {"kernel_id": kernel_id, "state": state, "operation": operation, "allowed_states": allowed}
    assert failure.detail == expected


@pytest.mark.usefixtures("healthy")
async def test_a_message_to_a_terminated_kernel_is_refused(
    wire: Wire, put: Put, job: Callable[..., pb.Message]
) -> None:
    kernel_id = await wire.launch("square")
    await wire.terminate(kernel_id)
    failure = await failure_of(put(kernel_id, job()))
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KERNEL_STATE_INVALID")
    assert failure.detail["state"] == "TERMINATED"


async def test_a_message_to_a_failed_kernel_is_refused_with_the_cause(
    wire: Wire, put: Put, job: Callable[..., pb.Message]
) -> None:
    kernel_id = await wire.launch("fragile")
    await wire.send(kernel_id, number=1, note="boom")
    await wire.until(kernel_id, error_count=1)
    cause = {"kernel_id": kernel_id, "cause_type": "ValueError", "cause_message": "no square of 1"}
    assert await failure_of(put(kernel_id, job())) == Failure(grpc.StatusCode.ABORTED, "KERNEL_FAILED", cause)


async def test_a_kernel_that_fails_as_it_is_launched_says_why_and_leaves_nothing(wire: Wire) -> None:
    request = kernel_pb.LaunchRequest(kernel_id="stillborn")
    cause = {"kernel_id": "stillborn", "cause_type": "LookupError", "cause_message": "nothing to start from"}
    for _ in range(2):
        assert await failure_of(wire.kernels.Launch(request)) == Failure(
            grpc.StatusCode.ABORTED, "KERNEL_FAILED", cause
        )


@pytest.mark.usefixtures("healthy")
async def test_settings_that_cannot_work_are_refused(wire: Wire) -> None:
    request = kernel_pb.LaunchRequest(kernel_id="", kernel_type="square")
    failure = await failure_of(wire.kernels.Launch(request))
    assert (failure.code, failure.reason) == (INVALID, "CONFIGURATION_INVALID")
    assert (failure.detail["parameter"], failure.detail["value"]) == ("kernel_id", "")


@pytest.mark.usefixtures("healthy")
async def test_a_negative_timeout_is_a_timeout(wire: Wire) -> None:
    kernel_id = await wire.launch("sink")
    request = pb.ReceiveRequest(kernel_id=kernel_id, timeout=duration(-5.0))
    assert (await failure_of(wire.messages.Receive(request))).reason == "QUEUE_TIMEOUT"


# -- Exchange: messages that are refused, while the conversation goes on -----------------------------------------------

BAD_BODIES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "no protobuf": (NOT_PROTOBUF, {"message_type": "Job", "path": "$"}),
    "no unicode": (b"\x1a\x01\xff", {"message_type": "Job"}),
    "too many bytes": (
        bytes(MAX_MESSAGE_BYTES + 1),
        {"message_type": "Job", "size": MAX_MESSAGE_BYTES + 1, "limit": MAX_MESSAGE_BYTES},
    ),
}


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("kernel_type", ["square", "small"])
@pytest.mark.parametrize("bad", BAD_BODIES)
async def test_a_bad_message_is_refused_and_those_beside_it_are_answered(
    wire: Wire, talk: Callable[[], Talk], bad: str, kernel_type: str
) -> None:
    one = talk()
    await one.open(await wire.launch(kernel_type))
    body, expected = BAD_BODIES[bad]
    before, wrong, after = Letter(job_bytes(1)), Letter(body), Letter(job_bytes(2))
    await one.send(before, wrong, after)
    (refused,) = await one.refused()
    assert (refused.sequence, refused.message_id) == (2, wrong.message_id)
    failure = read_status(refused.status)
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert {**failure.detail, **expected} == failure.detail
    assert [reply.correlation_id for reply in await one.received(2)] == [before.message_id, after.message_id]
    await one.until_accepted(3)


@pytest.mark.usefixtures("healthy")
async def test_the_id_of_a_request_that_waits_is_refused_and_the_first_is_answered(
    wire: Wire, talk: Callable[[], Talk]
) -> None:
    kernel_id = await wire.launch("gate")
    one, other = talk(), talk()
    await one.open(kernel_id)
    await other.open(kernel_id)
    twice = Letter(job_bytes(3))
    await one.send(twice)
    await wire.until(kernel_id, queue_depth=0)
    await other.send(twice)
    (refused,) = await other.refused()
    assert (refused.sequence, refused.message_id) == (1, twice.message_id)
    failure = read_status(refused.status)
    assert (failure.reason, failure.detail["path"]) == ("MESSAGE_INVALID", "$.message_id")
    await one.send(Letter(job_bytes(note="open")))
    assert (await one.received(2))[0].correlation_id == twice.message_id
    await other.until_accepted(1)
    assert not other.letters


# -- Exchange: frames that break the rules, which end the session ------------------------------------------------------


def _batch(first_sequence: int, count: int = 1) -> dict[str, Any]:
    return {"batch": batch_of(first_sequence, [Letter(job_bytes()) for _ in range(count)])}


def _columns(count: int = 2, **columns: Any) -> dict[str, Any]:
    """A frame with a batch whose columns may not fit together."""
    good = {"message_ids": b"".join(uuid4().bytes for _ in range(count)), "bodies": [job_bytes()] * count}
    return {"batch": pb.Batch(first_sequence=1, **{**good, **columns})}


BAD_FRAMES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a batch that leaves one out": ([_batch(2)], "the batch begins at sequence 2, expected 1"),
    "a batch that begins at zero": ([_batch(0)], "the batch begins at sequence 0, expected 1"),
    "an empty batch": ([_batch(1, 0)], "the batch is empty"),
    "a batch beyond the credit": ([_batch(1, 11)], "the batch ends at sequence 11, beyond 10, the credit"),
    "an acknowledgement of what was never sent": (
        [{"ack": pb.Ack(number=1, through=1)}],
        "acknowledged sequence 1, but only 0 were sent",
    ),
    "a dead letter that was never sent": (
        [{"ack": pb.Ack(number=1, undeliverable=[1])}],
        "sequence 1 is not one of 1 to 0, which are under way",
    ),
    "the return of what was never sent": (
        [{"ack": pb.Ack(number=1, returned=[1])}],
        "sequence 1 is not one of 1 to 0, which are under way",
    ),
    "a withdrawal of no id": ([{"ack": pb.Ack(number=1, withdrawn=[b"short"])}], "a UUID has 16 bytes, not 5"),
    "a second open": ([{"open": pb.Open(kernel_id="square")}], "unexpected frame: open"),
    "a frame without content": ([{}], "a frame with nothing in it, or of a kind that this daemon does not know"),
}


BAD_COLUMNS: dict[str, tuple[dict[str, Any], str]] = {
    "a short id": (_columns(message_ids=bytes(31)), "message_ids"),
    "no id": (_columns(message_ids=b""), "message_ids"),
    "an id too many": (_columns(message_ids=bytes(48)), "message_ids"),
    "a short id of a request": (_columns(correlation_ids=bytes(17)), "correlation_ids"),
    "a priority of 300": (_columns(priorities=[300]), "priorities"),
    "too many priorities": (_columns(priorities=[1, 2, 3]), "priorities"),
    "another type": (_columns(types=[1]), "types"),
    "too many types": (_columns(types=[0, 0, 0]), "types"),
    "an answer to nothing beyond the end": (
        _columns(correlation_ids=bytes(32), uncorrelated=[2]),
        "uncorrelated",
    ),
    "too many time-outs": (_columns(timeouts_us=[1, 2, 3]), "timeouts_us"),
}


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("bad", BAD_COLUMNS)
async def test_columns_that_do_not_fit_together_end_the_conversation(
    wire: Wire, talk: Callable[[], Talk], bad: str
) -> None:
    kernel_id = await wire.launch("sink")
    one = talk()
    await one.open(kernel_id)
    frame, column = BAD_COLUMNS[bad]
    await one.say(**frame)
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert (failure.detail["message_type"], failure.detail["path"]) == ("Batch", f"$.{column}")
    assert (await wire.counters(kernel_id)).messages_processed == 0


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("bad", BAD_FRAMES)
async def test_a_frame_that_breaks_the_rules_ends_the_conversation_with_the_reason(
    wire: Wire, talk: Callable[[], Talk], bad: str
) -> None:
    one = talk()
    await one.open(await wire.launch("sink", input_queue_size=10))
    frames, problem = BAD_FRAMES[bad]
    for frame in frames:
        await one.say(**frame)
    failure = await failure_of(one.hear("bye"))
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert failure.detail["message_type"] == "ExchangeRequest"
    assert problem in failure.detail["problem"]


@pytest.mark.usefixtures("healthy")
async def test_a_client_cannot_return_a_reply(wire: Wire, talk: Callable[[], Talk]) -> None:
    one = talk()
    await one.open(await wire.launch("square"))
    await one.send(Letter(job_bytes(1)))
    await one.received(1)
    await one.ack(returned=[1])
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.detail["problem"] == "sequence 1 is no output that was not delivered"


@pytest.mark.usefixtures("healthy")
async def test_a_client_cannot_return_an_output_twice(wire: Wire, talk: Callable[[], Talk]) -> None:
    kernel_id = await wire.launch("emitter")
    one = talk()
    await one.open(kernel_id)
    await one.send(Letter(job_bytes(1)))
    await one.pull(1)
    await one.received(1)
    await one.ack(returned=[1], outputs=0)
    await one.ack(returned=[1], outputs=0)
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.detail["problem"] == "sequence 1 is no output that was not delivered"
    await wire.receive(kernel_id)
    assert (await failure_of(wire.receive(kernel_id, timeout=0.01))).reason == "QUEUE_TIMEOUT"


FIRST_FRAMES: dict[str, dict[str, Any]] = {
    "a batch": _batch(1),
    "bye": {"bye": pb.Bye()},
    "nothing": {},
}


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("first", FIRST_FRAMES)
async def test_a_conversation_that_does_not_begin_with_open_is_refused(talk: Callable[[], Talk], first: str) -> None:
    one = talk()
    await one.say(**FIRST_FRAMES[first])
    failure = await failure_of(one.hear("opened"))
    problem = "the first frame of a conversation is `open`"
    assert failure == deserialization(problem, "$", message_type="ExchangeRequest")


@pytest.mark.usefixtures("healthy")
async def test_a_conversation_that_ends_before_it_begins_gets_a_status(talk: Callable[[], Talk]) -> None:
    one = talk()
    await one.call.done_writing()
    failure = await one.ended()
    assert isinstance(failure, Failure)
    assert failure.reason == "MESSAGE_INVALID"


@pytest.mark.usefixtures("healthy")
async def test_a_conversation_with_an_unknown_kernel_is_not_found(talk: Callable[[], Talk]) -> None:
    one = talk()
    await one.say(open=pb.Open(kernel_id="nobody"))
    failure = await failure_of(one.hear("opened"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "KERNEL_NOT_FOUND")


@pytest.mark.usefixtures("healthy")
async def test_a_frame_of_a_later_version_is_refused(wire: Wire, talk: Callable[[], Talk]) -> None:
    call: Any = wire.channel.stream_stream(EXCHANGE)()
    opening = pb.ExchangeRequest(open=pb.Open(kernel_id=await wire.launch("square")))
    await call.write(opening.SerializeToString())
    await call.read()
    await call.write(b"\x9a\x06\x00")  # Field 99, empty.
    failure = await failure_of(call.read())
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert failure.detail["problem"] == "a frame with nothing in it, or of a kind that this daemon does not know"


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("opened", [False, True])
async def test_a_frame_that_is_no_protobuf_is_refused(wire: Wire, opened: bool) -> None:
    call: Any = wire.channel.stream_stream(EXCHANGE)()
    if opened:
        opening = pb.ExchangeRequest(open=pb.Open(kernel_id=await wire.launch("square")))
        await call.write(opening.SerializeToString())
        await call.read()
    await call.write(NOT_PROTOBUF)
    failure = await failure_of(call.read())
    assert (failure.code, failure.reason) == (INVALID, "MESSAGE_INVALID")
    assert failure.detail["message_type"] == "ExchangeRequest"


@pytest.mark.usefixtures("healthy")
async def test_what_a_client_sent_before_it_broke_the_rules_is_handled(wire: Wire, talk: Callable[[], Talk]) -> None:
    kernel_id = await wire.launch("sink")
    one = talk()
    await one.open(kernel_id)
    await one.send(*[Letter(job_bytes()) for _ in range(5)])
    await one.until_accepted(5)
    await one.say(**_batch(99))
    assert (await failure_of(one.hear("bye"))).reason == "MESSAGE_INVALID"
    await wire.until(kernel_id, messages_processed=5)
