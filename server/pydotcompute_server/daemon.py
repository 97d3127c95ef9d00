"""The daemon: it starts, serves, and drains."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
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
from pydotcompute.wire.exchange.shared_memory import Segment
from pydotcompute.wire.lengths import longest_frame
from pydotcompute_server.calls.handlers import Handlers
from pydotcompute_server.calls.pipeline import Step
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.clients import ENDING
from pydotcompute_server.exchange.lane import ExchangeLane
from pydotcompute_server.services.dead_letters import DeadLetterServicer
from pydotcompute_server.services.health import HealthService
from pydotcompute_server.services.kernels import KernelServicer
from pydotcompute_server.services.messages import MessageServicer
from pydotcompute_server.services.reflection import add_reflection
from pydotcompute_server.services.telemetry import TelemetryServicer
from pydotcompute_server.settings import Settings
from pydotcompute_server.typed.service import TypedServices
from pydotcompute_server.unary.lane import UnaryLane

__all__ = ["Daemon", "ListenError"]

logger = logging.getLogger(__name__)


class ListenError(Exception):
    """The daemon cannot listen on its address."""


class Daemon:
    """One runtime behind one gRPC server.

    Args:
        settings: the settings that the command line would give.
        kernel_types: the kernel types that can be launched, by name; `load_kernel_types` finds them in files.
        steps: functions that every call passes before it comes to its handler, the outermost first; see
            `calls.pipeline`.
    """

    def __init__(self, settings: Settings, kernel_types: Mapping[str, KernelType], steps: Sequence[Step] = ()) -> None:
        self._settings = settings
        self._limits = limits = settings.limits
        self._steps = steps
        self._runtime = RingKernelRuntime(kernel_types=kernel_types, sends_to_host=True)
        self._catalog = Catalog()
        self._catalog.add(*kernel_types.values())
        self._health = HealthService()
        self._health_changes: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        self.epoch = secrets.token_hex(8)
        """Names this run of the daemon in its answers. Another epoch tells a client that the daemon has restarted."""
        self._unary = UnaryLane(self._runtime, self._catalog, limits, self.epoch)
        self._typed = TypedServices(self._runtime, self._catalog, self._unary, limits)
        self._exchange = ExchangeLane(self._runtime, self._catalog, limits)
        self._stop = asyncio.Event()
        self.address = settings.listen
        """The address on which the daemon listens; after `start` it has the port that was chosen."""

    async def start(self) -> None:
        """Listen, and launch the kernels that the settings name, unless `stop` is called meanwhile.

        Raises:
            ListenError: the address is in use, or does not belong to this machine.
            PyDotComputeError: a kernel of `settings.launch` cannot be launched, or memory cannot be shared.
        """
        if self._limits.shared_memory_bytes:
            # If memory cannot be shared, the daemon fails now, and not when the first client comes.
            Segment.create(self._limits.shared_memory_bytes).close()
        self._server = self._make_server()
        self._runtime.on_state(self._kernel_changed)
        await self._runtime.start()
        names = list(self._runtime.kernel_types) if "all" in self._settings.launch else self._settings.launch
        for name in names:
            await asyncio.sleep(0.001)  # Not 0: the event loop handles signals only when it waits.
            if self._stop.is_set():
                break
            await self._runtime.launch(name)
            await self._runtime.activate(name)
        await self._server.start()

    def _make_server(self) -> grpc.aio.Server:
        limits = self._limits
        longest = longest_frame(limits.max_message_bytes)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", longest),
                ("grpc.max_send_message_length", longest),
                ("grpc.so_reuseport", 0),  # Otherwise a second daemon on the port would start, and take half the calls.
                ("grpc.http2.max_ping_strikes", 0),  # A client may ping as often as it likes.
                ("grpc.keepalive_time_ms", round(1_000 * limits.keepalive)),
                ("grpc.keepalive_timeout_ms", round(1_000 * limits.keepalive_timeout)),
                ("grpc.http2.ping_timeout_ms", round(1_000 * limits.keepalive_timeout)),
            ],
        )
        # `Handlers` has those methods of a server that the generated functions call to add a service.
        handlers: Any = Handlers(self._catalog.pool, limits, self._steps)
        messages = MessageServicer(self._unary, self._exchange)
        handlers.add_generic_rpc_handlers([messages.exchange_handler()])  # Before the service, which has one too.
        message_service_pb2_grpc.add_MessageServiceServicer_to_server(messages, handlers)
        kernels = KernelServicer(self._runtime, self._catalog, self.epoch)
        kernel_service_pb2_grpc.add_KernelServiceServicer_to_server(kernels, handlers)
        telemetry = TelemetryServicer(self._runtime, limits)
        telemetry_service_pb2_grpc.add_TelemetryServiceServicer_to_server(telemetry, handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, handlers)
        dead_letters = DeadLetterServicer(self._runtime, self._catalog, limits)
        dead_letter_service_pb2_grpc.add_DeadLetterServiceServicer_to_server(dead_letters, handlers)
        services = (kernel_service_pb2, message_service_pb2, telemetry_service_pb2, dead_letter_service_pb2)
        # The last two serve clients that print an error, or write a body without knowing its type.
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
        """Serve until `stop` is called, and then finish the work.

        That takes at most the grace period, and a second more for actors that resist their cancellation.
        """
        async with asyncio.TaskGroup() as group:
            health = group.create_task(self._report_health())
            await self._stop.wait()
            logger.info("draining", extra={"grace_seconds": self._limits.grace})
            self._runtime.drain(ENDING)
            self._unary.drain()
            await self._health.enter_graceful_shutdown()
            self._exchange.drain()
            self._typed.streams.drain()
            await self._drain()
            health.cancel()
        logger.info("stopped")

    async def _drain(self) -> None:
        """Let the kernels finish their messages, end the kernels, and let the clients receive what is theirs.

        Each of these steps has only a share of the remaining grace period, so that the later steps have time too.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.grace

        def left(share: float) -> float:
            return share * max(0.0, deadline - loop.time())

        await self._runtime.wait_idle(left(0.7))
        await self._runtime.shutdown(left(0.5))
        timeout = left(0.5)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._exchange.farewell(timeout))
            group.create_task(self._typed.streams.farewell(timeout))
        await self._server.stop(min(left(1.0), self._limits.last_calls))
        self._unary.close()


def _require_free(listen: str) -> None:
    """Raise OSError if the daemon cannot listen on the address.

    gRPC's own exception says too little, and gRPC prints too much on stderr. It would also take over the socket file of
    a daemon that is running.
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
