"""The target of a client: what it is checked for, and how proxies are told of."""

import asyncio
import socket

import pytest
from click.testing import CliRunner

from pydotcompute.exceptions import ConnectionLostError, InvalidConfigurationError
from pydotcompute_client import connect
from pydotcompute_client.cli.main import main
from pydotcompute_client.targets import checked_target, proxy_variable
from tests.embedded import Order, daemon_with

PROXY = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that runs the tests counts."""
    for name in PROXY:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def nothing() -> str:
    """The URL of a proxy that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"


def test_the_port_is_the_daemons_default_if_none_is_given() -> None:
    assert checked_target("127.0.0.1") == "127.0.0.1:50051"
    assert checked_target("[::1]") == "[::1]:50051"
    assert checked_target("host:1") == "host:1"


def test_targets_of_grpcs_own_pass() -> None:
    for target in ("dns:///host:1", "ipv4:127.0.0.1:1,127.0.0.1:2", "ipv6:[::1]:1", "unix:/a", "unix:a", "xds:///x"):
        assert checked_target(target) == target


def test_what_is_no_target_is_refused_by_connect_and_by_the_command() -> None:
    for target, why in (
        ("127.0.0.1:70000", "the highest port is 65535"),
        ("http://host:1", "write host:1 without http://"),
        ("host:0", "a daemon on port 0 says in its first line"),
        ("a b", "not HOST:PORT, nor unix:PATH"),
    ):
        with pytest.raises(InvalidConfigurationError, match=why) as refused:
            connect(target)
        assert (refused.value.parameter, refused.value.value) == ("target", target)
        for place in (["--target", target, "ps"], ["ps", "--target", target]):
            ended = CliRunner().invoke(main, place)
            assert ended.exit_code == 2
            assert why in ended.stderr


async def test_a_daemon_on_this_machine_is_reached_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch, nothing: str
) -> None:
    monkeypatch.setenv("http_proxy", nothing)
    async with daemon_with() as wire:
        for target in (wire.address, wire.address.replace("127.0.0.1", "dns:///localhost")):
            async with connect(target) as runtime:
                assert await runtime.send_and_receive("echo", Order(7)) == Order(7)
                assert [*await asyncio.to_thread(runtime.get_all_telemetry)] == ["echo"]


async def test_the_error_names_the_variable_of_the_proxy_and_not_its_password(
    monkeypatch: pytest.MonkeyPatch, nothing: str
) -> None:
    monkeypatch.setenv("https_proxy", nothing)
    with pytest.raises(ConnectionLostError, match="environment variable https_proxy names") as lost:
        async with connect("192.0.2.1:1", timeout=1.0):
            pass
    assert "secret" not in str(lost.value)
    ended = CliRunner().invoke(main, ["--target", "192.0.2.1:1", "ps"])
    assert ended.exit_code == 3
    assert "environment variable https_proxy names" in ended.stderr


def test_a_host_that_is_excepted_has_no_proxy(monkeypatch: pytest.MonkeyPatch, nothing: str) -> None:
    monkeypatch.setenv("grpc_proxy", nothing)
    assert proxy_variable("host.example:1") == "grpc_proxy"
    assert proxy_variable("unix:/a") is None
    assert proxy_variable("[::1]:1") is None
    monkeypatch.setenv("no_proxy", "example, 10.0.0.0/8")
    assert proxy_variable("host.example:1") is None
    assert proxy_variable("10.1.2.3:1") is None
    assert proxy_variable("11.1.2.3:1") == "grpc_proxy"
