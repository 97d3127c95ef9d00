"""`connect`: a program's way to a daemon."""

from __future__ import annotations

import grpc

from pydotcompute_client.channels import Channels
from pydotcompute_client.runtime import RemoteRuntime

__all__ = ["connect"]


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

    Entering the block raises ConnectionLostError if there is no daemon.
    """
    channels = Channels(
        target, timeout=timeout, credentials=credentials, max_message_bytes=max_message_bytes, keepalive=keepalive
    )
    return RemoteRuntime(
        channels,
        scoped=scoped,
        max_message_bytes=max_message_bytes,
        reconnect_timeout=reconnect_timeout,
        shared_memory=shared_memory,
    )
