"""TLS, as a client speaks it: whom it trusts, and who it is."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.wire.certificates import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    Pair,
    Use,
    read_authorities,
    read_pair,
    require_directory,
    require_known_variables,
)

__all__ = ["LOCAL", "TLS", "channel_credentials", "channel_options", "choose", "read"]

LOCAL = "localhost"
"""The name of a daemon at a socket file."""


@dataclass(frozen=True)
class TLS:
    """How a client speaks TLS with a daemon. Files are in PEM form.

    Raises:
        InvalidConfigurationError: only one of certificate and key is given.
    """

    ca: Path | str | None = None
    """The only authority to trust; None for those that this machine trusts."""
    certificate: Path | str | None = None
    """The certificate chain to present, if the daemon asks for one."""
    key: Path | str | None = None
    """The key of that certificate, without a passphrase."""
    name: str | None = None
    """The name that the daemon's certificate is for, if it is not the host of the address. A daemon at a socket file is
    `localhost`."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("tls_certificate", "tls_key") if self.key is None else ("tls_key", "tls_certificate")
            raise InvalidConfigurationError(given, self.certificate or self.key, f"it needs {missing} as well")

    @classmethod
    def directory(cls, directory: Path | str, *, name: str | None = None) -> TLS:
        """Return the TLS of a directory with `tls.crt`, `tls.key` and `ca.crt`, as `pydotcompute tls init` makes it.

        Args:
            name: the name that the daemon's certificate is for, if it is not the host of the address.

        Raises:
            InvalidConfigurationError: the directory lacks the certificate or its key.
        """
        directory = Path(directory)
        require_directory("tls_directory", directory)
        ca = directory / AUTHORITY
        return cls(ca if os.path.lexists(ca) else None, directory / CERTIFICATE, directory / KEY, name)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> TLS | None:
        """Return what the environment variables say that the command `pydotcompute` heeds too; None for plain text.

        The variables are PYDOTCOMPUTE_TLS, PYDOTCOMPUTE_TLS_DIRECTORY, PYDOTCOMPUTE_TLS_CA,
        PYDOTCOMPUTE_TLS_CLIENT_CERTIFICATE, PYDOTCOMPUTE_TLS_CLIENT_KEY, PYDOTCOMPUTE_TLS_NAME and
        PYDOTCOMPUTE_INSECURE.

        Raises:
            InvalidConfigurationError: a variable is empty, or misspelt, or has no effect.
        """
        require_known_variables(variables)
        empty = [name for name in _OF_A_CLIENT if variables.get(name) == ""]
        if empty:
            raise InvalidConfigurationError(empty[0], "", "it is empty; unset it, or give it a value")

        def value(name: str) -> str | None:
            return variables.get(f"PYDOTCOMPUTE_{name}")

        def flag(name: str) -> bool:
            text = (value(name) or "0").lower()
            if text not in _YES | _NO:
                raise InvalidConfigurationError(f"PYDOTCOMPUTE_{name}", text, "it is neither 1 nor 0")
            return text in _YES

        return choose(
            tls=flag("TLS"),
            directory=value("TLS_DIRECTORY"),
            ca=value("TLS_CA"),
            certificate=value("TLS_CLIENT_CERTIFICATE"),
            key=value("TLS_CLIENT_KEY"),
            name=value("TLS_NAME"),
            insecure=flag("INSECURE"),
        )


_YES, _NO = {"1", "true", "t", "yes", "y", "on"}, {"0", "false", "f", "no", "n", "off"}
_OF_A_CLIENT = [
    f"PYDOTCOMPUTE_TLS{name}" for name in ("", "_DIRECTORY", "_CA", "_CLIENT_CERTIFICATE", "_CLIENT_KEY", "_NAME")
]


def choose(
    *,
    tls: bool = False,
    directory: Path | str | None = None,
    ca: Path | str | None = None,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
    name: str | None = None,
    insecure: bool = False,
) -> TLS | None:
    """Return the TLS that options or variables ask for; None for plain text, which is what is left if none does.

    Args:
        tls: True to use TLS, and to trust whom this machine trusts.
        directory: as of `TLS.directory`. It counts if there is neither `tls` nor a file.
        ca, certificate, key, name: as the fields of `TLS`.
        insecure: True for plain text if there is nothing in the directory.

    Raises:
        InvalidConfigurationError: one of them has no effect.
    """
    if tls or ca is not None or certificate is not None or key is not None:
        return TLS(ca, certificate, key, name)
    if directory is not None:
        files = (Path(directory) / each for each in (CERTIFICATE, KEY, AUTHORITY))
        if insecure and Path(directory).is_dir() and not any(map(os.path.lexists, files)):
            return None
        return TLS.directory(directory, name=name)
    return None if name is None else TLS(name=name)


def read(tls: TLS) -> tuple[bytes, Pair | None]:
    """Return the certificates to trust, and the pair to present.

    Raises:
        InvalidConfigurationError: a file cannot be read or is not valid.
    """
    roots = _system_roots() if tls.ca is None else read_authorities("tls_ca", Path(tls.ca))
    if tls.certificate is None or tls.key is None:
        return roots, None
    return roots, read_pair(Path(tls.certificate), Path(tls.key), Use.CLIENT_AUTH)


def channel_credentials(tls: TLS) -> grpc.ChannelCredentials:
    """Return gRPC's credentials. Raises as `read`."""
    roots, pair = read(tls)
    return grpc.ssl_channel_credentials(roots, *(() if pair is None else (pair.key, pair.chain)))


def channel_options(tls: TLS | None, target: str) -> list[tuple[str, str]]:
    """Return what gRPC's channel to a target has to know beside the credentials."""
    if tls is None:
        return []
    # Of a socket file, gRPC would look for the path in the certificate.
    name = tls.name or (LOCAL if target.startswith("unix:") else None)
    return [] if name is None else [("grpc.ssl_target_name_override", name)]


def _system_roots() -> bytes:
    """Return the certificates that OpenSSL's programs trust here, in PEM form. gRPC would use a list of its own."""
    paths = ssl.get_default_verify_paths()
    files = [] if paths.cafile is None else [Path(paths.cafile)]
    if paths.capath is not None:
        files += sorted(Path(paths.capath).glob("*.[0-9]"))  # OpenSSL uses such names.
    pem = b"\n".join(file.read_bytes() for file in files if file.is_file() and os.access(file, os.R_OK))
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        problem = "this machine trusts nobody; SSL_CERT_FILE or tls_ca can name a file with an authority, in PEM form"
        raise InvalidConfigurationError("tls", True, problem)
    return pem
