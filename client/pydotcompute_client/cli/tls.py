"""The command line's certificates: whom it trusts, and who it is."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

__all__ = ["credentials"]


def credentials(ca: Path | None, certificate: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    """What a channel over TLS needs.

    Args:
        ca: PEM file of the only authority to trust; without one, those of the system.
        certificate: PEM file of the client's certificate chain.
        key: PEM file of its key, without a passphrase.

    Raises:
        ValueError: a file cannot be read or is not what it should be, or there is only one of certificate and key;
            says which. gRPC would say so on stderr alone, and call the daemon unreachable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        source, roots = "--tls", _system_roots()
    else:
        source, roots = f"--tls-ca {ca}", _read("--tls-ca", ca)
    try:
        context.load_verify_locations(cadata=roots.decode("ascii", "ignore"))  # Comments can be in any letters.
    except (ssl.SSLError, ValueError):  # The latter if there is nothing at all.
        hint = "; SSL_CERT_FILE or --tls-ca can name a file that has one" if ca is None else ""
        raise ValueError(f"{source}: there is no certificate of an authority, in PEM form{hint}") from None
    if certificate is None and key is None:
        return grpc.ssl_channel_credentials(roots)
    if certificate is None or key is None:
        raise ValueError("--tls-certificate and --tls-key go together")
    pair = (_read("--tls-key", key), _read("--tls-certificate", certificate))
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        why = error.reason or "they are not both in PEM form, without a passphrase"
        raise ValueError(f"--tls-certificate {certificate} with --tls-key {key}: {why}") from None
    return grpc.ssl_channel_credentials(roots, *pair)


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{option} {path}: {error.strerror}") from None


def _system_roots() -> bytes:
    """The certificates that OpenSSL's programs trust here. gRPC would take a list of its own instead."""
    paths = ssl.get_default_verify_paths()
    files = [] if paths.cafile is None else [Path(paths.cafile)]
    if paths.capath is not None:
        files += sorted(Path(paths.capath).glob("*.[0-9]"))  # The names by which OpenSSL finds what is in a directory.
    return b"\n".join(_read("--tls:", file) for file in files if file.is_file())
