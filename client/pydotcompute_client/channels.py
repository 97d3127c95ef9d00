"""The two channels to a daemon: one for calls that are awaited, and one for calls that block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias, TypeVar, cast

import grpc

from pydotcompute import __version__
from pydotcompute.exceptions import ConnectionLostError, InvalidConfigurationError
from pydotcompute.ring_kernels.mail.loops import require_loop
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1.client_service_pb2_grpc import ClientServiceStub
from pydotcompute.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.server_service_pb2_grpc import ServerServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from pydotcompute.wire.errors import from_rpc_error
from pydotcompute.wire.lengths import longest_frame
from pydotcompute_client.credentials import TLS, channel_credentials, channel_options
from pydotcompute_client.diagnosis import find_tls_problem
from pydotcompute_client.forks import require_no_fork
from pydotcompute_client.interceptors import Interceptor, awaited, blocking
from pydotcompute_client.pauses import pause
from pydotcompute_client.retries import RETRIES
from pydotcompute_client.targets import proxy_options, with_proxy
from pydotcompute_client.tokens import Token, sender

__all__ = ["USER_AGENT", "Call", "Channels", "Question", "Stubs"]

A = TypeVar("A")
Q = TypeVar("Q")
R = TypeVar("R")

LONGEST_BACKOFF_MS = 2_000
"""The longest time between two attempts to connect again, in milliseconds. gRPC begins with less, and adds jitter."""


USER_AGENT = f"pydotcompute/{__version__}"
"""What the daemon is told of the program that calls."""


class Stubs:
    """The stubs of the daemon's services, over one channel."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self.kernels: KernelServiceStub = KernelServiceStub(channel)
        self.telemetry: TelemetryServiceStub = TelemetryServiceStub(channel)
        self.dead_letters: DeadLetterServiceStub = DeadLetterServiceStub(channel)
        self.server: ServerServiceStub = ServerServiceStub(channel)
        self.clients: ClientServiceStub = ClientServiceStub(channel)


@dataclass(frozen=True)
class Call:
    """One call of a question: a method of a stub, and the request."""

    method: Callable[[Stubs], grpc.UnaryUnaryMultiCallable[Any, Any]]
    request: Any


Question: TypeAlias = Generator[Call, Any, R]
"""Yields its calls, is sent their responses, and returns what they mean. It does no I/O, so that one question serves
`Channels.ask` as well as `Channels.ask_blocking`."""


class Channels:
    """The two channels to a daemon; the one for calls that block is opened with the first such call.

    Args:
        target: HOST:PORT, or unix:PATH, of the daemon.
        timeout: seconds to connect, and for each call.
        tls: for a daemon that speaks TLS.
        credentials: gRPC's own, instead of `tls`.
        max_message_bytes: length of the longest message body to receive.
        keepalive: seconds of silence after which the client asks the daemon for a sign of life.
        token: says who the client is.
        interceptors: gRPC's client interceptors, each for the channel of its kind.

    Raises:
        InvalidConfigurationError: an interceptor is of no kind that gRPC has for clients, a file for TLS is not valid,
            there are both `tls` and `credentials`, or the token would go over the network as plain text.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float,
        tls: TLS | None,
        credentials: grpc.ChannelCredentials | None,
        max_message_bytes: int,
        keepalive: float,
        token: Token | None = None,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self.target = target
        self.metadata = sender(token, target, encrypted=tls is not None or credentials is not None)
        """Returns the metadata of the next call."""
        self.timeout = timeout
        if tls is not None and credentials is not None:
            raise InvalidConfigurationError(
                "credentials", type(credentials).__name__, "tls stands for them: give either"
            )
        self._tls = tls
        self._knows_tls = credentials is None
        self._credentials = credentials if tls is None else channel_credentials(tls)
        self._interceptors = interceptors
        self._awaited = awaited(interceptors)
        self._options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", longest_frame(max_message_bytes)),
            ("grpc.max_send_message_length", -1),  # The daemon's own limit is checked, with a clearer error.
            ("grpc.keepalive_time_ms", round(1_000 * keepalive)),
            ("grpc.keepalive_timeout_ms", round(500 * keepalive)),
            # The time-out of pings that gRPC sends for other purposes: keepalive waits for these too, by default for a
            # minute.
            ("grpc.http2.ping_timeout_ms", round(500 * keepalive)),
            ("grpc.http2.max_pings_without_data", 0),  # Otherwise the third ping in a row is not sent.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", LONGEST_BACKOFF_MS),
            ("grpc.use_local_subchannel_pool", 1),
            RETRIES,
            ("grpc.primary_user_agent", USER_AGENT),
            *proxy_options(target),
            *channel_options(tls, target),
        ]
        self._channel: grpc.aio.Channel | None = None
        self._stubs: Stubs | None = None
        self._blocking_channel: grpc.Channel | None = None
        self._blocking_stubs: Stubs | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def let_go(self) -> object:
        """Forget the connections without closing them, and return them."""
        connections = self._loop, self._channel, self._stubs, self._blocking_channel, self._blocking_stubs
        self._channel = self._stubs = self._blocking_channel = self._blocking_stubs = self._loop = None
        return connections

    @property
    def are_open(self) -> bool:
        """True from the beginning of `open` until it fails, or until `close`."""
        return self._channel is not None

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel that the event loop waits for. ConnectionLostError if it is not open."""
        if self._channel is None:
            require_no_fork()
            raise ConnectionLostError(self.target, "not connected; use `async with connect(…) as runtime:`")
        return self._channel

    @property
    def is_connected(self) -> bool:
        """True if there is a connection to the daemon now, as far as gRPC knows."""
        return self._channel is not None and self._channel.get_state() is grpc.ChannelConnectivity.READY

    def require_open(self) -> None:
        """Raise ConnectionLostError if the channels are not open, and MisuseError in another loop than theirs."""
        _ = self.channel
        require_loop(self._loop)

    @property
    def are_orphans(self) -> bool:
        """True if the channels are open, but their event loop is closed."""
        return self._loop is not None and self._loop.is_closed()

    @property
    def stubs(self) -> Stubs:
        """The services over `channel`. Raises as `require_open`."""
        self.require_open()
        if self._stubs is None:
            self._stubs = Stubs(self.channel)
        return self._stubs

    def _stubs_that_block(self) -> Stubs:
        """Return the services over the channel for calls that block. ConnectionLostError if it is not open.

        A call that blocks the event loop cannot use `channel`, because that needs the event loop.
        """
        _ = self.channel
        if self._blocking_stubs is None:
            if self._credentials is None:
                channel = grpc.insecure_channel(self.target, options=self._options)
            else:
                channel = grpc.secure_channel(self.target, self._credentials, options=self._options)
            self._blocking_channel = channel
            self._blocking_stubs = Stubs(blocking(channel, self._interceptors))
        return self._blocking_stubs

    async def open(self) -> None:
        """Connect.

        Raises:
            ConnectionLostError: there is no daemon within the time-out.
            MisuseError: this process was forked from one that had connected.
        """
        require_no_fork()
        self._loop = asyncio.get_running_loop()
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(self.target, options=self._options, interceptors=self._awaited)
        else:
            channel = grpc.aio.secure_channel(
                self.target, self._credentials, options=self._options, interceptors=self._awaited
            )
        self._channel = channel
        try:
            await self._reach(channel)
        except BaseException:
            await self.close()
            raise

    async def _reach(self, channel: grpc.aio.Channel) -> None:
        """Return once the daemon answers.

        A call that waits for its connection does not say why it waited in vain. So each attempt fails at once if there
        is no connection. Where a proxy answers for a daemon that is down there is one: then the pauses grow.

        What is wrong with TLS stays wrong, so that is the end.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        list_types = KernelServiceStub(channel).ListKernelTypes
        for failures in count():
            left = max(0.0, deadline - loop.time())
            try:
                request = kernel_pb.ListKernelTypesRequest(page_size=1)
                await list_types(request, timeout=left, metadata=self.metadata())
                return
            except grpc.aio.AioRpcError as error:
                lost, details = from_rpc_error(error, self.target), error.details() or ""
                if isinstance(lost, ConnectionLostError):
                    lost = with_proxy(lost)
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise lost from None
            if problem := await self._tls_problem():
                raise ConnectionLostError(self.target, problem)
            if "handshake failed" in details:  # These words are all that marks a wrong certificate.
                raise lost
            try:
                async with asyncio.timeout_at(deadline):
                    await channel.wait_for_state_change(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
                    if channel.get_state() is grpc.ChannelConnectivity.READY:
                        await asyncio.sleep(pause(failures))
            except TimeoutError:
                if problem := await self._tls_problem():
                    lost = ConnectionLostError(self.target, problem)
                raise lost from None

    async def _tls_problem(self) -> str | None:
        """Return what is wrong with TLS; None if nothing is, or the credentials are gRPC's own."""
        return await asyncio.to_thread(find_tls_problem, self.target, self._tls) if self._knows_tls else None

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        channel, self._channel, self._stubs, self._loop = self._channel, None, None, None
        if channel is not None:
            await channel.close()
        if self._blocking_channel is not None:
            self._blocking_channel.close()
            self._blocking_channel = self._blocking_stubs = None

    async def call(
        self, method: Callable[[Stubs], grpc.UnaryUnaryMultiCallable[Q, A]], request: Q, extra: float = 0.0
    ) -> A:
        """Return the response to one request, which may take `extra` seconds more than the time-out.

        Raises:
            PyDotComputeError: the error that the daemon answers with, or ConnectionLostError.
        """
        waiting = cast(Callable[..., Awaitable[A]], method(self.stubs))
        try:
            return await waiting(request, timeout=self.timeout + extra, metadata=self.metadata(), wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.target) from None

    def _call_blocking(self, call: Call) -> Any:
        method = call.method(self._stubs_that_block())
        try:
            return method(call.request, timeout=self.timeout, metadata=self.metadata(), wait_for_ready=True)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from None

    async def ask(self, question: Question[R]) -> R:
        """Return the answer to a question. Raises as `call`."""
        response = None
        while True:
            try:
                call = question.send(response)
            except StopIteration as end:
                return cast(R, end.value)
            response = await self.call(call.method, call.request)

    def ask_blocking(self, question: Question[R]) -> R:
        """Return the answer to a question, and block the event loop meanwhile. Raises as `call`."""
        response = None
        while True:
            try:
                call = question.send(response)
            except StopIteration as end:
                return cast(R, end.value)
            response = self._call_blocking(call)
