"""Point 9: telemetry tells the truth."""

import asyncio

import pytest

from tests.contract import kernels
from tests.contract.kernels import Bare, Job
from tests.contract.world import PATIENCE, World

MS = 1_000_000


async def test_messages_are_counted_once_each(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    assert world.telemetry(kernel_id).messages_processed == 0
    for number in range(100):
        await world.runtime.send(kernel_id, Job(number))
        await world.runtime.receive(kernel_id, timeout=PATIENCE)
        assert world.telemetry(kernel_id).messages_processed == number + 1


async def test_a_message_without_a_reply_counts_when_the_actor_asks_for_the_next(world: World) -> None:
    kernel_id = await world.launch(kernels.sink)
    for number in range(10):
        await world.runtime.send(kernel_id, Job(number))
    await world.processed(kernel_id, 10)


async def test_a_message_in_the_actors_hands_is_not_yet_processed(world: World) -> None:
    kernel_id = await world.launch(kernels.emitter, output_queue_size=4)
    await world.runtime.send(kernel_id, Job(5))
    await world.queued(kernel_id, 0)
    await world.runtime.send(kernel_id, Job(1))
    await world.queued(kernel_id, 1)
    assert world.telemetry(kernel_id).messages_processed == 0, "one output too many for it to finish"
    for _ in range(6):
        await world.runtime.receive(kernel_id, timeout=PATIENCE)
    await world.processed(kernel_id, 2)


async def test_several_replies_to_one_request_are_one_message_processed(world: World) -> None:
    kernel_id = await world.launch(kernels.repeater)
    await world.runtime.send(kernel_id, Job(5))
    for _ in range(5):
        await world.runtime.receive(kernel_id, timeout=PATIENCE)
    await world.processed(kernel_id, 1)


async def test_queue_depth_is_what_waits_in_the_mailbox(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    await world.runtime.deactivate(kernel_id)
    for number in range(7):
        await world.runtime.send(kernel_id, Job(number))
    await world.queued(kernel_id, 7)
    await world.runtime.reactivate(kernel_id)
    await world.queued(kernel_id, 0)


async def test_latency_is_from_arrival_to_completion(world: World) -> None:
    kernel_id = await world.launch(kernels.sleeper)
    await world.runtime.deactivate(kernel_id)
    for _ in range(3):
        await world.runtime.send(kernel_id, Job(20))
    await world.queued(kernel_id, 3)
    await world.runtime.reactivate(kernel_id)
    for _ in range(3):
        await world.runtime.receive(kernel_id, timeout=PATIENCE)
    telemetry = world.telemetry(kernel_id)
    assert telemetry.min_latency_ns >= 19 * MS, "the first took 20 ms"
    assert telemetry.max_latency_ns >= 59 * MS, "the last waited 40 ms before"
    assert telemetry.max_latency_ns < 5_000 * MS
    assert 38 * MS <= telemetry.avg_latency_ns <= telemetry.max_latency_ns
    assert telemetry.avg_latency_ms == telemetry.avg_latency_ns / MS


async def test_latencies_are_in_order(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    for number in range(500):
        await world.runtime.send(kernel_id, Job(number))
    for _ in range(500):
        await world.runtime.receive(kernel_id, timeout=PATIENCE)
    telemetry = world.telemetry(kernel_id)
    in_order = [
        0,
        telemetry.min_latency_ns,
        telemetry.p50_latency_ns,
        telemetry.p95_latency_ns,
        telemetry.p99_latency_ns,
        telemetry.max_latency_ns,
    ]
    assert in_order == sorted(in_order)
    assert 0 < telemetry.min_latency_ns < telemetry.avg_latency_ns < telemetry.max_latency_ns
    assert telemetry.min_latency_ns < telemetry.max_latency_ns


async def test_throughput_is_messages_over_the_kernels_own_uptime(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    before = world.telemetry(kernel_id)
    assert (before.throughput, before.messages_processed) == (0.0, 0)
    for number in range(50):
        await world.runtime.send_and_receive(kernel_id, Job(number), timeout=PATIENCE)
    after = world.telemetry(kernel_id)
    assert 0 < before.uptime_seconds < after.uptime_seconds < 60
    assert after.throughput == pytest.approx(50 / after.uptime_seconds)


async def test_uptime_ends_with_the_kernel(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    await world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE)
    await world.runtime.terminate(kernel_id)
    first = world.telemetry(kernel_id)
    await asyncio.sleep(0.01)
    assert world.telemetry(kernel_id) == first
    assert (first.state, first.messages_processed) == ("TERMINATED", 1)


async def test_two_kernels_count_apart(world: World) -> None:
    first, second = await world.launch(kernels.square), await world.launch(kernels.square)
    for number in range(5):
        await world.runtime.send_and_receive(first, Job(number), timeout=PATIENCE)
    await world.runtime.send_and_receive(second, Job(1), timeout=PATIENCE)
    assert (world.telemetry(first).kernel_id, world.telemetry(first).messages_processed) == (first, 5)
    assert (world.telemetry(second).kernel_id, world.telemetry(second).messages_processed) == (second, 1)


async def test_the_summary_is_the_sum_over_all_kernels(world: World) -> None:
    first, second = await world.launch(kernels.square), await world.launch(kernels.fragile)
    for number in range(5):
        await world.runtime.send_and_receive(first, Job(number), timeout=PATIENCE)
    await world.runtime.send_and_receive(second, Job(1), timeout=PATIENCE)
    await world.runtime.send(second, Job(1, note="boom"))
    await world.failed(second)
    everything = world.runtime.get_all_telemetry()
    assert {first: 5, second: 1} == {kernel_id: each.messages_processed for kernel_id, each in everything.items()}
    summary = world.runtime.get_summary()
    assert summary.pop("throughput") > 0  # type: ignore[misc]
    assert summary == {
        "kernel_count": 2,
        "total_messages_processed": 6,
        "total_messages_dropped": 1,
        "total_errors": 1,
    }


async def test_a_terminated_kernel_leaves_the_summary(world: World) -> None:
    kernel_id = await world.launch(kernels.echo)
    await world.runtime.send_and_receive(kernel_id, Bare(1), timeout=PATIENCE)
    await world.runtime.terminate(kernel_id)
    assert kernel_id not in world.runtime.get_all_telemetry()
    assert world.runtime.get_summary()["kernel_count"] == 0
    assert world.telemetry(kernel_id).messages_processed == 1, "but can still be asked"


async def test_telemetry_can_be_read_as_a_dictionary(world: World) -> None:
    kernel_id = await world.launch(kernels.echo)
    telemetry = world.telemetry(kernel_id)
    assert telemetry.to_dict()["kernel_id"] == kernel_id
    assert {"messages_processed", "throughput", "p99_latency_ns", "last_error"} <= set(telemetry.to_dict())
