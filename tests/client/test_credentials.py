"""The TLS of a client: what it is made of, and what options and environment variables make of it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click import Option

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.wire.certificates import VARIABLES
from pydotcompute_client import TLS
from pydotcompute_client.cli.main import main as client_command
from pydotcompute_client.credentials import read
from pydotcompute_server.cli import main as server_command
from tests.certificates import Certificates, make_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def full(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates.directory(tmp_path_factory.mktemp("tls"), "client", "ca")


def of(directory: Path, name: str | None = None) -> TLS:
    return TLS(directory / "ca.crt", directory / "tls.crt", directory / "tls.key", name)


def environment(**variables: str) -> dict[str, str]:
    return {f"PYDOTCOMPUTE_{name}": value for name, value in variables.items()}


def test_a_directory_has_all_or_the_machine_is_trusted(certificates: Certificates, full: Path, tmp_path: Path) -> None:
    assert TLS.directory(full, name="gpu") == of(full, "gpu")
    without = certificates.directory(tmp_path / "tls", "client", None)
    assert TLS.directory(str(without)) == TLS(None, without / "tls.crt", without / "tls.key")
    (without / "tls.key").unlink()
    with pytest.raises(InvalidConfigurationError, match=r"there is no tls.key in it"):
        TLS.directory(without)


def test_variables_say_the_same_as_options(certificates: Certificates, full: Path) -> None:
    files = certificates.certificate("ca"), certificates.certificate("client"), certificates.key("client")
    each = dict(zip(("TLS_CA", "TLS_CLIENT_CERTIFICATE", "TLS_CLIENT_KEY"), files, strict=True))
    cases: list[tuple[Mapping[str, str], TLS | None]] = [
        ({}, None),
        ({"TLS": "0"}, None),
        ({"TLS": "1"}, TLS()),
        ({"TLS_NAME": "gpu"}, TLS(name="gpu")),
        (each, TLS(*files)),
        ({**each, "TLS_NAME": "gpu", "TLS": "no"}, TLS(*files, "gpu")),
        ({"TLS_DIRECTORY": str(full)}, of(full)),
        ({"TLS_DIRECTORY": str(full), "TLS_NAME": "gpu", "INSECURE": "true"}, of(full, "gpu")),
        ({"TLS_DIRECTORY": str(full), **each}, TLS(*files)),
        ({"TLS_DIRECTORY": str(full), "TLS": "1"}, TLS()),
        ({"INSECURE": "1"}, None),
    ]
    for variables, expected in cases:
        assert TLS.from_environment(environment(**variables)) == expected, variables


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        *(({name: ""}, "it is empty") for name in ("TLS", "TLS_DIRECTORY", "TLS_CA", "TLS_NAME", "TLS_CLIENT_KEY")),
        ({"TLS_CLIENT_CERTIFICAT": "x"}, "did you mean PYDOTCOMPUTE_TLS_CLIENT_CERTIFICATE?"),
        ({"TLS": "perhaps"}, "it is neither 1 nor 0"),
        ({"TLS_CLIENT_KEY": "x.key"}, "it needs tls_certificate as well"),
        ({"TLS_CLIENT_CERTIFICATE": "x.pem"}, "it needs tls_key as well"),
        ({"TLS_DIRECTORY": "/no/such"}, "there is no tls.crt and no tls.key in it"),
        ({"TLS_DIRECTORY": "/no/such", "INSECURE": "1"}, "there is no tls.crt and no tls.key in it"),
    ],
)
def test_a_variable_that_has_no_effect_is_an_error_and_no_plain_text(variables: Any, problem: str) -> None:
    with pytest.raises(InvalidConfigurationError) as wrong:
        TLS.from_environment(environment(**variables))
    assert problem in wrong.value.problem


def test_plain_text_has_to_be_asked_for_where_the_directory_is_empty(tmp_path: Path) -> None:
    empty = environment(TLS_DIRECTORY=str(tmp_path))
    with pytest.raises(InvalidConfigurationError, match=r"there is no tls.crt"):
        TLS.from_environment(empty)
    assert TLS.from_environment({**empty, **environment(INSECURE="1")}) is None


def test_files_are_looked_at_before_grpc_gets_them(certificates: Certificates) -> None:
    ca, client, key = certificates.certificate("ca"), certificates.certificate("client"), certificates.key("client")
    wrong = {
        "tls_ca": TLS(key, client, key),
        "tls_certificate": TLS(ca, key, key),
        "tls_key": TLS(ca, client, certificates.key("ca")),
    }
    for parameter, tls in wrong.items():
        with pytest.raises(InvalidConfigurationError) as refused:
            read(tls)
        assert refused.value.parameter == parameter
    roots, pair = read(TLS(ca, client, key))
    assert roots == Path(ca).read_bytes()
    assert pair is not None
    assert pair.names == ("client",)


def test_a_machine_that_trusts_nobody_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(InvalidConfigurationError, match="this machine trusts nobody"):
        read(TLS())


def test_the_variables_for_tls_are_those_of_the_two_commands() -> None:
    of_client = {str(each.envvar) for each in client_command.params if isinstance(each, Option) and each.envvar}
    of_server = {f"PYDOTCOMPUTE_{each.name}".upper() for each in server_command.params if isinstance(each, Option)}
    about = {name for name in of_client | of_server if name.startswith(("PYDOTCOMPUTE_TLS", "PYDOTCOMPUTE_INSECURE"))}
    assert about == VARIABLES
