"""The log: whatever a kernel, its libraries and its child processes write is in it, and passes for nothing else."""

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from pydotcompute import message
from pydotcompute_client import connect
from tests.stubs import PATIENCE

KERNELS = str(Path(__file__).with_name("loud_kernels.py"))
FORMATS = pytest.mark.parametrize("log_format", ["text", "json"])
MAIN = "from pydotcompute_server.cli import main; main()"


@message(package="loud.v1")
class Line:
    """The message of all these kernels."""

    text: str = ""


async def ask(target: str, kernel_id: str, *texts: str) -> str:
    """The last reply of a kernel to some lines."""
    async with connect(target) as runtime:
        for text in texts:
            reply = await runtime.send_and_receive(kernel_id, Line(text), timeout=PATIENCE)
    answer: str = reply.text
    return answer


def wait_for(daemon: Any, text: str) -> None:
    """Wait until a text is in the log."""
    deadline = monotonic() + PATIENCE
    while text not in daemon.log_text():
        assert monotonic() < deadline, daemon.log_text()


def events(daemon: Any) -> list[dict[str, Any]]:
    """The events of a JSON log, each of which is one line."""
    return [json.loads(line) for line in daemon.log_text().splitlines()]


# What the kernel `loud` writes, with the level of its event, whether the kernel is known, and its source.
WRITTEN = {
    "written while the file is loaded": ("info", False, "stdout"),
    ".": ("info", True, None),
    "waits for its end": ("info", True, None),
    ", which comes": ("info", True, None),
    " 50%|##  |\x1b[2K\r2026-01-01T00:00:00 [info     ] forged\u202e": ("info", True, None),
    "to sys.stderr": ("warning", True, "stderr"),
    "bytes to sys.stdout": ("info", False, "stdout"),
    "two\n2026-01-01 lines": ("info", True, None),
    "an event cannot be logged, TypeError: '%d' with ('no number',)": ("info", True, None),
    "by C, which keeps it until it is flushed": ("info", False, "stdout"),
    "to descriptor 2\\xff": ("warning", False, "stderr"),
    "by a child process": ("info", False, "stdout"),
    "by its stderr": ("warning", False, "stderr"),
}


async def _all_written(start_daemon: Callable[..., Any], *options: str) -> Any:
    """A daemon that has ended after its kernel `loud` has written."""
    daemon = start_daemon(KERNELS, "--launch", "loud", *options)
    assert await ask(daemon.target, "loud", "") == "begun"
    wait_for(daemon, "waits for its end")  # It is logged although its line has no end yet.
    assert await ask(daemon.target, "loud", "") == "done"
    daemon.stop()
    wait_for(daemon, "by its stderr")
    wait_for(daemon, "by C, which keeps it")
    assert daemon.lines.get() == "", "nothing on standard output but the address"
    return daemon


async def test_everything_that_is_written_is_an_event(start_daemon: Callable[..., Any]) -> None:
    daemon = await _all_written(start_daemon, "--log-format", "json")
    found = {
        event["event"]: (event["level"], event.get("kernel_id") == "loud", event.get("source"))
        for event in events(daemon)
    }
    assert {text: found.get(text) for text in WRITTEN} == WRITTEN
    (warned,) = [event for event in events(daemon) if event["logger"] == "py.warnings"]
    assert "UserWarning: take care\nof two lines" in warned["event"]
    assert (warned["kernel_id"], warned["level"]) == ("loud", "warning")


async def test_no_line_of_the_text_log_can_be_forged(start_daemon: Callable[..., Any]) -> None:
    daemon = await _all_written(start_daemon)
    lines = daemon.log_text().splitlines()
    assert not [line for line in lines if not re.fullmatch(r"(    |\d{4}-\d\d-\d\dT[\d:.]+ \[\w+ *\] )[ -~]*", line)]
    assert r"50%|##  |\x1b[2K\r2026-01-01T00:00:00 [info     ] forged\u202e" in daemon.log_text()
    (at,) = [number for number, line in enumerate(lines) if line.endswith("] two")]
    assert lines[at + 1].startswith("    2026-01-01 lines")
    assert r"key=a\x1b\nb" in lines[at + 1]


async def test_a_traceback_is_indented_and_its_text_escaped(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(KERNELS, "--launch", "failing")
    forged = "2026-01-01T00:00:00.000000 [info     ] TERMINATED [x] kernel_id=payroll"
    async with connect(daemon.target) as runtime:
        await runtime.send("failing", Line(f"\x1b[2J\x9b\n{forged}"))
        await asyncio.to_thread(wait_for, daemon, "FAILED")
    lines = daemon.log_text().splitlines()
    assert "    Traceback (most recent call last):" in lines
    assert r"    ValueError: \x1b[2J\x9b" in lines
    assert f"    {forged}" in lines
    assert forged not in lines


def test_why_a_daemon_does_not_start_is_an_event_of_a_json_log() -> None:
    with a_process_group(KERNELS, "--listen", "nowhere", "--log-format", "json") as daemon:
        stdout, stderr = daemon.communicate(timeout=PATIENCE)
    assert (daemon.returncode, stdout) == (1, "")
    # What goes past Python to standard output is read by a thread, which may be late.
    failed, loaded = sorted(map(json.loads, stderr.splitlines()), key=lambda event: str(event["event"]))
    assert loaded["event"] == "written while the file is loaded"
    assert (failed["event"], failed["level"]) == ("cannot listen on nowhere: not HOST:PORT, nor unix:PATH", "error")


@FORMATS
async def test_the_last_words_of_a_process_that_dies_are_in_the_log(
    log_format: str, start_daemon: Callable[..., Any]
) -> None:
    daemon = start_daemon(KERNELS, "--launch", "dying", "--log-format", log_format, "--log-level", "error")
    async with connect(daemon.target, reconnect_timeout=0.0) as runtime:
        await runtime.send("dying", Line("free(): invalid pointer"))
        assert await asyncio.to_thread(daemon.process.wait, PATIENCE) == -signal.SIGABRT
    wait_for(daemon, "free(): invalid pointer")
    assert "so far" not in daemon.log_text(), "below the level"
    assert daemon.lines.get(timeout=PATIENCE) == "", "standard output ends with the daemon"
    if log_format == "json":
        assert {event["source"] for event in events(daemon)} == {"stderr"}, "every line is an event, the stacks' too"


async def test_a_child_process_that_keeps_the_pipes_open_does_not_delay_the_end(
    start_daemon: Callable[..., Any],
) -> None:
    daemon = start_daemon(KERNELS, "--launch", "parent")
    child = int(await ask(daemon.target, "parent", ""))
    try:
        daemon.stop()
        assert daemon.lines.get(timeout=PATIENCE) == "", "nobody else has its standard output"
        wait_for(daemon, "goodbye")
    finally:
        os.kill(child, signal.SIGKILL)


@contextmanager
def a_process_group(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon in a process group of its own, as a shell starts one."""
    command = [sys.executable, "-c", MAIN, *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as daemon:
        try:
            yield daemon
        finally:
            daemon.kill()


def test_ctrl_c_reaches_the_whole_group_and_nothing_is_lost() -> None:
    with a_process_group(KERNELS, "--launch", "parent", "--listen", "127.0.0.1:0") as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline().startswith("listening on ")
        os.killpg(daemon.pid, signal.SIGINT)
        stdout, stderr = daemon.communicate(timeout=PATIENCE)
    assert (daemon.returncode, stdout) == (0, "")
    assert "stopped" in stderr
    assert "goodbye" in stderr


async def test_a_log_that_nobody_reads_stops_neither_kernels_nor_the_end() -> None:
    with a_process_group(KERNELS, "--launch", "talkative", "--listen", "127.0.0.1:0") as daemon:
        assert daemon.stdout is not None
        target = daemon.stdout.readline().split()[-1]
        for _ in range(2):
            await ask(target, "talkative", "")
        daemon.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait, PATIENCE) == 0
        assert daemon.stderr is not None
        lines = daemon.stderr.read().splitlines()
        assert len(lines) < 4 * 2_000, "some are lost, as a pipe does not hold them all"
        assert not [line for line in lines if not re.match(r"\d{4}-\d\d-\d\dT", line)]


async def test_events_that_are_lost_are_counted() -> None:
    with a_process_group(KERNELS, "--launch", "talkative", "--listen", "127.0.0.1:0") as daemon:
        assert daemon.stdout is not None
        assert daemon.stderr is not None
        target = daemon.stdout.readline().split()[-1]
        await ask(target, "talkative", "")
        reading = asyncio.create_task(asyncio.to_thread(daemon.stderr.read))
        await ask(target, "talkative", "")
        daemon.send_signal(signal.SIGTERM)
        seen = await reading
        (lost,) = re.findall(r"(\d+) events are lost: nobody has read the log +\[kernel\]", seen)[:1]
        assert int(lost) > 0


def test_a_daemon_without_standard_output_serves_all_the_same() -> None:
    command = shlex.join([sys.executable, "-c", MAIN, KERNELS, "--launch", "all", "--listen", "127.0.0.1:0"])
    script = f"exec {command} >&- <&-"
    with subprocess.Popen(["sh", "-c", script], stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        try:
            seen = ""
            while "kernel_id=parent" not in seen or "ACTIVE" not in seen:
                line = daemon.stderr.readline()
                assert line, seen
                seen = seen + line
            daemon.send_signal(signal.SIGTERM)
            assert "stopped" in daemon.stderr.read()
        finally:
            daemon.kill()
    assert "written while the file is loaded" in seen
