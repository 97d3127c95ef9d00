"""Addresses as people write them: HOST:PORT, with the brackets of an IPv6 address, or unix:PATH."""

from __future__ import annotations

import ipaddress
import re

__all__ = ["DEFAULT_PORT", "is_loopback", "socket_path", "split_address"]

DEFAULT_PORT = 50051
"""The port on which a daemon listens if it is told no other."""

_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[\w.%-]+)(?::([0-9]+))?")
_WANTED = "not HOST:PORT, nor unix:PATH"


def socket_path(address: str) -> str | None:
    """Return the path of `unix:PATH`; None for an address that is no socket file. ValueError if the path is empty."""
    found = re.fullmatch("unix:(?://)?(.*)", address, re.DOTALL)
    if found is None:
        return None
    if not found[1]:
        raise ValueError(_WANTED)
    return found[1]


def split_address(address: str, default_port: int | None = None) -> tuple[str, int]:
    """Return the host, without brackets, and the port of HOST:PORT.

    Args:
        default_port: the port of an address that names none; None if it has to.

    Raises:
        ValueError: the text is no address. The error's text says what is wrong with it.
    """
    scheme, sign, rest = address.partition("://")
    if sign:
        raise ValueError(f"{_WANTED}; write {rest.partition('/')[0] or 'HOST:PORT'} without {scheme}://")
    found = _ADDRESS.fullmatch(address)
    if found is None and address.partition(":")[0] == "*":
        raise ValueError(f"{_WANTED}; 0.0.0.0 and [::] stand for all addresses of this machine")
    if found is None and address.count(":") > 1:
        raise ValueError(f"{_WANTED}; an IPv6 address stands in brackets, as in [::1]:{DEFAULT_PORT}")
    if found is None or (found[2] is None and default_port is None):
        raise ValueError(_WANTED)
    host = found[1].strip("[]")
    if found[1] != host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{_WANTED}; {host} is no IPv6 address") from None
    port = int(found[2] or default_port or 0)
    if port > 65535:
        raise ValueError(f"{_WANTED}; the highest port is 65535")
    return host, port


def is_loopback(host: str) -> bool:
    """Return True if a host is this machine, by its name or its address. No name is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
