"""Tokens, good and bad, at a daemon; and what becomes of a stream when its token is revoked or expires."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from pydotcompute.access.roles import Grant, Role
from pydotcompute.access.token_file import load_tokens, revoke_tokens
from pydotcompute.exceptions import NotAuthenticatedError, NotPermittedError, PyDotComputeError
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute_client import RemoteRuntime, connect
from tests.server.access.guarded import Guarded, bearer, guarded, outcome
from tests.stubs import PATIENCE

VIEWER = Grant(Role.VIEWER)
CALLER = Grant(Role.CALLER)
WRONG = "the token is not valid here: it is wrong, or was revoked"


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(tmp_path, {"alice": CALLER, "bob": CALLER}) as daemon:
        yield daemon


async def error_of(daemon: Guarded, *metadata: tuple[str, str]) -> PyDotComputeError | None:
    """The error of a call with these metadata."""
    method: Any = daemon.channel.unary_unary(
        "/pydotcompute.v1.KernelService/ListKernels", pb.ListKernelsRequest.SerializeToString
    )
    return await outcome(method(pb.ListKernelsRequest(), metadata=metadata))


async def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(daemon: Guarded) -> None:
    alice, bob = daemon.secrets["alice"], daemon.secrets["bob"]
    assert await error_of(daemon, *bearer(alice)) is None
    wrong = {
        "truncated": alice[:-1],
        "longer": alice + "A",
        "with another's secret": alice[:13] + bob[13:],
        "with one character changed": alice[:-1] + ("A" if alice[-1] != "A" else "B"),
        "of an unknown id": "pdc_00000000_" + alice[13:],
        "the id alone": alice[:12],
        "no token at all": "hello",
        "a hash": load_tokens(daemon.tokens)[alice[4:12]].sha256,
        "not ASCII, as far as gRPC lets it through": "~" * 60,
        "empty": "",
    }
    for what, secret in wrong.items():
        assert await error_of(daemon, *bearer(secret)) == NotAuthenticatedError(WRONG), what


async def test_the_scheme_of_a_token_is_bearer_in_any_case(daemon: Guarded) -> None:
    secret = daemon.secrets["alice"]
    assert await error_of(daemon, ("authorization", f"bearer {secret}")) is None
    assert await error_of(daemon, ("authorization", f"BEARER  {secret} ")) is None
    for value in (f"Basic {secret}", secret, ""):
        error = await error_of(daemon, ("authorization", value))
        assert error == NotAuthenticatedError("the header `authorization` is not of the form `Bearer TOKEN`")
    error = await error_of(daemon, *bearer(secret), *bearer(secret))
    assert error == NotAuthenticatedError("the call has several headers `authorization`")


async def test_a_token_that_has_expired_says_so_to_whoever_has_it(daemon: Guarded) -> None:
    token_id = daemon.give("eve", CALLER, datetime.now(UTC) - timedelta(seconds=1))
    daemon.daemon.reload()
    assert await error_of(daemon, *bearer(daemon.secrets["eve"])) == NotAuthenticatedError(
        f"the token {token_id} of 'eve' has expired"
    )
    forged = daemon.secrets["eve"][:-1] + ("A" if daemon.secrets["eve"][-1] != "A" else "B")
    assert await error_of(daemon, *bearer(forged)) == NotAuthenticatedError(WRONG)


async def test_tokens_are_rotated_without_a_moment_in_which_none_is_valid(daemon: Guarded) -> None:
    old = daemon.secrets["alice"]
    daemon.give("alice", CALLER)
    new = daemon.secrets["alice"]
    async with asyncio.timeout(PATIENCE):
        while await error_of(daemon, *bearer(new)) is not None:  # The daemon looks at the file once a second.
            assert await error_of(daemon, *bearer(old)) is None
            await asyncio.sleep(0.05)
    revoke_tokens(daemon.tokens, {old[4:12]})
    async with asyncio.timeout(PATIENCE):
        while await error_of(daemon, *bearer(old)) is None:
            assert await error_of(daemon, *bearer(new)) is None
            await asyncio.sleep(0.05)
    assert await error_of(daemon, *bearer(old)) == NotAuthenticatedError(WRONG)


async def test_a_broken_file_changes_nothing_and_is_logged(daemon: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    secret = daemon.secrets["alice"]
    whole = daemon.tokens.read_text()
    for broken in ("{", whole[:-20], whole + whole, '{"id": 1}', "\0", "[]"):
        caplog.clear()
        daemon.tokens.write_text(broken)
        daemon.daemon.reload()
        assert await error_of(daemon, *bearer(secret)) is None
        [record] = [each for each in caplog.records if each.levelname == "ERROR"]
        assert "stays as it was" in record.getMessage()
        assert load_hash(whole) not in record.getMessage()
    daemon.tokens.unlink()
    daemon.daemon.reload()
    assert await error_of(daemon, *bearer(secret)) is None
    daemon.tokens.write_text("# nobody\n\n")
    daemon.daemon.reload()
    assert await error_of(daemon, *bearer(secret)) == NotAuthenticatedError(WRONG)


def load_hash(text: str) -> str:
    """The hash in the first line of a file of tokens."""
    return text.split('"sha256": "')[1][:64]


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_stream_ends_when_its_token_does(daemon: Guarded, how: str) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=2) if how == "expired" else None
    token_id = daemon.give("eve", VIEWER, expires)
    daemon.daemon.reload()
    watch = daemon.by("eve").telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
    await watch.read()
    other = daemon.by("alice").telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
    await other.read()
    if how == "revoked":
        revoke_tokens(daemon.tokens, {token_id})
    async with asyncio.timeout(PATIENCE):
        assert await end_of(watch) is grpc.StatusCode.UNAUTHENTICATED
    await other.read()
    other.cancel()


async def test_a_client_whose_token_is_revoked_hears_of_it_in_its_session(daemon: Guarded) -> None:
    async with connect(daemon.daemon.address, token=daemon.secrets["alice"]) as runtime:
        order: Any = (await runtime.describe("echo")).input_type
        assert (await runtime.send_and_receive("echo", order(amount=2), timeout=PATIENCE)).amount == 2
        revoke_tokens(daemon.tokens, {daemon.secrets["alice"][4:12]})

        assert await refusal_of(runtime, order) == NotAuthenticatedError(WRONG)


async def test_a_role_that_is_taken_away_ends_what_needed_it(tmp_path: Path) -> None:
    def rules(role: str) -> str:
        return f'[[grants]]\nprincipals = ["alice"]\nrole = "{role}"\n'

    async with (
        guarded(tmp_path, {"alice": None}, rules("caller")) as daemon,
        connect(daemon.daemon.address, token=daemon.secrets["alice"]) as runtime,
    ):
        order: Any = (await runtime.describe("echo")).input_type
        assert (await runtime.send_and_receive("echo", order(amount=2), timeout=PATIENCE)).amount == 2
        daemon.rules.write_text(rules("viewer"))
        refusal = await refusal_of(runtime, order)
        assert refusal == NotPermittedError("alice", "MessageService/Exchange", "caller")
        assert await runtime.fetch_kernel_ids() == ["echo"], "a viewer may still list kernels"


async def end_of(call: Any) -> grpc.StatusCode:
    """The status with which a stream ends."""
    with suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    code: grpc.StatusCode = await call.code()
    return code


async def refusal_of(runtime: RemoteRuntime, order: type[Any]) -> PyDotComputeError:
    """The error that ends asking again and again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await runtime.send_and_receive("echo", order(amount=3), timeout=PATIENCE)
            except PyDotComputeError as error:
                return error
            await asyncio.sleep(0.05)


# -- the client --------------------------------------------------------------------------------------------------------


async def test_connect_without_a_token_says_what_is_needed(daemon: Guarded) -> None:
    with pytest.raises(NotAuthenticatedError) as refused:
        await connect(daemon.daemon.address).start()
    assert refused.value.role == "viewer"


async def test_connect_takes_a_function_that_returns_the_token(daemon: Guarded) -> None:
    asked = []

    def token() -> str:
        asked.append(1)
        return f" {daemon.secrets['alice']}\n"

    async with connect(daemon.daemon.address, token=token) as runtime:
        assert await runtime.fetch_kernel_ids() == ["echo"]
    assert len(asked) >= 2, "each call has the token that is valid then"


@pytest.mark.parametrize("target", ["10.0.0.1", "gpu1:50051", "dns:///gpu1:50051", "[2001:db8::1]:50051", "127.evil"])
def test_a_token_is_not_sent_as_plain_text_to_another_machine(target: str) -> None:
    with pytest.raises(ValueError, match="plain text"):
        connect(target, token="pdc_x")


@pytest.mark.parametrize("target", ["127.0.0.1", "localhost:1", "[::1]:50051", "unix:/run/x", "dns:///localhost:50051"])
def test_a_token_is_sent_to_this_machine(target: str) -> None:
    connect(target, token="pdc_x")


def test_a_token_goes_to_another_machine_over_tls() -> None:
    connect("gpu1:50051", token="pdc_x", credentials=grpc.ssl_channel_credentials())


@pytest.mark.parametrize("token", ["", " ", "two words", "line\nbreak", "ü"])
def test_what_is_no_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ValueError, match="a token is one word") as refused:
        connect("127.0.0.1", token=token)
    assert not token.strip() or token not in str(refused.value)
