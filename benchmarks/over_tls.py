"""What TLS costs: the same client against a daemon without it and one with certificates of both sides, by turns."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from daemon import DAEMON
from measure import Metrics, serving
from turns import ask, by_turns, piped

from pydotcompute_client import TLS, RemoteRuntime, connect
from pydotcompute_client.authority import Authority


@asynccontextmanager
async def both() -> AsyncIterator[tuple[RemoteRuntime, RemoteRuntime]]:
    """Two clients, each of a daemon of its own: in plain text, and over TLS."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority.make(Path(folder, "authority"))
        authority.issue_server(Path(folder, "server"), ["127.0.0.1"], days=1)
        authority.issue_client(Path(folder, "client"), "client", days=1)
        with serving(DAEMON) as plain, serving([*DAEMON, f"--tls-directory={folder}/server"]) as encrypted:
            tls = TLS.directory(f"{folder}/client")
            async with connect(plain.address) as first, connect(encrypted.address, tls=tls) as second:
                yield first, second


async def measure_tls_piped(seconds: float) -> Metrics:
    """The rate over TLS."""
    return await by_turns(both(), piped, "rate", seconds)


async def measure_tls_ask(seconds: float) -> Metrics:
    """The latency over TLS."""
    return await by_turns(both(), ask, "p50_us", seconds)
