"""The daemon's life: start, serve, drain."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import (
    dead_letter_service_pb2,
    dead_letter_service_pb2_grpc,
    errors_pb2,
    kernel_service_pb2,
    kernel_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
    telemetry_service_pb2,
    telemetry_service_pb2_grpc,
)
from pydotcompute.wire.exchange.frames import LONGEST_FRAME
from pydotcompute.wire.exchange.shared_memory import Segment
from pydotcompute_server.calls.handlers import Handlers
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.exchange.lane import ExchangeLane
from pydotcompute_server.services.dead_letters import DeadLetterServicer
from pydotcompute_server.services.health import HealthService
from pydotcompute_server.services.kernels import KernelServicer
from pydotcompute_server.services.messages import MessageServicer
from pydotcompute_server.services.reflection import add_reflection
from pydotcompute_server.services.telemetry import TelemetryServicer
from pydotcompute_server.typed.service import TypedServices
from pydotcompute_server.unary.lane import UnaryLane

__all__ = ["Daemon", "ListenError", "Settings"]

FRAME_OVERHEAD_BYTES = 2 << 20
"""What a frame may be longer than the longest message in it: other messages, and headers."""
LAST_CALLS_SECONDS = 1.0
"""How long calls have to end once all kernels have: those left are streams that only their clients end."""

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
    """Seconds to finish what is under way when the daemon ends."""
    max_message_bytes: int = 64 << 20
    """The longest body of a message."""
    session_timeout: float = 60.0
    """Seconds that a client's conversation with a kernel lives on when its connection has broken."""
    shared_memory_bytes: int = 0
    """Memory that a client of the same host and user may share, for each conversation and direction; 0 for none."""
    tls_certificate: Path | None = None
    """PEM file of the certificate chain; without one the daemon speaks plain text."""
    tls_key: Path | None = None
    """PEM file of the certificate's key."""
    tls_client_ca: Path | None = None
    """PEM file of the authority whose certificates clients must present."""

    def credentials(self) -> grpc.ServerCredentials | None:
        """What TLS needs; None for plain text. OSError if a file cannot be read, or is not what it should be."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        # gRPC would say what is wrong with the files on stderr alone.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls_certificate, self.tls_key)
        if self.tls_client_ca is not None:
            context.load_verify_locations(self.tls_client_ca)
        client_ca = None if self.tls_client_ca is None else self.tls_client_ca.read_bytes()
        pair = (self.tls_key.read_bytes(), self.tls_certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)


class Daemon:
    """One runtime behind one gRPC server.

    Raises (from `start`):
        ListenError: the address is taken, or none of this machine.
        PyDotComputeError: a kernel of `settings.launch` cannot be launched, or memory cannot be shared.
    """

    def __init__(self, settings: Settings, kernel_types: Mapping[str, KernelType]) -> None:
        self._settings = settings
        self._runtime = RingKernelRuntime(kernel_types=kernel_types, sends_to_host=True)
        self._catalog = Catalog()
        self._catalog.add(*kernel_types.values())
        self._health = HealthService()
        self._health_changes: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        self._unary = UnaryLane(self._runtime, self._catalog, settings.max_message_bytes)
        self._typed = TypedServices(self._runtime, self._catalog, self._unary, settings.max_message_bytes)
        self._exchange = ExchangeLane(
            self._runtime,
            self._catalog,
            settings.max_message_bytes,
            settings.session_timeout,
            settings.shared_memory_bytes,
        )
        self._stop = asyncio.Event()
        self.address = settings.listen
        """Where the daemon listens, with the port that was chosen."""

    async def start(self) -> None:
        """Listen, and launch what the settings name, unless `stop` is called meanwhile."""
        if self._settings.shared_memory_bytes:
            Segment.create(self._settings.shared_memory_bytes).close()  # Better now than at the first client's cost.
        self._server = self._make_server()
        self._runtime.on_state(self._kernel_changed)
        await self._runtime.start()
        names = list(self._runtime.kernel_types) if "all" in self._settings.launch else self._settings.launch
        for name in names:
            await asyncio.sleep(0.001)  # Not 0: the event loop hears of signals when it waits.
            if self._stop.is_set():
                break
            await self._runtime.launch(name)
            await self._runtime.activate(name)
        await self._server.start()

    def _make_server(self) -> grpc.aio.Server:
        longest = min(self._settings.max_message_bytes + FRAME_OVERHEAD_BYTES, LONGEST_FRAME)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", longest),
                ("grpc.max_send_message_length", longest),
                ("grpc.so_reuseport", 0),  # Otherwise a second daemon on the port would start, and take half the calls.
                ("grpc.http2.max_ping_strikes", 0),  # A client says how soon it wants to know.
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.http2.ping_timeout_ms", 10_000),
            ],
        )
        handlers: Any = Handlers(self._catalog.pool)  # It has of a server what adding a service needs.
        messages = MessageServicer(self._unary, self._exchange)
        handlers.add_generic_rpc_handlers([messages.exchange_handler()])  # Before the service, which has one too.
        message_service_pb2_grpc.add_MessageServiceServicer_to_server(messages, handlers)
        kernels = KernelServicer(self._runtime, self._catalog)
        kernel_service_pb2_grpc.add_KernelServiceServicer_to_server(kernels, handlers)
        telemetry_service_pb2_grpc.add_TelemetryServiceServicer_to_server(TelemetryServicer(self._runtime), handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, handlers)
        dead_letters = DeadLetterServicer(self._runtime, self._catalog, self._settings.max_message_bytes)
        dead_letter_service_pb2_grpc.add_DeadLetterServiceServicer_to_server(dead_letters, handlers)
        services = (kernel_service_pb2, message_service_pb2, telemetry_service_pb2, dead_letter_service_pb2)
        # The last two for whoever prints an error, or writes a body without knowing its type.
        files = (*services, errors_pb2, health_pb2, error_details_pb2, struct_pb2)
        add_reflection(handlers, [file.DESCRIPTOR for file in files], self._catalog.pool)
        handlers.add_generic_rpc_handlers([self._typed])
        server.add_generic_rpc_handlers((handlers,))
        listen = self._settings.listen
        try:
            credentials = self._settings.credentials()
            _require_free(listen)
            port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ListenError(f"cannot listen on {listen}: {reason}") from error
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
        """Serve until `stop`; then finish what is under way, within the grace period, and a second for actors that will
        not be cancelled."""
        async with asyncio.TaskGroup() as group:
            health = group.create_task(self._report_health())
            await self._stop.wait()
            logger.info("draining", extra={"grace_seconds": self._settings.grace})
            await self._health.enter_graceful_shutdown()
            self._exchange.drain()
            self._typed.streams.drain()
            await self._drain()
            health.cancel()
        logger.info("stopped")

    async def _drain(self) -> None:
        """Let the kernels finish what they were sent, end them, and let the clients have what is theirs.

        Each step has a share of what is left of the grace period, so that none takes all of it from those after it.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.grace

        def left(share: float) -> float:
            return share * max(0.0, deadline - loop.time())

        await self._runtime.wait_idle(left(0.7))
        await self._runtime.shutdown(left(0.5))
        timeout = left(0.5)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._exchange.farewell(timeout))
            group.create_task(self._typed.streams.farewell(timeout))
        await self._server.stop(min(left(1.0), LAST_CALLS_SECONDS))
        self._unary.close()


def _require_free(listen: str) -> None:
    """Raise OSError if the address cannot be listened on.

    Of that, gRPC would say too much on stderr and too little in its exception; and from a daemon that listens on a
    socket file it would take the file away.
    """
    if listen.startswith("unix:"):
        path = Path(re.sub("^unix:(//)?", "", listen))
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                os.stat(path.parent)
                return
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise OSError(errno.EINVAL, "not HOST:PORT, nor unix:PATH")
    error = OSError()
    for family, kind, _, _, address in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM):
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                return
            except OSError as refused:
                error = refused
    raise error
