"""The function `connect`, with which a program connects to a daemon."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_client.channels import Channels
from pydotcompute_client.contexts import way_of
from pydotcompute_client.credentials import TLS
from pydotcompute_client.interceptors import Interceptor
from pydotcompute_client.runtime import RemoteRuntime
from pydotcompute_client.targets import checked_target
from pydotcompute_client.tokens import Token

__all__ = ["connect"]


def connect(
    target: str | None = None,
    *,
    context: str | None = None,
    scoped: bool = False,
    timeout: float = 10.0,
    tls: TLS | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    token: Token | None = None,
    max_message_bytes: int = 64 << 20,
    reconnect_timeout: float = 60.0,
    keepalive: float = 20.0,
    shared_memory: bool = False,
    interceptors: Sequence[Interceptor] = (),
) -> RemoteRuntime:
    """Return a runtime whose kernels are at a daemon; it connects when its `async with` block is entered.

    Use it as `async with connect("127.0.0.1:50051") as runtime:`. Entering the block raises ConnectionLostError if
    there is no daemon.

    Args:
        target: HOST:PORT, or unix:PATH, of the daemon; the port is 50051 if absent. Targets of gRPC's own, such as
            `dns:///HOST:PORT`, are passed on.
        context: the name of a context that `pydotcompute context add` has made, in place of `target` and `tls`. It has
            the address, the files for TLS, and the file of the token, unless there is a `token`.
        scoped: True to terminate the kernels that this client launched, on exit. Otherwise they live on.
        timeout: seconds to connect, and for each call that is not a message: launching, telemetry and the like. (A call
            of `terminate` may take its own time-out in addition.)
        token: says who this client is, to a daemon that asks: a token, or a function that returns the one for the next
            call. It needs TLS, unless the daemon is on this machine.
        tls: for a daemon that speaks TLS, such as `TLS.directory("tls/clients/alice")`, or `TLS.from_environment()`.
            The files are read now.
        credentials: gRPC's own credentials of a channel, instead of `tls`.
        max_message_bytes: length of the longest message body to receive. The daemon has a limit of its own for the
            messages that it receives.
        reconnect_timeout: seconds to reach the daemon again when the connection has broken. Meanwhile `send` and
            `receive` just take longer; then they raise SessionLostError.
        keepalive: seconds of silence after which the client asks the daemon for a sign of life. If there is no answer
            in half that time, the connection counts as broken.
        shared_memory: True to send messages of more than 64 KiB, such as those with large arrays, through memory that
            this process shares with the daemon. The daemon must run on the same host, as the same user, and with
            `--shared-memory-bytes`; or else the first message raises BackendUnavailableError.
        interceptors: gRPC's client interceptors. Those of `grpc.aio` see all calls that are awaited, of messages too,
            in this order; each `grpc.UnaryUnaryClientInterceptor` sees the plain calls, which block.

    Raises:
        InvalidConfigurationError: the target is no address, there is no such context, an interceptor is of neither
            kind, a file for TLS is not valid, the token would go over the network as plain text, or two of the
            arguments exclude each other.
    """
    if context is not None:
        if target is not None or tls is not None or credentials is not None:
            problem = "a context has the target and what TLS needs; give either the context or these"
            raise InvalidConfigurationError("context", context, problem)
        way = way_of(context)
        target, tls, token = way.target, way.tls, way.token if token is None else token
    elif target is None:
        raise InvalidConfigurationError("target", None, "give the address of a daemon, or a context")
    channels = Channels(
        checked_target(target),
        timeout=timeout,
        tls=tls,
        credentials=credentials,
        token=token,
        max_message_bytes=max_message_bytes,
        keepalive=keepalive,
        interceptors=interceptors,
    )
    return RemoteRuntime(
        channels,
        scoped=scoped,
        max_message_bytes=max_message_bytes,
        reconnect_timeout=reconnect_timeout,
        shared_memory=shared_memory,
    )
