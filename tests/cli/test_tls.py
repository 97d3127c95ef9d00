"""`pydotcompute tls`: an authority of one's own, and certificates with which a daemon and its clients work at once."""

import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from pydotcompute.wire.certificates import Use, read_pair
from pydotcompute_client import TLS, connect
from tests.server.process.processes import environment, serving
from tests.server.test_daemon import CALCULATOR
from tests.stubs import PATIENCE
from tests.tools import tool


@pytest.fixture
def made(run: Callable[..., Result], tmp_path: Path) -> tuple[Path, str]:
    """What `tls init` has made, and what it has said."""
    directory = tmp_path / "our tls"
    done = run("tls", "init", str(directory), "--name", "gpu.example", "--client", "alice", "--client", "bob")
    assert (done.exit_code, done.stderr) == (0, "")
    return directory, done.stdout


def commands(said: str) -> dict[str, str]:
    """The commands that were printed, by their titles."""
    return {title: line.strip() for title, line in re.findall(r"^(\w[^\n]*):\n  (.*)$", said, re.MULTILINE)}


def test_files_are_for_their_owner_alone_and_complete(made: tuple[Path, str]) -> None:
    directory, _ = made
    files = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    places = ("server", "clients/alice", "clients/bob")
    assert set(files) == {"authority/ca.crt", "authority/ca.key"} | {
        f"{place}/{name}" for place in places for name in ("tls.crt", "tls.key", "ca.crt")
    }
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}
    assert {(directory / place).stat().st_mode & 0o777 for place in ("authority", *places)} == {0o700}


def test_certificates_are_for_whom_they_say(made: tuple[Path, str]) -> None:
    server, alice = made[0] / "server", made[0] / "clients" / "alice"
    pair = read_pair(server / "tls.crt", server / "tls.key", Use.SERVER_AUTH)
    assert pair.names == ("gpu.example", "localhost", "127.0.0.1", "0:0:0:0:0:0:0:1")
    assert read_pair(alice / "tls.crt", alice / "tls.key", Use.CLIENT_AUTH).names == ("alice",)
    with pytest.raises(ValueError, match="unsuitable certificate purpose"):
        read_pair(alice / "tls.crt", alice / "tls.key", Use.SERVER_AUTH)


def test_openssl_finds_nothing_wrong_however_strict_it_is(made: tuple[Path, str]) -> None:
    directory, _ = made
    for place, purpose in (("server", "sslserver"), ("server", "sslclient"), ("clients/alice", "sslclient")):
        folder = directory / place
        subprocess.run(
            [
                "openssl",
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                folder / "ca.crt",
                folder / "tls.crt",
            ],
            check=True,
            timeout=PATIENCE,
        )


@contextmanager
def daemon(command: str) -> Iterator[str]:
    """A daemon with the options that were printed, but on a port of its own; the address."""
    program, kernels, *options = shlex.split(command)
    assert (program, kernels) == ("pydotcompute-server", "KERNELS")
    assert options[:2] == ["--listen", "0.0.0.0:50051"]
    with serving(CALCULATOR, "--launch", "all", *options[2:]) as (_, address):
        yield address


def test_the_commands_that_are_printed_work(run: Callable[..., Result], made: tuple[Path, str]) -> None:
    said = commands(made[1])
    with daemon(said["Daemon"]) as address:
        program, *arguments = shlex.split(said["Client"].replace("gpu.example:50051", address))
        assert program == "pydotcompute"
        done = run(*arguments)
        assert done.exit_code == 0
        assert "calculator" in done.stdout
        python = said["The same in Python"].replace("gpu.example:50051", address)
        source = f"""
import asyncio
from pydotcompute_client import TLS, connect
async def main():
    async with {python} as runtime:
        print(await runtime.fetch_kernel_ids())
asyncio.run(main())
"""
        shown = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=PATIENCE)
        assert shown.stdout == "['calculator']\n", shown.stderr


def test_the_command_for_grpcurl_works(made: tuple[Path, str]) -> None:
    said = commands(made[1])
    grpcurl = tool("grpcurl")
    with daemon(said["Daemon"]) as address:
        _, *arguments = shlex.split(said["The same with grpcurl"].replace("gpu.example:50051", address))
        done = subprocess.run([grpcurl, *arguments], capture_output=True, text=True, timeout=PATIENCE)
        assert "pydotcompute.v1.KernelService" in done.stdout, done.stderr


async def test_a_client_that_comes_later_is_let_in_and_a_stranger_is_not(
    run: Callable[..., Result], made: tuple[Path, str], tmp_path: Path
) -> None:
    directory, said = made
    with daemon(commands(said)["Daemon"]) as address:
        done = run("tls", "client", str(directory), "carol@example.org")
        assert (done.exit_code, done.stderr) == (0, "")
        assert f"--tls-directory {shlex.quote(str(directory / 'clients' / 'carol@example.org'))} ps" in done.stdout
        async with connect(address, tls=TLS.directory(directory / "clients" / "carol@example.org")) as runtime:
            assert await runtime.fetch_kernel_ids() == ["calculator"]
        assert run("tls", "init", str(tmp_path / "other")).exit_code == 0
        theirs = tmp_path / "other" / "clients" / "client"
        refused = run("--target", address, "--tls-directory", str(theirs), "ps")
        assert refused.exit_code == 3
        assert "its certificate is not signed by an authority of" in refused.stderr


def test_nothing_is_overwritten(run: Callable[..., Result], made: tuple[Path, str]) -> None:
    directory, _ = made
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    again = run("tls", "init", str(directory))
    assert (again.exit_code, again.stdout) == (1, "")
    assert f"{directory / 'authority'} exists, and is not overwritten" in again.stderr
    again = run("tls", "client", str(directory), "alice")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "is not overwritten" in again.stderr
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_nothing_is_made_where_there_is_half_already(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "clients" / "client").mkdir(parents=True)
    assert run("tls", "init", str(tmp_path)).exit_code == 1
    assert not (tmp_path / "authority").exists()


@pytest.mark.parametrize("place", ["server", "clients/alice"])
def test_a_renewed_certificate_keeps_its_key_and_its_names(
    run: Callable[..., Result], made: tuple[Path, str], place: str
) -> None:
    directory, _ = made
    folder, use = directory / place, Use.SERVER_AUTH if place == "server" else Use.CLIENT_AUTH
    old = read_pair(folder / "tls.crt", folder / "tls.key", use)
    arguments = [] if place == "server" else ["alice"]
    assert run("tls", "renew", str(directory), *arguments, "--days", "700").exit_code == 0
    new = read_pair(folder / "tls.crt", folder / "tls.key", use)
    assert (new.key, new.names) == (old.key, old.names)
    assert new.chain != old.chain
    assert new.expires > old.expires
    assert sorted(each.name for each in folder.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
    assert (folder / "tls.crt").stat().st_mode & 0o777 == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["init", "{}", "--name", "no host"], 2, "'no host' is no host name or address"),
        (["init", "{}", "--client", "../up"], 2, "'../up' is no name of letters, digits"),
        (["client", "{}", ".."], 2, "'..' is no name"),
        (["client", "{}", "dave"], 1, "authority/ca.crt does not exist; `pydotcompute tls init"),
        (["renew", "{}"], 1, "does not exist; `pydotcompute tls init"),
        (["init", "/dev/null/tls"], 2, "/dev/null/tls/authority: Not a directory"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    run: Callable[..., Result], tmp_path: Path, arguments: list[str], code: int, problem: str
) -> None:
    done = run("tls", *(each.format(tmp_path) for each in arguments))
    assert done.exit_code == code
    assert problem in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_garbled_authority_is_one_line(run: Callable[..., Result], made: tuple[Path, str]) -> None:
    (made[0] / "authority" / "ca.key").write_text("garbled")
    done = run("tls", "client", str(made[0]), "dave")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_without_the_library_it_is_said_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError('none here')")
    env: dict[str, Any] = environment(PYTHONPATH=os.pathsep.join([str(tmp_path)]))
    command = [sys.executable, "-c", "from pydotcompute_client.cli.main import main; main()"]
    done = subprocess.run(
        [*command, "tls", "init", str(tmp_path / "tls")], capture_output=True, text=True, timeout=PATIENCE, env=env
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'pydotcompute-grpc[tls]'" in done.stderr
    assert not (tmp_path / "tls").exists()
