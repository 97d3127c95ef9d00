"""A daemon that other machines reach knows who they are, unless its operator wants it otherwise."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_server.settings import Settings
from pydotcompute_server.transport.listening import is_reached_from_elsewhere

__all__ = ["is_authenticated", "require_protection", "warn_again_and_again"]

logger = logging.getLogger(__name__)

ADVICE = (
    "give --tls-directory DIR, which `pydotcompute tls init` makes, or --tls-certificate and --tls-key, with "
    "--tls-client-ca, --tokens or --access; or listen on 127.0.0.1 or unix:PATH; or accept it with --insecure"
)


def is_authenticated(settings: Settings) -> bool:
    """Return True if every client has to prove who it is."""
    has_client_ca = settings.tls is not None and settings.tls.client_ca is not None
    return has_client_ca or settings.access is not None or settings.tokens is not None


def require_protection(settings: Settings) -> None:
    """Raise InvalidConfigurationError if strangers could use the daemon, and nobody has allowed it.

    The error is also raised if `settings.insecure` allows what is not so.
    """
    if settings.insecure and settings.tls is not None and is_authenticated(settings):
        problem = "the other settings say that there is TLS, and that clients prove who they are; leave it out"
        raise InvalidConfigurationError("insecure", settings.insecure, problem)
    if not settings.insecure and (risk := _risk(settings)):
        raise InvalidConfigurationError(
            "listen", settings.listen, f"other machines reach this address, and {risk}; {ADVICE}"
        )


async def warn_again_and_again(settings: Settings, address: str) -> NoReturn:
    """Log a warning now and at intervals if strangers can use the daemon, which listens on this address."""
    risk = _risk(settings)
    while True:
        if risk:
            logger.warning(
                "other machines reach this address, and %s: --insecure allows it",
                risk,
                extra={"address": address},
            )
        await asyncio.sleep(settings.limits.insecure_warning)


def _risk(settings: Settings) -> str | None:
    """Return what strangers can do to a daemon with these settings; None if it is nothing."""
    try:
        if not is_reached_from_elsewhere(settings.listen):
            return None
    except (OSError, ValueError):
        return None  # Nobody reaches it: the daemon cannot listen there, and says why when it tries.
    if settings.tls is None:
        return "there is no TLS: whoever is on the way reads along, and may use the kernels"
    if not is_authenticated(settings):
        return "nobody has to prove who they are: whoever reaches it may use the kernels"
    return None
