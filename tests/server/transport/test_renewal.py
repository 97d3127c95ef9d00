"""Certificates that change while a daemon runs: new connections see the new ones, and no old connection notices."""

import asyncio
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pydotcompute.exceptions import ConnectionLostError
from pydotcompute_client import connect
from tests.certificates import Certificates, make_certificates
from tests.server.process.processes import Process, serving
from tests.server.test_daemon import CALCULATOR
from tests.stubs import PATIENCE

READ = "certificates are replaced"
KEPT = "certificates are not replaced"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@contextmanager
def renewing(certificates: Certificates, folder: Path, **limits: float) -> Iterator[tuple[Process, str]]:
    """A daemon with the certificate `address` and the authority `ca` in this folder, and its address."""
    certificates.directory(folder, "address", "ca")
    options = [f"--limit={name}={value}" for name, value in limits.items()]
    with serving(CALCULATOR, "--launch", "all", "--tls-directory", str(folder), *options) as served:
        yield served


def shown(target: str) -> bytes:
    """The certificate that a daemon shows to whoever connects now."""
    host, _, port = target.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port)), PATIENCE) as plain, context.wrap_socket(plain) as encrypted:
        certificate = encrypted.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def der(path: str | Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(path).read_text())


def content(path: str) -> bytes:
    return Path(path).read_bytes()


async def add(runtime: Any, a: float) -> None:
    """Has the calculator add 1, and sees that it is right."""
    request = (await runtime.describe("calculator")).input_type
    reply = await runtime.send_and_receive("calculator", request(a=a, b=1.0), timeout=PATIENCE)
    assert reply.result == a + 1.0


@pytest.mark.parametrize("times", [5])
async def test_no_message_is_lost_while_certificates_change_under_load(
    certificates: Certificates, tmp_path: Path, times: int
) -> None:
    tls = certificates.tls("ca", "client")
    with renewing(certificates, tmp_path / "tls") as (daemon, target):
        async with connect(target, tls=tls) as old:
            request = (await old.describe("calculator")).input_type
            assert request is not None
            over = asyncio.Event()

            async def load() -> int:
                """Keeps requests on their way until it is over, and sees that each has its reply."""
                count = 0
                while not over.is_set():
                    requests = [request(a=float(count + i), b=1.0) for i in range(32)]
                    asked = (old.send_and_receive("calculator", each, timeout=PATIENCE) for each in requests)
                    replies = await asyncio.gather(*asked)
                    assert [reply.result for reply in replies] == [each.a + 1.0 for each in requests]
                    count += len(requests)
                return count

            async with asyncio.TaskGroup() as group:
                loads = [group.create_task(load()) for _ in range(2)]
                for number in range(times):
                    await asyncio.to_thread(certificates.sign, f"fresh-{number}", "address")
                    certificates.directory(tmp_path / "tls", f"fresh-{number}", None)
                    async with connect(target, tls=tls) as new:
                        await add(new, number)
                    assert await asyncio.to_thread(shown, target) == der(certificates.certificate(f"fresh-{number}"))
                over.set()
            assert all(task.result() > 0 for task in loads)
            assert not [line for line in daemon.logged if "SessionLost" in line or "reconnect" in line]
        assert len([line for line in daemon.logged if READ in line]) == times


async def test_a_change_is_noticed_without_a_client(certificates: Certificates, tmp_path: Path) -> None:
    certificates.sign("fresh", "address")
    with renewing(certificates, tmp_path / "tls", certificates_checked=0.02) as (daemon, _):
        certificates.directory(tmp_path / "tls", "fresh", None)
        line = await asyncio.to_thread(daemon.until_logged, READ)
        assert "names=127.0.0.1" in line
        assert "expires=" in line


async def test_what_is_broken_is_not_taken_and_logged_once(certificates: Certificates, tmp_path: Path) -> None:
    tls = certificates.tls("ca", "client")
    folder = tmp_path / "tls"
    certificates.sign("expired", "address", days=-1)
    broken = {
        "tls.key": (content(certificates.key("client")), "--tls-key {}: it is not the key of"),
        "tls.crt": (content(certificates.certificate("expired")), "--tls-key"),
        "ca.crt": (b"nothing of the kind", "--tls-client-ca {}: there is no valid certificate"),
    }
    with renewing(certificates, folder, certificates_checked=3600) as (daemon, target):
        for times, (name, (bad, words)) in enumerate(broken.items(), 1):
            good = (folder / name).read_bytes()
            (folder / name).write_bytes(bad)
            for _ in range(3):
                async with connect(target, tls=tls) as runtime:
                    await add(runtime, 1.0)
            (folder / name).write_bytes(good)
            async with connect(target, tls=tls) as runtime:
                await add(runtime, 2.0)
            lines = [line for line in daemon.logged if KEPT in line]
            assert len(lines) == times
            assert words.format(folder / name) in lines[-1]
            assert "error" in lines[-1]
        assert not [line for line in daemon.logged if READ in line]
        assert await asyncio.to_thread(shown, target) == der(certificates.certificate("address"))


async def test_sighup_reads_them_again_and_says_so(certificates: Certificates, tmp_path: Path) -> None:
    certificates.sign("fresh", "address")
    with renewing(certificates, tmp_path / "tls", certificates_checked=3600) as (daemon, target):
        daemon.ask_to_end(signal.SIGHUP)
        await asyncio.to_thread(daemon.until_logged, "there is nothing new")
        certificates.directory(tmp_path / "tls", "fresh", None)
        daemon.ask_to_end(signal.SIGHUP)
        await asyncio.to_thread(daemon.until_logged, READ)
        assert await asyncio.to_thread(shown, target) == der(certificates.certificate("fresh"))
        (tmp_path / "tls" / "tls.key").unlink()
        for times in (1, 2):
            daemon.ask_to_end(signal.SIGHUP)
            await asyncio.to_thread(daemon.until_logged, f"{KEPT}: --tls-key", times)


async def test_another_authority_refuses_new_connections_and_no_old_one(
    certificates: Certificates, tmp_path: Path
) -> None:
    certificates.sign("other-client", "client", ca="other-ca")
    with renewing(certificates, tmp_path / "tls") as (_, target):
        async with connect(target, tls=certificates.tls("ca", "client")) as old:
            await add(old, 1.0)
            certificates.directory(tmp_path / "tls", "address", "other-ca")
            async with connect(target, tls=certificates.tls("ca", "other-client")) as new:
                await add(new, 2.0)
            with pytest.raises(ConnectionLostError, match="does not accept this client's certificate, that of client"):
                await connect(target, tls=certificates.tls("ca", "client")).start()
            await add(old, 3.0)


async def test_a_certificate_that_expires_soon_is_warned_of_once(certificates: Certificates, tmp_path: Path) -> None:
    with renewing(certificates, tmp_path / "tls", certificates_checked=0.02) as (daemon, _):
        await asyncio.to_thread(daemon.until_logged, "the certificate expires soon")
        certificates.sign("fresh", "address", days=300)
        certificates.directory(tmp_path / "tls", "fresh", None)
        await asyncio.to_thread(daemon.until_logged, READ)
        daemon.ask_to_end()
        await asyncio.to_thread(daemon.ended)
        assert len([line for line in daemon.logged if "expires soon" in line]) == 1
