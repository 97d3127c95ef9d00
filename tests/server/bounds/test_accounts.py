"""How much one principal may have under way, and how fast it may come: what is too much, and what others notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pydotcompute.exceptions import LimitExceededError
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute_client import connect
from pydotcompute_server import Daemon
from pydotcompute_server.bounds.accounts import Account, Accounts, Bucket
from pydotcompute_server.limits import Limits, PrincipalLimits
from pydotcompute_server.principals import Principal
from tests.embedded import EmbeddedWire, Order, embedded
from tests.principals import believing, saying
from tests.stubs import Failure, Letter, Talk, Wire, duration, failure_of, read_error

BODY = b"\x08\x05"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def as_one(daemon: Daemon, name: str) -> AsyncIterator[EmbeddedWire]:
    """A connection of this principal's."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(daemon.address, options=options, interceptors=saying(name)) as channel:
        yield EmbeddedWire(channel, daemon.address)


def refused(name: str, limit: int, asked: int, retry_after: float = 1.0) -> Failure:
    detail = {"name": name, "limit": limit, "asked": asked, "retry_after": retry_after}
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", detail)


# -- the bucket --------------------------------------------------------------------------------------------------------


def test_a_bucket_fills_at_its_rate_up_to_one_second() -> None:
    clock = Clock()
    bucket = Bucket(10, clock)
    bucket.take(15)
    assert bucket.left == -5
    assert bucket.seconds_to(1) == pytest.approx(0.6)
    clock.now = 0.6
    assert bucket.left == pytest.approx(1)
    clock.now = 9.0
    assert bucket.left == 10
    assert bucket.seconds_to(1_000) == 0


def test_a_bucket_without_a_rate_lets_all_through() -> None:
    bucket = Bucket(0)
    bucket.take(1_000_000)
    assert bucket.seconds_to(1_000_000) == 0


def test_a_bucket_with_another_rate_is_as_full_as_before() -> None:
    clock = Clock()
    bucket = Bucket(10, clock)
    bucket.take(15)
    bucket.change(100)
    assert bucket.left == -50  # Half a second's, as before.
    clock.now = 1.0
    assert bucket.left == 50
    bucket.change(0)
    bucket.take(1_000)
    bucket.change(10)
    assert bucket.left == 10


def test_a_call_over_the_rate_is_refused_and_told_when_to_come_again() -> None:
    clock = Clock()
    account = Account(PrincipalLimits(messages_per_second=2, bytes_per_second=100), clock)
    account.require_rate(10)
    account.require_rate(10)
    with pytest.raises(LimitExceededError) as of_messages:
        account.require_rate(10)
    clock.now += of_messages.value.retry_after or 0
    account.require_rate(500)  # As many bytes as come in a second may come at once; this debt is paid afterwards.
    clock.now += 1.0
    with pytest.raises(LimitExceededError) as of_bytes:
        account.require_rate(1)
    assert (of_bytes.value.name, of_bytes.value.limit) == ("bytes_per_second_per_principal", 100)
    clock.now += of_bytes.value.retry_after or 0
    account.require_rate(1)


class Held:
    """A part with so much under way."""

    def __init__(self, *under_way: int) -> None:
        self.under_way = under_way

    @property
    def messages_under_way(self) -> int:
        """The first of the two."""
        return self.under_way[0]


def test_an_account_looks_at_its_parts_before_it_refuses() -> None:
    clock = Clock()
    account = Account(PrincipalLimits(messages_under_way=4), clock)
    part: Any = Held(2, 0)
    account.add(part)
    for _ in range(4):
        account.require_room(0)
    account.require_room(0)  # What has come is gone again, but for two.
    account.require_room(0)
    part.under_way = (4, 0)
    with pytest.raises(LimitExceededError, match="messages_under_way_per_principal is 4, and this would make 5"):
        account.require_room(0)
    account.discard(part)
    account.require_room(0)


def test_streams_of_one_principal_share_its_credit() -> None:
    account = Account(PrincipalLimits(messages_under_way=10, bytes_per_second=1_000), Clock())
    parts: list[Any] = [Held(1, 0), Held(1, 0)]
    assert account.credit() == (10, 1_000)
    for part in parts:
        account.add(part)
    account.came(6, 400)
    assert account.credit() == (4, 300)
    parts[0].under_way = (9, 0)
    account.came(6, 700)
    assert account.credit() == (0, 0)


def test_accounts_are_kept_only_where_there_are_limits() -> None:
    alice, bob = Principal("alice"), Principal("bob")
    assert Accounts(Limits()).of(alice) is None
    accounts = Accounts(Limits(messages_per_second_per_principal=1))
    assert accounts.of(alice) is accounts.of(alice) is not accounts.of(bob)


def test_an_account_is_held_to_the_limits_that_its_principal_has_now() -> None:
    accounts = Accounts(Limits(bytes_under_way_per_principal=100))
    account = accounts.of(Principal("alice", limits={"messages_under_way": 1, "bytes_under_way": 0}))
    assert account is not None
    account.require_room(1_000)
    account.carry(1, 1_000)
    with pytest.raises(LimitExceededError, match="messages_under_way_per_principal is 1"):
        account.require_room(0)
    assert accounts.of(Principal("alice")) is account
    with pytest.raises(LimitExceededError, match="bytes_under_way_per_principal is 100"):
        account.require_room(0)


def test_who_has_own_limits_has_an_account_where_others_have_none() -> None:
    accounts = Accounts(Limits())
    assert accounts.of(Principal("alice", limits={"messages_per_second": 1})) is not None
    assert accounts.of(Principal("bob")) is None
    assert accounts.of(Principal("bob", limits={"messages_per_second": 0})) is None
    limited = Accounts(Limits(messages_per_second_per_principal=1))
    assert limited.of(Principal("bob", limits={"messages_per_second": 0})) is None


# -- unary calls -------------------------------------------------------------------------------------------------------


async def test_messages_of_a_principal_that_wait_are_limited_and_others_are_served() -> None:
    async with (
        embedded(believing, messages_under_way_per_principal=3) as daemon,
        as_one(daemon, "bob") as bob,
        as_one(daemon, "alice") as alice,
    ):
        await bob.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id="echo"))
        for number in range(3):
            await bob.send("echo", amount=number, client_id=str(number))
        assert await failure_of(bob.send("echo", amount=3)) == refused("messages_under_way_per_principal", 3, 4)
        sent = await alice.send("echo", amount=4, client_id="hers")
        await bob.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id="echo"))
        assert (await alice.receive("echo", client_id="hers")).message_id == sent
        await bob.send("echo", amount=3)  # Nothing of his waits any more.


async def test_bytes_that_a_principal_leaves_are_limited_until_it_receives_them() -> None:
    async with embedded(believing, bytes_under_way_per_principal=120) as daemon, as_one(daemon, "bob") as bob:
        while True:
            try:
                await bob.send("echo", amount=1, client_id="his")
            except grpc.aio.AioRpcError:
                break
        failure = await failure_of(bob.send("echo", amount=1, client_id="his"))
        assert (failure.reason, failure.detail["name"]) == ("LIMIT_EXCEEDED", "bytes_under_way_per_principal")
        while not isinstance(await received_or_none(bob), type(None)):
            pass
        await bob.send("echo", amount=1, client_id="his")


async def received_or_none(wire: Wire) -> pb.Message | None:
    try:
        return await wire.receive("echo", 0.05, client_id="his")
    except grpc.aio.AioRpcError:
        return None


async def test_calls_that_come_too_fast_are_refused_and_told_when_to_come_again() -> None:
    async with (
        embedded(believing, messages_per_second_per_principal=20) as daemon,
        as_one(daemon, "bob") as bob,
        as_one(daemon, "alice") as alice,
    ):
        calls = [failure_or_none(bob) for _ in range(40)]
        failures = [failure for failure in await asyncio.gather(*calls) if failure is not None]
        assert failures
        for failure in failures:
            assert failure.detail["name"] == "messages_per_second_per_principal"
            assert 0 < failure.detail["retry_after"] <= 1
        await alice.kernels.ListKernels(kernel_pb.ListKernelsRequest())
        await asyncio.sleep(failures[-1].detail["retry_after"])
        await bob.kernels.ListKernels(kernel_pb.ListKernelsRequest())


async def failure_or_none(wire: Wire) -> Failure | None:
    try:
        await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())
    except grpc.aio.AioRpcError as error:
        return read_error(error)
    return None


async def test_the_client_raises_the_error_with_the_time_to_come_again() -> None:
    async with embedded(messages_per_second_per_principal=5) as daemon, connect(daemon.address) as runtime:
        calls = [runtime.fetch_kernel_ids() for _ in range(20)]
        with pytest.raises(LimitExceededError) as refusal:
            await asyncio.gather(*calls)
        assert refusal.value.retry_after is not None
        assert 0 < refusal.value.retry_after <= 1


async def test_a_health_check_is_never_too_fast() -> None:
    async with embedded(messages_per_second_per_principal=1) as daemon, as_one(daemon, "bob") as bob:
        health = health_pb2_grpc.HealthStub(bob.channel)
        for _ in range(5):
            await health.Check(health_pb2.HealthCheckRequest())


async def test_one_call_too_many_of_a_principal_is_refused_and_others_have_room() -> None:
    async with (
        embedded(believing, max_calls=8) as daemon,
        as_one(daemon, "bob") as bob,
        as_one(daemon, "alice") as alice,
    ):
        request = pb.ReceiveRequest(kernel_id="echo", timeout=duration(30.0))
        waiting = [asyncio.ensure_future(bob.messages.Receive(request)) for _ in range(8)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert await failure_of(done.pop()) == refused("max_calls_per_principal", 7, 8)
        await alice.kernels.ListKernels(kernel_pb.ListKernelsRequest())
        for call in waiting:
            call.cancel()


async def test_one_kernel_too_many_of_a_principal_is_refused_and_others_have_room() -> None:
    async with (
        embedded(believing, max_kernels_per_principal=2) as daemon,
        as_one(daemon, "bob") as bob,
        as_one(daemon, "alice") as alice,
    ):
        launched = [await bob.launch("echo") for _ in range(2)]
        assert await failure_of(bob.launch("echo")) == refused("max_kernels_per_principal", 2, 3)
        await alice.launch("echo")
        assert (await failure_of(bob.kernels.Launch(kernel_pb.LaunchRequest(kernel_id="x", kernel_type="nil")))).reason
        await alice.terminate(launched[0])  # Whoever ends it.
        await bob.launch("echo")


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_a_session_is_given_credit_for_as_many_messages_as_may_be_under_way() -> None:
    async with (
        embedded(believing, messages_under_way_per_principal=8) as daemon,
        as_one(daemon, "bob") as bob,
        as_one(daemon, "alice") as alice,
    ):
        await bob.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id="echo"))
        talk, hers = Talk(bob), Talk(alice)
        assert (await talk.open("echo")).credit.messages == 8
        await talk.send(*[Letter(BODY) for _ in range(8)])
        await talk.until_accepted(8)
        assert talk.accepted.credit.messages == 8  # There is no more while they wait.
        assert (await hers.open("echo")).credit.messages == 8
        await bob.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id="echo"))
        await talk.received(8)
        while talk.accepted.credit.messages <= 8:
            await talk.hear("accepted")


async def test_a_client_over_its_rate_is_slowed_down_and_loses_nothing() -> None:
    async with embedded(messages_per_second_per_principal=100) as daemon, connect(daemon.address) as runtime:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(150):
            await runtime.send("echo", Order(number))
        replies = [(await runtime.receive("echo")).amount for _ in range(150)]
        assert replies == [*range(150)]
        assert loop.time() - began >= 0.4  # A hundred at once, and the others at a hundred in a second.


async def test_a_stream_over_its_rate_is_slowed_down_and_loses_nothing() -> None:
    async with embedded(messages_per_second_per_principal=50) as daemon, as_one(daemon, "bob") as bob:
        loop = asyncio.get_running_loop()
        began = loop.time()
        method: Any = bob.channel.stream_stream("/shop.v1.Echo/Stream")
        call = method()
        for _ in range(75):
            await call.write(BODY)
        await call.done_writing()
        assert [reply async for reply in call] == [BODY] * 75
        assert loop.time() - began >= 0.4


async def test_many_sessions_of_one_principal_have_together_what_one_has() -> None:
    async with embedded(believing, messages_under_way_per_principal=8) as daemon, AsyncExitStack() as stack:
        for number in range(4):
            bob = await stack.enter_async_context(as_one(daemon, "bob"))
            assert (await Talk(bob).open("echo")).credit.messages == 8 // (number + 1)
