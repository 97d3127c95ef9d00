"""Long messages of a client on the daemon's host go through shared memory: whole, once, in order, and none stays."""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydotcompute.exceptions import BackendUnavailableError, ConnectionLostError
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.shared_memory import Segment, Writer
from pydotcompute_client import RemoteRuntime, connect
from tests.client.test_sessions import launched
from tests.contract import kernels
from tests.contract.kernels import Cloud, Job
from tests.contract.world import PATIENCE, eventually
from tests.forwarder import Forwarder
from tests.properties import examples
from tests.stubs import KERNELS, Failure, Letter, Talk, Wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared so on Linux")

MIB = 1 << 20
SHARED = 32 * MIB
ARRAY = np.arange(2 * MIB, dtype=np.float32)


@pytest.fixture(scope="module")
def sharing_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon that shares memory, and forgets clients soon."""
    return start_daemon(str(KERNELS), "--shared-memory-bytes", str(SHARED), "--session-timeout", "1")


@pytest.fixture
async def way(sharing_daemon: Any) -> AsyncIterator[Forwarder]:
    """The way to it."""
    async with Forwarder(sharing_daemon.target) as way:
        yield way


@pytest.fixture
async def runtime(way: Forwarder) -> AsyncIterator[RemoteRuntime]:
    """A client that shares its memory, and goes this way."""
    async with connect(way.address, scoped=True, timeout=PATIENCE, shared_memory=True) as runtime:
        yield runtime


@pytest.fixture
async def wire(sharing_daemon: Any) -> AsyncIterator[Wire]:
    """Its services."""
    async with grpc.aio.insecure_channel(sharing_daemon.target) as channel:
        wire = Wire(channel)
        yield wire
        for kernel_id in wire.launched:
            await wire.terminate(kernel_id, timeout=0.5)


def segments_of(process_id: int) -> int:
    """How many segments a process has in its memory, and as open files."""
    name = "/memfd:pydotcompute "  # Workers and templates have others, whose names are longer.
    maps = Path(f"/proc/{process_id}/maps").read_text().count(name)
    links = [Path(f"/proc/{process_id}/fd/{name}") for name in os.listdir(f"/proc/{process_id}/fd")]
    return maps + sum(link.is_symlink() and str(os.readlink(link)).startswith(name) for link in links)


def peak_of(process_id: int) -> int:
    """The most bytes of memory that a process has had."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


# -- messages ----------------------------------------------------------------------------------------------------------


async def test_an_array_goes_there_and_back_and_not_over_the_connection(runtime: RemoteRuntime, way: Forwarder) -> None:
    kernel_id = await launched(runtime, kernels.echo_cloud)
    await runtime.send_and_receive(kernel_id, Cloud(ARRAY[:300].reshape(-1, 3)))
    before = way.bytes
    for number in range(10):
        reply = await runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY + number]), timeout=PATIENCE)
        assert np.array_equal(reply.others[0], ARRAY + number)
        assert not reply.others[0].flags.writeable
    assert way.bytes - before < 100_000


async def test_texts_and_bytes_go_there_too(runtime: RemoteRuntime, way: Forwarder) -> None:
    kernel_id = await launched(runtime, kernels.echo_job)
    await runtime.send_and_receive(kernel_id, Job())
    before = way.bytes
    for number in range(10):
        note = str(number) * (3 * MIB)
        assert (await runtime.send_and_receive(kernel_id, Job(note=note), timeout=PATIENCE)).note == note
    assert way.bytes - before < 100_000


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
async def test_any_array_survives(runtime: RemoteRuntime, data: st.DataObject) -> None:
    kernel_id = await launched(runtime, kernels.echo_cloud)
    dtype = data.draw(hnp.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc"))
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=80))
    memory = np.random.default_rng(1).bytes(int(np.prod(shape)) * dtype.itemsize)
    array: np.ndarray[Any, Any] = np.frombuffer(memory, np.uint8)
    array = array.view(dtype).reshape(shape) if dtype.kind != "b" else (array > 127).reshape(shape)
    array = np.repeat(array, 1 + 70_000 // array.nbytes, axis=0)
    step = data.draw(st.sampled_from([1, -1, 2]))
    sent = (array.T if data.draw(st.booleans()) else array)[::step]
    back = (await runtime.send_and_receive(kernel_id, Cloud(others=[sent, sent]), timeout=PATIENCE)).others
    for each in back:
        assert (each.dtype, each.shape, each.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())


async def test_what_finds_no_room_goes_over_the_connection(runtime: RemoteRuntime, way: Forwarder) -> None:
    kernel_id = await launched(runtime, kernels.echo_cloud)
    kept = []
    for number in range(10):  # Of 8 MiB each: what is kept takes the room from those after it.
        reply = await runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY + number]), timeout=PATIENCE)
        kept.append(reply.others[0])
    assert way.bytes > 5 * ARRAY.nbytes
    assert all(np.array_equal(each, ARRAY + number) for number, each in enumerate(kept))
    kept.clear()
    del reply
    await runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY]), timeout=PATIENCE)
    before = way.bytes
    await runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY]), timeout=PATIENCE)
    assert way.bytes - before < 100_000, "there is room again"


async def test_one_larger_than_the_memory_goes_over_the_connection(runtime: RemoteRuntime) -> None:
    kernel_id = await launched(runtime, kernels.echo_cloud)
    large = np.arange(5 * MIB, dtype=np.float64)
    assert large.nbytes > SHARED
    reply = await runtime.send_and_receive(kernel_id, Cloud(others=[large]), timeout=PATIENCE)
    assert np.array_equal(reply.others[0], large)


async def test_messages_of_all_lengths_stay_in_order(runtime: RemoteRuntime) -> None:
    kernel_id = await launched(runtime, kernels.echo_job)
    lengths = [0, 3 * MIB, 10, 40 * MIB, 0, 100_000, 1, 20 * MIB, 20 * MIB, 5] * 2
    for number, length in enumerate(lengths):
        await runtime.send(kernel_id, Job(number, note="x" * length), timeout=PATIENCE)
    replies = [await runtime.receive(kernel_id, timeout=PATIENCE) for _ in lengths]
    assert [(reply.number, len(reply.note)) for reply in replies] == list(enumerate(lengths))


async def test_a_connection_that_breaks_loses_and_doubles_nothing(runtime: RemoteRuntime, way: Forwarder) -> None:
    kernel_id = await launched(runtime, kernels.echo_cloud)
    await runtime.send_and_receive(kernel_id, Cloud())

    async def ask(number: int) -> None:
        reply = await runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY + number]), timeout=PATIENCE)
        assert np.array_equal(reply.others[0], ARRAY + number)

    for number in range(20):
        asking = [asyncio.create_task(ask(number + each)) for each in range(3)]
        before = way.bytes
        await eventually(lambda: way.bytes > before + 50 * (number % 4))  # noqa: B023
        way.cut()
        await asyncio.gather(*asking)
    telemetry = await runtime.fetch_telemetry(kernel_id)
    assert telemetry is not None
    assert (telemetry.messages_processed, telemetry.messages_dropped) == (61, 0)


async def test_what_is_cancelled_gives_its_place_back(runtime: RemoteRuntime, way: Forwarder) -> None:
    kernel_id = await launched(runtime, kernels.echo_cloud)
    for number in range(20):
        asking = asyncio.create_task(
            runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY + number]), timeout=PATIENCE)
        )
        for _ in range(number % 5):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))
    await runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY]), timeout=PATIENCE)
    before = way.bytes
    await runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY]), timeout=PATIENCE)
    assert way.bytes - before < 100_000


# -- who gets it -------------------------------------------------------------------------------------------------------


async def test_a_daemon_that_does_not_share_is_told_apart(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS))
    async with connect(daemon.target, scoped=True, shared_memory=True) as runtime:
        kernel_id = await launched(runtime, kernels.echo_job)
        with pytest.raises(BackendUnavailableError, match="--shared-memory-bytes"):
            await runtime.send_and_receive(kernel_id, Job())
    daemon.stop()


async def test_who_does_not_ask_for_memory_gets_none(wire: Wire) -> None:
    talk = Talk(wire)
    opened = await talk.open(await wire.launch("echo_job"))
    assert not opened.HasField("shared_memory")
    batch = pb.Batch(first_sequence=1, message_ids=bytes(16), bodies=[b""])
    batch.shared_bodies.add(offset=4096 + 64, bytes=10)
    await talk.say(batch=batch)
    failure = await talk.ended()
    assert isinstance(failure, Failure)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("index", "offset", "size"), [(0, 64, 10), (0, 4096 + 64, 1 << 40), (1, 4096 + 64, 70_000), (0, 4096 + 64, 0)]
)
async def test_a_body_that_is_not_there_ends_the_session_alone(wire: Wire, index: int, offset: int, size: int) -> None:
    kernel_id = await wire.launch("echo_job")
    talk = Talk(wire)
    opened = await talk.open(kernel_id, shared_memory=True)
    writer = Writer(Segment.open(opened.shared_memory.requests))
    block = writer.put([bytes(70_000)], 70_000)
    assert block is not None
    block.sent = True
    batch = pb.Batch(first_sequence=1, message_ids=bytes(16), bodies=[b""])
    batch.shared_bodies.add(index=index, offset=offset, bytes=size)
    await talk.say(batch=batch)
    failure = await talk.ended()
    assert isinstance(failure, Failure)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    other = Talk(wire)
    await other.open(kernel_id)
    await other.send(Letter(b""))
    await other.received(1)
    other.cut()


async def test_bodies_that_overlap_end_the_session_before_they_are_copied(wire: Wire, sharing_daemon: Any) -> None:
    talk = Talk(wire)
    opened = await talk.open(await wire.launch("echo_job"), shared_memory=True)
    writer = Writer(Segment.open(opened.shared_memory.requests))
    size = 20 * MIB
    block = writer.put([bytes([1]) * size], size)  # Every byte of it is the head of a block in use.
    assert block is not None
    block.sent = True
    count = 50
    batch = pb.Batch(first_sequence=1, message_ids=bytes(16 * count), bodies=[b""] * count)
    for index in range(count):
        batch.shared_bodies.add(index=index, offset=block.offset + 64 * index, bytes=size - 64 * count)
    before = peak_of(sharing_daemon.process.pid)
    await talk.say(batch=batch)
    failure = await talk.ended()
    assert isinstance(failure, Failure)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert peak_of(sharing_daemon.process.pid) - before < 2 * size


async def test_bytes_that_are_no_message_are_refused(wire: Wire) -> None:
    talk = Talk(wire)
    opened = await talk.open(await wire.launch("echo_cloud"), shared_memory=True)
    writer = Writer(Segment.open(opened.shared_memory.requests))
    block = writer.put([b"\xff" * 100_000], 100_000)
    assert block is not None
    block.sent = True
    batch = pb.Batch(first_sequence=1, message_ids=bytes(16), bodies=[b""])
    batch.shared_bodies.add(offset=block.offset, bytes=block.size)
    await talk.say(batch=batch)
    (refusal,) = await talk.refused()
    assert refusal.status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    talk.cut()


# -- the end -----------------------------------------------------------------------------------------------------------

CLIENT = """
import asyncio, os, sys
from numpy import float32, ones
from pydotcompute_client import connect
from tests.contract.kernels import Cloud

async def main(target, kernel_id, user):
    os.setuid(int(user))
    async with connect(target, shared_memory=True) as runtime:
        kept = []
        while True:
            try:
                kept.append(await runtime.send_and_receive(kernel_id, Cloud(others=[ones(2 << 20, float32)])))
            except Exception as error:
                return print(f"{type(error).__name__}: {error}")
            if len(kept) == 3:
                await runtime.send_and_receive(kernel_id, Cloud())  # So the others are acknowledged.
                print("3 are kept", flush=True)
                await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def another_client(target: str, kernel_id: str, user: int) -> Iterator[subprocess.Popen[str]]:
    """A client in a process of its own, under this user, which keeps three arrays; killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, target, kernel_id, str(user)], stdout=subprocess.PIPE, text=True
    ) as client:
        try:
            yield client
        finally:
            client.kill()


async def said(client: subprocess.Popen[str]) -> str:
    """What it says next."""
    assert client.stdout is not None
    return await asyncio.to_thread(client.stdout.readline)


@pytest.fixture(scope="module")
def lonely_daemon(start_daemon: Callable[..., Any]) -> Any:
    """A daemon which nobody else has shared memory with: each test leaves none of it."""
    options = ("--launch", "echo_cloud", "--shared-memory-bytes", str(SHARED), "--session-timeout", "0.2")
    return start_daemon(str(KERNELS), *options)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
async def test_a_client_of_another_user_is_told_so(lonely_daemon: Any) -> None:
    with another_client(lonely_daemon.target, "echo_cloud", 65534) as client:
        answer = await said(client)
    assert answer.startswith(
        "BackendUnavailableError: backend 'shared memory' is unavailable: the daemon runs as anoth"
    )
    assert segments_of(lonely_daemon.process.pid) == 0, "the client has said that it does not go on"


async def test_nothing_is_left_of_a_client_that_is_killed(lonely_daemon: Any) -> None:
    with another_client(lonely_daemon.target, "echo_cloud", os.getuid()) as client:
        assert await said(client) == "3 are kept\n"
        assert segments_of(lonely_daemon.process.pid) > 0
    await eventually(lambda: segments_of(lonely_daemon.process.pid) == 0)
    assert not [name for name in os.listdir("/dev/shm") if "pydotcompute" in name]


async def test_a_session_keeps_no_open_file_but_those_of_its_mappings(lonely_daemon: Any) -> None:
    async with connect(lonely_daemon.target, shared_memory=True) as runtime:
        await runtime.send_and_receive("echo_cloud", Cloud())
        assert segments_of(lonely_daemon.process.pid) == 2 + (2 if sys.version_info < (3, 13) else 0)


async def test_the_last_word_arrives_however_much_is_under_way(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--launch", "echo_cloud", "--shared-memory-bytes", str(SHARED))
    async with connect(daemon.target, shared_memory=True) as runtime:
        asking = [
            asyncio.create_task(runtime.send_and_receive("echo_cloud", Cloud(others=[ARRAY[:100_000]])))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        await runtime.terminate("echo_cloud")
        await asyncio.gather(*asking, return_exceptions=True)
        await eventually(lambda: segments_of(daemon.process.pid) == 0)  # Long before the session's time-out.
    daemon.stop()


async def test_what_is_left_of_a_daemon_that_is_killed_are_the_arrays_that_a_program_keeps(
    start_daemon: Callable[..., Any],
) -> None:
    daemon = start_daemon(str(KERNELS), "--shared-memory-bytes", str(SHARED))
    async with connect(daemon.target, shared_memory=True, reconnect_timeout=0.5) as runtime:
        kernel_id = await launched(runtime, kernels.echo_cloud)
        reply = await runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY]), timeout=PATIENCE)
        daemon.process.kill()
        with pytest.raises(ConnectionLostError):
            await runtime.send_and_receive(kernel_id, Cloud(others=[ARRAY]), timeout=PATIENCE)
        assert np.array_equal(reply.others[0], ARRAY)
        assert segments_of(os.getpid()) > 0
        del reply
    # The tracebacks of the errors, with what their frames knew, may be in cycles, and tasks that end later make some.
    await eventually(lambda: gc.collect() >= 0 and segments_of(os.getpid()) == 0)
