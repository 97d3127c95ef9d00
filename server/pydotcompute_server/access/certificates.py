"""The name in a client's certificate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["name_in"]


def name_in(properties: Mapping[str, Iterable[bytes]]) -> str | None:
    """Return the name in the certificate of a connection's other end, which gRPC has verified. None without one.

    It is the certificate's first URI, such as a SPIFFE id, else its first DNS name, else its common name.

    Args:
        properties: of `context.auth_context()`.
    """
    for key in ("peer_uri", "peer_dns", "x509_common_name"):
        for value in properties.get(key, ()):
            return value.decode(errors="replace")
    return None
