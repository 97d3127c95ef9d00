"""A daemon that asks who is calling, in the process of the test, on a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from pydotcompute.access.roles import Grant
from pydotcompute.access.tokens import line_of, new_token
from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.v1 import kernel_service_pb2
from pydotcompute.wire.errors import from_rpc_error
from pydotcompute_server import Daemon, Limits, Settings
from tests.embedded import Order, echo
from tests.stubs import PATIENCE, Wire


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with this token."""
    return (("authorization", f"Bearer {secret}"),)


class _WithMetadata:
    """A stub whose calls all have these metadata."""

    def __init__(self, stub: Any, metadata: Any) -> None:
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)
        return lambda *request, **more: method(*request, metadata=self._metadata, **more)


class As(Wire):
    """The daemon's services, as one principal uses them."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Any) -> None:
        super().__init__(channel)
        self.metadata = metadata
        for name in ("kernels", "messages", "telemetry", "dead_letters"):
            setattr(self, name, _WithMetadata(getattr(self, name), metadata))


class Guarded:
    """The daemon, and the tokens of those who use it."""

    daemon: Daemon
    channel: grpc.aio.Channel

    def __init__(self, directory: Path) -> None:
        self.secrets: dict[str, str] = {}
        """The tokens, by the names of their principals."""
        self.rules = directory / "access.toml"
        self.tokens = directory / "tokens"

    def by(self, name: str) -> As:
        """The services, as this principal uses them; for a name without a token, without one."""
        return As(self.channel, bearer(self.secrets[name]) if name in self.secrets else ())

    def give(self, name: str, grant: Grant | None, expires: datetime | None = None) -> str:
        """Add a token to the file; returns its id."""
        secret, token = new_token(name, grant, expires)
        self.secrets[name] = secret
        with self.tokens.open("a") as file:
            print(line_of(token), file=file)
        return token.id


async def outcome(call: Any) -> PyDotComputeError | None:
    """The error with which the call fails; None if it does not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error, "")
    return None


@asynccontextmanager
async def guarded(
    directory: Path,
    grants: Mapping[str, Grant | None] | None = None,
    rules: str | None = None,
    kernels: Iterable[str] = ("echo",),
    kernel_types: Iterable[KernelType] = (),
    **settings: Any,
) -> AsyncIterator[Guarded]:
    """A daemon with tokens that grant this, these rules, and kernels `echo` of these ids."""
    types = {"echo": KernelType("echo", echo, RingKernelConfig("echo"), Order, Order)}
    types |= {each.name: each for each in kernel_types}
    this = Guarded(directory)
    this.tokens.touch()
    for name, grant in (grants or {}).items():
        this.give(name, grant)
    if rules is not None:
        this.rules.write_text(rules)
    files: Any = {
        "tokens": this.tokens,
        "access": None if rules is None else this.rules,
        "limits": Limits(grace=1.0),
        **settings,
    }
    this.daemon = daemon = Daemon(Settings(listen="127.0.0.1:0", **files), types)
    async with asyncio.timeout(PATIENCE):
        await daemon.start()
        for kernel_id in kernels:
            await daemon._runtime.launch(kernel_id, types["echo"])
            await daemon._runtime.activate(kernel_id)
        running = asyncio.create_task(daemon.run())
        try:
            async with grpc.aio.insecure_channel(daemon.address) as channel:
                this.channel = channel
                yield this
        finally:
            daemon.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def about(kernel_id: str) -> kernel_service_pb2.DescribeKernelRequest:
    """A request to describe a kernel."""
    return kernel_service_pb2.DescribeKernelRequest(kernel_id=kernel_id)
