"""What the daemon finds out about its address before gRPC listens there."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import grpc

from pydotcompute.wire.addresses import is_loopback, socket_path, split_address

__all__ = ["OWNER_ALONE", "bind", "is_reached_from_elsewhere", "require_free"]

OWNER_ALONE = 0o600
"""The permissions of a socket file if nothing else is said."""


def require_free(listen: str) -> None:
    """Raise OSError if the daemon cannot listen on the address.

    gRPC's own exception says too little, and gRPC prints too much on stderr. It would also take over the socket file of
    a daemon that is running.
    """
    try:
        path = socket_path(listen)
        host, port = ("", 0) if path is not None else split_address(listen)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    if path is not None:
        _require_free_path(Path(path))
    else:
        _require_free_port(host, port)


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None, mode: int) -> int:
    """Let the server listen on an address, with TLS if there are credentials. Return the port.

    Args:
        mode: the permissions of a socket file. It never has more, not even for a moment.
    """
    path = socket_path(listen)
    before = os.umask(0o777 & ~mode) if path is not None else 0
    try:
        return server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    finally:
        if path is not None:
            os.umask(before)


def _require_free_path(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            os.stat(path.parent)
            return
        except ConnectionRefusedError:
            if stat.S_ISSOCK(path.stat().st_mode):
                return
            raise OSError(errno.EEXIST, "a file is there that is no socket") from None
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _require_free_port(host: str, port: int) -> None:
    error = OSError()
    for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                return
            except OSError as refused:
                error = refused
    raise error


def is_reached_from_elsewhere(listen: str) -> bool:
    """Return True if other machines can connect to the address, on which the daemon listens already."""
    if socket_path(listen) is not None:
        return False
    host, port = split_address(listen)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return not all(is_loopback(str(address[0])) for *_, address in found)
