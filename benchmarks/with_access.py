"""What it costs to ask who is calling, without TLS: a daemon that lets everybody do everything and one with tokens and
roles, by turns.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc.aio
from daemon import DAEMON
from in_process import KERNEL
from measure import Metrics, rate_in_flight, serving
from turns import ask, by_turns, piped

from pydotcompute.access.tokens import line_of, new_token
from pydotcompute.v1 import message_service_pb2, message_service_pb2_grpc
from pydotcompute_client import RemoteRuntime, connect

ACCESS = """
[[grants]]
principals = ["*"]
role = "caller"
kernels = ["calc*"]
"""


class Daemon(NamedTuple):
    """A daemon, and the token for it."""

    address: str
    token: str | None


def with_files(folder: Path) -> tuple[str, list[str]]:
    """Writes a file of tokens and one of roles; gives the token, and the options of the daemon."""
    secret, token = new_token("client", None, None)
    tokens, access = folder / "tokens", folder / "access.toml"
    tokens.write_text(f"{line_of(token)}\n")
    access.write_text(ACCESS)
    return secret, [f"--tokens={tokens}", f"--access={access}"]


@asynccontextmanager
async def daemons() -> AsyncIterator[tuple[Daemon, Daemon]]:
    """Two daemons: one that asks nobody who they are, and one that does."""
    with tempfile.TemporaryDirectory() as folder:
        secret, options = with_files(Path(folder))
        with serving(DAEMON) as plain, serving([*DAEMON, *options]) as guarded:
            yield Daemon(plain.address, None), Daemon(guarded.address, secret)


@asynccontextmanager
async def both() -> AsyncIterator[tuple[RemoteRuntime, RemoteRuntime]]:
    """A client of each of the two."""
    async with AsyncExitStack() as stack:
        plain, guarded = await stack.enter_async_context(daemons())
        first = await stack.enter_async_context(connect(plain.address))
        yield first, await stack.enter_async_context(connect(guarded.address, token=guarded.token))


async def unary(daemon: Daemon, seconds: float) -> Metrics:
    """Calls of MessageService.Ask a second, 64 at once."""
    metadata = () if daemon.token is None else (("authorization", f"Bearer {daemon.token}"),)
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        messages = message_service_pb2_grpc.MessageServiceStub(channel)
        request = message_service_pb2.AskRequest(kernel_id=KERNEL)
        request.message.body.type_url = "calculator_kernel.v1.CalculationRequest"  # With an empty body: 0 + 0.

        async def call(_: int) -> None:
            await messages.Ask(request, metadata=metadata)

        return await rate_in_flight(call, seconds, in_flight=64)


async def measure_access_piped(seconds: float) -> Metrics:
    """The rate with access."""
    return await by_turns(both(), piped, "rate", seconds)


async def measure_access_ask(seconds: float) -> Metrics:
    """The latency with access."""
    return await by_turns(both(), ask, "p50_us", seconds)


async def measure_access_unary(seconds: float) -> Metrics:
    """The rate of unary calls with access: each of them is asked."""
    return await by_turns(daemons(), unary, "rate", seconds)
