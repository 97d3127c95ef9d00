"""The class `RemoteRuntime`, which has the API of `RingKernelRuntime` for the kernels of a daemon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Self
from uuid import uuid4
from weakref import WeakValueDictionary

import grpc

from pydotcompute.exceptions import (
    ConnectionLostError,
    InvalidConfigurationError,
    KernelStateError,
    PyDotComputeError,
    QueueTimeoutError,
    TimeoutCause,
)
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelFunction, kernel_type_of
from pydotcompute.ring_kernels.mail.callers import current_task_or_none
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetter
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry, RuntimeSummary
from pydotcompute.v1 import dead_letter_service_pb2 as dead_letter_pb
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.wire.durations import duration
from pydotcompute.wire.errors import from_rpc_error
from pydotcompute.wire.kernels import config_to_proto, telemetry_from_proto
from pydotcompute_client import clients, dead_letters, questions
from pydotcompute_client.channels import Channels
from pydotcompute_client.description import DaemonMemory, KernelDescription, Reloaded, read_description
from pydotcompute_client.exchange.session import Session
from pydotcompute_client.forks import survives_no_fork
from pydotcompute_client.kernel import RemoteKernel
from pydotcompute_client.server_info import ServerInfo
from pydotcompute_client.types import RemoteTypes

__all__ = ["RemoteRuntime"]

logger = logging.getLogger(__name__)

RELOAD_SECONDS = 120.0
"""Seconds for a reload beside the time-out of each call: files are imported, and workers started."""
FEW_SESSIONS = 32
"""As many sessions that are over may be kept at any time; it costs something to look for those that can go."""
UNRECEIVED_KEPT = 1_000
"""Sessions that are over and have messages that nobody has received. As many terminated kernels a daemon keeps."""


class RemoteRuntime:
    """The kernels of a daemon, with the API of `RingKernelRuntime`; made by `connect`.

    Errors are those of `RingKernelRuntime`, equal in class and fields, and ConnectionLostError when the daemon cannot
    be reached. Where the in-process runtime has plain calls (`get_telemetry`, `kernel_ids` and the like), each here is
    a short blocking call with a deadline; its `fetch_…` twin does the same without blocking the event loop.
    """

    def __init__(
        self,
        channels: Channels,
        *,
        scoped: bool,
        max_message_bytes: int,
        reconnect_timeout: float,
        shared_memory: bool,
    ) -> None:
        self.target = channels.target
        self._channels = channels
        self._scoped = scoped
        self._max_message_bytes = max_message_bytes
        self._reconnect_timeout = reconnect_timeout
        self._shared_memory = shared_memory
        self._types = RemoteTypes()
        self._sessions: dict[str, Session] = {}
        self._prune_at = FEW_SESSIONS
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._launched: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<RemoteRuntime at {self.target}{'' if self.is_active else ', not connected'}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.shutdown()

    async def start(self) -> None:
        """Connect. Idempotent.

        Raises:
            ConnectionLostError: there is no daemon within the time-out of `connect`.
            MisuseError: the runtime is used in another event loop, or this process was forked from one that connected.
        """
        self._let_go_of_closed_loop()
        if self._channels.are_open:
            self._channels.require_open()
            return
        survives_no_fork(self)
        await self._channels.open()

    async def shutdown(self, timeout: float = 10.0) -> None:
        """Disconnect. Idempotent.

        If `connect` was called with `scoped`, the kernels that this client launched are terminated first, each within
        `timeout` seconds.

        Raises:
            MisuseError: the runtime was started in another event loop, which still exists.
        """
        self._let_go_of_closed_loop()
        if not self._channels.are_open:
            return
        self._channels.require_open()
        try:
            if self._scoped:
                async with asyncio.TaskGroup() as group:
                    for kernel_id in self._launched:
                        group.create_task(self._terminate_quietly(kernel_id, timeout))
            async with asyncio.TaskGroup() as group:
                for session in self._sessions.values():
                    group.create_task(session.close())
        finally:
            await self._disconnect()

    async def _terminate_quietly(self, kernel_id: str, timeout: float) -> None:
        try:
            await self.terminate(kernel_id, timeout)
        except PyDotComputeError:
            return  # Another client has terminated it, or the daemon is gone, and the kernel with it.

    def let_go(self) -> object:
        """Forget all connections without closing them, and return them. See `forks`."""
        connections = self._channels.let_go(), self._sessions
        self._sessions, self._opening = {}, WeakValueDictionary()
        return connections

    def _let_go_of_closed_loop(self) -> None:
        """Forget the connections if their event loop is closed: nothing can be awaited there any more."""
        if self._channels.are_orphans:
            self.let_go()

    async def _disconnect(self) -> None:
        await self._channels.close()
        self._sessions.clear()
        self._launched.clear()

    @property
    def is_active(self) -> bool:
        """True if the runtime is connected."""
        return self._channels.are_open

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def launch(
        self,
        kernel_id: str,
        kernel_func: KernelFunction | str | None = None,
        *,
        config: RingKernelConfig | None = None,
        input_type: type | None = None,
        output_type: type | None = None,
    ) -> RemoteKernel:
        """Launch a kernel of a type that the daemon has loaded.

        Args:
            kernel_id: the new kernel's id; names the type too, if `kernel_func` is absent.
            kernel_func: the name of the type; or a function that `@ring_kernel` declares, whose name names the type.
                No code travels.
            config: settings other than those the daemon's type declares.
            input_type, output_type: the classes of this program for its messages, where their names do not tell.

        Raises:
            InvalidConfigurationError: `kernel_func` is not declared with `@ring_kernel`.
            KernelNotFoundError: the daemon has no such type.
            KernelAlreadyExistsError, KernelFailedError: as `RingKernelRuntime.launch`.
        """
        name = kernel_id
        classes = [input_type, output_type]
        if isinstance(kernel_func, str):
            name = kernel_func
        elif kernel_func is not None:
            kernel_type = kernel_type_of(kernel_func)
            if kernel_type is None:
                problem = "no code travels: declare it with @ring_kernel in a file that the daemon loads"
                raise InvalidConfigurationError("kernel_func", getattr(kernel_func, "__name__", kernel_func), problem)
            name = kernel_type.name
            classes = [input_type or kernel_type.input_type, output_type or kernel_type.output_type]
        for cls in classes:
            if cls is not None:
                self._types.prefer(cls)
        request = kernel_pb.LaunchRequest(
            kernel_id=kernel_id,
            kernel_type=name,
            config=None if config is None else config_to_proto(config),
            request_id=str(uuid4()),  # If the answer is lost, gRPC sends the request again; see `retries`.
        )
        try:
            await self._channels.call(lambda daemon: daemon.kernels.Launch, request)
        except (ConnectionLostError, asyncio.CancelledError):
            self._note_launch(kernel_id)  # Perhaps: there was no answer.
            raise
        self._note_launch(kernel_id)
        return RemoteKernel(self, kernel_id)

    def _note_launch(self, kernel_id: str) -> None:
        """Remember the kernel, if it is to be terminated on exit."""
        if self._scoped:
            self._launched[kernel_id] = None

    async def activate(self, kernel_id: str) -> None:
        """See `RingKernelRuntime.activate`."""
        request = kernel_pb.ActivateRequest(kernel_id=kernel_id)
        await self._channels.call(lambda daemon: daemon.kernels.Activate, request)

    async def deactivate(self, kernel_id: str) -> None:
        """See `RingKernelRuntime.deactivate`."""
        request = kernel_pb.DeactivateRequest(kernel_id=kernel_id)
        await self._channels.call(lambda daemon: daemon.kernels.Deactivate, request)

    async def reactivate(self, kernel_id: str) -> None:
        """See `RingKernelRuntime.reactivate`."""
        request = kernel_pb.ReactivateRequest(kernel_id=kernel_id)
        await self._channels.call(lambda daemon: daemon.kernels.Reactivate, request)

    async def terminate(self, kernel_id: str, timeout: float = 5.0) -> None:
        """See `RingKernelRuntime.terminate`."""
        request = kernel_pb.TerminateRequest(kernel_id=kernel_id, timeout=duration(timeout))
        await self._channels.call(lambda daemon: daemon.kernels.Terminate, request, extra=timeout)
        self._launched.pop(kernel_id, None)
        session = self._sessions.get(kernel_id)
        if session is not None:
            await session.wait_closed(self._channels.timeout)

    async def scale(self, kernel_id: str, instances: int) -> None:
        """See `RingKernelRuntime.scale`."""
        if not isinstance(instances, int) or isinstance(instances, bool) or not 0 < instances < 2**32:
            raise InvalidConfigurationError("instances", instances, "must be a whole number of at least 1")
        request = kernel_pb.ScaleRequest(kernel_id=kernel_id, instances=instances)
        await self._channels.call(lambda daemon: daemon.kernels.Scale, request)

    async def restart(self, kernel_id: str, timeout: float = 5.0) -> None:
        """See `RingKernelRuntime.restart`."""
        request = kernel_pb.RestartRequest(kernel_id=kernel_id, timeout=duration(timeout))
        response = await self._channels.call(lambda daemon: daemon.kernels.Restart, request, extra=timeout)
        session = self._sessions.get(kernel_id)
        if response.launched_again and session is not None:
            await session.wait_over(self._channels.timeout)

    async def reload(self, file: str = "") -> Reloaded:
        """Let the daemon load the files of its kernels again. New workers take over, and old ones finish their work.

        Args:
            file: the one that is loaded again, of those with which the daemon was started; empty for all.

        Raises:
            InvalidConfigurationError: the daemon was not started with `--isolation process`, or has no such file; the
                file cannot be imported; or a change of message types would break programs. Nothing has changed.
            KernelFailedError: a new actor raised before it first waited. Nothing has changed.
        """
        request = kernel_pb.ReloadRequest(file=file)
        response = await self._channels.call(lambda daemon: daemon.kernels.Reload, request, extra=RELOAD_SECONDS)
        return Reloaded(list(response.kernel_ids), list(response.new_kernel_types), list(response.changed_types))

    @asynccontextmanager
    async def kernel_scope(
        self,
        kernel_id: str,
        kernel_func: KernelFunction | str | None = None,
        *,
        config: RingKernelConfig | None = None,
        input_type: type | None = None,
        output_type: type | None = None,
    ) -> AsyncIterator[RemoteKernel]:
        """See `RingKernelRuntime.kernel_scope`."""
        kernel = await self.launch(
            kernel_id, kernel_func, config=config, input_type=input_type, output_type=output_type
        )
        try:
            await kernel.activate()
            yield kernel
        finally:
            await self.terminate(kernel_id)

    # -- messages ------------------------------------------------------------------------------------------------------

    def send(self, kernel_id: str, message: Any, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """See `RingKernelRuntime.send`.

        Under `reject`, `send` returns when the kernel has the message. Otherwise it returns at once while there is
        credit; if the kernel refuses the message later, `receive` raises that error in place of the reply.
        """
        session = self._sessions.get(kernel_id)
        if session is None or session.over is not None:
            return self._open_and_send(current_task_or_none(), kernel_id, message, timeout)
        return session.send(session.replies.callers.sending(), message, timeout)

    async def _open_and_send(
        self, task: asyncio.Task[Any] | None, kernel_id: str, message: Any, timeout: float | None
    ) -> None:
        lost = self._sessions.get(kernel_id)
        if lost is not None and lost.untold is not None:  # Only the next `send` raises the loss.
            error, lost.untold = lost.untold, None
            raise error
        session = await self._open(kernel_id, "send", timeout)
        await session.send(session.replies.callers.sending(task), message, timeout)

    def receive(self, kernel_id: str, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """See `RingKernelRuntime.receive`."""
        session = self._sessions.get(kernel_id)
        if session is None or (session.over is not None and not session.replies.has_some()):
            return self._open_and_receive(current_task_or_none(), kernel_id, timeout)
        return session.replies.receive(session.replies.callers.receiving(), timeout)

    async def _open_and_receive(self, task: asyncio.Task[Any] | None, kernel_id: str, timeout: float | None) -> Any:
        try:
            session = await self._open(kernel_id, "receive", timeout)
        except KernelStateError as error:  # The daemon's error names `send`.
            raise KernelStateError(
                error.kernel_id, error.state, "receive", error.allowed_states, error.returned_after
            ) from None
        return await session.replies.receive(session.replies.callers.receiving(task), timeout)

    async def send_and_receive(self, kernel_id: str, message: Any, *, timeout: float | None = None) -> Any:
        """See `RingKernelRuntime.send_and_receive`."""
        deadline = None if timeout is None else monotonic() + timeout
        session = self._sessions.get(kernel_id)
        if session is None or session.over is not None:
            session = await self._open(kernel_id, "send_and_receive", timeout)
        return await session.send_and_receive(message, timeout, deadline)

    async def _open(self, kernel_id: str, operation: str, timeout: float | None) -> Session:
        """Return the session with a kernel. Open a new one if there is none, or if it is over.

        Raises:
            QueueTimeoutError: opening took longer than `timeout` seconds.
            ConnectionLostError: opening took longer than the time-out of the connection.
        """
        self._channels.require_open()
        patience = self._channels.timeout
        limit = patience if timeout is None else min(timeout, patience)
        try:
            async with asyncio.timeout(limit):
                return await self._open_session(kernel_id)
        except TimeoutError:
            if timeout == limit:
                is_connected = self._channels.is_connected
                cause = TimeoutCause.SILENT if is_connected else TimeoutCause.DISCONNECTED
                raise QueueTimeoutError(kernel_id, limit, operation, cause) from None
            raise ConnectionLostError(self.target, f"no answer within {limit:g} s") from None

    async def _open_session(self, kernel_id: str) -> Session:
        lock = self._opening.setdefault(kernel_id, asyncio.Lock())  # It lives as long as a task has it.
        async with lock:
            session = self._sessions.get(kernel_id)
            if session is not None:
                if session.over is None:
                    return session
                await session.close()
            # If the kernel has ended and was launched again, the new kernel's session must not have the old replies.
            broken = session is not None and isinstance(session.over, ConnectionLostError)
            if not self._channels.are_open:  # The channels were closed while this task waited for the lock.
                raise ConnectionLostError(self.target, "the client has closed the connection")
            session = Session(
                kernel_id,
                self.target,
                self._types,
                self._channels.channel,
                reconnect_timeout=self._reconnect_timeout,
                max_message_bytes=self._max_message_bytes,
                shared_memory=self._shared_memory,
                metadata=self._channels.metadata,
                replies=session.replies if session is not None and broken else None,
            )
            await session.open()
            self._sessions.pop(kernel_id, None)
            self._sessions[kernel_id] = session
            if len(self._sessions) >= self._prune_at:
                self._prune()
            return session

    def _prune(self) -> None:
        """Forget sessions that are over, but for the last of those with messages that can still be received."""
        ended = [(kernel_id, session) for kernel_id, session in self._sessions.items() if session.over is not None]
        left = [(kernel_id, session) for kernel_id, session in ended if not session.is_spent]
        for kernel_id, _ in left[:-UNRECEIVED_KEPT]:
            logger.warning("what %r has sent is forgotten: it has ended, and nobody has received it", kernel_id)
        kept = {kernel_id for kernel_id, _ in left[-UNRECEIVED_KEPT:]}
        for kernel_id, _ in ended:
            if kernel_id not in kept:
                del self._sessions[kernel_id]
        self._prune_at = 2 * len(self._sessions) + FEW_SESSIONS  # So that pruning costs each session little.

    # -- questions -----------------------------------------------------------------------------------------------------

    async def describe(self, kernel_id: str) -> KernelDescription:
        """Return the daemon's description of a kernel, or of a kernel type.

        This program need not have the source of the message classes.

        Raises:
            KernelNotFoundError: there is neither a kernel nor a kernel type of this name.
        """
        request = kernel_pb.DescribeKernelRequest(kernel_id=kernel_id)
        response = await self._channels.call(lambda daemon: daemon.kernels.DescribeKernel, request)
        return read_description(kernel_id, response, self._types)

    def get_server_info(self) -> ServerInfo:
        """The daemon's version, its limits, and what it can do. Blocks; see `fetch_server_info`."""
        return self._channels.ask_blocking(questions.server_info())

    async def fetch_server_info(self) -> ServerInfo:
        """`get_server_info`, without blocking."""
        return await self._channels.ask(questions.server_info())

    @property
    def kernel_ids(self) -> list[str]:
        """The daemon's kernels that are launched and not terminated. Blocks; see `fetch_kernel_ids`."""
        return self._channels.ask_blocking(questions.kernel_ids())

    async def fetch_kernel_ids(self) -> list[str]:
        """`kernel_ids`, without blocking."""
        return await self._channels.ask(questions.kernel_ids())

    def get_kernel_state(self, kernel_id: str) -> KernelState:
        """The state of a kernel. Blocks; see `fetch_kernel_state`. KernelNotFoundError if there is none."""
        return self._channels.ask_blocking(questions.kernel_state(kernel_id))

    async def fetch_kernel_state(self, kernel_id: str) -> KernelState:
        """`get_kernel_state`, without blocking."""
        return await self._channels.ask(questions.kernel_state(kernel_id))

    def get_telemetry(self, kernel_id: str) -> RingKernelTelemetry | None:
        """The telemetry of a kernel. Blocks; see `fetch_telemetry`. KernelNotFoundError if there is none."""
        return self._channels.ask_blocking(questions.telemetry(kernel_id))

    async def fetch_telemetry(self, kernel_id: str) -> RingKernelTelemetry | None:
        """`get_telemetry`, without blocking."""
        return await self._channels.ask(questions.telemetry(kernel_id))

    def get_all_telemetry(self) -> dict[str, RingKernelTelemetry]:
        """The telemetry of each kernel in `kernel_ids`. Blocks; see `fetch_all_telemetry`."""
        return self._channels.ask_blocking(questions.all_telemetry())

    async def fetch_all_telemetry(self) -> dict[str, RingKernelTelemetry]:
        """`get_all_telemetry`, without blocking."""
        return await self._channels.ask(questions.all_telemetry())

    def get_summary(self) -> RuntimeSummary:
        """The sums over all kernels. Blocks; see `fetch_summary`."""
        return self._channels.ask_blocking(questions.summary())

    async def fetch_summary(self) -> RuntimeSummary:
        """`get_summary`, without blocking."""
        return await self._channels.ask(questions.summary())

    async def fetch_memory(self) -> DaemonMemory:
        """Return how much memory the daemon takes, and where messages wait in it."""
        return await self._channels.ask(questions.memory())

    async def watch_telemetry(
        self, kernel_ids: Sequence[str] = (), interval: float = 1.0
    ) -> AsyncIterator[dict[str, RingKernelTelemetry]]:
        """Yield the telemetry of these kernels, or of all, by kernel id: at once, and then every `interval` seconds."""
        request = telemetry_pb.WatchTelemetryRequest(kernel_ids=kernel_ids, interval=duration(interval))
        snapshots: Any = self._channels.stubs.telemetry.WatchTelemetry(request)
        try:
            # Not `async for`: if the caller left its loop, the call would be in a reference cycle, and would keep the
            # connection open until the garbage collector runs.
            while (response := await snapshots.read()) is not grpc.aio.EOF:
                yield questions.by_id([telemetry_from_proto(each) for each in response.kernels])
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.target) from None
        finally:
            snapshots.cancel()

    # -- dead letters --------------------------------------------------------------------------------------------------

    def get_dead_letters(self, kernel_id: str) -> list[DeadLetter]:
        """The dead letters of a kernel, oldest first. Blocks; see `fetch_dead_letters`.

        An `UnreadableMessage` stands for a message that cannot be decoded here.

        Raises:
            KernelNotFoundError: there is no such kernel.
        """
        return self._channels.ask_blocking(dead_letters.dead_letters(kernel_id, self._types))

    async def fetch_dead_letters(self, kernel_id: str) -> list[DeadLetter]:
        """`get_dead_letters`, without blocking."""
        return await self._channels.ask(dead_letters.dead_letters(kernel_id, self._types))

    async def requeue_dead_letters(self, kernel_id: str, ids: Iterable[int] | None = None) -> list[int]:
        """See `RingKernelRuntime.requeue_dead_letters`."""
        # On the wire, no ids mean all dead letters. If no valid id is left, 0 is sent, which no dead letter has.
        named = [] if ids is None else [each for each in ids if 0 < each < 2**64] or [0]
        request = dead_letter_pb.RequeueDeadLettersRequest(kernel_id=kernel_id, ids=named)
        response = await self._channels.call(lambda daemon: daemon.dead_letters.RequeueDeadLetters, request)
        return list(response.ids)

    # -- clients -------------------------------------------------------------------------------------------------------

    def get_clients(self, interval: float = 0.0) -> list[clients.ConnectedClient]:
        """The clients that send and receive messages, this one included. Blocks; see `fetch_clients`."""
        return self._channels.ask_blocking(clients.clients(interval))

    async def fetch_clients(self, interval: float = 0.0) -> list[clients.ConnectedClient]:
        """Return the clients that send and receive messages, in the order in which they came.

        Args:
            interval: for how many seconds the daemon looks how many messages come, before it answers; 0 for not at all.
        """
        return await self._channels.ask(clients.clients(interval))

    async def kick(
        self, principal: str = "", *, peer: str = "", client_id: str = "", reason: str = ""
    ) -> clients.Kicked:
        """End the sessions and calls of a principal, or of an address, now. Whoever is ended may come again.

        Args:
            principal: whose sessions and calls end; empty for anybody's.
            peer: the address whose sessions and calls end, as in `ConnectedClient.peer`; empty for any.
            client_id: ends what is done with this client_id in place of sessions and calls.
            reason: is told to those who are ended.

        Raises:
            InvalidConfigurationError: neither a principal, nor an address, nor a client_id is named.
        """
        return await self._channels.ask(clients.kick(principal, peer, client_id, reason))
