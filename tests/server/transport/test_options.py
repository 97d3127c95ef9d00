"""An option for TLS that cannot take effect, and an address that strangers reach: exit code 2 and one line."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from pydotcompute_server.cli import main
from tests.certificates import Certificates, make_certificates
from tests.server.process.processes import run, serving, started
from tests.server.test_daemon import CALCULATOR

EVERYWHERE = ("0.0.0.0:0", "[::]:0")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = make_certificates(tmp_path_factory.mktemp("certificates"))
    made.sign("expired", "address", days=-1)
    made.expire("expired-ca")
    return made


@dataclass(frozen=True)
class Mistake:
    """What is wrong with a command line. In its texts, `{name}.pem` and `{name}.key` are files of the certificates."""

    options: Sequence[str]
    line: str
    """What the one line has in it."""
    variables: Mapping[str, str] = field(default_factory=dict)


PAIR = ("--tls-certificate", "{address}.pem", "--tls-key", "{address}.key")
CA = ("--tls-client-ca", "{ca}.pem")
NO_EFFECT = "has no effect without it"


def variables(**names: str) -> dict[str, str]:
    return {f"PYDOTCOMPUTE_{name.upper()}": value for name, value in names.items()}


MISTAKES = {
    # One is missing.
    "a certificate alone": Mistake(PAIR[:2], f"--tls-key is missing: --tls-certificate {NO_EFFECT}"),
    "a key alone": Mistake(PAIR[2:], f"--tls-certificate is missing: --tls-key {NO_EFFECT}"),
    "an authority alone": Mistake(CA, f"--tls-certificate is missing: --tls-client-ca {NO_EFFECT}"),
    "an authority and a key": Mistake((*CA, *PAIR[2:]), f"--tls-certificate is missing: --tls-key {NO_EFFECT}"),
    "an authority and a certificate": Mistake((*CA, *PAIR[:2]), "--tls-key is missing"),
    "a variable alone": Mistake((), f"is missing: --tls-client-ca {NO_EFFECT}", variables(tls_client_ca="{ca}.pem")),
    # A variable is empty, or is none.
    **{
        f"an empty {name}": Mistake((), f"the variable PYDOTCOMPUTE_{name.upper()} is empty", variables(**{name: ""}))
        for name in ("tls_certificate", "tls_key", "tls_client_ca", "tls_directory")
    },
    "an empty variable beside the others": Mistake(PAIR, "TLS_CLIENT_CA is empty", variables(tls_client_ca="")),
    "a misspelt variable": Mistake(PAIR, "TLS_CLIENTCA has no effect", variables(tls_clientca="{ca}.pem")),
    "a misspelt variable, mended": Mistake(
        (), "did you mean PYDOTCOMPUTE_TLS_CERTIFICATE?", variables(tls_certificat="x")
    ),
    "insecure is neither": Mistake((), "'perhaps' is not a valid boolean", variables(insecure="perhaps")),
    # A file is not what it should be.
    "no such certificate": Mistake(("--tls-certificate", "gone.pem"), "'gone.pem' does not exist"),
    "no such key": Mistake(("--tls-key", "gone.key"), "'gone.key' does not exist"),
    "no such authority": Mistake(("--tls-client-ca", "gone.pem"), "'gone.pem' does not exist"),
    "no such directory": Mistake(("--tls-directory", "gone"), "'gone' does not exist"),
    "a directory that is a file": Mistake(("--tls-directory", "{ca}.pem"), "is a file"),
    "a garbled certificate": Mistake(("--tls-certificate", CALCULATOR, *PAIR[2:]), "there is no valid certificate"),
    "an empty certificate": Mistake(("--tls-certificate", os.devnull, *PAIR[2:]), "there is no valid certificate"),
    "a garbled key": Mistake((*PAIR[:2], "--tls-key", CALCULATOR), "there is no valid key"),
    "an empty key": Mistake((*PAIR[:2], "--tls-key", os.devnull), "there is no valid key"),
    "a certificate as the key": Mistake((*PAIR[:2], "--tls-key", "{address}.pem"), "there is no valid key"),
    "another's key": Mistake((*PAIR[:2], "--tls-key", "{ca}.key"), "it is not the key of"),
    "a key with a passphrase": Mistake((*PAIR[:2], "--tls-key", "{address}.encrypted.key"), "without a passphrase"),
    "an expired certificate": Mistake(
        ("--tls-certificate", "{expired}.pem", "--tls-key", "{expired}.key"), "expired.pem: certificate has expired"
    ),
    "a client's certificate": Mistake(
        ("--tls-certificate", "{client}.pem", "--tls-key", "{client}.key"), "unsuitable certificate purpose"
    ),
    "a garbled authority": Mistake((*PAIR, "--tls-client-ca", CALCULATOR), "there is no valid certificate"),
    "an empty authority": Mistake((*PAIR, "--tls-client-ca", os.devnull), "there is no valid certificate"),
    "a key as the authority": Mistake((*PAIR, "--tls-client-ca", "{ca}.key"), "there is no valid certificate"),
    "an expired authority": Mistake((*PAIR, "--tls-client-ca", "{expired-ca}.pem"), "it has expired"),
    "an empty directory": Mistake(("--tls-directory", "{empty}"), "there is no tls.crt and no tls.key in it"),
    "a directory with a wrong key": Mistake(("--tls-directory", "{mixed}"), "it is not the key of"),
    # They contradict each other.
    "a directory and a file": Mistake(("--tls-directory", "{full}", *CA), "leave out the settings for single files"),
    "insecure, with all that makes it secure": Mistake(
        ("--insecure", *PAIR, *CA), "--insecure: the other settings say"
    ),
    "insecure, with a directory of all": Mistake(("--insecure", "--tls-directory", "{full}"), "--insecure: the other"),
    "insecure, with half a certificate": Mistake(("--insecure", *PAIR[:2]), "--tls-key is missing"),
    "permissions that are none": Mistake(("--socket-mode", "rwx"), "'rwx' is no octal number"),
    "permissions of more than there are": Mistake(("--socket-mode", "1777"), "--socket-mode 1777: permissions are"),
    "permissions of no file": Mistake(("--socket-mode", "660"), "has no effect at another address"),
    # Strangers could use the daemon.
    **{
        f"plain text at {address}": Mistake(("--listen", address), f"--listen {address}: other machines reach")
        for address in EVERYWHERE
    },
    "plain text by a variable": Mistake((), "there is no TLS", variables(listen="0.0.0.0:0")),
    "nobody proves who they are": Mistake(("--listen", EVERYWHERE[0], *PAIR), "nobody has to prove who they are"),
    "nobody proves it, with a directory": Mistake(
        ("--listen", EVERYWHERE[0], "--tls-directory", "{no_ca}"), "nobody has to prove who they are"
    ),
    "an empty directory everywhere": Mistake(("--listen", EVERYWHERE[0], "--tls-directory", "{empty}"), "tls.crt"),
}


@pytest.fixture(scope="module")
def filled(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Puts the paths of files and directories into a text."""
    folder = tmp_path_factory.mktemp("directories")
    certificates.encrypt("address")
    names = {
        name: certificates.certificate(name).removesuffix(".pem")
        for name in ("address", "ca", "client", "expired", "expired-ca")
    }
    names["full"] = str(certificates.directory(folder / "full", "address", "ca"))
    names["no_ca"] = str(certificates.directory(folder / "no_ca", "address", None))
    names["mixed"] = str(certificates.directory(folder / "mixed", "address", "ca"))
    Path(names["mixed"], "tls.key").write_bytes(Path(certificates.key("client")).read_bytes())
    names["empty"] = str(folder / "empty")
    Path(names["empty"]).mkdir()

    def fill(text: str) -> str:
        for name, path in names.items():
            text = text.replace(f"{{{name}}}", path)
        return text

    return fill


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_take_effect_is_one_line_and_the_exit_code_two(mistake: str, filled: Callable[[str], str]) -> None:
    wrong = MISTAKES[mistake]
    cleared: dict[str, str | None] = {name: None for name in os.environ if name.startswith("PYDOTCOMPUTE_")}
    env = cleared | {name: filled(value) for name, value in wrong.variables.items()}
    # In this process, for it ends before it does anything.
    ended = CliRunner().invoke(main, [CALCULATOR, *map(filled, wrong.options)], env=env)
    assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.output
    assert ended.stderr.startswith("pydotcompute-server: ")
    assert wrong.line in ended.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_that_may_not_be_read_is_told_with_the_user(certificates: Certificates, tmp_path: Path) -> None:
    directory = certificates.directory(tmp_path / "tls", "address", None)
    (directory / "tls.key").chmod(0)
    ended = run(CALCULATOR, "--tls-directory", str(directory))
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert f"this process is user {os.geteuid()}" in ended.stderr


def test_a_process_ends_with_code_two_and_loads_nothing(tmp_path: Path) -> None:
    kernels = tmp_path / "kernels.py"
    kernels.write_text("raise AssertionError('loaded')")
    ended = run(str(kernels), "--listen", EVERYWHERE[0])
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "--tls-directory DIR" in ended.stderr
    assert "--insecure" in ended.stderr
    assert "loaded" not in ended.stderr


# -- what is allowed ---------------------------------------------------------------------------------------------------


def test_insecure_is_logged_at_the_start_and_again_and_again() -> None:
    with started(CALCULATOR, "--listen", EVERYWHERE[0], "--insecure", "--limit", "insecure_warning=0.05") as daemon:
        assert daemon.address().startswith("0.0.0.0:")
        for times in range(1, 4):
            daemon.until_logged("warning", times)
        daemon.ask_to_end()
        assert daemon.ended() == 0
    warnings = [line for line in daemon.logged if "warning" in line]
    assert all("--insecure allows it" in line and "address=0.0.0.0:" in line for line in warnings)
    assert "there is no TLS" in warnings[0]


def test_insecure_with_tls_says_what_is_left(certificates: Certificates, filled: Callable[[str], str]) -> None:
    with started(CALCULATOR, "--listen", EVERYWHERE[0], "--insecure", *map(filled, PAIR)) as daemon:
        daemon.address()
        assert "nobody has to prove who they are" in daemon.until_logged("--insecure allows it")


@pytest.mark.parametrize("options", [(), ("--insecure",), ("--insecure", "--tls-directory", "{empty}")])
def test_nothing_is_said_where_nobody_else_can_connect(options: Sequence[str], filled: Callable[[str], str]) -> None:
    with serving(CALCULATOR, "--launch", "all", "--limit", "insecure_warning=0.01", *map(filled, options)) as (
        daemon,
        _,
    ):
        daemon.until_logged("ACTIVE")
        daemon.ask_to_end()
        assert daemon.ended() == 0
        assert not [line for line in daemon.logged if "warning" in line]


def test_an_address_for_all_is_allowed_with_tls_and_an_authority(filled: Callable[[str], str]) -> None:
    with started(CALCULATOR, "--listen", EVERYWHERE[0], "--tls-directory", filled("{full}")) as daemon:
        assert daemon.address().startswith("0.0.0.0:")


@pytest.mark.parametrize(("options", "mode"), [((), 0o600), (("--socket-mode", "660"), 0o660)])
def test_a_socket_file_is_for_whom_it_is_meant(options: Sequence[str], mode: int, tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    before = os.umask(0)  # Of the daemon too, which must not rely on it.
    try:
        with started(CALCULATOR, "--listen", f"unix:{path}", *options) as daemon:
            daemon.address()
            assert path.stat().st_mode & 0o777 == mode
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
    finally:
        os.umask(before)
