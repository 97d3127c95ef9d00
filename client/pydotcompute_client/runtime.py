"""`connect` and `RemoteRuntime`: the API of `RingKernelRuntime`, spoken to a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self, TypeVar

import grpc

from pydotcompute.exceptions import (
    ConnectionLostError,
    InvalidConfigurationError,
    KernelStateError,
    PyDotComputeError,
    QueueTimeoutError,
)
from pydotcompute.ring_kernels.declaration import KernelFunction, RingKernelConfig, kernel_type_of
from pydotcompute.ring_kernels.lifecycle import KernelState
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetter
from pydotcompute.ring_kernels.mail.replies import current_task_or_none
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry, RuntimeSummary, summarize
from pydotcompute.v1 import dead_letter_service_pb2 as dead_letter_pb
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from pydotcompute.wire.durations import duration
from pydotcompute.wire.errors import from_rpc_error
from pydotcompute.wire.kernels import config_from_proto, config_to_proto, state_from_proto, telemetry_from_proto
from pydotcompute.wire.lengths import longest_frame
from pydotcompute_client.dead_letters import LARGEST_PAGE, read_page
from pydotcompute_client.exchange.session import Session
from pydotcompute_client.interceptors import Interceptor, awaited, blocking
from pydotcompute_client.types import RemoteTypes

__all__ = ["KernelDescription", "RemoteKernel", "RemoteRuntime", "connect"]

R = TypeVar("R")

LONGEST_BACKOFF_MS = 2_000
"""Milliseconds between two attempts to connect again, at most. gRPC begins with less, and adds jitter."""


def connect(
    target: str,
    *,
    scoped: bool = False,
    timeout: float = 10.0,
    credentials: grpc.ChannelCredentials | None = None,
    max_message_bytes: int = 64 << 20,
    reconnect_timeout: float = 60.0,
    keepalive: float = 20.0,
    shared_memory: bool = False,
    interceptors: Sequence[Interceptor] = (),
) -> RemoteRuntime:
    """A runtime at a daemon: `async with connect("127.0.0.1:50051") as runtime:`.

    Args:
        target: HOST:PORT, or unix:PATH, of the daemon.
        scoped: whether the kernels that this client launches are terminated on exit. Without it they live on.
        timeout: seconds to connect, and for each call that is not a message: launching, telemetry and the like. (To
            terminate takes as long as its own time-out allows, in addition.)
        credentials: of `grpc.ssl_channel_credentials(…)`, for a daemon that speaks TLS.
        max_message_bytes: the longest message to receive; the daemon has a limit of its own for what it takes.
        reconnect_timeout: seconds to reach the daemon again when the connection has broken. Meanwhile `send` and
            `receive` just take longer; then they raise SessionLostError.
        keepalive: seconds without a word from the daemon after which the client asks whether the connection is still
            there; it is broken if there is no answer in half that time.
        shared_memory: whether messages of more than 64 KiB, such as those with large arrays, go through memory that
            this process shares with the daemon. It must run on the same host, as the same user, and with
            `--shared-memory-bytes`; or else the first message raises BackendUnavailableError.
        interceptors: gRPC's own. Those of `grpc.aio` see all calls that are awaited, of messages too, in this order;
            each `grpc.UnaryUnaryClientInterceptor` sees the plain calls, which block.

    Entering the block raises ConnectionLostError if there is no daemon.
    """
    return RemoteRuntime(
        target,
        scoped=scoped,
        timeout=timeout,
        credentials=credentials,
        max_message_bytes=max_message_bytes,
        reconnect_timeout=reconnect_timeout,
        keepalive=keepalive,
        shared_memory=shared_memory,
        interceptors=interceptors,
    )


@dataclass(frozen=True)
class KernelDescription:
    """What a daemon tells of a kernel, or of a kernel type."""

    kernel_id: str
    kernel_type: str
    """The name of its type."""
    documentation: str
    """The actor's docstring."""
    state: KernelState | None
    """None if it is a type that is not launched under its own name."""
    config: RingKernelConfig
    input_type: type | None
    """A message class for what it takes: this program's own, or one made from the daemon's description."""
    output_type: type | None
    """Likewise, for what it sends."""
    input_type_name: str
    """The full name of its protobuf type."""
    output_type_name: str
    sample_json: str
    """A body of the input type as JSON, ready to be edited."""


class RemoteKernel:
    """A kernel at a daemon: the methods of the runtime with the kernel's id filled in."""

    def __init__(self, runtime: RemoteRuntime, kernel_id: str) -> None:
        self._runtime = runtime
        self.kernel_id = kernel_id

    def __repr__(self) -> str:
        return f"<RemoteKernel {self.kernel_id!r} at {self._runtime.target}>"

    @property
    def state(self) -> KernelState:
        """What the kernel is doing; asks the daemon."""
        return self._runtime.get_kernel_state(self.kernel_id)

    async def activate(self) -> None:
        """See `RemoteRuntime.activate`."""
        await self._runtime.activate(self.kernel_id)

    async def deactivate(self) -> None:
        """See `RemoteRuntime.deactivate`."""
        await self._runtime.deactivate(self.kernel_id)

    async def reactivate(self) -> None:
        """See `RemoteRuntime.reactivate`."""
        await self._runtime.reactivate(self.kernel_id)

    async def terminate(self, timeout: float = 5.0) -> None:
        """See `RemoteRuntime.terminate`."""
        await self._runtime.terminate(self.kernel_id, timeout)

    async def send(self, message: Any, *, timeout: float | None = None) -> None:
        """See `RemoteRuntime.send`."""
        await self._runtime.send(self.kernel_id, message, timeout=timeout)

    async def receive(self, *, timeout: float | None = None) -> Any:
        """See `RemoteRuntime.receive`."""
        return await self._runtime.receive(self.kernel_id, timeout=timeout)

    async def send_and_receive(self, message: Any, *, timeout: float | None = None) -> Any:
        """See `RemoteRuntime.send_and_receive`."""
        return await self._runtime.send_and_receive(self.kernel_id, message, timeout=timeout)

    def get_telemetry(self) -> RingKernelTelemetry | None:
        """See `RemoteRuntime.get_telemetry`."""
        return self._runtime.get_telemetry(self.kernel_id)


class RemoteRuntime:
    """The kernels of a daemon, with the API of `RingKernelRuntime`; made by `connect`.

    Errors are those of `RingKernelRuntime`, equal in class and fields, and ConnectionLostError when the daemon cannot
    be reached. Where the in-process runtime has plain calls (`get_telemetry`, `kernel_ids` and the like), each here is
    a short blocking call with a deadline; its `fetch_…` twin does the same without blocking the event loop.
    """

    def __init__(
        self,
        target: str,
        *,
        scoped: bool,
        timeout: float,
        credentials: grpc.ChannelCredentials | None,
        max_message_bytes: int,
        reconnect_timeout: float,
        keepalive: float,
        shared_memory: bool,
        interceptors: Sequence[Interceptor],
    ) -> None:
        self.target = target
        self._shared_memory = shared_memory
        self._max_message_bytes = max_message_bytes
        self._reconnect_timeout = reconnect_timeout
        self._scoped = scoped
        self._timeout = timeout
        self._credentials = credentials
        self._interceptors = interceptors
        self._awaited = awaited(interceptors)
        self._options = [
            ("grpc.max_receive_message_length", longest_frame(max_message_bytes)),
            ("grpc.max_send_message_length", -1),  # The daemon's own limit is checked, with a clearer error.
            ("grpc.keepalive_time_ms", round(1_000 * keepalive)),
            ("grpc.keepalive_timeout_ms", round(500 * keepalive)),
            # Of a ping that was sent for another purpose, for which keepalive waits too: a minute, if not told.
            ("grpc.http2.ping_timeout_ms", round(500 * keepalive)),
            ("grpc.http2.max_pings_without_data", 0),  # Otherwise the third ping in a row is not sent.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", LONGEST_BACKOFF_MS),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel: grpc.aio.Channel | None = None
        self._blocking_channel: grpc.Channel | None = None
        self._types = RemoteTypes()
        self._sessions: dict[str, Session] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._launched: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<RemoteRuntime at {self.target}{'' if self.is_active else ', not connected'}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.shutdown()

    async def start(self) -> None:
        """Connect. ConnectionLostError if there is no daemon within the time-out of `connect`."""
        if self._channel is not None:
            return
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(self.target, options=self._options, interceptors=self._awaited)
        else:
            channel = grpc.aio.secure_channel(
                self.target, self._credentials, options=self._options, interceptors=self._awaited
            )
        self._channel = channel
        self._kernels = KernelServiceStub(channel)
        self._telemetry = TelemetryServiceStub(channel)
        self._dead_letters = DeadLetterServiceStub(channel)
        try:
            await self._reach(channel)
        except BaseException:
            await self._disconnect()
            raise

    async def _reach(self, channel: grpc.aio.Channel) -> None:
        """Return once the daemon answers.

        A call that waits for its connection would not tell why it waited in vain; so each attempt is one that fails.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            left = max(0.0, deadline - loop.time())
            try:
                await self._kernels.ListKernelTypes(kernel_pb.ListKernelTypesRequest(), timeout=left)
                return
            except grpc.aio.AioRpcError as error:
                lost = from_rpc_error(error, self.target)
                # No waiting mends a certificate. gRPC has no other mark of it than these words.
                hopeless = "handshake failed" in (error.details() or "")
                if hopeless or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise lost from None
            try:
                async with asyncio.timeout_at(deadline):
                    await channel.wait_for_state_change(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
            except TimeoutError:
                raise lost from None

    async def shutdown(self, timeout: float = 10.0) -> None:
        """Disconnect; if `connect` was told `scoped`, terminate the kernels that this client launched first.
        Idempotent.
        """
        if self._channel is None:
            return
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

    async def _disconnect(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
        if self._blocking_channel is not None:
            self._blocking_channel.close()
            self._blocking_channel = None
        self._sessions.clear()
        self._launched.clear()

    @property
    def is_active(self) -> bool:
        """Whether the runtime is connected."""
        return self._channel is not None

    async def _call(self, method: Callable[..., Awaitable[R]], request: object, extra: float = 0.0) -> R:
        self._require_connection()
        try:
            return await method(request, timeout=self._timeout + extra, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.target) from None

    def _require_connection(self) -> None:
        if self._channel is None:
            raise ConnectionLostError(self.target, "not connected; use `async with connect(…) as runtime:`")

    def _blocking(self) -> grpc.Channel:
        """A channel for calls that block: an event loop cannot wait for its own."""
        self._require_connection()
        if self._blocking_channel is None:
            if self._credentials is None:
                channel = grpc.insecure_channel(self.target, options=self._options)
            else:
                channel = grpc.secure_channel(self.target, self._credentials, options=self._options)
            self._blocking_channel = blocking(channel, self._interceptors)
        return self._blocking_channel

    def _blocking_call(self, method: Callable[..., R], request: object) -> R:
        try:
            return method(request, timeout=self._timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from None

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def launch(
        self,
        kernel_id: str,
        kernel_func: KernelFunction | None = None,
        *,
        config: RingKernelConfig | None = None,
        input_type: type | None = None,
        output_type: type | None = None,
    ) -> RemoteKernel:
        """Launch a kernel of a type that the daemon has loaded.

        Args:
            kernel_id: the new kernel's id; names the type too, if `kernel_func` is absent.
            kernel_func: a function that `@ring_kernel` declares: its name names the type. No code travels.
            config: settings other than those the daemon's type declares.
            input_type, output_type: the classes of this program for its messages, where their names do not tell.

        Raises:
            InvalidConfigurationError: `kernel_func` is not declared with `@ring_kernel`.
            KernelNotFoundError: the daemon has no such type.
            KernelAlreadyExistsError, KernelFailedError: as `RingKernelRuntime.launch`.
        """
        name = kernel_id
        classes = [input_type, output_type]
        if kernel_func is not None:
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
            kernel_id=kernel_id, kernel_type=name, config=None if config is None else config_to_proto(config)
        )
        try:
            await self._call(self._kernels.Launch, request)
        except (ConnectionLostError, asyncio.CancelledError):
            self._launched[kernel_id] = None  # Perhaps: there was no answer.
            raise
        self._launched[kernel_id] = None
        return RemoteKernel(self, kernel_id)

    async def activate(self, kernel_id: str) -> None:
        """See `RingKernelRuntime.activate`."""
        await self._call(self._kernels.Activate, kernel_pb.ActivateRequest(kernel_id=kernel_id))

    async def deactivate(self, kernel_id: str) -> None:
        """See `RingKernelRuntime.deactivate`."""
        await self._call(self._kernels.Deactivate, kernel_pb.DeactivateRequest(kernel_id=kernel_id))

    async def reactivate(self, kernel_id: str) -> None:
        """See `RingKernelRuntime.reactivate`."""
        await self._call(self._kernels.Reactivate, kernel_pb.ReactivateRequest(kernel_id=kernel_id))

    async def terminate(self, kernel_id: str, timeout: float = 5.0) -> None:
        """See `RingKernelRuntime.terminate`."""
        request = kernel_pb.TerminateRequest(kernel_id=kernel_id, timeout=duration(timeout))
        await self._call(self._kernels.Terminate, request, extra=timeout)
        self._launched.pop(kernel_id, None)
        session = self._sessions.get(kernel_id)
        if session is not None:
            await session.wait_closed(self._timeout)

    @asynccontextmanager
    async def kernel_scope(
        self,
        kernel_id: str,
        kernel_func: KernelFunction | None = None,
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
        """See `RingKernelRuntime.send`. Under `reject` it returns when the kernel has the message; otherwise it returns
        at once while there is credit, and what is refused later is raised where its reply would be received."""
        session = self._sessions.get(kernel_id)
        if session is None or session.over is not None:
            return self._open_and_send(current_task_or_none(), kernel_id, message, timeout)
        return session.send(session.replies.caller(), message, timeout)

    async def _open_and_send(
        self, task: asyncio.Task[Any] | None, kernel_id: str, message: Any, timeout: float | None
    ) -> None:
        lost = self._sessions.get(kernel_id)
        if lost is not None and lost.untold is not None:  # The first to come by is told, and may send again.
            error, lost.untold = lost.untold, None
            raise error
        session = await self._open(kernel_id, "send", timeout)
        await session.send(session.replies.caller(task), message, timeout)

    def receive(self, kernel_id: str, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """See `RingKernelRuntime.receive`."""
        session = self._sessions.get(kernel_id)
        if session is None or (session.over is not None and not session.replies.has_some()):
            return self._open_and_receive(current_task_or_none(), kernel_id, timeout)
        return session.replies.receive(session.replies.receiver(), timeout)

    async def _open_and_receive(self, task: asyncio.Task[Any] | None, kernel_id: str, timeout: float | None) -> Any:
        try:
            session = await self._open(kernel_id, "receive", timeout)
        except KernelStateError as error:  # Whoever opens a conversation is told that it cannot send.
            raise KernelStateError(error.kernel_id, error.state, "receive", error.allowed_states) from None
        return await session.replies.receive(session.replies.receiver(task), timeout)

    async def send_and_receive(self, kernel_id: str, message: Any, *, timeout: float | None = None) -> Any:
        """See `RingKernelRuntime.send_and_receive`."""
        deadline = None if timeout is None else monotonic() + timeout
        session = self._sessions.get(kernel_id)
        if session is None or session.over is not None:
            session = await self._open(kernel_id, "send_and_receive", timeout)
        return await session.send_and_receive(message, timeout, deadline)

    async def _open(self, kernel_id: str, operation: str, timeout: float | None) -> Session:
        """The session with a kernel; a new one if there is none, or if it is over.

        Raises:
            QueueTimeoutError: it took longer than the time-out of the operation.
            ConnectionLostError: or than that of the connection.
        """
        self._require_connection()
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        try:
            async with asyncio.timeout(limit):
                return await self._open_session(kernel_id)
        except TimeoutError:
            if timeout == limit:
                raise QueueTimeoutError(kernel_id, limit, operation) from None
            raise ConnectionLostError(self.target, f"no answer within {limit:g} s") from None

    async def _open_session(self, kernel_id: str) -> Session:
        async with self._opening.setdefault(kernel_id, asyncio.Lock()):
            session = self._sessions.get(kernel_id)
            if session is not None:
                if session.over is None:
                    return session
                await session.close()
            # Of a kernel that has ended, and was launched again, the old replies are not the new one's.
            broken = session is not None and isinstance(session.over, ConnectionLostError)
            if self._channel is None:  # It was closed while this waited for its turn.
                raise ConnectionLostError(self.target, "the client has closed the connection")
            session = Session(
                kernel_id,
                self.target,
                self._types,
                self._channel,
                reconnect_timeout=self._reconnect_timeout,
                max_message_bytes=self._max_message_bytes,
                shared_memory=self._shared_memory,
                replies=session.replies if session is not None and broken else None,
            )
            await session.open()
            self._sessions[kernel_id] = session
            return session

    # -- questions -----------------------------------------------------------------------------------------------------

    async def describe(self, kernel_id: str) -> KernelDescription:
        """What the daemon tells of a kernel, or of a kernel type; its message classes can be used without the source.

        Raises:
            KernelNotFoundError: there is neither.
        """
        answer = await self._call(self._kernels.DescribeKernel, kernel_pb.DescribeKernelRequest(kernel_id=kernel_id))
        kernel_type = answer.kernel_type
        classes: list[type | None] = []
        for field, message_type in (("input_type", answer.input_type), ("output_type", answer.output_type)):
            known = answer.HasField(field)
            classes.append(self._types.receiving_codec(self._types.learn(message_type)).schema.cls if known else None)
        return KernelDescription(
            kernel_id=kernel_id,
            kernel_type=answer.kernel.kernel_type or kernel_type.name,
            documentation=kernel_type.documentation,
            state=state_from_proto(answer.kernel.state) if answer.HasField("kernel") else None,
            config=config_from_proto(kernel_type.config, RingKernelConfig(kernel_id)),
            input_type=classes[0],
            output_type=classes[1],
            input_type_name=kernel_type.input_type,
            output_type_name=kernel_type.output_type,
            sample_json=answer.sample_json,
        )

    @property
    def kernel_ids(self) -> list[str]:
        """The daemon's kernels that are launched and not terminated. Blocks; see `fetch_kernel_ids`."""
        stub = KernelServiceStub(self._blocking())
        return _ids(self._blocking_call(stub.ListKernels, kernel_pb.ListKernelsRequest()))

    async def fetch_kernel_ids(self) -> list[str]:
        """`kernel_ids`, without blocking."""
        return _ids(await self._call(self._kernels.ListKernels, kernel_pb.ListKernelsRequest()))

    def get_kernel_state(self, kernel_id: str) -> KernelState:
        """What a kernel is doing. Blocks; see `fetch_kernel_state`. KernelNotFoundError if there is none."""
        return KernelState[self._blocking_telemetry([kernel_id])[0].state]

    async def fetch_kernel_state(self, kernel_id: str) -> KernelState:
        """`get_kernel_state`, without blocking."""
        return KernelState[(await self._fetch_telemetry([kernel_id]))[0].state]

    def get_telemetry(self, kernel_id: str) -> RingKernelTelemetry | None:
        """What a kernel has done. Blocks; see `fetch_telemetry`. KernelNotFoundError if there is none."""
        return self._blocking_telemetry([kernel_id])[0]

    async def fetch_telemetry(self, kernel_id: str) -> RingKernelTelemetry | None:
        """`get_telemetry`, without blocking."""
        return (await self._fetch_telemetry([kernel_id]))[0]

    def get_all_telemetry(self) -> dict[str, RingKernelTelemetry]:
        """What each kernel of `kernel_ids` has done. Blocks; see `fetch_all_telemetry`."""
        return _by_id(self._blocking_telemetry([]))

    async def fetch_all_telemetry(self) -> dict[str, RingKernelTelemetry]:
        """`get_all_telemetry`, without blocking."""
        return _by_id(await self._fetch_telemetry([]))

    def get_summary(self) -> RuntimeSummary:
        """The sums over all kernels. Blocks; see `fetch_summary`."""
        return summarize(self._blocking_telemetry([]))

    async def fetch_summary(self) -> RuntimeSummary:
        """`get_summary`, without blocking."""
        return summarize(await self._fetch_telemetry([]))

    async def watch_telemetry(
        self, kernel_ids: Sequence[str] = (), interval: float = 1.0
    ) -> AsyncIterator[dict[str, RingKernelTelemetry]]:
        """Snapshots of these kernels, or of all, at once and then every `interval` seconds."""
        self._require_connection()
        request = telemetry_pb.WatchTelemetryRequest(kernel_ids=kernel_ids, interval=duration(interval))
        try:
            async for response in self._telemetry.WatchTelemetry(request):
                yield _by_id([telemetry_from_proto(each) for each in response.kernels])
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.target) from None

    def _blocking_telemetry(self, kernel_ids: Sequence[str]) -> list[RingKernelTelemetry]:
        stub = TelemetryServiceStub(self._blocking())
        answer = self._blocking_call(stub.GetTelemetry, telemetry_pb.GetTelemetryRequest(kernel_ids=kernel_ids))
        return [telemetry_from_proto(each) for each in answer.kernels]

    async def _fetch_telemetry(self, kernel_ids: Sequence[str]) -> list[RingKernelTelemetry]:
        request = telemetry_pb.GetTelemetryRequest(kernel_ids=kernel_ids)
        answer = await self._call(self._telemetry.GetTelemetry, request)
        return [telemetry_from_proto(each) for each in answer.kernels]

    # -- dead letters --------------------------------------------------------------------------------------------------

    def get_dead_letters(self, kernel_id: str) -> list[DeadLetter]:
        """What a kernel could not deliver, oldest first. Blocks; see `fetch_dead_letters`. KernelNotFoundError if there
        is none. A message that cannot be had here is an `UnreadableMessage`.
        """
        stub = DeadLetterServiceStub(self._blocking())
        request = dead_letter_pb.ListDeadLettersRequest(kernel_id=kernel_id, page_size=LARGEST_PAGE)
        letters: list[DeadLetter] = []
        while True:
            page = self._blocking_call(stub.ListDeadLetters, request)
            letters += read_page(page, self._types)
            if not page.next_page_token:
                return letters
            request.page_token = page.next_page_token

    async def fetch_dead_letters(self, kernel_id: str) -> list[DeadLetter]:
        """`get_dead_letters`, without blocking."""
        request = dead_letter_pb.ListDeadLettersRequest(kernel_id=kernel_id, page_size=LARGEST_PAGE)
        letters: list[DeadLetter] = []
        while True:
            page = await self._call(self._dead_letters.ListDeadLetters, request)
            letters += read_page(page, self._types)
            if not page.next_page_token:
                return letters
            request.page_token = page.next_page_token

    async def requeue_dead_letters(self, kernel_id: str, ids: Iterable[int] | None = None) -> list[int]:
        """See `RingKernelRuntime.requeue_dead_letters`."""
        # On the wire, no ids are all; 0 is no dead letter's. Nor are those that a uint64 cannot hold.
        named = [] if ids is None else [each for each in ids if 0 < each < 2**64] or [0]
        request = dead_letter_pb.RequeueDeadLettersRequest(kernel_id=kernel_id, ids=named)
        return list((await self._call(self._dead_letters.RequeueDeadLetters, request)).ids)


def _ids(answer: kernel_pb.ListKernelsResponse) -> list[str]:
    return [kernel.kernel_id for kernel in answer.kernels]


def _by_id(snapshots: Iterable[RingKernelTelemetry]) -> dict[str, RingKernelTelemetry]:
    return {snapshot.kernel_id: snapshot for snapshot in snapshots}
