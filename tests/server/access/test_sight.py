"""What is hidden from a principal: kernels outside of its patterns, in every list and in every answer."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from pydotcompute import message
from pydotcompute.access.roles import Grant, Role
from pydotcompute.exceptions import (
    KernelFailedError,
    KernelNotFoundError,
    NotPermittedError,
)
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute.v1 import dead_letter_service_pb2 as dead_letter_pb
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.wire.errors import from_status
from tests.server.access.guarded import As, Guarded, about, guarded, outcome
from tests.stubs import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

HIDDEN = ("vault/1", "sensors", "Sensors/1", "sensors\n/1", "xsensors/1", "never-was", "sensor/1", "echo", "secret")
"""Ids that the pattern `sensors/*` does not match. Kernels of some of them exist."""
OWN = ("Client", "DeadLetter", "Kernel", "Message", "Server", "Telemetry")
"""The daemon's own services."""
CARD = "card 4111-1111 of alice"


@message(package="vault.v1")
class Gold:
    """What only some may know of."""

    weight: int = 0


async def secret(ctx: KernelContext[Gold, Gold]) -> None:
    async for gold in ctx:
        raise ValueError(f"{CARD}, {gold.weight}")


@message(package="vault.v1")
class Visitor:
    """What anybody may know of, in the same package."""

    name: str = ""


async def lobby(ctx: KernelContext[Visitor, Visitor]) -> None:
    async for visitor in ctx:
        await ctx.send(visitor)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    """A daemon with visible and hidden kernels."""
    grants = {
        "viewer": Grant(Role.VIEWER, ("sensors/*",)),
        "caller": Grant(Role.CALLER, ("sensors/*",)),
        "operator": Grant(Role.OPERATOR, ("sensors/*",), ("echo",)),
        "typeless": Grant(Role.OPERATOR, ("new/*",)),
        "all": Grant(Role.OPERATOR),
    }
    vault = KernelType("secret", secret, RingKernelConfig("secret"), Gold, Gold)
    kernels = ("sensors/1", "vault/1", "sensors/a/b")
    async with guarded(tmp_path_factory.mktemp("access"), grants, kernels=kernels, kernel_types=[vault]) as daemon:
        whole = daemon.by("all")
        await whole.kernels.Launch(pb.LaunchRequest(kernel_id="vault/2", kernel_type="secret"))
        await whole.kernels.Activate(pb.ActivateRequest(kernel_id="vault/2"))
        yield daemon


async def test_kernels_are_listed_that_one_may_see(daemon: Guarded) -> None:
    async def listed(who: str) -> tuple[list[str], int]:
        page = await daemon.by(who).kernels.ListKernels(pb.ListKernelsRequest())
        return [kernel.kernel_id for kernel in page.kernels], page.total_size

    assert await listed("viewer") == (["sensors/1", "sensors/a/b"], 2)
    assert await listed("typeless") == ([], 0)
    assert (await listed("all"))[1] == 4


async def test_types_are_listed_of_which_one_may_see_a_kernel_or_launch_one(daemon: Guarded) -> None:
    async def listed(who: str) -> tuple[list[str], int]:
        page = await daemon.by(who).kernels.ListKernelTypes(pb.ListKernelTypesRequest())
        return [each.name for each in page.kernel_types], page.total_size

    assert await listed("viewer") == (["echo"], 1)
    assert await listed("operator") == (["echo"], 1)
    assert await listed("typeless") == ([], 0)
    assert await listed("all") == (["echo", "secret"], 2)


@pytest.mark.parametrize("who", ["viewer", "caller", "operator"])
async def test_a_hidden_kernel_is_as_unknown_as_one_that_never_was(daemon: Guarded, who: str) -> None:
    by = daemon.by(who)
    for kernel_id in HIDDEN:
        expected = KernelNotFoundError(kernel_id, ["sensors/*"])
        for call in [
            by.kernels.DescribeKernel(about(kernel_id)),
            by.telemetry.GetTelemetry(telemetry_pb.GetTelemetryRequest(kernel_ids=["sensors/1", kernel_id])),
            first_of(by.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest(kernel_ids=[kernel_id]))),
        ]:
            assert await outcome(call) == expected
        if who != "viewer":
            for call in [
                by.messages.Send(message_pb.SendRequest(kernel_id=kernel_id)),
                by.messages.Receive(message_pb.ReceiveRequest(kernel_id=kernel_id)),
                by.messages.Ask(message_pb.AskRequest(kernel_id=kernel_id)),
                by.messages.Acknowledge(message_pb.AcknowledgeRequest(kernel_id=kernel_id)),
                first_of(exchange(by, kernel_id)),
            ]:
                assert await outcome(call) == expected
        if who == "operator":
            for call in [
                by.kernels.Terminate(pb.TerminateRequest(kernel_id=kernel_id)),
                by.kernels.Deactivate(pb.DeactivateRequest(kernel_id=kernel_id)),
                by.dead_letters.ListDeadLetters(dead_letter_pb.ListDeadLettersRequest(kernel_id=kernel_id)),
            ]:
                assert await outcome(call) == expected


async def test_an_unknown_kernel_that_one_may_know_of_tells_no_other_ids(daemon: Guarded) -> None:
    error = await outcome(daemon.by("viewer").kernels.DescribeKernel(about("sensors/9")))
    assert error == KernelNotFoundError("sensors/9", ["sensors/*"])


async def test_a_launch_outside_of_ones_patterns_says_the_same_whether_the_kernel_exists(daemon: Guarded) -> None:
    launch = daemon.by("operator").kernels.Launch
    for kernel_id in ("vault/1", "vault/9"):
        error = await outcome(launch(pb.LaunchRequest(kernel_id=kernel_id, kernel_type="echo")))
        assert error == NotPermittedError("operator", "KernelService/Launch", "operator", kernel_id)


async def test_kernels_are_launched_of_types_that_one_was_given(daemon: Guarded) -> None:
    by = daemon.by("operator").kernels
    await by.Launch(pb.LaunchRequest(kernel_id="sensors/new", kernel_type="echo"))
    await by.Terminate(pb.TerminateRequest(kernel_id="sensors/new"))
    for hidden in ("secret", "never-was"):
        error = await outcome(by.Launch(pb.LaunchRequest(kernel_id="sensors/new", kernel_type=hidden)))
        assert error == KernelNotFoundError(hidden, ["sensors/*"])
    typeless = daemon.by("typeless").kernels.Launch(pb.LaunchRequest(kernel_id="new/1", kernel_type="echo"))
    assert await outcome(typeless) == KernelNotFoundError("echo", ["new/*"])


async def test_telemetry_is_of_the_kernels_that_one_may_see(daemon: Guarded) -> None:
    """Also of those who watch all kernels at the same interval, and see different ones."""
    watches = {
        who: daemon.by(who).telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest()) for who in daemon.secrets
    }
    seen = {}
    for who, watch in watches.items():
        seen[who] = {kernel.kernel_id for kernel in (await watch.read()).kernels}
        watch.cancel()
    assert seen["viewer"] == {"sensors/1", "sensors/a/b"}
    assert seen["typeless"] == set()
    assert seen["all"] >= {"sensors/1", "sensors/a/b", "vault/1", "vault/2"}
    at_once = await daemon.by("viewer").telemetry.GetTelemetry(telemetry_pb.GetTelemetryRequest())
    assert {kernel.kernel_id for kernel in at_once.kernels} == {"sensors/1", "sensors/a/b"}


async def test_health_is_of_what_one_may_see(daemon: Guarded) -> None:
    health: Any = health_pb2_grpc.HealthStub(daemon.channel)

    async def statuses(who: str) -> set[str]:
        listed = await health.List(health_pb2.HealthListRequest(), metadata=daemon.by(who).metadata)
        return {name for name in listed.statuses if "v1" not in name or "vault" in name or "shop" in name}

    assert await statuses("viewer") == {"", "sensors/1", "sensors/a/b", "shop.v1.Echo"}
    assert await statuses("typeless") == {""}
    assert await statuses("all") >= {"vault/1", "vault.v1.Secret"}
    for hidden in ("vault/1", "vault.v1.Secret", "never-was"):
        request = health_pb2.HealthCheckRequest(service=hidden)
        metadata = daemon.by("viewer").metadata
        assert await outcome(health.Check(request, metadata=metadata)) == KernelNotFoundError(hidden, ["sensors/*"])
        watch = health.Watch(request, metadata=metadata)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


async def reflected(daemon: Guarded, who: str, **request: str) -> Any:
    """What reflection answers to a principal."""
    method: Any = daemon.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = method(iter([reflection_pb2.ServerReflectionRequest(**request)]), metadata=daemon.by(who).metadata)
    answer = await call.read()
    call.cancel()
    answer.ClearField("original_request")
    return answer


async def services_reflected(daemon: Guarded, who: str) -> set[str]:
    """The services that reflection lists to a principal, but for gRPC's own."""
    answer = await reflected(daemon, who, list_services="")
    return {each.name for each in answer.list_services_response.service if not each.name.startswith("grpc.")}


async def test_reflection_tells_of_the_types_that_one_may_see(daemon: Guarded) -> None:
    ask = partial(reflected, daemon)
    services = partial(services_reflected, daemon)
    everywhere = {f"pydotcompute.v1.{name}Service" for name in OWN}
    assert await services("viewer") == everywhere | {"shop.v1.Echo"}
    assert await services("typeless") == everywhere
    assert await services("all") == everywhere | {"shop.v1.Echo", "vault.v1.Secret"}
    for symbol in ("vault.v1.Gold", "vault.v1.Secret", "vault.v1.Secret.Ask"):
        assert (await ask("all", file_containing_symbol=symbol)).HasField("file_descriptor_response")
        hidden = await ask("viewer", file_containing_symbol=symbol)
        never_was = await ask("viewer", file_containing_symbol="never.v1.Was")
        assert str(hidden).replace(symbol, "never.v1.Was") == str(never_was)
    assert (await ask("viewer", file_containing_symbol="shop.v1.Order")).HasField("file_descriptor_response")
    [file, *_] = (
        await ask("all", file_containing_symbol="vault.v1.Gold")
    ).file_descriptor_response.file_descriptor_proto
    name = FileDescriptorProto.FromString(file).name
    assert (await ask("all", file_by_filename=name)).HasField("file_descriptor_response")
    assert (await ask("viewer", file_by_filename=name)).HasField("error_response")


async def test_reflection_hides_a_type_in_the_package_of_one_that_it_shows(tmp_path: Path) -> None:
    kernel_types = [
        KernelType("secret", secret, RingKernelConfig("secret"), Gold, Gold),
        KernelType("lobby", lobby, RingKernelConfig("lobby"), Visitor, Visitor),
    ]
    grants = {"viewer": Grant(Role.VIEWER, ("lobby*",)), "keeper": Grant(Role.VIEWER, ("secret",))}
    grants["all"] = Grant(Role.VIEWER)

    async with guarded(tmp_path, grants, kernel_types=kernel_types) as daemon:

        async def declared(who: str, symbol: str) -> set[str]:
            """All messages and services in the files that declare a symbol."""
            answer = await reflected(daemon, who, file_containing_symbol=symbol)
            parsed = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
            files = [file for file in parsed if file.package == "vault.v1"]
            assert len(files) == 1
            again = await reflected(daemon, who, file_by_filename=files[0].name)
            assert FileDescriptorProto.FromString(again.file_descriptor_response.file_descriptor_proto[0]) == files[0]
            return {each.name for each in files[0].message_type} | {each.name for each in files[0].service}

        # Whoever sees more asks first, so that nothing is shown again that was made for them.
        assert await declared("all", "vault.v1.Visitor") == {"Gold", "Secret", "Visitor", "Lobby"}
        assert await declared("viewer", "vault.v1.Visitor") == {"Visitor", "Lobby"}
        assert await declared("viewer", "vault.v1.Lobby.Ask") == {"Visitor", "Lobby"}
        assert await declared("keeper", "vault.v1.Gold") == {"Gold", "Secret"}
        never_was = str(await reflected(daemon, "viewer", file_containing_symbol="vault.v1.Never"))
        for symbol in ("vault.v1.Gold", "vault.v1.Secret", "vault.v1.Secret.Ask", "vault.v1.Gold.weight"):
            hidden = str(await reflected(daemon, "viewer", file_containing_symbol=symbol))
            assert hidden.replace(symbol, "vault.v1.Never") == never_was
        assert "vault.v1.Secret" not in await services_reflected(daemon, "viewer")
        assert "vault.v1.Lobby" in await services_reflected(daemon, "viewer")


@pytest.mark.parametrize("who", ["viewer", "caller", "typeless"])
async def test_a_service_of_a_hidden_type_is_as_unknown_as_one_that_never_was(daemon: Guarded, who: str) -> None:
    async def refused(service: str) -> tuple[Any, set[str]]:
        ask: Any = daemon.channel.unary_unary(f"/{service}/Ask")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ask(b"", metadata=daemon.by(who).metadata)
        words = str(failed.value.details()).replace(f"'{service}'", "").replace(",", " ").split()
        return failed.value.code(), set(words)

    hidden, never_was = await refused("vault.v1.Secret"), await refused("vault.v1.Secrex")
    assert hidden == never_was
    assert hidden[0] is grpc.StatusCode.UNIMPLEMENTED
    assert "vault.v1.Secret" not in hidden[1]


async def test_the_text_of_a_failure_is_for_operators(tmp_path: Path) -> None:
    vault = KernelType("secret", secret, RingKernelConfig("secret"), Gold, Gold)
    grants = {"caller": Grant(Role.CALLER), "operator": Grant(Role.OPERATOR)}
    async with guarded(tmp_path, grants, kernels=(), kernel_types=[vault]) as daemon:
        by = daemon.by("operator")
        await by.kernels.Launch(pb.LaunchRequest(kernel_id="secret"))
        await by.kernels.Activate(pb.ActivateRequest(kernel_id="secret"))
        ask: Any = daemon.channel.unary_unary("/vault.v1.Secret/Ask")
        daemon.daemon._runtime.kernel("secret").mail.counters.last_crash = f"LinkError: {CARD}"
        told = [await outcome(ask(b"", metadata=daemon.by("caller").metadata))]
        told += [from_status(await closed(exchange(daemon.by("caller"), "secret")))]
        for error in told:
            assert isinstance(error, KernelFailedError)
            assert (error.cause_type, CARD in str(error)) == ("ValueError", False)
        [seen] = (await daemon.by("caller").kernels.ListKernels(pb.ListKernelsRequest())).kernels
        assert seen.failure.startswith("ValueError: ")
        assert CARD not in seen.failure
        assert seen.last_crash == "LinkError"
        for who, full in (("caller", False), ("operator", True)):
            [told_of] = (await daemon.by(who).telemetry.GetTelemetry(telemetry_pb.GetTelemetryRequest())).kernels
            assert ((CARD in told_of.last_crash), (CARD in told_of.last_error)) == (full, full)
        [seen] = (await by.kernels.ListKernels(pb.ListKernelsRequest())).kernels
        assert CARD in seen.failure
        error = await outcome(ask(b"", metadata=by.metadata))
        assert isinstance(error, KernelFailedError)
        assert CARD in error.cause_message
        letters = dead_letter_pb.ListDeadLettersRequest(kernel_id="secret")
        refused = await outcome(daemon.by("caller").dead_letters.ListDeadLetters(letters))
        assert isinstance(refused, NotPermittedError)
        assert len((await by.dead_letters.ListDeadLetters(letters)).dead_letters) == 1


def exchange(by: As, kernel_id: str) -> Any:
    """A stream that asks for a session with a kernel."""
    opening = message_pb.ExchangeRequest(open=message_pb.Open(kernel_id=kernel_id))
    opening.open.credit.messages = opening.open.credit.bytes = 1_000

    async def frames() -> AsyncIterator[message_pb.ExchangeRequest]:
        yield opening
        await asyncio.Event().wait()

    return by.messages.Exchange(frames())


async def closed(call: Any) -> status_pb2.Status:
    """Why a session takes no messages."""
    async with asyncio.timeout(PATIENCE):
        while (kind := (frame := await call.read()).WhichOneof("frame")) not in ("closed", "bye"):
            pass
        call.cancel()
        status: status_pb2.Status = getattr(frame, kind).status
        return status


async def first_of(call: Any) -> Any:
    """The first answer of a stream."""
    async with asyncio.timeout(PATIENCE):
        answer = await call.read()
        call.cancel()
        return answer


async def test_a_list_that_goes_on_ends_when_other_kernels_are_hidden(tmp_path: Path) -> None:
    def rules(kernels: str) -> str:
        return f'[[grants]]\nprincipals = ["alice", "bob"]\nrole = "viewer"\nkernels = ["{kernels}"]\n'

    async with guarded(tmp_path, {"alice": None}, rules("*"), kernels=("echo", "vault/1")) as daemon:
        watch = daemon.by("alice").telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
        assert len((await watch.read()).kernels) == 2
        daemon.rules.write_text(rules("echo"))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async with asyncio.timeout(PATIENCE):
                await read_all(watch)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        watch = daemon.by("alice").telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
        assert [each.kernel_id for each in (await watch.read()).kernels] == ["echo"]
        watch.cancel()


async def read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_what_is_said_in_bye_tells_no_ids_either(daemon: Guarded) -> None:
    """A client may ask for errors in the frame `bye`, which comes before the status of the call."""
    opening = message_pb.ExchangeRequest(open=message_pb.Open(kernel_id="sensors/9", error_in_bye=True))

    async def frames() -> AsyncIterator[message_pb.ExchangeRequest]:
        yield opening

    call = daemon.by("caller").messages.Exchange(frames())
    frame = await first_of(call)
    assert from_status(frame.bye.status) == KernelNotFoundError("sensors/9", ["sensors/*"])
