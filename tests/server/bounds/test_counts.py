"""How many of something there may be: one more is refused by the name of the limit. What a client fills is its own."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from pydotcompute.exceptions import ConnectionLostError, LimitExceededError
from pydotcompute.ring_kernels.mail.inbox import Inbox
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute_client import RemoteRuntime, connect
from pydotcompute_server.bounds.shares import Owner, SharedTable
from pydotcompute_server.connected import ConnectedClient
from pydotcompute_server.limits import Limits
from pydotcompute_server.unary.clients import Client, Clients
from tests.contract.kernels import Job
from tests.stubs import KERNELS, PATIENCE, Failure, Wire, duration, failure_of

FEW = {
    "max_kernels": 6,
    "max_threads": 1,
    "max_queue_size": 10_000,
    "max_sessions": 3,
    "max_sessions_per_connection": 2,
    "max_watchers": 3,
    "max_watchers_per_connection": 2,
    "max_leases": 3,
    "max_leases_per_connection": 2,
    "client_ids": 3,
    "client_id_time": 600,
    "list_page": 2,
    "names_told": 2,
}


@pytest.fixture(scope="module")
def few(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with small limits."""
    limits = (f"--limit={name}={value}" for name, value in FEW.items() if name not in ("max_kernels", "max_sessions"))
    own = (f"--max-kernels={FEW['max_kernels']}", f"--max-sessions={FEW['max_sessions']}")
    return start_daemon(str(KERNELS), *limits, *own)


@asynccontextmanager
async def wired(target: str) -> AsyncIterator[Wire]:
    """A connection of its own to a daemon; the kernels that it launches end with the block."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        wire = Wire(channel)
        try:
            yield wire
        finally:
            for kernel_id in wire.launched:
                await wire.terminate(kernel_id)


@pytest.fixture
async def wire(few: Any) -> AsyncIterator[Wire]:
    async with wired(few.target) as wire:
        yield wire


@pytest.fixture
async def another(few: Any) -> AsyncIterator[Wire]:
    async with wired(few.target) as wire:
        yield wire


async def soon(check: Callable[[], Awaitable[bool]]) -> None:
    """Try until it is so."""
    async with asyncio.timeout(PATIENCE):
        while not await check():
            pass


def refused(name: str, asked: int | None = None) -> Failure:
    """The refusal of one more than a limit allows."""
    limit = FEW[name]
    detail: dict[str, Any] = {"name": name, "limit": limit, "asked": limit + 1 if asked is None else asked}
    if name != "max_queue_size":
        detail["retry_after"] = 1.0
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", detail)


# -- kernels -----------------------------------------------------------------------------------------------------------


async def test_one_kernel_too_many_is_refused_until_one_ends(wire: Wire) -> None:
    ids = [await wire.launch("square") for _ in range(FEW["max_kernels"])]
    assert await failure_of(wire.launch("square")) == refused("max_kernels")
    await wire.terminate(ids[0])
    await wire.launch("square")


async def test_one_thread_too_many_is_refused_until_one_ends(wire: Wire) -> None:
    kernel_id = await wire.launch("blocking")
    assert await failure_of(wire.launch("blocking")) == refused("max_threads")
    await wire.launch("square")
    await wire.terminate(kernel_id)
    await wire.launch("blocking")


@pytest.mark.parametrize("name", ["input_queue_size", "output_queue_size"])
async def test_a_mailbox_that_is_too_long_is_refused(wire: Wire, name: str) -> None:
    longest: dict[str, Any] = {name: FEW["max_queue_size"]}
    too_long: dict[str, Any] = {name: 2**32 - 1}
    assert await failure_of(wire.launch("square", **too_long)) == refused("max_queue_size", 2**32 - 1)
    await wire.launch("square", **longest)


async def test_the_error_about_an_unknown_kernel_lists_a_few_of_many(wire: Wire) -> None:
    ids = [await wire.launch("square") for _ in range(3)]
    assert (await failure_of(wire.receive("nobody"))).detail["available"] == [*ids[:2], "…"]
    described = (await failure_of(wire.describe("nobody"))).detail["available"]
    assert described[:3] == [*ids[:2], "…"]
    assert len(described) == 5


# -- pages -------------------------------------------------------------------------------------------------------------


async def test_kernels_are_listed_in_pages_in_the_order_of_their_launch(wire: Wire) -> None:
    ids = [await wire.launch("square") for _ in range(5)]
    first = await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest(page_size=1_000))
    assert [kernel.kernel_id for kernel in first.kernels] == ids[:2]
    assert first.total_size == 5
    for kernel_id in (ids[1], ids[3]):  # The last one of the page, and one that is to come.
        await wire.terminate(kernel_id)
    second = await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest(page_token=first.next_page_token, page_size=1))
    assert [kernel.kernel_id for kernel in second.kernels] == [ids[2]]
    last = await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest(page_token=second.next_page_token))
    assert [kernel.kernel_id for kernel in last.kernels] == [ids[4]]
    assert (last.next_page_token, last.total_size) == ("", 3)


async def test_kernel_types_are_listed_in_pages_in_the_order_of_their_names(wire: Wire) -> None:
    names: list[str] = []
    token = ""
    while True:
        page = await wire.kernels.ListKernelTypes(kernel_pb.ListKernelTypesRequest(page_token=token))
        names += [kernel_type.name for kernel_type in page.kernel_types]
        assert len(page.kernel_types) <= FEW["list_page"]
        if not (token := page.next_page_token):
            break
    assert names == sorted(set(names))
    assert len(names) == page.total_size > 10


async def test_a_page_has_no_more_bytes_than_allowed(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--limit", "list_page_bytes=1")
    async with wired(daemon.target) as wire:
        page = await wire.kernels.ListKernelTypes(kernel_pb.ListKernelTypesRequest())
        assert len(page.kernel_types) == 1
        assert page.next_page_token


@pytest.mark.parametrize(
    ("method", "request_type"),
    [("ListKernels", kernel_pb.ListKernelsRequest), ("ListKernelTypes", kernel_pb.ListKernelTypesRequest)],
)
async def test_a_token_that_is_none_is_refused(wire: Wire, method: str, request_type: Any) -> None:
    failure = await failure_of(getattr(wire.kernels, method)(request_type(page_token="x")))
    assert (failure.reason, failure.detail["path"]) == ("MESSAGE_INVALID", "$.page_token")


async def test_the_client_lists_all_pages(few: Any, wire: Wire) -> None:
    ids = [await wire.launch("square") for _ in range(5)]
    async with connect(few.target) as runtime:
        assert await runtime.fetch_kernel_ids() == ids
        assert runtime.kernel_ids == ids


# -- sessions ----------------------------------------------------------------------------------------------------------


async def test_one_session_too_many_is_refused_until_one_ends(few: Any, wire: Wire) -> None:
    ids = [await wire.launch("square") for _ in range(4)]

    async def ask(runtime: RemoteRuntime, kernel_id: str) -> None:
        assert (await runtime.send_and_receive(kernel_id, Job(3))).number == 9

    async with connect(few.target) as one, connect(few.target) as two:
        await ask(one, ids[0])
        await ask(one, ids[1])
        with pytest.raises(LimitExceededError) as of_one:
            await ask(one, ids[2])
        assert (of_one.value.name, of_one.value.limit, of_one.value.asked) == ("max_sessions_per_connection", 2, 3)
        await ask(two, ids[2])
        with pytest.raises(LimitExceededError) as of_all:
            await ask(two, ids[3])
        assert (of_all.value.name, of_all.value.limit, of_all.value.asked) == ("max_sessions", 3, 4)
        await one.shutdown()
        await ask(two, ids[3])


async def test_a_session_that_cannot_begin_takes_no_place(few: Any, wire: Wire) -> None:
    kernel_id = await wire.launch("square", activate=False)
    async with connect(few.target) as runtime:
        for _ in range(2 * FEW["max_sessions"]):
            with pytest.raises(Exception, match="LAUNCHED"):
                await runtime.send_and_receive(kernel_id, Job(3))


# -- calls and connections ---------------------------------------------------------------------------------------------


async def test_one_call_too_many_is_refused_until_one_ends(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--launch", "square", "--limit", "max_calls=3")
    async with wired(daemon.target) as wire:
        waiting = [wire.messages.Receive(pb.ReceiveRequest(kernel_id="square")) for _ in range(2)]
        watch = wire.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
        await watch.read()
        failure = Failure(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "LIMIT_EXCEEDED",
            {"name": "max_calls", "limit": 3, "asked": 4, "retry_after": 1.0},
        )
        list_kernels = wire.kernels.ListKernels
        assert await failure_of(list_kernels(kernel_pb.ListKernelsRequest())) == failure
        watch.cancel()

        async def there_is_room() -> bool:
            try:
                await list_kernels(kernel_pb.ListKernelsRequest())
            except grpc.aio.AioRpcError:
                return False
            return True

        await soon(there_is_room)
        for call in waiting:
            call.cancel()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""With this, and an empty frame of settings, a client begins to speak HTTP/2."""


async def test_one_connection_too_many_is_closed_until_one_ends(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--max-connections", "2")
    host, _, port = daemon.target.rpartition(":")

    async def is_answered(stack: AsyncExitStack) -> bool:
        reader, writer = await asyncio.open_connection(host, int(port))
        stack.callback(writer.close)
        try:
            writer.write(PREFACE)
            return bool(await reader.read(1))
        except ConnectionError:
            return False

    async with AsyncExitStack() as first, AsyncExitStack() as others:
        assert await is_answered(first)
        assert await is_answered(others)
        assert not await is_answered(others)
        await first.aclose()
        await soon(lambda: is_answered(others))


def test_there_are_fewer_connections_if_the_daemon_may_open_fewer_files() -> None:
    source = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))\n"
        "from pydotcompute_server.bounds.connections import connections_allowed\n"
        "from pydotcompute_server.limits import Limits\n"
        "print(connections_allowed(Limits()), connections_allowed(Limits(max_connections=5)))\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(512 - 64 - 64), "5"]
    assert "may not open enough files" in done.stderr


async def test_a_client_whose_connection_is_one_too_many_is_told_of_the_limit(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--max-connections", "1")
    async with connect(daemon.target) as first:
        await first.fetch_kernel_ids()
        with pytest.raises(ConnectionLostError, match="as many connections as its max_connections"):
            async with connect(daemon.target, timeout=1.0):
                pass


# -- telemetry ---------------------------------------------------------------------------------------------------------


def watching(wire: Wire, *kernel_ids: str, interval: float = 0.01) -> Any:
    request = telemetry_pb.WatchTelemetryRequest(kernel_ids=kernel_ids, interval=duration(interval))
    return wire.telemetry.WatchTelemetry(request)


async def test_one_watcher_too_many_is_refused_until_one_ends(wire: Wire, another: Wire) -> None:
    watches = [watching(wire) for _ in range(2)]
    for watch in watches:
        await watch.read()
    assert await failure_of(watching(wire).read()) == refused("max_watchers_per_connection")
    third = watching(another)
    await third.read()
    assert await failure_of(watching(another).read()) == refused("max_watchers")
    watches[0].cancel()

    async def there_is_room() -> bool:
        again = watching(another)
        try:
            await again.read()
        except grpc.aio.AioRpcError:
            return False
        again.cancel()
        return True

    await soon(there_is_room)
    for watch in (*watches, third):
        watch.cancel()


async def test_one_snapshot_serves_all_who_watch_the_same(wire: Wire, another: Wire) -> None:
    kernel_id = await wire.launch("square")
    one, two = watching(wire, kernel_id), watching(another, kernel_id)
    seen: list[set[float]] = [set(), set()]

    async def read(watch: Any, times: set[float]) -> None:
        while not seen[0] & seen[1]:
            (kernel,) = (await watch.read()).kernels
            times.add(kernel.uptime_seconds)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(read(one, seen[0]), read(two, seen[1]))
    one.cancel()
    two.cancel()


async def test_a_snapshot_of_many_kernels_has_all_of_them(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS))
    async with wired(daemon.target) as wire:
        ids = [await wire.launch("square", activate=False) for _ in range(200)]  # That is more than one portion.
        for answer in (
            await wire.telemetry.GetTelemetry(telemetry_pb.GetTelemetryRequest()),
            await watching(wire).read(),
        ):
            assert [kernel.kernel_id for kernel in answer.kernels] == ids
        reversed_ids = ids[::-1]
        answer = await wire.telemetry.GetTelemetry(telemetry_pb.GetTelemetryRequest(kernel_ids=reversed_ids))
        assert [kernel.kernel_id for kernel in answer.kernels] == reversed_ids


# -- tables that clients share -----------------------------------------------------------------------------------------


async def test_a_thousand_receives_with_new_client_ids_cost_nobody_a_reply(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--launch", "square")
    async with wired(daemon.target) as wire, wired(daemon.target) as flood:
        message_id = await wire.send("square", number=3, client_id="victim")
        await wire.until("square", messages_processed=1)

        async def receive(client_id: str) -> None:
            assert (await failure_of(flood.receive("square", 0, client_id))).reason == "QUEUE_TIMEOUT"

        for first in range(0, 1_050, 50):
            await asyncio.gather(*(receive(f"other {first + number}") for number in range(50)))
        assert (await wire.receive("square", client_id="victim")).correlation_id == message_id


async def test_a_client_with_many_client_ids_displaces_its_own(wire: Wire, another: Wire) -> None:
    kernel_id = await wire.launch("square")
    sent = await wire.send(kernel_id, number=3, client_id="victim")
    flood = [await another.send(kernel_id, number=n, client_id=f"flood {n}") for n in range(10)]
    await wire.until(kernel_id, messages_processed=11, messages_dropped=8)
    assert (await wire.receive(kernel_id, client_id="victim")).correlation_id == sent
    assert (await another.receive(kernel_id, client_id="flood 9")).correlation_id == flood[9]
    assert (await failure_of(another.receive(kernel_id, 0, client_id="flood 0"))).reason == "QUEUE_TIMEOUT"


async def test_one_client_id_too_many_is_refused_if_each_is_of_another_client(few: Any, wire: Wire) -> None:
    kernel_id = await wire.launch("square")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(wired(few.target)) for _ in range(FEW["client_ids"])]
        for number, client in enumerate(clients):
            await client.send(kernel_id, number=number, client_id=str(number))
        assert await failure_of(wire.send(kernel_id, number=9, client_id="new")) == refused("client_ids")
        await clients[0].receive(kernel_id, client_id="0")  # Now nothing of it is kept.
        await wire.send(kernel_id, number=9, client_id="new")


def test_a_client_id_that_was_quiet_for_long_gives_its_place() -> None:
    def user(name: str) -> ConnectedClient:
        return ConnectedClient(0, Owner("anonymous", name))

    now = 0.0
    limits = Limits(client_ids=2, client_id_time=10.0)
    clients = Clients(limits, Inbox("k", 1), lambda: now)
    gone: list[Client] = []
    held = [clients.find(name, user(name), gone.append) for name in ("a", "b")]
    for client in held:
        client.ready.push("a reply", 128)
    now = 9.0
    with pytest.raises(LimitExceededError):
        clients.find("c", user("c"), gone.append)
    now = 11.0
    clients.find("c", user("c"), gone.append)
    assert gone == [held[0]]


def test_new_client_ids_do_not_make_the_daemon_look_at_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    is_busy: Any = Client.is_busy

    def look(client: Client) -> bool:
        nonlocal looks
        looks += 1
        return bool(is_busy.fget(client))

    monkeypatch.setattr(Client, "is_busy", property(look))
    clients = Clients(Limits(client_ids=200), Inbox("k", 1), lambda: 0.0)
    gone: list[Client] = []
    owner = ConnectedClient(0, Owner("anonymous", "a"))
    made = [clients.find(str(number), owner, gone.append) for number in range(200)]
    for client in made:
        client.ready.push("a reply", 128)
    for number in range(100):
        clients.find(f"new {number}", owner, gone.append).ready.push("a reply", 128)
    assert gone == made[:100]
    assert looks <= 200 + 100 * 4  # All of them once, and then a few for each new one.


def test_a_client_id_that_has_nothing_goes_before_one_with_a_reply() -> None:
    clients = Clients(Limits(client_ids=3), Inbox("k", 1), lambda: 0.0)
    gone: list[Client] = []
    owner = ConnectedClient(0, Owner("anonymous", "a"))
    first, second, third = (clients.find(name, owner, gone.append) for name in ("a", "b", "c"))
    for client in (first, second, third):
        client.ready.push("a reply", 128)
    clients.find("d", owner, gone.append).ready.push("a reply", 128)
    assert gone == [first]
    clients.find("c", owner, gone.append)  # Its call takes the reply.
    third.take()
    clients.find("e", owner, gone.append)
    assert gone == [first, third]


async def test_one_lease_too_many_of_a_client_is_refused_until_one_ends(wire: Wire, another: Wire) -> None:
    kernel_id = await wire.launch("crier")
    for _ in range(2):
        await wire.send(kernel_id, number=3)
    leased = [await wire.lease(kernel_id, 600.0) for _ in range(2)]
    assert await failure_of(wire.lease(kernel_id, 600.0)) == refused("max_leases_per_connection")
    assert await wire.acknowledge(kernel_id, leased[0].delivery_id) == []
    await wire.send(kernel_id, number=3)
    await wire.lease(kernel_id, 600.0)
    await another.send(kernel_id, number=3)
    await another.lease(kernel_id, 600.0)
    assert await failure_of(another.lease(kernel_id, 600.0)) == refused("max_leases")


def test_of_a_full_table_the_oldest_entry_goes_of_whoever_has_most() -> None:
    table: SharedTable[int, str] = SharedTable(3)
    victim, flood = Owner("anonymous", "victim"), Owner("anonymous", "flood")
    assert table.put(1, "a", victim) is None
    assert table.put(2, "b", flood) is None
    assert table.put(3, "c", flood) is None
    assert table.put(4, "d", flood) == "b"
    assert [key for key in range(6) if key in table] == [1, 3, 4]
    assert table.pop(1) == "a"
    assert table.pop(1) is None
    assert table.oldest() == (3, "c")
    assert table.put(3, "again", victim) is None
    assert (table.get(3), table.get(9), len(table)) == ("again", None, 2)
    assert table.oldest() == (4, "d")


async def test_no_place_is_lost(few: Any, wire: Wire) -> None:
    """Not even by what is refused, cancelled or failed: afterwards there is as much room as before."""
    kernel_id = await wire.launch("square")
    for _ in range(4):
        call = watching(wire, kernel_id)
        await call.read()
        call.cancel()
        failed = watching(wire, "nobody")
        assert (await failure_of(failed.read())).reason in ("KERNEL_NOT_FOUND", "LIMIT_EXCEEDED")
        assert (await failure_of(wire.lease(kernel_id, 600.0, timeout=0))).reason == "QUEUE_TIMEOUT"

    async def watched() -> bool:
        calls = [watching(wire, kernel_id) for _ in range(2)]
        try:
            for call in calls:
                await call.read()
        except grpc.aio.AioRpcError:
            return False
        finally:
            for call in calls:
                call.cancel()
        return True

    await soon(watched)
