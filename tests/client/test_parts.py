"""Long messages of the Python client: they hold up nobody else, and come once and in order over a bad connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from pydotcompute.exceptions import MessageTooLargeError, QueueTimeoutError
from pydotcompute_client import RemoteRuntime, connect
from tests.client.test_sessions import launched
from tests.contract import kernels
from tests.contract.kernels import Cloud, Job
from tests.contract.world import PATIENCE, eventually
from tests.forwarder import Forwarder
from tests.stubs import KERNELS

MIB = 1 << 20
LIMIT = 96 * MIB
LONG = "x" * (40 * MIB)


@pytest.fixture(scope="module")
def roomy_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon that takes messages longer than usual."""
    return start_daemon(str(KERNELS), "--max-message-bytes", str(LIMIT))


@pytest.fixture
async def way(roomy_daemon: Any) -> AsyncIterator[Forwarder]:
    """The way to it."""
    async with Forwarder(roomy_daemon.target) as way:
        yield way


@pytest.fixture
async def runtime(way: Forwarder) -> AsyncIterator[RemoteRuntime]:
    """A client that goes this way."""
    async with connect(way.address, scoped=True, timeout=PATIENCE, max_message_bytes=LIMIT) as runtime:
        yield runtime


async def test_an_array_beyond_the_usual_limit_is_echoed(runtime: RemoteRuntime) -> None:
    kernel_id = await launched(runtime, kernels.echo_cloud)
    points = np.arange(3 * 7 * MIB, dtype=np.float32).reshape(-1, 3)
    reply = await runtime.send_and_receive(kernel_id, Cloud(points), timeout=PATIENCE)
    assert points.nbytes > 64 * MIB
    assert np.array_equal(reply.points, points)


async def test_those_who_ask_meanwhile_do_not_wait_for_a_long_message(runtime: RemoteRuntime) -> None:
    kernel_id = await launched(runtime, kernels.echo_job)
    await runtime.send_and_receive(kernel_id, Job(0))
    long = asyncio.create_task(runtime.send_and_receive(kernel_id, Job(note=LONG), timeout=PATIENCE))
    asked = 0
    while not long.done():
        reply = await runtime.send_and_receive(kernel_id, Job(asked), timeout=PATIENCE)
        assert reply.number == asked
        asked += 1
    assert (await long).note == LONG
    assert asked >= 3, "they went between its parts, there and back"


async def test_requests_of_other_tasks_do_not_wait_for_a_long_one_that_does_not_get_through(
    runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(runtime, kernels.echo_job)
    await runtime.send_and_receive(kernel_id, Job(0))
    way.close()
    async with asyncio.TaskGroup() as group:
        long = group.create_task(runtime.send_and_receive(kernel_id, Job(1, note=LONG), timeout=PATIENCE))
        await asyncio.sleep(0)
        outgoing = runtime._sessions[kernel_id]._departures.outgoing
        assert outgoing.long
        others = [group.create_task(runtime.send_and_receive(kernel_id, Job(n), timeout=PATIENCE)) for n in range(5)]
        await asyncio.sleep(0)
        assert len(outgoing.queue) == 5, "none waits for the long one to be gone"
        way.is_open = True
    assert [task.result().number for task in (long, *others)] == [1, *range(5)]


async def test_what_one_task_sends_after_a_long_message_stays_after_it_there_and_back(runtime: RemoteRuntime) -> None:
    kernel_id = await launched(runtime, kernels.echo_job)
    for number in range(9):
        await runtime.send(kernel_id, Job(number, note=LONG if number % 3 == 1 else ""))
    replies = [await runtime.receive(kernel_id, timeout=PATIENCE) for _ in range(9)]
    assert [reply.number for reply in replies] == list(range(9))
    assert [len(reply.note) for reply in replies] == [0, len(LONG), 0] * 3


async def test_replies_come_in_order_though_only_some_are_long(runtime: RemoteRuntime) -> None:
    kernel_id = await launched(runtime, kernels.stretcher)
    for number in range(60):
        await runtime.send(kernel_id, Job(number, client=20 * MIB if number % 20 == 0 else 1))
    replies = [await runtime.receive(kernel_id, timeout=PATIENCE) for _ in range(60)]
    assert [reply.number for reply in replies] == list(range(60))


async def test_a_long_message_that_is_cut_in_the_middle_comes_once(runtime: RemoteRuntime, way: Forwarder) -> None:
    kernel_id = await launched(runtime, kernels.echo_job)
    for passed in (5, 35, 45, 75):
        asking = asyncio.create_task(runtime.send_and_receive(kernel_id, Job(note=LONG), timeout=PATIENCE))
        target = way.bytes + passed * MIB
        await eventually(lambda: way.bytes >= target)  # noqa: B023
        way.cut()
        assert (await asking).note == LONG
    telemetry = await runtime.fetch_telemetry(kernel_id)
    assert telemetry is not None
    assert telemetry.messages_processed == 4


async def test_a_long_request_that_is_cancelled_on_its_way_leaves_room_for_the_next(
    runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(runtime, kernels.echo_job)
    await runtime.send_and_receive(kernel_id, Job(0))
    for _ in range(3):
        asking = asyncio.create_task(runtime.send_and_receive(kernel_id, Job(note=LONG), timeout=PATIENCE))
        target = way.bytes + 4 * MIB
        await eventually(lambda: way.bytes >= target)  # noqa: B023
        asking.cancel()
        await asyncio.wait((asking,))
        assert (await runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE)).number == 1
    assert (await runtime.send_and_receive(kernel_id, Job(2, note=LONG), timeout=PATIENCE)).note == LONG
    telemetry = await runtime.fetch_telemetry(kernel_id)
    assert telemetry is not None
    assert telemetry.messages_processed == 5, "what was cancelled never reached the kernel"


async def test_a_time_out_ends_the_wait_for_a_long_message_to_be_gone(runtime: RemoteRuntime, way: Forwarder) -> None:
    kernel_id = await launched(runtime, kernels.echo_job)
    await runtime.send_and_receive(kernel_id, Job(0))
    way.close()
    await runtime.send(kernel_id, Job(1, note=LONG))
    with pytest.raises(QueueTimeoutError, match="longer message"):
        await runtime.send(kernel_id, Job(2), timeout=0.01)
    with pytest.raises(QueueTimeoutError, match="longer message"):
        await asyncio.create_task(runtime.send_and_receive(kernel_id, Job(3, note=LONG), timeout=0.01))
    way.is_open = True
    assert (await runtime.receive(kernel_id, timeout=PATIENCE)).number == 1


async def test_a_message_over_the_limit_is_refused_before_anything_is_sent(
    runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(runtime, kernels.echo_job)
    await runtime.send_and_receive(kernel_id, Job(0))
    before = way.bytes
    with pytest.raises(MessageTooLargeError) as caught:
        await runtime.send_and_receive(kernel_id, Job(note="x" * LIMIT))
    assert caught.value.limit == LIMIT
    assert way.bytes - before < MIB
    assert (await runtime.send_and_receive(kernel_id, Job(1))).number == 1
