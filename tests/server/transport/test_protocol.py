"""What the daemon speaks over TLS: version 1.2 or later, HTTP/2 alone; also over a socket file."""

import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydotcompute_client import connect
from tests.certificates import Certificates, make_certificates
from tests.server.process.processes import started
from tests.server.test_daemon import CALCULATOR
from tests.stubs import PATIENCE


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any], certificates: Certificates) -> tuple[str, int]:
    pair = ("--tls-certificate", certificates.certificate("address"), "--tls-key", certificates.key("address"))
    host, _, port = start_daemon(CALCULATOR, *pair).target.rpartition(":")
    return host, int(port)


def speaking(certificates: Certificates, version: ssl.TLSVersion, *protocols: str) -> ssl.SSLContext:
    """A client of this version of TLS alone, and of these protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.certificate("ca"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # That is what the test is about.
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # Without it, the client itself would refuse the old versions.
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def first_byte(target: tuple[str, int], context: ssl.SSLContext) -> tuple[str | None, str | None, bytes]:
    """The version and the protocol that were agreed on, and what the daemon says first."""
    with (
        socket.create_connection(target, PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=target[0]) as encrypted,
    ):
        return encrypted.version(), encrypted.selected_alpn_protocol(), encrypted.recv(1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_versions_are_spoken(target: tuple[str, int], certificates: Certificates, version: ssl.TLSVersion) -> None:
    name, protocol, said = first_byte(target, speaking(certificates, version, "h2"))
    assert (name, protocol, len(said)) == (version.name.replace("_", "."), "h2", 1)


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused(target: tuple[str, int], certificates: Certificates, version: str) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        first_byte(target, speaking(certificates, ssl.TLSVersion[version], "h2"))


@pytest.mark.parametrize("protocols", [("http/1.1",), ()])
def test_no_other_protocol_than_http_2_is_served(
    target: tuple[str, int], certificates: Certificates, protocols: tuple[str, ...]
) -> None:
    try:
        _, protocol, said = first_byte(target, speaking(certificates, ssl.TLSVersion.TLSv1_3, *protocols))
    except (ssl.SSLError, ConnectionError):
        return
    assert (protocol, said) == (None, b""), "it has closed the connection without a word"


def test_http_2_is_chosen_where_there_is_a_choice(target: tuple[str, int], certificates: Certificates) -> None:
    _, protocol, said = first_byte(target, speaking(certificates, ssl.TLSVersion.TLSv1_3, "http/1.1", "h2"))
    assert (protocol, len(said)) == ("h2", 1)


async def test_a_socket_file_takes_tls_too(certificates: Certificates, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/daemon.sock"
    folder = certificates.directory(tmp_path / "tls", "name_only", "ca")
    with started(CALCULATOR, "--launch", "all", "--listen", listen, "--tls-directory", str(folder)) as daemon:
        assert daemon.address() == listen
        async with connect(listen, tls=certificates.tls("ca", "client")) as runtime:
            assert await runtime.fetch_kernel_ids() == ["calculator"]
