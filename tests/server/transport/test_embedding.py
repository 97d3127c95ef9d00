"""A daemon that a program embeds is as careful as the command."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_client import connect
from pydotcompute_server import Daemon, Settings
from pydotcompute_server.transport.exposure import is_authenticated
from tests.certificates import Certificates, make_certificates
from tests.stubs import PATIENCE


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def refused(**settings: Any) -> InvalidConfigurationError:
    with pytest.raises(InvalidConfigurationError) as wrong:
        await Daemon(Settings(**settings), {}).start()
    return wrong.value


async def test_an_address_that_strangers_reach_is_refused_by_start(certificates: Certificates, tmp_path: Path) -> None:
    assert (await refused(listen="0.0.0.0:0")).parameter == "listen"
    half = certificates.directory(tmp_path / "half", "address", None)
    wrong = await refused(listen="0.0.0.0:0", tls_directory=half)
    assert "nobody has to prove who they are" in wrong.problem
    full = certificates.directory(tmp_path / "all", "address", "ca")
    assert (await refused(tls_directory=full, insecure=True)).parameter == "insecure"


async def test_a_file_that_is_not_valid_is_refused_by_start(certificates: Certificates, tmp_path: Path) -> None:
    directory = certificates.directory(tmp_path / "tls", "client", "ca")
    assert (await refused(listen="127.0.0.1:0", tls_directory=directory)).parameter == "tls_certificate"


def test_who_has_to_prove_who_they_are(certificates: Certificates, tmp_path: Path) -> None:
    assert not is_authenticated(Settings())
    assert not is_authenticated(Settings(tls_directory=certificates.directory(tmp_path / "half", "address", None)))
    assert is_authenticated(Settings(tls_directory=certificates.directory(tmp_path / "all", "address", "ca")))


async def test_reload_reads_certificates_again_and_does_nothing_without_any(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    certificates.sign("fresh", "address")
    directory = certificates.directory(tmp_path / "tls", "address", None)
    for settings in (Settings(listen="127.0.0.1:0", tls_directory=directory), Settings(listen="127.0.0.1:0")):
        daemon = Daemon(settings, {})
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            await daemon.start()
            group.create_task(daemon.run())
            if settings.tls is not None:
                certificates.directory(directory, "fresh", None)
            daemon.reload()
            tls = None if settings.tls is None else certificates.tls("ca")
            async with connect(daemon.address, tls=tls) as runtime:
                assert await runtime.fetch_kernel_ids() == []
            daemon.stop()
    logged = [record.getMessage() for record in caplog.records if "certificates are replaced" in record.getMessage()]
    assert logged == ["certificates are replaced; those who connect from now on see the new ones"]
