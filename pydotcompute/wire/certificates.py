"""Certificates in files, checked before gRPC gets them: of a bad file gRPC says something on stderr alone, or nothing.

The commands and the client find the files by environment variables too, which are listed here.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = [
    "AUTHORITY",
    "CERTIFICATE",
    "KEY",
    "VARIABLES",
    "Pair",
    "Use",
    "read_authorities",
    "read_pair",
    "require_directory",
    "require_known_variables",
]

CERTIFICATE = "tls.crt"
"""The certificate's file in a directory of certificates. These are the names of a Kubernetes secret."""
KEY = "tls.key"
"""The key's file there."""
AUTHORITY = "ca.crt"
"""The file there of the authority that the other side's certificate must be of."""

VARIABLES = {
    f"PYDOTCOMPUTE_{name}"
    for name in (
        *("INSECURE", "TLS_DIRECTORY"),  # Of both commands.
        *("TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA"),  # Of the daemon.
        *("TLS", "TLS_CA", "TLS_NAME", "TLS_CLIENT_CERTIFICATE", "TLS_CLIENT_KEY"),  # Of the client.
    )
}
"""All environment variables for TLS. In an image the daemon and its client have the same ones."""

Use = ssl.Purpose
"""What the other side takes a certificate for: `SERVER_AUTH` says that it is a daemon's, `CLIENT_AUTH` a client's."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, which fit together."""

    chain: bytes
    """The certificate and those of the authorities between, in PEM form."""
    key: bytes
    """The key, in PEM form."""
    names: tuple[str, ...]
    """The names and addresses that the certificate is for; else its subject's common name."""
    expires: float
    """When it expires, in seconds since 1970."""


def require_known_variables(variables: Mapping[str, str]) -> None:
    """Raise InvalidConfigurationError if a variable looks like one of `VARIABLES` and is none.

    So a name that somebody has misspelt does not turn encryption off.
    """
    for variable in sorted(variables):
        if variable.startswith(("PYDOTCOMPUTE_TLS", "PYDOTCOMPUTE_INSECURE")) and variable not in VARIABLES:
            near = get_close_matches(variable, sorted(VARIABLES), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidConfigurationError(
                variable, os.environ.get(variable), f"there is no variable of this name{hint}"
            )


def require_directory(parameter: str, directory: Path) -> None:
    """Raise InvalidConfigurationError if a directory of certificates lacks the certificate or its key."""
    missing = [name for name in (CERTIFICATE, KEY) if not os.path.lexists(directory / name)]
    if missing:
        problem = f"there is no {' and no '.join(missing)} in it; `pydotcompute tls init` makes such directories"
        raise InvalidConfigurationError(parameter, directory, problem)


def read_pair(certificate: Path, key: Path, use: Use) -> Pair:
    """Return a certificate and its key.

    Raises:
        InvalidConfigurationError: one cannot be read or is not valid, they do not belong together, or the other side
            would not take the certificate for this use. `parameter` is `tls_certificate` or `tls_key`.
    """
    chain = _read("tls_certificate", certificate)
    _parsed("tls_certificate", certificate, chain)
    secret = _read("tls_key", key)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    try:
        for side in (server, client):
            side.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise _unfit(certificate, key, error) from None
    except OSError as error:  # It has gone, or changed hands, since it was read above.
        raise InvalidConfigurationError("tls_key", key, f"it cannot be read: {error.strerror}") from None
    verifying, other = (client, server) if use is Use.SERVER_AUTH else (server, client)
    other.verify_mode = ssl.CERT_NONE
    verifying.load_verify_locations(cadata=_text(chain))
    verifying.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # It is to trust this certificate alone, whoever signed it.
    verifying.verify_mode = ssl.CERT_REQUIRED
    try:
        facts = _meet(server, client, use)
    except ssl.SSLCertVerificationError as error:
        raise InvalidConfigurationError("tls_certificate", certificate, error.verify_message) from None
    except ssl.SSLError as error:
        raise InvalidConfigurationError("tls_certificate", certificate, error.reason or str(error)) from None
    return Pair(chain, secret, _names(facts), _expiry(facts))


def read_authorities(parameter: str, path: Path) -> bytes:
    """Return the certificates of authorities, in PEM form.

    Raises:
        InvalidConfigurationError: the file cannot be read, has no certificate, or all have expired.
    """
    pem = _read(parameter, path)
    known = _parsed(parameter, path, pem).get_ca_certs()
    if known and all(_expiry(each) < time.time() for each in known):
        raise InvalidConfigurationError(parameter, path, f"it has expired, on {known[0]['notAfter']}")
    return pem


def _read(parameter: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        who = f"; this process is user {os.geteuid()}" if isinstance(error, PermissionError) else ""
        raise InvalidConfigurationError(parameter, path, f"it cannot be read: {error.strerror}{who}") from None


def _text(pem: bytes) -> str:
    return pem.decode("ascii", "ignore")  # Comments may be in any script.


def _parsed(parameter: str, path: Path, pem: bytes) -> ssl.SSLContext:
    """Return a context that trusts the certificates in a PEM text."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=_text(pem))
    except (ssl.SSLError, ValueError):  # ValueError for an empty text.
        raise InvalidConfigurationError(parameter, path, "there is no valid certificate in it, in PEM form") from None
    return context


def _unfit(certificate: Path, key: Path, error: ssl.SSLError) -> InvalidConfigurationError:
    match error.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH":
            return InvalidConfigurationError("tls_key", key, f"it is not the key of {certificate}")
        case "EE_KEY_TOO_SMALL" | "CA_KEY_TOO_SMALL" | "CA_MD_TOO_WEAK":
            return InvalidConfigurationError("tls_certificate", certificate, f"it is too weak: {error.reason}")
        case reason:
            problem = "there is no valid key in it, in PEM form and without a passphrase"
            return InvalidConfigurationError("tls_key", key, f"{problem} ({reason})" if reason else problem)


def _meet(server: ssl.SSLContext, client: ssl.SSLContext, use: Use) -> dict[str, object]:
    """Let two sides agree, without a network. Return what the certificate says that one of them has verified."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for side in (*sides, *sides):  # Each has two turns: after them, both are done.
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    facts = sides[0 if use is Use.SERVER_AUTH else 1].getpeercert()
    return dict(facts or {})


def _expiry(facts: object) -> float:
    return float(ssl.cert_time_to_seconds(facts["notAfter"]))  # type: ignore[index]


def _names(facts: dict[str, object]) -> tuple[str, ...]:
    alternatives: object = facts.get("subjectAltName", ())
    subject: object = facts.get("subject", ())
    names = tuple(str(value) for _, value in alternatives)  # type: ignore[attr-defined]
    common = tuple(str(value) for part in subject for name, value in part if name == "commonName")  # type: ignore[attr-defined]
    return names or common
