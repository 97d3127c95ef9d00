"""The daemon: it starts, serves, and drains."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Any

import grpc
from google.protobuf import struct_pb2
from google.rpc import code_pb2, error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.sizes import estimated_sum
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import (
    client_service_pb2_grpc,
    dead_letter_service_pb2_grpc,
    errors_pb2,
    kernel_service_pb2_grpc,
    message_service_pb2_grpc,
    server_service_pb2_grpc,
    telemetry_service_pb2_grpc,
)
from pydotcompute.wire.exchange.shared_memory import Segment
from pydotcompute.wire.lengths import longest_frame
from pydotcompute_server.access.access import Access
from pydotcompute_server.access.quotas import Quotas
from pydotcompute_server.bounds.accounts import Accounts
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.connections import connections_allowed
from pydotcompute_server.bounds.memory import Memory, default_budget
from pydotcompute_server.bounds.room import MemoryRoom
from pydotcompute_server.calls.handlers import Handlers
from pydotcompute_server.calls.pipeline import Step
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.clients import ENDING
from pydotcompute_server.connected import Connected
from pydotcompute_server.epoch import Epoch
from pydotcompute_server.exchange.lane import ExchangeLane
from pydotcompute_server.exchange.openings import SESSIONS_PER_SECOND, Openings
from pydotcompute_server.protos import SERVICES
from pydotcompute_server.reloading import Reloaded, Reloader, cannot_reload
from pydotcompute_server.services.clients import ClientServicer
from pydotcompute_server.services.dead_letters import DeadLetterServicer
from pydotcompute_server.services.health import HealthService
from pydotcompute_server.services.kernels import KernelServicer
from pydotcompute_server.services.messages import MessageServicer
from pydotcompute_server.services.reflection import add_reflection
from pydotcompute_server.services.server_info import ServerServicer
from pydotcompute_server.services.telemetry import TelemetryServicer
from pydotcompute_server.settings import Settings
from pydotcompute_server.transport.exposure import require_protection, warn_again_and_again
from pydotcompute_server.transport.listening import OWNER_ALONE, bind, require_free
from pydotcompute_server.transport.renewal import Certificates
from pydotcompute_server.typed.service import TypedServices
from pydotcompute_server.unary.lane import UnaryLane
from pydotcompute_server.visible import Visible
from pydotcompute_server.watching import reload_on_change

__all__ = ["Daemon", "ListenError"]

logger = logging.getLogger(__name__)

SLACK = 1.0
"""Seconds that a step of the end may take longer than it should before it is abandoned."""
LOGGED_AT_END = 1_000
"""If more kernels than these end with the daemon, their ends are logged at the level `debug`: to write a line for each
takes longer than to end it."""


class ListenError(Exception):
    """The daemon cannot listen on its address."""


class Daemon:
    """One runtime behind one gRPC server.

    Args:
        settings: the settings that the command line would give.
        kernel_types: the kernel types that can be launched, by name; `load_kernel_types` finds them in files.
        steps: functions that every call passes before it comes to its handler, the outermost first; see
            `calls.pipeline`. Calls that the settings do not allow do not come to them.

    Raises:
        InvalidConfigurationError: a file that the settings name cannot be read, or is not valid.
    """

    def __init__(self, settings: Settings, kernel_types: Mapping[str, KernelType], steps: Sequence[Step] = ()) -> None:
        self._settings = settings
        self._limits = limits = settings.limits
        self.memory = memory = Memory(limits.memory_bytes or default_budget())
        """The budget for messages, wherever they wait."""
        self._access = Access(settings)
        accounts = Accounts(limits)
        types = dict(kernel_types)  # A reload changes it.
        self._runtime = RingKernelRuntime(
            kernel_types=types, sends_to_host=True, limits=limits, isolation=settings.isolation
        )
        self._runtime.room = MemoryRoom(memory, self._waiting_of_kernels, lambda: self._runtime.kernel_count)
        self._catalog = Catalog()
        self._catalog.add(*kernel_types.values())
        self._visible = visible = Visible(self._runtime, self._catalog)
        steps = (*self._access.steps(self._catalog.services, visible.service), *steps)
        self._steps = (*steps, Quotas(accounts, limits)) if steps or accounts.all_are_limited else ()
        self._health = HealthService(self._runtime, self._catalog.pool, visible, limits)
        self._apart = apart = Apart(limits)
        self._run = epoch = Epoch()
        self.epoch = epoch.name
        """Names this run of the daemon in its answers. Another epoch tells a client that the daemon has restarted."""
        self._connected = Connected(limits, accounts)
        self._unary = UnaryLane(self._runtime, self._catalog, limits, apart, memory, self.epoch, self._connected)
        self._typed = TypedServices(self._runtime, self._catalog, self._unary, limits, apart, memory, self._connected)
        openings = Openings(limits.sessions_per_second_per_principal or (SESSIONS_PER_SECOND if steps else 0))
        self._exchange = ExchangeLane(
            self._runtime, self._catalog, limits, apart, memory, epoch, self._connected, openings
        )
        self._reloader: Reloader | None = None
        if settings.isolation == "process" and settings.kernels:
            self._reloader = Reloader(settings.kernels, types, self._runtime, self._catalog, limits.worker_start)
        self._kernels = KernelServicer(self._runtime, self._catalog, visible, limits, self.epoch, self._reloader)
        memory.add_place("mailboxes", self._in_mailboxes)
        memory.add_place("dead letters", self._in_dead_letters)
        memory.add_place("calls", lambda: self._unary.held_bytes)
        memory.add_place("streams", lambda: self._typed.streams.held_bytes)
        memory.add_place("sessions", lambda: self._exchange.held_bytes)
        memory.let_give_way(self._discard_dead_letters)
        if steps:
            memory.tell_apart(self._held_by)
        self._stop = asyncio.Event()
        self._certificates: Certificates | None = None
        self._state_level = logging.INFO
        self.address = settings.listen
        """The address on which the daemon listens; after `start` it has the port that was chosen."""

    async def start(self) -> None:
        """Listen, and launch the kernels that the settings name, unless `stop` is called meanwhile.

        Raises:
            ListenError: the address is in use, or does not belong to this machine.
            InvalidConfigurationError: a certificate is not valid, or strangers could use the daemon; see
                `Settings.insecure`.
            PyDotComputeError: a kernel of `settings.launch` cannot be launched (`__cause__` says why), or memory cannot
                be shared.
        """
        require_protection(self._settings)
        if self._settings.tls is not None:
            self._certificates = Certificates(self._settings.tls)
        if self._limits.shared_memory_bytes:
            # If memory cannot be shared, the daemon fails now, and not when the first client comes.
            Segment.create(self._limits.shared_memory_bytes).close()
        self._server = self._make_server()
        self._runtime.on_state(self._kernel_changed)
        self._runtime.on_actor(self._health.kernel_changed)
        self._runtime.on_forget(self._health.kernel_changed)
        await self._runtime.start()
        names = list(self._runtime.kernel_types) if "all" in self._settings.launch else self._settings.launch
        for name in names:
            await asyncio.sleep(0.001)  # Not 0: the program's own signal handlers are called only when the loop waits.
            if self._stop.is_set():
                break
            try:
                await self._runtime.launch(name)
                await self._runtime.activate(name)
            except PyDotComputeError as error:
                raise PyDotComputeError(f"cannot launch kernel type {name!r}: {error}") from error
        await self._server.start()

    def _make_server(self) -> grpc.aio.Server:
        limits = self._limits
        longest = longest_frame(limits.max_message_bytes)
        connections = connections_allowed(limits)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", min(longest, longest_frame(limits.max_request_bytes))),
                ("grpc.max_send_message_length", longest),
                ("grpc.so_reuseport", 0),  # Otherwise a second daemon on the port would start, and take half the calls.
                ("grpc.http2.max_ping_strikes", 0),  # A client may ping as often as it likes.
                ("grpc.max_allowed_incoming_connections", connections),
                ("grpc.max_concurrent_streams", limits.max_calls_per_connection),
                ("grpc.keepalive_time_ms", round(1_000 * limits.keepalive)),
                ("grpc.keepalive_timeout_ms", round(1_000 * limits.keepalive_timeout)),
                ("grpc.http2.ping_timeout_ms", round(1_000 * limits.keepalive_timeout)),
            ],
        )
        # `Handlers` has those methods of a server that the generated functions call to add a service.
        handlers: Any = Handlers(
            self._catalog.pool, limits, self._apart, self._steps, self._visible.services, self._access.turned_away
        )
        if self._reloader is not None:
            self._reloader.forget = handlers.forget
        messages = MessageServicer(self._unary, self._exchange)
        handlers.add_generic_rpc_handlers([messages.exchange_handler()])  # Before the service, which has one too.
        message_service_pb2_grpc.add_MessageServiceServicer_to_server(messages, handlers)
        kernel_service_pb2_grpc.add_KernelServiceServicer_to_server(self._kernels, handlers)
        clients = ClientServicer(self._connected, self._exchange, self._unary, limits)
        client_service_pb2_grpc.add_ClientServiceServicer_to_server(clients, handlers)
        telemetry = TelemetryServicer(self._runtime, self._visible, limits, self.memory)
        handlers.add_generic_rpc_handlers([telemetry.snapshot_handler()])  # Before the service, as above.
        telemetry_service_pb2_grpc.add_TelemetryServiceServicer_to_server(telemetry, handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, handlers)
        dead_letters = DeadLetterServicer(self._runtime, self._catalog, limits, self._apart)
        dead_letter_service_pb2_grpc.add_DeadLetterServiceServicer_to_server(dead_letters, handlers)
        in_force = {"max_connections": connections, "memory_bytes": self.memory.budget}
        info = ServerServicer(self._run, limits, in_force)
        server_service_pb2_grpc.add_ServerServiceServicer_to_server(info, handlers)
        # The last ones serve clients that print an error, or write a body without knowing its type.
        files = (*SERVICES, errors_pb2, health_pb2, code_pb2, error_details_pb2, struct_pb2)
        add_reflection(handlers, [file.DESCRIPTOR for file in files], self._catalog.pool, self._visible)
        handlers.add_generic_rpc_handlers([self._typed])
        server.add_generic_rpc_handlers((handlers,))
        listen = self._settings.listen
        credentials = None if self._certificates is None else self._certificates.credentials()
        try:
            require_free(listen)
            mode = self._settings.socket_mode
            port = bind(server, listen, credentials, OWNER_ALONE if mode is None else mode)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ListenError(f"cannot listen on {listen}: {reason}") from error
        if not listen.startswith("unix:"):
            self.address = f"{listen.rpartition(':')[0]}:{port}"
        return server

    # -- memory --------------------------------------------------------------------------------------------------------

    def _in_mailboxes(self) -> int:
        held = 0
        for kernel in self._runtime.all_kernels():
            mail = kernel.mail
            if mail.inbox.items.size or mail.outputs.items.size:  # Most of very many kernels have no messages.
                held += mail.held_bytes
        return held

    def _in_dead_letters(self) -> int:
        return sum(kernel.mail.dead_letters.size for kernel in self._runtime.all_kernels())

    def _waiting_of_kernels(self) -> Counter[str]:
        """Return the bytes of the messages of each kernel that clients have not received yet, by its id."""
        waiting: Counter[str] = Counter()
        for kernel in self._runtime.all_kernels():
            if outputs := kernel.mail.outputs.items.size:
                waiting[kernel.kernel_id] += estimated_sum(kernel.mail.outputs.items, outputs)
        for lane in (self._unary, self._typed.streams, self._exchange):
            lane.add_waiting(waiting)
        return waiting

    def _held_by(self, principal: str) -> int:
        """Return the bytes of messages that are this principal's, wherever they wait."""
        in_mailboxes = sum(kernel.mail.held_by(principal) for kernel in self._runtime.all_kernels())
        return in_mailboxes + sum(
            place.held_by(principal) for place in (self._unary, self._typed.streams, self._exchange)
        )

    def _discard_dead_letters(self, wanted: int) -> int:
        """Discard the oldest dead letters of all kernels, until `wanted` bytes are free. Return the bytes freed."""
        stores = [kernel.mail.dead_letters for kernel in self._runtime.all_kernels() if kernel.mail.dead_letters]
        by_age = [(letters[0].time, index) for index, letters in enumerate(stores)]
        heapify(by_age)
        freed = 0
        while by_age and freed < wanted:
            _, index = by_age[0]
            letters = stores[index]
            freed += letters.discard_oldest()
            if letters:
                heapreplace(by_age, (letters[0].time, index))
            else:
                heappop(by_age)
        return freed

    def _kernel_changed(self, kernel: RingKernel[Any, Any]) -> None:
        if kernel.state is KernelState.LAUNCHED:
            self._unary.forget_predecessor(kernel)
        self._kernels.kernel_changed(kernel)
        logger.log(self._state_level, "%s", kernel.state.name, extra={"kernel_id": kernel.kernel_id})
        self._health.kernel_changed(kernel.kernel_id)

    @property
    def running_kernel_ids(self) -> list[str]:
        """The ids of the kernels that have not ended, in the order of their launch."""
        return [each for each in self._runtime.kernel_ids if not self._runtime.kernel(each).gate.has_ended]

    async def reload_kernels(self, file: str = "") -> Reloaded:
        """Load the files of kernels again; see `Reloader.reload`.

        Raises:
            InvalidConfigurationError: as `Reloader.reload`; or the settings have no `kernels`, or another isolation
                than "process".
            KernelFailedError: as `Reloader.reload`.
        """
        if self._reloader is None:
            raise cannot_reload()
        return await self._reloader.reload(file)

    def reload(self) -> None:
        """Read the files again that can change while the daemon runs: the certificates, and who may do what."""
        self._access.reload()
        if self._certificates is not None:
            self._certificates.look(asked=True)

    def stop(self) -> None:
        """Ask the daemon to end."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop` is called, and then finish the work.

        That takes at most the grace period, and a second more for actors that resist their cancellation.
        """
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = [group.create_task(self._access.watch())]
            tasks.append(group.create_task(warn_again_and_again(self._settings, self.address)))
            if self._certificates is not None:
                tasks.append(group.create_task(self._certificates.watch(self._limits.certificates_checked)))
            if self._settings.reload and self._reloader is not None:
                tasks.append(group.create_task(reload_on_change(self._reloader)))
            await self._stop.wait()
            for task in tasks:
                task.cancel()
        logger.info("draining", extra={"grace_seconds": self._limits.grace})
        self._runtime.drain(ENDING)
        self._unary.drain()
        self._health.drain()
        self._exchange.drain()
        self._typed.streams.drain()
        await self._drain()
        logger.info("stopped")

    async def _drain(self) -> None:
        """Let the kernels finish their messages, end the kernels, and let the clients receive what is theirs.

        Each of these steps has only a share of the remaining grace period, so that the later steps have time too.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.grace

        def left(share: float) -> float:
            return share * max(0.0, deadline - loop.time())

        seconds = left(0.7)
        await _within(seconds, self._runtime.wait_idle(seconds), "the kernels' work")
        if (count := self._runtime.kernel_count) > LOGGED_AT_END:
            logger.info("ending all kernels", extra={"kernels": count})
            self._state_level = logging.DEBUG
        seconds = left(0.5)
        cancellation = self._limits.cancellation_grace
        await _within(seconds + cancellation, self._runtime.shutdown(seconds), "the end of the kernels")
        seconds = left(0.5)
        farewells = asyncio.gather(self._exchange.farewell(seconds), self._typed.streams.farewell(seconds))
        await _within(seconds, farewells, "the farewell to the clients")
        seconds = min(left(1.0), self._limits.last_calls)
        await _within(seconds, self._server.stop(seconds), "the end of the last calls")
        self._unary.close()
        self._apart.close()
        self.memory.close()
        self._access.close()


async def _within(seconds: float, step: Awaitable[object], what: str) -> None:
    """Await a step of the end that keeps to so many seconds by itself, and abandon it if it does not."""
    try:
        async with asyncio.timeout(seconds + SLACK):
            await step
    except TimeoutError:
        logger.error("%s took longer than %.1f s: abandoned", what, seconds + SLACK)
