"""The lane for people: every unary RPC, and WatchTelemetry, by the generated stubs."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from tests.grpc.conftest import PATIENCE, Failure, Wire, duration, failure_of

LAUNCHED = kernel_pb.KERNEL_STATE_LAUNCHED
ACTIVE = kernel_pb.KERNEL_STATE_ACTIVE
DEACTIVATED = kernel_pb.KERNEL_STATE_DEACTIVATED
TERMINATED = kernel_pb.KERNEL_STATE_TERMINATED


def timed_out(kernel_id: str, timeout: float, operation: str) -> Failure:
    detail = {"kernel_id": kernel_id, "timeout": timeout, "operation": operation}
    return Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "QUEUE_TIMEOUT", detail)


# -- headers -----------------------------------------------------------------------------------------------------------


async def test_an_id_and_a_priority_are_made_for_a_message_without_them(wire: Wire) -> None:
    kernel_id = await wire.launch("echo_job")
    message_id = await wire.send(kernel_id, number=3)
    assert UUID(message_id).version == 4
    echo = await wire.receive(kernel_id)
    assert (echo.message_id, echo.priority, echo.correlation_id) == (message_id, 128, "")
    assert wire.fields(echo.body) == {"number": "3", "client": "0", "note": ""}


async def test_a_header_that_is_given_is_kept(wire: Wire) -> None:
    kernel_id = await wire.launch("echo_job")
    await wire.describe(kernel_id)
    ids = [str(uuid4()), str(uuid4())]
    sent = pb.Message(message_id=ids[0], priority=0, correlation_id=ids[1], body=wire.body("kernels.v1.Job", note="ü"))
    answer = await wire.messages.Send(pb.SendRequest(kernel_id=kernel_id, message=sent))
    assert answer.message_id == ids[0]
    assert await wire.receive(kernel_id) == sent


async def test_a_reply_names_its_request(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    message_id = await wire.send(kernel_id, number=9)
    reply = await wire.receive(kernel_id)
    assert reply.correlation_id == message_id
    assert reply.message_id not in ("", message_id)
    assert reply.body.TypeName() == "kernels.v1.Result"
    assert wire.fields(reply.body)["number"] == "81"


async def test_messages_are_handled_by_priority(wire: Wire) -> None:
    kernel_id = await wire.launch("square", activate=False)
    await wire.describe(kernel_id)
    await wire.kernels.Activate(kernel_pb.ActivateRequest(kernel_id=kernel_id))
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    for priority in (10, 255, 0, 128):
        message = pb.Message(priority=priority, body=wire.body("kernels.v1.Job", number=priority))
        await wire.messages.Send(pb.SendRequest(kernel_id=kernel_id, message=message))
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))
    order = [int(wire.fields((await wire.receive(kernel_id)).body)["number"]) for _ in range(4)]
    assert order == [255**2, 128**2, 10**2, 0]


# -- who gets what -----------------------------------------------------------------------------------------------------


async def test_a_reply_goes_to_the_client_id_of_its_request(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    clients = [*"abcdefgh", ""]
    sent = {client: await wire.send(kernel_id, number=n, client_id=client) for n, client in enumerate(clients)}
    for client in reversed(clients):
        assert (await wire.receive(kernel_id, client_id=client)).correlation_id == sent[client]
    for client in clients:
        assert (await failure_of(wire.receive(kernel_id, 0.01, client))).reason == "QUEUE_TIMEOUT"


async def test_an_output_goes_to_whichever_client_receives_first(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter")
    await wire.send(kernel_id, number=2, client_id="a")
    numbers = [wire.fields((await wire.receive(kernel_id, client_id=c)).body)["number"] for c in ("b", "c")]
    assert numbers == ["0", "1"]


async def test_asks_at_once_get_each_its_own_reply(wire: Wire) -> None:
    kernel_id = await wire.launch("shuffler")
    replies = await asyncio.gather(*(wire.ask(kernel_id, number=n) for n in range(100)))
    assert [int(reply["number"]) for reply in replies] == [n**2 for n in range(100)]


# -- time-outs and cancellation ----------------------------------------------------------------------------------------


async def test_a_receive_that_times_out_says_for_how_long_it_waited(wire: Wire) -> None:
    kernel_id = await wire.launch("sink")
    assert await failure_of(wire.receive(kernel_id, timeout=0.05)) == timed_out(kernel_id, 0.05, "receive")


async def test_an_ask_that_times_out_leaves_its_reply_to_nobody(wire: Wire) -> None:
    kernel_id = await wire.launch("gate")
    assert await failure_of(wire.ask(kernel_id, 0.05, number=7)) == timed_out(kernel_id, 0.05, "send_and_receive")
    await wire.ask(kernel_id, number=1, note="open")
    await wire.until(kernel_id, messages_processed=2, messages_dropped=1)
    assert (await failure_of(wire.receive(kernel_id, 0.01))).reason == "QUEUE_TIMEOUT"


async def test_a_send_to_a_full_mailbox_waits_for_room_until_its_time_is_over(wire: Wire) -> None:
    kernel_id = await wire.launch("sink", input_queue_size=2)
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    for number in range(2):
        await wire.send(kernel_id, number=number)
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", {"kernel_id": kernel_id, "queue_size": 2})
    assert await failure_of(wire.send(kernel_id, 0.05, number=2)) == full
    waiting = asyncio.ensure_future(wire.send(kernel_id, number=3))
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))
    await waiting
    await wire.until(kernel_id, messages_processed=3)


async def test_a_receive_without_a_timeout_waits_until_there_is_something(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter")
    receiving = asyncio.ensure_future(wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id)))
    await wire.send(kernel_id, number=1)
    assert wire.fields((await receiving).message.body)["number"] == "0"


@pytest.mark.parametrize("client_id", ["", "a"])
async def test_a_receive_that_is_cancelled_leaves_an_output_to_the_next(wire: Wire, client_id: str) -> None:
    kernel_id = await wire.launch("emitter")
    for number in range(1, 50):
        calls = [wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id, client_id=client_id)) for _ in range(3)]
        await wire.counters(kernel_id)  # Went out after them: when its answer is here, they wait at the daemon.
        for call in calls:
            call.cancel()
        await wire.counters(kernel_id)
        await wire.send(kernel_id, number=1)
        await wire.receive(kernel_id, client_id="b" if number % 2 else client_id)
        for call in calls:
            with pytest.raises(asyncio.CancelledError):
                await call


async def test_a_receive_that_is_cancelled_leaves_a_reply_to_the_next_of_its_client(wire: Wire) -> None:
    kernel_id = await wire.launch("gate")
    for _ in range(50):
        message_id = await wire.send(kernel_id, client_id="a", number=2)
        call = wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id, client_id="a"))
        await wire.counters(kernel_id)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await wire.ask(kernel_id, note="open")
        assert (await wire.receive(kernel_id, client_id="a")).correlation_id == message_id


async def test_a_receive_whose_deadline_passes_leaves_the_message(wire: Wire) -> None:
    kernel_id = await wire.launch("emitter")
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await wire.messages.Receive(pb.ReceiveRequest(kernel_id=kernel_id), timeout=0.05)
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await wire.counters(kernel_id)  # Went out after the news of the end.
    await wire.send(kernel_id, number=1)
    await wire.receive(kernel_id)


# -- lifecycle ---------------------------------------------------------------------------------------------------------


async def test_every_step_of_a_life_answers_with_the_new_state(wire: Wire) -> None:
    kernel_id = f"square-{uuid4().hex}"
    launch = await wire.kernels.Launch(kernel_pb.LaunchRequest(kernel_id=kernel_id, kernel_type="square"))
    assert launch.kernel == kernel_pb.Kernel(kernel_id=kernel_id, kernel_type="square", state=LAUNCHED)
    for name, state in (
        ("Activate", ACTIVE),
        ("Deactivate", DEACTIVATED),
        ("Reactivate", ACTIVE),
        ("Terminate", TERMINATED),
        ("Terminate", TERMINATED),
    ):
        request = getattr(kernel_pb, f"{name}Request")(kernel_id=kernel_id)
        answer = await getattr(wire.kernels, name)(request)
        assert (answer.kernel.kernel_id, answer.kernel.state) == (kernel_id, state), name


async def test_a_launch_without_a_type_takes_the_type_of_the_same_name(wire: Wire) -> None:
    launch = await wire.kernels.Launch(kernel_pb.LaunchRequest(kernel_id="short_lived"))
    wire.launched.append("short_lived")
    assert launch.kernel.kernel_type == "short_lived"


async def test_settings_of_a_launch_stand_beside_those_declared(wire: Wire) -> None:
    kernel_id = await wire.launch("small", output_queue_size=99)
    config = (await wire.describe(kernel_id)).kernel_type.config
    assert config == kernel_pb.KernelConfig(
        input_queue_size=4,
        output_queue_size=99,
        backpressure_strategy=pb.BACKPRESSURE_STRATEGY_REJECT,
        grid_size=1,
        block_size=256,
    )
    declared = (await wire.describe("small")).kernel_type.config
    assert declared.output_queue_size == 8


async def test_kernels_are_listed_in_the_order_of_their_launch_until_they_are_terminated(wire: Wire) -> None:
    ids = [await wire.launch("square", activate=number % 2 == 0) for number in range(4)]
    await wire.terminate(ids[1])
    listed = (await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())).kernels
    states = {kernel.kernel_id: kernel.state for kernel in listed if kernel.kernel_id in ids}
    assert list(states.items()) == [(ids[0], ACTIVE), (ids[2], ACTIVE), (ids[3], LAUNCHED)]


async def test_a_kernel_that_failed_is_listed_with_the_reason(wire: Wire) -> None:
    kernel_id = await wire.launch("fragile")
    await wire.send(kernel_id, number=3, note="boom")
    await wire.until(kernel_id, error_count=1)
    listed = (await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())).kernels
    failed = next(kernel for kernel in listed if kernel.kernel_id == kernel_id)
    assert (failed.state, failed.failure) == (kernel_pb.KERNEL_STATE_FAILED, "ValueError: no square of 3")


async def test_every_kernel_type_is_listed_with_its_types(wire: Wire) -> None:
    types = (await wire.kernels.ListKernelTypes(kernel_pb.ListKernelTypesRequest())).kernel_types
    names = [kernel_type.name for kernel_type in types]
    assert names == sorted(names)
    total = next(kernel_type for kernel_type in types if kernel_type.name == "total")
    assert (total.input_type, total.output_type) == ("kernels.v1.Bare", "kernels.v1.Inherited")
    assert total.documentation.startswith("Adds up")


async def test_a_type_that_is_not_launched_can_be_described(wire: Wire) -> None:
    described = await wire.describe("total")
    assert not described.HasField("kernel")
    assert described.kernel_type.name == "total"
    assert described.input_type.full_name == "kernels.v1.Bare"
    assert described.output_type.full_name == "kernels.v1.Inherited"


async def test_the_sample_of_every_type_is_a_body_of_it(wire: Wire) -> None:
    types = (await wire.kernels.ListKernelTypes(kernel_pb.ListKernelTypesRequest())).kernel_types
    assert types
    for kernel_type in types:
        described = await wire.describe(kernel_type.name)
        wire.body(described.input_type.full_name, **json.loads(described.sample_json))


async def test_the_sample_can_be_sent_as_it_is(wire: Wire) -> None:
    kernel_id = await wire.launch("echo")
    sample = json.loads((await wire.describe(kernel_id)).sample_json)
    assert await wire.ask(kernel_id, **sample) == sample


# -- telemetry ---------------------------------------------------------------------------------------------------------


async def test_telemetry_is_of_the_kernels_named_in_that_order(wire: Wire) -> None:
    ids = [await wire.launch("square") for _ in range(3)]
    await wire.ask(ids[1], number=1)
    request = telemetry_pb.GetTelemetryRequest(kernel_ids=[ids[2], ids[1]])
    snapshots = (await wire.telemetry.GetTelemetry(request)).kernels
    assert [(s.kernel_id, s.messages_processed, s.state) for s in snapshots] == [
        (ids[2], 0, ACTIVE),
        (ids[1], 1, ACTIVE),
    ]
    latency = snapshots[1]
    assert 0 < latency.min_latency_ns == latency.max_latency_ns
    assert latency.throughput > 0
    assert latency.uptime_seconds > 0


async def test_telemetry_without_names_is_of_all(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    listed = (await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())).kernels
    snapshots = (await wire.telemetry.GetTelemetry(telemetry_pb.GetTelemetryRequest())).kernels
    assert [s.kernel_id for s in snapshots] == [kernel.kernel_id for kernel in listed]
    assert kernel_id in [s.kernel_id for s in snapshots]


async def test_a_watch_shows_the_kernel_at_once_and_then_at_each_interval(wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    watch = wire.telemetry.WatchTelemetry(
        telemetry_pb.WatchTelemetryRequest(kernel_ids=[kernel_id], interval=duration(0.01))
    )
    async with asyncio.timeout(PATIENCE):
        assert [k.messages_processed for k in (await watch.read()).kernels] == [0]
        await wire.ask(kernel_id, number=1)
        while (await watch.read()).kernels[0].messages_processed != 1:
            pass
    watch.cancel()


async def test_a_watch_of_an_unknown_kernel_ends_with_its_name(wire: Wire) -> None:
    watch = wire.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest(kernel_ids=["nobody"]))
    failure = await failure_of(anext(aiter(watch)))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "KERNEL_NOT_FOUND")
    assert failure.detail["kernel_id"] == "nobody"


async def test_a_watch_of_all_begins_to_show_what_is_launched_later(wire: Wire) -> None:
    watch: Any = wire.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest(interval=duration(0.01)))
    before = {kernel.kernel_id for kernel in (await watch.read()).kernels}
    kernel_id = await wire.launch("square")
    assert kernel_id not in before
    async with asyncio.timeout(PATIENCE):
        while kernel_id not in {kernel.kernel_id for kernel in (await watch.read()).kernels}:
            pass
    watch.cancel()
