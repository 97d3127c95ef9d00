"""The settings of a daemon, from the command line or from the program that embeds it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.ring_kernels.declaration import Isolation
from pydotcompute.wire.certificates import AUTHORITY, CERTIFICATE, KEY, require_directory
from pydotcompute_server.limits import Limits

__all__ = ["MissingSettingError", "Settings", "TlsFiles"]

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
class TlsFiles:
    """The files, in PEM form, with which a daemon speaks TLS."""

    certificate: Path
    """The certificate chain."""
    key: Path
    """The certificate's key."""
    client_ca: Path | None
    """The authorities one of which has signed each client's certificate; None if clients need no certificate."""


@dataclass(frozen=True)
class Settings:
    """How a daemon runs. Each default is that of the command line.

    Raises:
        MissingSettingError: a setting for TLS would have no effect, because another one is missing.
        InvalidConfigurationError: two settings for TLS exclude each other.
    """

    listen: str = "127.0.0.1:50051"
    """HOST:PORT, or unix:PATH; port 0 is any free port."""
    launch: Sequence[str] = ()
    """Names of the kernel types to launch and activate at start; `all` stands for every type."""
    isolation: Isolation = "none"
    """Whether kernels run in worker processes, `none` or `process`, where their types leave that open."""
    kernels: Sequence[str] = ()
    """The files, directories and modules of `describe_kernel_types`, so that they can be loaded again. It has an effect
    only with `isolation="process"`."""
    reload: bool = False
    """True to load the files of kernels again whenever they change, for development."""
    limits: Limits = field(default_factory=Limits)
    """How much the daemon takes and keeps, and how long it waits."""
    socket_mode: int | None = None
    """Who may connect to unix:PATH: the permissions of the socket's file; None for 0o600, the daemon's user alone."""
    tls_directory: Path | None = None
    """Directory with the certificate chain `tls.crt`, its key `tls.key`, and perhaps `ca.crt`, the authority whose
    certificates clients must present: instead of the three files below."""
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
    insecure: bool = False
    """True to let strangers in: to listen to other machines without TLS, or without knowing who they are. True also
    allows that there is nothing in `tls_directory`."""

    def __post_init__(self) -> None:
        if self.reload:
            if self.isolation != "process":
                raise InvalidConfigurationError("reload", True, "only a daemon with --isolation process can do that")
            if importlib.util.find_spec("watchfiles") is None:
                problem = "it needs watchfiles; install it with `pip install 'pydotcompute-grpc[reload]'`"
                raise InvalidConfigurationError("reload", True, problem)
        if self.tls_directory is not None and any(getattr(self, name) is not None for name in _NEEDED):
            problem = "it has the certificate, the key and the authority: leave out the settings for single files"
            raise InvalidConfigurationError("tls_directory", self.tls_directory, problem)
        for name, needed in _NEEDED.items():
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise MissingSettingError(needed, name)
        if self.socket_mode is not None:
            if not 0 <= self.socket_mode <= 0o777:
                raise InvalidConfigurationError("socket_mode", f"{self.socket_mode:o}", "permissions are 777 at most")
            if not self.listen.startswith("unix:"):
                problem = "it is for the file of unix:PATH, and has no effect at another address"
                raise InvalidConfigurationError("socket_mode", f"{self.socket_mode:o}", problem)

    @cached_property
    def tls(self) -> TlsFiles | None:
        """The files for TLS, which may not be valid; None for plain text.

        Raises:
            InvalidConfigurationError: `tls_directory` lacks the certificate or its key.
        """
        if self.tls_directory is None:
            if self.tls_certificate is None or self.tls_key is None:
                return None
            return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)
        certificate, key, client_ca = (self.tls_directory / name for name in (CERTIFICATE, KEY, AUTHORITY))
        if (
            self.insecure
            and self.tls_directory.is_dir()
            and not any(map(os.path.lexists, (certificate, key, client_ca)))
        ):
            return None
        require_directory("tls_directory", self.tls_directory)
        return TlsFiles(certificate, key, client_ca if os.path.lexists(client_ca) else None)
