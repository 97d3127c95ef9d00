"""Why a client and a daemon do not come together over TLS: the client says it, in words and soon."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from pydotcompute.exceptions import ConnectionLostError, InvalidConfigurationError
from pydotcompute_client import TLS, connect
from pydotcompute_client.diagnosis import find_tls_problem
from tests.certificates import Certificates, make_certificates
from tests.server.process.processes import started
from tests.server.test_daemon import CALCULATOR
from tests.stubs import PATIENCE


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = make_certificates(tmp_path_factory.mktemp("certificates"))
    made.sign("stranger", "client", ca="other-ca")
    made.sign("expired", "client", days=-1)
    return made


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any], certificates: Certificates) -> str:
    """A daemon that asks its clients for certificates."""
    folder = certificates.directory(Path(certificates.certificate("ca")).parent / "tls", "address", "ca")
    address: str = start_daemon(CALCULATOR, "--launch", "all", "--tls-directory", str(folder)).target
    return address


async def refused(target: str, **options: Any) -> str:
    """Why a client cannot connect. It has an hour for it, but does not need it."""
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionLostError) as raised:
            await connect(target, timeout=3600, **options).start()
    assert raised.value.target == target
    return raised.value.problem


async def test_a_daemon_of_another_authority_is_named_so(target: str, certificates: Certificates) -> None:
    problem = await refused(target, tls=certificates.tls("other-ca", "client"))
    assert "its certificate is not signed by an authority of" in problem
    assert certificates.certificate("other-ca") in problem
    assert "CERTIFICATE_VERIFY_FAILED" in problem


async def test_a_daemon_of_another_name_is_named_so(target: str, certificates: Certificates) -> None:
    at_name = target.replace("127.0.0.1", "localhost")
    problem = await refused(at_name, tls=certificates.tls("ca", "client"))
    assert "its certificate is for another name than localhost" in problem
    async with connect(at_name, tls=certificates.tls("ca", "client", name="127.0.0.1")) as runtime:
        assert await runtime.fetch_kernel_ids() == ["calculator"]
        assert runtime.kernel_ids == ["calculator"], "the calls that block have a connection of their own"
    problem = await refused(target, tls=certificates.tls("ca", "client", name="elsewhere"))
    assert "another name than elsewhere" in problem


async def test_a_client_without_a_certificate_hears_that_it_needs_one(target: str, certificates: Certificates) -> None:
    assert "it asks clients for a certificate, and this client has none" in await refused(
        target, tls=certificates.tls("ca")
    )


async def test_a_client_of_another_authority_hears_whose_certificate_it_showed(
    target: str, certificates: Certificates
) -> None:
    problem = await refused(target, tls=certificates.tls("ca", "stranger"))
    assert "it does not accept this client's certificate, that of stranger" in problem


async def test_an_expired_certificate_is_refused_here_and_there(target: str, certificates: Certificates) -> None:
    with pytest.raises(InvalidConfigurationError, match="certificate has expired") as wrong:
        connect(target, tls=certificates.tls("ca", "expired"))
    assert wrong.value.parameter == "tls_certificate"
    # gRPC's own credentials are not looked at, so the daemon has to refuse this one.
    with pytest.raises(ConnectionLostError, match=r"Socket closed|reset|Broken pipe"):
        await connect(target, credentials=certificates.credentials("ca", "expired"), timeout=0.5).start()


async def test_a_daemon_whose_certificate_has_expired_is_named_so(certificates: Certificates) -> None:
    certificates.sign("old", "address", days=-1)
    server = grpc.aio.server()  # The daemon itself would not begin with such a certificate.
    port = server.add_secure_port("127.0.0.1:0", certificates.server_credentials("old"))
    await server.start()
    try:
        problem = await refused(f"127.0.0.1:{port}", tls=certificates.tls("ca"))
    finally:
        await server.stop(0)
    assert "its certificate is out of date: certificate has expired" in problem


async def test_plain_text_and_tls_are_told_apart(target: str, daemon: Any, certificates: Certificates) -> None:
    assert "it speaks TLS, and this client plain text" in await refused(target)
    assert "it speaks plain text, and this client TLS" in await refused(daemon.target, tls=certificates.tls("ca"))


async def test_with_grpcs_own_credentials_grpc_says_what_it_knows(target: str, certificates: Certificates) -> None:
    problem = await refused(target, credentials=certificates.credentials("other-ca", "client"))
    assert "CERTIFICATE_VERIFY_FAILED" in problem


async def test_a_daemon_that_comes_later_is_waited_for_over_tls(
    start_daemon: Callable[..., Any], certificates: Certificates, tmp_path: Path
) -> None:
    listen = f"unix:{tmp_path}/daemon.sock"
    tls = certificates.tls("ca", name="127.0.0.1")
    pair = ("--tls-certificate", certificates.certificate("address"), "--tls-key", certificates.key("address"))
    async with asyncio.timeout(PATIENCE):
        connecting = asyncio.create_task(connect(listen, tls=tls, timeout=PATIENCE).start())
        await asyncio.sleep(0)
        with started(CALCULATOR, "--listen", listen, *pair) as later:
            await asyncio.to_thread(later.address)
            await connecting


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A server that says this to everybody and closes the connection; None for one that says nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if answer is not None:
                        connection.recv(1)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_what_is_not_about_tls_is_left_to_grpc(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = certificates.tls("ca")
    for target in ("127.0.0.1:1", "unix:/no/such/file", "dns:///localhost:1", "no-such-host.invalid:1"):
        assert find_tls_problem(target, tls) is None
        assert find_tls_problem(target, None) is None
    with listening(None) as closing:
        assert find_tls_problem(closing, tls) is None
        assert find_tls_problem(closing, None) is None
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as other:
        assert "plain text" in (find_tls_problem(other, tls) or "")
        assert find_tls_problem(other, None) is None
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert find_tls_problem("example.invalid:1", tls) is None


def test_tls_and_credentials_exclude_each_other(certificates: Certificates) -> None:
    with pytest.raises(InvalidConfigurationError, match="tls stands for them"):
        connect("127.0.0.1:1", tls=TLS(), credentials=grpc.ssl_channel_credentials())
