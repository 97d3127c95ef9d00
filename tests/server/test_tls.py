"""The daemon, `connect` and the command `pydotcompute` over TLS."""

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pydotcompute_client import connect
from pydotcompute_client.cli.main import main
from tests.certificates import Certificates, make_certificates

CALCULATOR = str(Path(__file__).resolve().parents[2] / "examples" / "calculator.py")
COMMAND = os.path.join(sysconfig.get_path("scripts"), "pydotcompute")
WAIT = 20.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any], certificates: Certificates) -> str:
    """A daemon whose certificate is for its address."""
    pair = ("--tls-certificate", certificates.certificate("address"), "--tls-key", certificates.key("address"))
    address: str = start_daemon(CALCULATOR, "--launch", "calculator", *pair).target
    return address


@pytest.fixture(scope="module")
def container(certificates: Certificates) -> dict[str, str]:
    """The variables of a daemon whose certificate is for a name, and which asks its clients for theirs."""
    return {
        "PYDOTCOMPUTE_LAUNCH": "calculator",
        "PYDOTCOMPUTE_TLS_CERTIFICATE": certificates.certificate("name_only"),
        "PYDOTCOMPUTE_TLS_KEY": certificates.key("name_only"),
        "PYDOTCOMPUTE_TLS_CLIENT_CA": certificates.certificate("ca"),
    }


@pytest.fixture(scope="module")
def strict_target(start_daemon: Callable[..., Any], container: dict[str, str]) -> str:
    """That daemon's address."""
    address: str = start_daemon(CALCULATOR, env=container).target
    return address


@pytest.fixture
def run() -> Callable[..., Outcome]:
    """Runs the command in this process, without variables of its own but for these."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        cleared = {name: None for name in os.environ if name.startswith("PYDOTCOMPUTE_")}
        settings: dict[str, Any] = {"prog_name": "pydotcompute", "catch_exceptions": False}
        result = CliRunner().invoke(main, arguments, env={**cleared, **(env or {})}, **settings)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def fail(run: Callable[..., Outcome]) -> Callable[..., str]:
    """Runs a command that ends with an exit code and one line on stderr; gives that line. The code after a time-out is
    4, and so another than that of an error which is told at once.
    """

    def fail(code: int, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        outcome = run(*arguments, env=env)
        assert (outcome.code, outcome.stdout, outcome.stderr.count("\n")) == (code, "", 1), outcome
        assert outcome.stderr.startswith("error: ")
        return outcome.stderr

    return fail


# -- connect -----------------------------------------------------------------------------------------------------------


async def add(runtime: Any) -> float:
    """Has the calculator add 2 and 3."""
    request = (await runtime.describe("calculator")).input_type
    result: float = (await runtime.send_and_receive("calculator", request(a=2.0, b=3.0), timeout=WAIT)).result
    return result


async def test_connect_speaks_tls(target: str, certificates: Certificates) -> None:
    async with connect(target, tls=certificates.tls("ca")) as runtime:
        assert await add(runtime) == 5.0
        assert runtime.kernel_ids == ["calculator"], "the calls that block have a connection of their own"


async def test_connect_takes_credentials_of_grpcs_own(strict_target: str, certificates: Certificates) -> None:
    at_name = strict_target.replace("127.0.0.1", "localhost")
    async with connect(at_name, credentials=certificates.credentials("ca", "client")) as runtime:
        assert await add(runtime) == 5.0


# -- the command -------------------------------------------------------------------------------------------------------


def test_an_authority_is_named_before_and_after_the_command_and_by_a_variable(
    run: Callable[..., Outcome], target: str, certificates: Certificates
) -> None:
    ca = certificates.certificate("ca")
    at = {"PYDOTCOMPUTE_TARGET": target}
    serving = Outcome(0, "SERVING\n", "")
    assert run("--tls-ca", ca, "health", env=at) == serving
    assert run("health", "--tls-ca", ca, env=at) == serving
    assert run("health", env={**at, "PYDOTCOMPUTE_TLS_CA": ca}) == serving
    other = {**at, "PYDOTCOMPUTE_TLS_CA": certificates.certificate("other-ca")}
    assert run("health", "--tls-ca", ca, env=other) == serving
    assert run("ask", "calculator", '{"a": 2, "b": 3}', "--target", target, "--tls-ca", ca).code == 0


def test_kernels_are_completed_over_tls(run: Callable[..., Outcome], target: str, certificates: Certificates) -> None:
    ask = {"_PYDOTCOMPUTE_COMPLETE": "bash_complete", "COMP_WORDS": "pydotcompute ask ", "COMP_CWORD": "2"}
    env = {**ask, "PYDOTCOMPUTE_TARGET": target, "PYDOTCOMPUTE_TLS_CA": certificates.certificate("ca")}
    assert run(env=env) == Outcome(0, "plain,calculator\n", "")
    assert run(env={**env, "PYDOTCOMPUTE_TLS_CA": certificates.key("ca")}) == Outcome(0, "\n", ""), (
        "and no word of the file"
    )


def test_tls_alone_trusts_whom_the_machine_trusts(
    run: Callable[..., Outcome],
    fail: Callable[..., str],
    target: str,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    health = ("--tls", "--target", target, "health")
    nobody = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": str(tmp_path)}
    assert "SSL_CERT_FILE" in fail(2, *health, env=nobody)
    assert run(*health, env={**nobody, "SSL_CERT_FILE": certificates.certificate("ca")}).code == 0
    wrong = {**nobody, "SSL_CERT_FILE": certificates.certificate("other-ca")}
    assert "CERTIFICATE_VERIFY_FAILED" in fail(3, *health, env=wrong)
    shutil.copy(certificates.certificate("ca"), tmp_path / certificates.subject_hash("ca"))
    assert run(*health, env=wrong).code == 0, "the directory counts as well"
    assert run(*health[1:], env={**wrong, "PYDOTCOMPUTE_TLS": "1"}).code == 0


def test_a_daemon_that_is_not_trusted_is_one_line(target: str, certificates: Certificates) -> None:
    # As a process, since what gRPC itself writes to stderr is past Python; in this one the command has silenced it.
    env = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    command = [COMMAND, "health", "--target", target, "--tls-ca", certificates.certificate("other-ca")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert done.stderr.startswith(f"error: cannot reach the daemon at {target}: ")
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
    assert "--tls-ca" in done.stderr


def test_plain_text_and_tls_do_not_mix(
    fail: Callable[..., str], target: str, daemon: Any, certificates: Certificates
) -> None:
    error = fail(3, "health", "--target", target)
    assert "it speaks TLS, and this client plain text" in error
    assert "--tls-ca" in error
    error = fail(3, "health", "--target", daemon.target, "--tls-ca", certificates.certificate("ca"))
    assert "WRONG_VERSION_NUMBER" in error
    assert "does it speak TLS?" in error


def test_health_works_in_a_container_that_has_the_variables_of_the_daemon_and_of_the_client(
    run: Callable[..., Outcome],
    fail: Callable[..., str],
    strict_target: str,
    container: dict[str, str],
    certificates: Certificates,
) -> None:
    client = {
        **container,
        "PYDOTCOMPUTE_TARGET": strict_target,
        "PYDOTCOMPUTE_TLS_CA": certificates.certificate("ca"),
        "PYDOTCOMPUTE_TLS_NAME": "localhost",
        "PYDOTCOMPUTE_TLS_CLIENT_CERTIFICATE": certificates.certificate("client"),
        "PYDOTCOMPUTE_TLS_CLIENT_KEY": certificates.key("client"),
    }
    assert run("health", env=client) == Outcome(0, "SERVING\n", "")
    assert run("health", "calculator", env=client) == Outcome(0, "SERVING\n", "")
    unnamed = {name: value for name, value in client.items() if name != "PYDOTCOMPUTE_TLS_NAME"}
    error = fail(3, "health", env=unnamed)
    assert "its certificate is for another name than 127.0.0.1" in error
    assert "--tls-name" in error
    nobody = {name: value for name, value in client.items() if "TLS_CLIENT_" not in name}
    error = fail(3, "health", env=nobody)
    assert "it asks clients for a certificate, and this client has none" in error
    assert "--tls-certificate" in error
    stranger = ("--tls-certificate", certificates.certificate("other-ca"), "--tls-key", certificates.key("other-ca"))
    assert "it does not accept this client's certificate, that of other-ca" in fail(3, "health", *stranger, env=client)


@pytest.mark.parametrize(
    "option", ["--tls-name", "--tls-certificate", "--tls-key"], ids=lambda option: option.removeprefix("--")
)
def test_no_option_for_tls_is_ignored_in_favour_of_plain_text(
    run: Callable[..., Outcome], certificates: Certificates, daemon: Any, option: str
) -> None:
    values = {"--tls-name": "localhost", "--tls-certificate": certificates.certificate("client")}
    assert run("health", "--target", daemon.target).code == 0
    value = values.get(option, certificates.key("client"))
    assert run("health", "--target", daemon.target, option, value).code in (2, 3)


def test_a_file_that_is_not_what_it_should_be_is_named(
    run: Callable[..., Outcome], fail: Callable[..., str], target: str, certificates: Certificates
) -> None:
    ca, key, certificate = (
        ("--tls-ca", certificates.certificate("ca")),
        ("--tls-key", certificates.key("client")),
        ("--tls-certificate", certificates.certificate("client")),
    )
    health = ("health", "--target", target)
    for no_authority in (certificates.key("ca"), os.devnull, COMMAND):
        assert f"{no_authority}: there is no valid certificate" in fail(2, *health, "--tls-ca", no_authority)
    assert "it needs --tls-certificate as well" in fail(2, *health, *ca, *key)
    assert "it needs --tls-key as well" in fail(2, *health, *ca, *certificate)
    for no_key in (certificates.key("ca"), certificates.encrypt("client"), certificates.certificate("client")):
        assert f"--tls-key {no_key}: " in fail(2, *health, *ca, *certificate, "--tls-key", no_key)
    missing = run(*health, "--tls-ca", "/no/such/ca.pem")
    assert (missing.code, missing.stdout) == (2, "")
    assert "/no/such/ca.pem" in missing.stderr
