"""What the command line, or the program that embeds the daemon, says."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from pydotcompute_server.limits import Limits

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How a daemon is to run; each default is that of the command line."""

    listen: str = "127.0.0.1:50051"
    """HOST:PORT, or unix:PATH; port 0 is any free port."""
    launch: Sequence[str] = ()
    """Kernel types to launch and activate at start; `all` is every one."""
    limits: Limits = field(default_factory=Limits)
    """How much the daemon takes, keeps, and waits for."""
    tls_certificate: Path | None = None
    """PEM file of the certificate chain; without one the daemon speaks plain text."""
    tls_key: Path | None = None
    """PEM file of the certificate's key."""
    tls_client_ca: Path | None = None
    """PEM file of the authority whose certificates clients must present."""

    def credentials(self) -> grpc.ServerCredentials | None:
        """What TLS needs; None for plain text. OSError if a file cannot be read, or is not what it should be."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        # gRPC would say what is wrong with the files on stderr alone.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls_certificate, self.tls_key)
        if self.tls_client_ca is not None:
            context.load_verify_locations(self.tls_client_ca)
        client_ca = None if self.tls_client_ca is None else self.tls_client_ca.read_bytes()
        pair = (self.tls_key.read_bytes(), self.tls_certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)
