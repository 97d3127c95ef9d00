"""Why TLS fails: the client tries a handshake of its own, because gRPC often knows only that there is no connection."""

from __future__ import annotations

import socket
import ssl
import time

from pydotcompute.wire.addresses import DEFAULT_PORT, socket_path, split_address
from pydotcompute_client.credentials import LOCAL, TLS, read
from pydotcompute_client.targets import proxy_variable

__all__ = ["find_tls_problem"]

SECONDS = 2.0
"""How long each step of the handshake may take."""


PAUSE = 0.1
"""Seconds between two tries."""


def find_tls_problem(target: str, tls: TLS | None) -> str | None:
    """Return why the client and the daemon do not come together, if TLS is why; else None.

    A daemon that ends just then may look like one that refuses the client. So what is found must be found twice.

    Args:
        target: HOST:PORT, or unix:PATH, as `checked_target` returns it. Of other targets, and behind a proxy, nothing
            can be found out.
        tls: the client's; None if it speaks plain text.
    """
    try:
        path = socket_path(target)
        host, port = (LOCAL, 0) if path is not None else split_address(target, DEFAULT_PORT)
    except ValueError:
        return None
    if proxy_variable(target) is not None:
        return None
    first = _try(path, host, port, tls)
    if first is None:
        return None
    time.sleep(PAUSE)
    return first if _try(path, host, port, tls) == first else None


def _try(path: str | None, host: str, port: int, tls: TLS | None) -> str | None:
    try:
        connection = _connected(path, host, port)
    except OSError:
        return None  # Nobody is there: gRPC says so too.
    with connection:
        return _problem_of_plain_text(connection) if tls is None else _problem_of_tls(connection, host, tls)


def _connected(path: str | None, host: str, port: int) -> socket.socket:
    if path is None:
        return socket.create_connection((host, port), SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(SECONDS)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _problem_of_plain_text(connection: socket.socket) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # Nothing is sent, and whoever answers is not believed.
    try:
        context.wrap_socket(connection).close()
    except OSError:
        return None
    return "it speaks TLS, and this client plain text"


def _problem_of_tls(connection: socket.socket, host: str, tls: TLS) -> str | None:
    name = tls.name or host
    roots, pair = read(tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=roots.decode("ascii", "ignore"))
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=name) as encrypted:
            return _problem_after_handshake(encrypted, pair.names if pair else None)
    except ssl.SSLCertVerificationError as error:
        return _problem_of_certificate(error, name, tls)
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return f"it speaks plain text, and this client TLS ({error.reason})"
        return f"its TLS and this client's do not agree ({error.reason})" if error.reason in _DISAGREE else None
    except OSError:
        return None  # It has closed the connection, which may have other reasons than TLS.


_DISAGREE = {
    "NO_PROTOCOLS_AVAILABLE",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
    "UNSUPPORTED_PROTOCOL",
}


def _problem_of_certificate(error: ssl.SSLCertVerificationError, name: str, tls: TLS) -> str:
    found = f"{error.verify_message.rstrip('.')} ({error.reason})"
    if error.verify_code in _WRONG_NAME:
        return f"its certificate is for another name than {name}: {found}; the client can be told for which"
    if error.verify_code in _OUT_OF_DATE:
        return f"its certificate is out of date: {found}"
    return f"its certificate is not signed by an authority of {tls.ca or 'those that this machine trusts'}: {found}"


_OUT_OF_DATE = {9, 10}
"""OpenSSL's codes: a certificate that is not valid yet, or has expired."""
_WRONG_NAME = {62, 64}
"""OpenSSL's codes: a host name, or an address, that does not match."""


def _problem_after_handshake(encrypted: ssl.SSLSocket, names: tuple[str, ...] | None) -> str | None:
    """Wait for what a daemon says first. One that does not accept the client's certificate closes the connection."""
    if encrypted.selected_alpn_protocol() is None:
        return "it does not speak HTTP/2 over TLS, so it is no daemon"
    reason = ""
    try:
        if encrypted.recv(1):
            return None
    except TimeoutError:
        return None
    except ssl.SSLError as error:
        reason = f" ({error.reason})" if error.reason else ""
    except OSError:
        pass
    if names is None:
        return f"it asks clients for a certificate, and this client has none{reason}"
    return (
        f"it does not accept this client's certificate, that of {', '.join(names)}: another authority has signed it, "
        f"or the daemon takes it for expired{reason}"
    )
