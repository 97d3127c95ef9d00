"""Many requests in one call: the method `Stream` of a kernel's own service."""

import asyncio
from typing import Any

import grpc
import pytest

from pydotcompute.v1 import kernel_service_pb2, message_service_pb2
from tests.properties import examples
from tests.server.typed.services import (
    EOF,
    dead_letters,
    exchange,
    keys,
    launched,
    read_all,
    read_to_error,
    write_all,
)
from tests.stubs import MAX_MESSAGE_BYTES, PATIENCE, Wire, read_error

MANY = examples(10_000)


async def test_many_messages_come_back_in_order(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    answers = await exchange(service.stream(kernel), [service.message(amount=number) for number in range(MANY)])
    assert [answer.amount for answer in answers] == list(range(MANY))
    assert await dead_letters(wire, kernel["kernel-id"]) == []


async def test_a_client_that_does_not_read_is_not_read_from(wire: Wire) -> None:
    service, kernel = await launched(wire, "parrot", input_queue_size=16, output_queue_size=16)
    call = service.stream(kernel)
    message = service.message(note="x" * 50_000)
    written = 0

    async def write() -> None:
        nonlocal written
        for _ in range(1_000):
            await call.write(message)
            written += 1
        await call.done_writing()

    writing = asyncio.create_task(write())
    before = -1
    async with asyncio.timeout(PATIENCE):
        while before != written:  # Half a second in which nothing moves.
            before = written
            await asyncio.sleep(0.5)
    assert written < 500
    processed = (await wire.counters(kernel["kernel-id"])).messages_processed
    answers = 0
    while (answer := await call.read()) is not EOF:
        assert len(answer.value) > 50_000
        answers += 1
    await writing
    assert processed <= written
    assert answers == 1_000


async def test_replies_come_as_the_kernel_sends_them(wire: Wire) -> None:
    service, kernel = await launched(wire, "shuffler")
    call = service.stream(kernel)
    answers = await exchange(call, [service.message(number=number) for number in range(500)])
    assert [answer.number for answer in answers] != [number**2 for number in range(500)]
    assert sorted(answer.number for answer in answers) == [number**2 for number in range(500)]


async def test_a_stream_may_hold_many_requests_that_the_kernel_collects(wire: Wire) -> None:
    service, kernel = await launched(wire, "gate")
    messages = [service.message(number=number) for number in range(MANY)] + [service.message(note="open")]
    answers = await exchange(service.stream(kernel), messages)
    assert [answer.number for answer in answers] == [number**2 for number in range(MANY)] + [0]


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


async def test_all_that_is_wrong_with_a_message_is_told(wire: Wire) -> None:
    service, kernel = await launched(wire, "desk")
    call: Any = wire.channel.stream_stream(f"/{service.name}/Stream")(metadata=keys(kernel))
    await call.write(b"")
    _, error = await read_to_error(call)
    assert [path for path, _ in read_error(error).violations] == ["$.begins", "$.ends"]


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
    dropping = message_service_pb2.BACKPRESSURE_STRATEGY_DROP_OLDEST
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
    call = service.stream(kernel, timeout=4.0)
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
