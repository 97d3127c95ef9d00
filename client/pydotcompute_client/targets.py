"""The target of a client: its check, and the proxies through which gRPC reaches it."""

from __future__ import annotations

import ipaddress
import os
import re

from pydotcompute.exceptions import ConnectionLostError, InvalidConfigurationError
from pydotcompute.wire.addresses import DEFAULT_PORT, is_loopback, socket_path, split_address

__all__ = ["checked_target", "proxy_options", "proxy_variable", "with_proxy"]

_OF_GRPC = re.compile("(?:dns|ipv4|ipv6|unix-abstract|vsock|xds|google-c2p):")
"""The beginnings of the targets that are gRPC's own, and that gRPC checks."""
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def checked_target(target: str) -> str:
    """Return the target in the form that gRPC takes. If it names no port, it gets the daemon's default.

    Raises:
        InvalidConfigurationError: the target is neither HOST:PORT, nor unix:PATH, nor a target of gRPC's own.
    """
    try:
        if _OF_GRPC.match(target) or socket_path(target) is not None:
            return target
        host, port = split_address(target, DEFAULT_PORT)
        if port == 0:
            raise ValueError("no daemon's address; a daemon on port 0 says in its first line which port it has")
    except ValueError as error:
        raise InvalidConfigurationError("target", target, str(error)) from None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(target: str) -> str:
    """Return the host in a target that `checked_target` has returned; empty if gRPC would use no proxy for it."""
    if target.startswith(("unix", "vsock", "xds", "google-c2p")):
        return ""
    address = _OF_GRPC.sub("", target).rpartition("/")[2]
    try:
        return split_address(address, DEFAULT_PORT)[0]
    except ValueError:
        return ""


def stays_here(target: str) -> bool:
    """Return True if what is sent to the target does not leave this machine."""
    return target.startswith("unix") or is_loopback(_host(target))


def proxy_options(target: str) -> list[tuple[str, int]]:
    """Return gRPC's options for a target: a proxy is never asked for a daemon on this machine."""
    return [("grpc.enable_http_proxy", 0)] if is_loopback(_host(target)) else []


def proxy_variable(target: str) -> str | None:
    """Return the environment variable with the proxy through which gRPC reaches the target; None if there is none."""
    host = _host(target)
    if not host or is_loopback(host):
        return None
    exceptions = next(filter(None, map(os.environ.get, _EXCEPTIONS)), "")
    if any(_covers(each.strip(), host) for each in exceptions.split(",")):
        return None
    return next((name for name in _PROXIES if os.environ.get(name)), None)


def _covers(exception: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(exception, strict=False)
    except ValueError:
        return bool(exception) and host.endswith(exception)


def with_proxy(error: ConnectionLostError) -> ConnectionLostError:
    """Return the error, and name the proxy's variable in it if there is one: gRPC's text has only an address."""
    variable = proxy_variable(error.target)
    if variable is None or type(error) is not ConnectionLostError:
        return error
    note = f"gRPC asks the proxy that the environment variable {variable} names; no_proxy can except this host"
    return ConnectionLostError(error.target, f"{error.problem} ({note})")
