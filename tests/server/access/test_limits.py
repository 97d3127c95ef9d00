"""The limits that the file of roles has for a role, or for some principals."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2

from pydotcompute.access.roles import Grant, Role
from pydotcompute.exceptions import LimitExceededError, PyDotComputeError
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute_client import RemoteRuntime, connect
from pydotcompute_server import Limits
from pydotcompute_server.access.rules import read_rules
from tests.embedded import Order
from tests.server.access.guarded import As, Guarded, bearer, guarded, outcome
from tests.stubs import PATIENCE, Letter, Talk

GRANTS = """
[[grants]]
principals = ["*"]
role = "caller"

[[grants]]
principals = ["olga"]
role = "operator"
"""
FEW = """
[[limits]]
principals = ["batch*"]
messages_per_second = 5

[[limits]]
role = "operator"
messages_per_second = 1_000
"""
BODY = b"\x08\x05"
NAMES = dict.fromkeys(("batch", "carl", "olga"))


@asynccontextmanager
async def connected(daemon: Guarded, name: str) -> AsyncIterator[RemoteRuntime]:
    """The Python client, as this principal uses it."""
    async with connect(daemon.daemon.address, token=daemon.secrets[name]) as runtime:
        yield runtime


async def refused_of(runtime: RemoteRuntime, count: int) -> list[LimitExceededError]:
    """How many of so many calls at once are refused because they are too many."""
    calls = (runtime.fetch_kernel_ids() for _ in range(count))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return [each for each in outcomes if isinstance(each, LimitExceededError)]


def test_of_each_limit_the_first_table_counts_that_fits_and_has_it() -> None:
    rules = read_rules(
        """
        [[limits]]
        principals = ["batch/1"]
        messages_per_second = 0

        [[limits]]
        principals = ["batch/*"]
        role = "caller"
        messages_per_second = 10
        bytes_under_way = 100

        [[limits]]
        role = "caller"
        bytes_under_way = 200
        messages_under_way = 3
        """
    )
    assert rules.limits_of("batch/1", Role.CALLER) == {
        "messages_per_second": 0,
        "bytes_under_way": 100,
        "messages_under_way": 3,
    }
    assert rules.limits_of("batch/1", Role.OPERATOR) == {"messages_per_second": 0}
    assert rules.limits_of("batch/2", None) == {}
    assert rules.limits_of("carl", Role.CALLER) == {"bytes_under_way": 200, "messages_under_way": 3}


def test_limits_for_all_names_are_not_those_of_anonymous() -> None:
    rules = read_rules('[[limits]]\nprincipals = ["*"]\nmessages_per_second = 1')
    assert rules.limits_of("carl", None)
    assert not rules.limits_of("anonymous", None)


async def test_each_has_the_limits_of_its_name_or_role_and_others_the_daemons(tmp_path: Path) -> None:
    limits = Limits(grace=1.0, messages_per_second_per_principal=20)
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(guarded(tmp_path, NAMES, GRANTS + FEW, limits=limits))
        by = {name: await stack.enter_async_context(connected(daemon, name)) for name in NAMES}
        refused = {name: await refused_of(each, 100) for name, each in by.items()}
        assert [bool(refused[name]) for name in NAMES] == [True, True, False]
        assert {(each.name, each.limit) for each in refused["batch"]} == {("messages_per_second_per_principal", 5)}
        assert {each.limit for each in refused["carl"]} == {20}
        assert not refused["olga"]
        assert all(each.retry_after for each in refused["batch"])


async def test_without_limits_of_the_daemon_only_those_in_the_file_are_limited(tmp_path: Path) -> None:
    async with (
        guarded(tmp_path, NAMES, GRANTS + FEW) as daemon,
        connected(daemon, "batch") as batch,
        connected(daemon, "carl") as carl,
    ):
        assert await refused_of(batch, 50)
        assert not await refused_of(carl, 50)


async def test_the_role_of_a_token_counts_where_it_has_one(tmp_path: Path) -> None:
    grants = {"olga": Grant(Role.OPERATOR), "carl": Grant(Role.CALLER)}
    rules = '[[limits]]\nrole = "caller"\nmessages_per_second = 5'
    async with (
        guarded(tmp_path, grants, rules) as daemon,
        connected(daemon, "olga") as olga,
        connected(daemon, "carl") as carl,
    ):
        assert await refused_of(carl, 50)
        assert not await refused_of(olga, 50)


async def test_messages_of_a_session_are_held_back_at_the_limit_of_its_principal(tmp_path: Path) -> None:
    rules = GRANTS + '[[limits]]\nprincipals = ["batch"]\nmessages_under_way = 8'
    async with guarded(tmp_path, NAMES, rules) as daemon:
        await daemon.by("olga").kernels.Deactivate(pb.DeactivateRequest(kernel_id="echo"))
        talk = Talk(daemon.by("batch"))
        assert (await talk.open("echo")).credit.messages == 8
        hers = Talk(daemon.by("carl"))
        assert (await hers.open("echo")).credit.messages > 8
        await talk.send(*[Letter(BODY) for _ in range(8)])
        await talk.until_accepted(8)
        body = any_pb2.Any(type_url="type.googleapis.com/shop.v1.Order", value=BODY)
        send = message_pb.SendRequest(kernel_id="echo", message=message_pb.Message(body=body))
        error = await outcome(daemon.by("batch").messages.Send(send))
        assert isinstance(error, LimitExceededError)
        assert (error.name, error.limit) == ("messages_under_way_per_principal", 8)
        assert await outcome(daemon.by("carl").messages.Send(send)) is None


async def test_a_changed_file_counts_from_the_next_call_on(tmp_path: Path) -> None:
    async with (
        guarded(tmp_path, NAMES, GRANTS) as daemon,
        connected(daemon, "batch") as batch,
    ):
        assert not await refused_of(batch, 50)
        daemon.rules.write_text(GRANTS + FEW)
        async with asyncio.timeout(PATIENCE):
            while not (refused := await refused_of(batch, 50)):
                pass  # The daemon looks at the file once a second.
        assert refused[0].limit == 5
        daemon.rules.write_text(GRANTS + FEW.replace("= 5", "= 0"))
        daemon.daemon.reload()
        assert not await refused_of(batch, 50)


async def test_a_session_that_goes_on_is_held_to_the_limits_of_the_next_call(tmp_path: Path) -> None:
    slow = GRANTS + '[[limits]]\nprincipals = ["batch"]\nmessages_per_second = 5'
    async with guarded(tmp_path, NAMES, slow) as daemon, connected(daemon, "batch") as batch:
        await batch.send("echo", Order(0))
        await batch.receive("echo")
        daemon.rules.write_text(GRANTS)
        daemon.daemon.reload()
        await outcome(daemon.by("batch").kernels.ListKernels(pb.ListKernelsRequest()))
        async with asyncio.timeout(PATIENCE):  # At 5 in a second this would take twice as long.
            for number in range(300):
                await batch.send("echo", Order(number))
                assert (await batch.receive("echo")).amount == number


COUNTS = (
    GRANTS
    + """
[[limits]]
principals = ["batch"]
max_calls = 2
max_connections = 1
max_sessions = 1

[[limits]]
role = "operator"
max_kernels = 1
max_watchers = 1
"""
)


async def watching(daemon: Guarded, name: str, stack: AsyncExitStack) -> PyDotComputeError | None:
    """Begin a call that goes on until the end of the stack; the error with which it is refused instead."""
    call = daemon.by(name).telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
    stack.callback(call.cancel)
    return await outcome(call.read())


async def test_a_principal_or_a_role_may_have_other_counts_than_the_daemons(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(guarded(tmp_path, NAMES, COUNTS))
        launch, refused = daemon.by("olga").kernels.Launch, dict[str, Any]()
        await launch(pb.LaunchRequest(kernel_type="echo", kernel_id="a"))
        refused["max_kernels"] = await outcome(launch(pb.LaunchRequest(kernel_type="echo", kernel_id="b")))
        assert await watching(daemon, "olga", stack) is None
        refused["max_watchers"] = await watching(daemon, "olga", stack)
        first, second = Talk(daemon.by("batch")), Talk(daemon.by("batch"))
        await first.open("echo")
        refused["max_sessions"] = await outcome(second.open("echo"))
        assert await watching(daemon, "batch", stack) is None
        refused["max_calls"] = await watching(daemon, "batch", stack)
        assert None not in refused.values(), refused
        for name, error in refused.items():
            most = 2 if name == "max_calls" else 1
            assert isinstance(error, LimitExceededError)
            assert (error.name, error.limit, error.asked) == (f"{name}_per_principal", most, most + 1)
            assert error.retry_after
        assert await watching(daemon, "carl", stack) is None
        assert await watching(daemon, "carl", stack) is None


async def test_calls_over_one_connection_too_many_are_refused_while_others_have_calls(tmp_path: Path) -> None:
    rules = GRANTS + '[[limits]]\nprincipals = ["batch"]\nmax_connections = 1'
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(guarded(tmp_path, NAMES, rules))
        options = (("grpc.use_local_subchannel_pool", 1),)  # A connection of its own.
        another = await stack.enter_async_context(grpc.aio.insecure_channel(daemon.daemon.address, options))
        there = As(another, bearer(daemon.secrets["batch"]))
        listing = pb.ListKernelsRequest()
        assert await outcome(there.kernels.ListKernels(listing)) is None
        watch = daemon.by("batch").telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
        await watch.read()
        error = await outcome(there.kernels.ListKernels(listing))
        assert isinstance(error, LimitExceededError)
        assert (error.name, error.limit, error.asked) == ("max_connections_per_principal", 1, 2)
        assert await outcome(daemon.by("batch").kernels.ListKernels(listing)) is None
        watch.cancel()
        async with asyncio.timeout(PATIENCE):
            while await outcome(there.kernels.ListKernels(listing)) is not None:
                pass  # The daemon hears of the end of the other call a little later.
