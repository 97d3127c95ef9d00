"""The commands `telemetry`, with and without --watch, `devices` and `memory`."""

import importlib.util
import json
import os
import pty
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from click.testing import Result

from tests.cli.command import EXAMPLES, WAIT, start

pytestmark = pytest.mark.usefixtures("interruptible")


def test_devices_says_why_it_cannot_tell(run: Callable[..., Result]) -> None:
    if importlib.util.find_spec("pynvml") is not None:
        pytest.skip("what it says is the driver's")
    result = run("devices")
    assert result.exit_code != 0
    assert "nvidia-ml-py is not installed; pip install 'pydotcompute-grpc[cuda12]'" in result.stderr


def test_memory_is_shown_by_the_places_where_messages_wait(ok: Callable[..., str]) -> None:
    header, *rows = ok("memory").splitlines()
    assert header.split() == ["WHERE", "MEMORY"]
    assert [row[:13].strip() for row in rows[:5]] == ["mailboxes", "dead letters", "calls", "streams", "sessions"]
    assert " of " in rows[5]
    assert rows[6].startswith("the daemon's process ")
    told = json.loads(ok("memory", "--json"))
    assert told["residentBytes"] > 1 << 20
    assert told["budgetBytes"] > told["usedBytes"] == sum(place.get("bytes", 0) for place in told["places"])


def test_telemetry_counts_messages(ok: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("calculator")
    ok("ask", kernel, "{}")
    header, row = (line.split() for line in ok("telemetry", kernel).splitlines())
    shown = dict(zip(header, row, strict=True))
    assert (shown["KERNEL"], shown["STATE"], shown["PROCESSED"], shown["DROPPED"]) == (kernel, "ACTIVE", "1", "0")
    assert shown["P50"].endswith("s")
    snapshot = json.loads(ok("telemetry", kernel, "--json"))["kernels"][0]
    assert (snapshot["kernelId"], snapshot["messagesProcessed"]) == (kernel, 1)
    assert snapshot["uptimeSeconds"] > 0
    everything = json.loads(ok("telemetry", "--json"))["kernels"]
    assert {"calculator", kernel} <= {snapshot["kernelId"] for snapshot in everything}


def test_watching_prints_a_line_of_json_a_snapshot_until_interrupted(target: str) -> None:
    with start(target, "--json", "telemetry", "calculator", "--watch", "--interval", "0.02") as process:
        assert process.stdout is not None
        snapshots = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stderr) == (130, b"")
    assert [snapshot["kernels"][0]["kernelId"] for snapshot in snapshots] == ["calculator"] * 3
    uptimes = [snapshot["kernels"][0]["uptimeSeconds"] for snapshot in snapshots]
    assert uptimes == sorted(set(uptimes))


def test_a_reader_that_leaves_ends_the_command_quietly(target: str) -> None:
    with start(target, "telemetry", "calculator", "--watch", "--interval", "0.02") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"KERNEL ")
        process.stdout.close()
        assert process.wait(WAIT) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_terminal_gets_colours_and_a_table_in_its_place(target: str) -> None:
    ours, theirs = pty.openpty()
    with start(target, "telemetry", "calculator", "--watch", "--interval", "0.02", stdout=theirs) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"calculator") < 3:
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # What Linux says at the end of a terminal is EIO.
            while chunk := os.read(ours, 65536):
                seen += chunk
        assert process.wait(WAIT) == 130
    os.close(ours)
    assert b"\x1b[32mACTIVE\x1b[0m" in seen
    assert b"\x1b[1A" in seen, "the cursor goes back up"
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l"), "the cursor is visible again"


def test_a_watch_ends_with_its_kernel_and_with_its_daemon(
    fail: Callable[..., str], start_daemon: Callable[..., Any]
) -> None:
    assert "'nobody' not found" in fail(1, "telemetry", "nobody", "--watch")
    daemon = start_daemon(str(EXAMPLES / "calculator.py"), "--launch", "all", "--grace", "0.1")
    with start(daemon.target, "telemetry", "--watch", "--interval", "0.02") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"KERNEL ")
        daemon.stop()
        _, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stderr[:32]) == (3, b"error: cannot reach the daemon a")
