"""How the command ends without success: one line on stderr, and an exit code for each kind of failure."""

import json
import signal
from collections.abc import Callable

import pytest
from click.testing import Result

from pydotcompute_client.cli.main import main
from tests.cli.command import WAIT, start

pytestmark = pytest.mark.usefixtures("interruptible")


def test_no_reply_in_time_has_its_exit_code(fail: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("silent")
    error = fail(4, "ask", kernel, '{"text": "hello"}', "--timeout", "0.05")
    assert kernel in error
    assert "timed out after 0.05 s" in error


def test_a_failure_is_one_line_and_one_row(
    ok: Callable[..., str], fail: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("crasher")
    failure = "ValueError: no such word see the dictionary"
    assert f"kernel '{kernel}' failed: {failure}" in fail(1, "ask", kernel, '{"text": "x"}')
    header, *rows = ok("ps").splitlines()
    assert header.endswith("FAILURE")
    row = next(row for row in rows if row.startswith(kernel))
    assert row.split(maxsplit=5) == [kernel, "crasher", "FAILED", "0", "0/4096", failure]
    header, *rows = ok("telemetry", kernel).splitlines()
    assert header.endswith("LAST ERROR")
    assert [row.endswith(failure) for row in rows] == [True]
    assert f"kernel '{kernel}' at " in fail(1, "health", kernel)


EVERY_CALL = {
    **{name: [name] for name in ("ps", "types", "health", "telemetry", "devices", "memory", "info")},
    **{name: [name, "nobody"] for name in ("describe", "activate", "deactivate", "reactivate", "restart", "terminate")},
    "scale": ["scale", "nobody", "2"],
    "reload": ["reload"],
    **{name: [name, "nobody"] for name in ("launch", "receive", "dead-letters")},
    "acknowledge": ["acknowledge", "nobody", "x"],
    **{name: [name, "nobody", "{}"] for name in ("ask", "send")},
    "requeue": ["requeue", "nobody", "--all"],
    "proto export": ["proto", "export", "nobody", "--out", "nowhere"],
    "proto check": ["proto", "check", "nobody", "--against", "nowhere"],
    "telemetry --watch": ["telemetry", "--watch"],
    "clients": ["clients"],
    "kick": ["kick", "somebody"],
    "conformance": ["conformance"],
}


NO_DAEMON = {"completion", "context", "tls", "token"}
"""The commands that talk to none."""


def test_every_command_is_in_the_tables_of_these_tests() -> None:
    assert {*main.commands} == {arguments[0] for arguments in EVERY_CALL.values()} | NO_DAEMON


@pytest.mark.parametrize("arguments", EVERY_CALL.values(), ids=EVERY_CALL.keys())
def test_without_a_daemon_every_command_says_where_it_looked(
    fail: Callable[..., str], nowhere: str, arguments: list[str]
) -> None:
    error = fail(3, *arguments, "--target", nowhere)
    assert f"cannot reach the daemon at {nowhere}" in error
    assert "PYDOTCOMPUTE_TARGET" in error


@pytest.mark.parametrize(
    "arguments", [call for call in EVERY_CALL.values() if "nobody" in call], ids=lambda call: call[0]
)
def test_every_command_names_a_kernel_that_is_not_there(
    fail: Callable[..., str], target: str, arguments: list[str]
) -> None:
    error = fail(1, *arguments)
    assert "kernel 'nobody' not found; known here: " in error
    assert "calculator" in error
    assert f"(at {target})" in error


def test_who_asks_a_type_of_which_no_kernel_is_launched_hears_how_to_launch_one(fail: Callable[..., str]) -> None:
    assert "`pydotcompute launch repeater --activate`" in fail(1, "ask", "repeater", "{}")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fly"], "No such command 'fly'"),
        (["ask"], "Missing argument 'KERNEL'"),
        (["receive", "calculator", "--timeout", "nan"], "--timeout"),
        (["receive", "calculator", "--timeout", "-1"], "--timeout"),
        (["send", "calculator", "{}", "--priority", "256"], "--priority"),
        (["launch", "calculator", "--backpressure", "pray"], "drop_oldest"),
        (["kick", "--reason", "all of you"], "name a PRINCIPAL, a --peer or a --client-id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_has_its_exit_code(run: Callable[..., Result], arguments: list[str], told: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_an_interrupted_wait_ends_without_a_traceback(
    ok: Callable[..., str], launched: Callable[..., str], target: str
) -> None:
    kernel = launched("calculator")
    with start(target, "receive", kernel, "--count", "2", "--timeout", "60") as process:
        ok("send", kernel, '{"a": 1}')
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["result"] == 1.0
        process.send_signal(signal.SIGINT)  # It waits for the second now, or is about to.
        _, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stderr) == (130, b"")


def test_help_tells_the_exit_codes(ok: Callable[..., str]) -> None:
    lines = [line.strip() for line in ok("--help").splitlines()]
    exit_codes = lines[lines.index("Exit codes:") + 1 :]
    assert [line.split()[0] for line in exit_codes] == ["0", "1", "2", "3", "4", "130"]
