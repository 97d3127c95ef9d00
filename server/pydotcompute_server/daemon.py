"""The daemon's life: start, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.lifecycle import KernelState, RingKernel
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import (
    errors_pb2,
    kernel_service_pb2,
    kernel_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
    telemetry_service_pb2,
    telemetry_service_pb2_grpc,
)
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.interceptor import ErrorInterceptor
from pydotcompute_server.kernels import KernelServicer
from pydotcompute_server.messages import MessageServicer
from pydotcompute_server.reflection import add_reflection
from pydotcompute_server.telemetry import TelemetryServicer

__all__ = ["Daemon", "ListenError", "Settings"]

FRAME_OVERHEAD_BYTES = 1 << 20
"""What a frame may be longer than the longest message in it."""

logger = logging.getLogger(__name__)


class ListenError(Exception):
    """The address cannot be listened on."""


@dataclass(frozen=True)
class Settings:
    """What the command line and the environment say."""

    listen: str = "127.0.0.1:50051"
    """HOST:PORT, or unix:PATH; port 0 is any free port."""
    launch: Sequence[str] = ()
    """Kernel types to launch and activate at start; `all` is every one."""
    grace: float = 10.0
    """Seconds that kernels, and then calls, have to finish when the daemon ends."""
    max_message_bytes: int = 64 << 20
    """The longest body of a message."""
    tls_certificate: Path | None = None
    """PEM file of the certificate chain; without one the daemon speaks plain text."""
    tls_key: Path | None = None
    """PEM file of the certificate's key."""
    tls_client_ca: Path | None = None
    """PEM file of the authority whose certificates clients must present."""

    def credentials(self) -> grpc.ServerCredentials | None:
        """What TLS needs; None for plain text. OSError if a file cannot be read."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        client_ca = None if self.tls_client_ca is None else self.tls_client_ca.read_bytes()
        pair = (self.tls_key.read_bytes(), self.tls_certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)


class Daemon:
    """One runtime behind one gRPC server.

    Raises (from `start`):
        ListenError: the address is taken, or none of this machine.
        PyDotComputeError: a kernel of `settings.launch` cannot be launched.
    """

    def __init__(self, settings: Settings, kernel_types: Mapping[str, KernelType]) -> None:
        self._settings = settings
        self._runtime = RingKernelRuntime(kernel_types=kernel_types)
        self._catalog = Catalog()
        for kernel_type in kernel_types.values():
            self._catalog.add(kernel_type)
        self._health = health.aio.HealthServicer()
        self._health_changes: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        self._messages = MessageServicer(self._runtime, self._catalog, settings.max_message_bytes)
        self._stop = asyncio.Event()
        self.address = settings.listen
        """Where the daemon listens, with the port that was chosen."""

    async def start(self) -> None:
        """Listen, and launch what the settings name."""
        self._server = self._make_server()
        self._runtime.on_state(self._kernel_changed)
        await self._runtime.start()
        names = list(self._runtime.kernel_types) if "all" in self._settings.launch else self._settings.launch
        for name in names:
            await self._runtime.launch(name)
            await self._runtime.activate(name)
        await self._server.start()

    def _make_server(self) -> grpc.aio.Server:
        longest = self._settings.max_message_bytes + FRAME_OVERHEAD_BYTES
        server = grpc.aio.server(
            interceptors=[ErrorInterceptor()],
            options=[
                ("grpc.max_receive_message_length", longest),
                ("grpc.max_send_message_length", longest),
                ("grpc.so_reuseport", 0),  # Otherwise a second daemon on the same port would start, and take half the calls.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
            ],
        )
        kernel_service_pb2_grpc.add_KernelServiceServicer_to_server(KernelServicer(self._runtime, self._catalog), server)
        message_service_pb2_grpc.add_MessageServiceServicer_to_server(self._messages, server)
        telemetry_service_pb2_grpc.add_TelemetryServiceServicer_to_server(TelemetryServicer(self._runtime), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        files = (kernel_service_pb2, message_service_pb2, telemetry_service_pb2, errors_pb2, health_pb2)
        add_reflection(server, [file.DESCRIPTOR for file in files], self._catalog.pool)
        listen = self._settings.listen
        try:
            credentials = self._settings.credentials()
            port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
        except (OSError, RuntimeError) as error:
            raise ListenError(f"cannot listen on {listen}: {error}") from error
        if not listen.startswith("unix:"):
            self.address = f"{listen.rpartition(':')[0]}:{port}"
        return server

    def _kernel_changed(self, kernel: RingKernel[Any, Any]) -> None:
        serving = kernel.state in (KernelState.ACTIVE, KernelState.DEACTIVATED)
        logger.info("%s", kernel.state.name, extra={"kernel_id": kernel.kernel_id})
        self._health_changes.put_nowait((kernel.kernel_id, serving))

    async def _report_health(self) -> None:
        status = health_pb2.HealthCheckResponse
        while True:
            kernel_id, serving = await self._health_changes.get()
            await self._health.set(kernel_id, status.SERVING if serving else status.NOT_SERVING)

    def stop(self) -> None:
        """Ask the daemon to end."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; then finish what is under way, within twice the grace period."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with asyncio.TaskGroup() as group:
            health = group.create_task(self._report_health())
            await self._stop.wait()
            logger.info("draining", extra={"grace_seconds": self._settings.grace})
            await self._health.enter_graceful_shutdown()
            await self._drain()
            health.cancel()
        logger.info("stopped")

    async def _drain(self) -> None:
        """Let the kernels finish what they were sent, end them, and let the clients have what is theirs."""
        grace = self._settings.grace
        kernels = [self._runtime.kernel(kernel_id) for kernel_id in self._runtime.kernel_ids]
        async with asyncio.TaskGroup() as group:
            for kernel in kernels:
                group.create_task(kernel.wait_idle(grace))
        await self._runtime.shutdown(grace)
        await self._messages.farewell(grace)
        await self._server.stop(grace)
