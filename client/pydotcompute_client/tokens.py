"""The token with which a client says who it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_client.targets import stays_here

__all__ = ["Metadata", "Token", "no_metadata", "sender"]

Token: TypeAlias = str | Callable[[], str]
"""A token, or a function that returns the token for the next call."""
Metadata: TypeAlias = tuple[tuple[str, str], ...]


def no_metadata() -> Metadata:
    """Return the metadata of a call without a token."""
    return ()


def sender(token: Token | None, target: str, *, encrypted: bool) -> Callable[[], Metadata]:
    """Return a function that returns the metadata of the next call.

    Raises:
        InvalidConfigurationError: others could read the token on the way to the target, or it is no token. So does the
            function that is returned, if the token comes from a function.
    """
    if token is None:
        return no_metadata
    if not encrypted and not stays_here(target):
        problem = "it would go over the network as plain text, to whoever reads along; use TLS"
        raise InvalidConfigurationError("token", "…", problem)
    if callable(token):
        return lambda: _metadata(token())
    metadata = _metadata(token)
    return lambda: metadata


def _metadata(token: str) -> Metadata:
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidConfigurationError("token", "…", "a token is one word of printable ASCII characters")
    return (("authorization", f"Bearer {token}"),)
