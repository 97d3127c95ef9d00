"""The command `conformance`: its exit codes, and what it prints."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from pydotcompute_client.cli.main import main
from pydotcompute_client.conformance.cases import CASES
from pydotcompute_client.conformance.rules import RULES
from tests.cli.command import WAIT, start

KERNELS = "pydotcompute_client.conformance.kernels"


@pytest.fixture(scope="module")
def conformant(start_daemon: Callable[..., Any]) -> str:
    """The address of a daemon that has the kernel type of the cases, and takes short messages only."""
    address: str = start_daemon(KERNELS, "--max-message-bytes", "5000").target
    return address


def invoke(address: str, *arguments: str) -> Any:
    return CliRunner().invoke(main, ["--target", address, "conformance", *arguments], prog_name="pydotcompute")


def test_cases_that_pass_end_with_0(conformant: str) -> None:
    result = invoke(conformant, "open", "ask")
    assert (result.exit_code, result.stderr) == (0, "")
    first, second, last = result.stdout.splitlines()
    assert first.startswith("ok        open ")
    assert second.startswith("ok        ask ")
    assert last == "2 of 2 ok"


def test_a_case_that_fails_ends_with_1(conformant: str) -> None:
    result = invoke(conformant, "parts", "ask")
    assert result.exit_code == 1
    first, _, last = result.stdout.splitlines()
    assert first.startswith("FAIL      parts ")
    assert " But: " in first
    assert last == "1 of 2 ok"


def test_results_are_printed_as_json(conformant: str) -> None:
    (found,) = json.loads(invoke(conformant, "ask", "--json").stdout)
    assert (found["name"], found["outcome"], found["problem"]) == ("ask", "ok", None)


def test_a_case_that_does_not_exist_is_wrong_usage(conformant: str) -> None:
    result = invoke(conformant, "asks")
    assert result.exit_code == 2
    assert result.stderr == f"error: there is no case 'asks'; there are {', '.join(case.name for case in CASES)}\n"


def test_a_daemon_without_the_kernel_type_is_told_where_it_is(target: str) -> None:
    result = invoke(target)
    assert result.exit_code == 1
    assert f"start it with: pydotcompute-server {KERNELS}" in result.stderr


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_daemon_for_clients_ends_with_what_it_has_seen(number: signal.Signals) -> None:
    with start("", "conformance", "--listen", "127.0.0.1:0") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"listening on 127.0.0.1:")
        process.send_signal(number)
        output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0
    *rules, last = output.decode().splitlines()
    assert [line.split()[:2] for line in rules] == [["not", "tried"]] * len(RULES)
    assert last == "0 of 0 ok"


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "http://127.0.0.1:1"])
def test_an_address_that_is_none_is_wrong_usage(address: str) -> None:
    result = CliRunner().invoke(main, ["conformance", "--listen", address])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --listen {address}: not HOST:PORT")


def test_an_address_that_is_taken_is_wrong_usage(conformant: str) -> None:
    result = CliRunner().invoke(main, ["conformance", "--listen", conformant])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --listen {conformant}: ")
