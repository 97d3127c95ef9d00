"""The settings of a daemon, from the command line or from the program that embeds it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_server.limits import Limits

__all__ = ["MissingSettingError", "Settings"]

_NEEDED = {
    "tls_certificate": "tls_key",
    "tls_key": "tls_certificate",
    "tls_client_ca": "tls_certificate",
}
"""The settings for TLS that have no effect alone, each with the one that it needs."""


class MissingSettingError(InvalidConfigurationError):
    """A setting is missing without which another one, `needed_by`, has no effect."""

    fields = ("parameter", "needed_by")

    def __init__(self, parameter: str, needed_by: str) -> None:
        super().__init__(parameter, None, f"it is missing, and {needed_by} has no effect without it")
        self.needed_by = needed_by


@dataclass(frozen=True)
class Settings:
    """How a daemon runs. Each default is that of the command line.

    Raises:
        MissingSettingError: a setting for TLS would have no effect, because another one is missing.
    """

    listen: str = "127.0.0.1:50051"
    """HOST:PORT, or unix:PATH; port 0 is any free port."""
    launch: Sequence[str] = ()
    """Names of the kernel types to launch and activate at start; `all` stands for every type."""
    limits: Limits = field(default_factory=Limits)
    """How much the daemon takes and keeps, and how long it waits."""
    tls_certificate: Path | None = None
    """PEM file of the certificate chain. Without one, connections are not encrypted."""
    tls_key: Path | None = None
    """PEM file of the certificate's key."""
    tls_client_ca: Path | None = None
    """PEM file of the authority whose certificates clients must present."""
    access: Path | None = None
    """TOML file that says which role each principal has. Without one, a token has its own role, and whoever has a
    certificate of the authority may do everything."""
    tokens: Path | None = None
    """File of the hashes of the tokens with which clients say who they are."""
    audit_log: Path | None = None
    """File to which it is written who has done what, and what was refused. Without one, that goes to the log, if
    clients are asked who they are."""

    def __post_init__(self) -> None:
        for name, needed in _NEEDED.items():
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise MissingSettingError(needed, name)

    def credentials(self) -> grpc.ServerCredentials | None:
        """Return gRPC's credentials for TLS, or None for plain text.

        Raises:
            OSError: a file cannot be read, or its contents are not valid.
        """
        if self.tls_certificate is None or self.tls_key is None:
            return None
        # Python checks the files first, because gRPC would report a bad file only on stderr.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls_certificate, self.tls_key)
        if self.tls_client_ca is not None:
            context.load_verify_locations(self.tls_client_ca)
        client_ca = None if self.tls_client_ca is None else self.tls_client_ca.read_bytes()
        pair = (self.tls_key.read_bytes(), self.tls_certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)
