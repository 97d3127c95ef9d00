"""Addresses: what is one, and what is wrong with what is none."""

import re

import pytest

from pydotcompute.wire.addresses import is_loopback, socket_path, split_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("[::1]:0", "::1", 0),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("my_host.example:65535", "my_host.example", 65535),
        ("localhost", "localhost", 7),
        ("[::]", "::", 7),
    ],
)
def test_an_address_has_a_host_and_a_port(address: str, host: str, port: int) -> None:
    assert split_address(address, 7) == (host, port)


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("", ""),
        (":1", ""),
        ("a b:1", ""),
        ("host:port", ""),
        ("host:-1", ""),
        ("a\x1b:1", ""),
        ("host:1/path", ""),
        ("host:65536", "; the highest port is 65535"),
        ("*:1", "; 0.0.0.0 and [::] stand for all addresses of this machine"),
        ("::1", "; an IPv6 address stands in brackets, as in [::1]:50051"),
        ("[one]:1", "; one is no IPv6 address"),
        ("https://host:1/path", "; write host:1 without https://"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(address: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'not HOST:PORT, nor unix:PATH{hint}')}$"):
        split_address(address, 7)


def test_without_a_default_the_port_has_to_be_there() -> None:
    with pytest.raises(ValueError, match="not HOST:PORT"):
        split_address("localhost")


def test_a_socket_file_has_a_path() -> None:
    assert [socket_path(f"unix:{path}") for path in ("/a", "///a", "a")] == ["/a", "/a", "a"]
    assert socket_path("host:1") is None
    with pytest.raises(ValueError, match="nor unix:PATH"):
        socket_path("unix:")


def test_this_machine_is_known_by_its_names() -> None:
    assert all(map(is_loopback, ("localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "")))
