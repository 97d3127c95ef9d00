"""What reaches a person's terminal: nothing that a daemon sends can do more there than be read."""

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator

import pytest

from pydotcompute.printable import escaped_lines
from tests.cli.command import COMMAND, WAIT
from tests.hostile import POISON, hostile_daemon, with_field
from tests.properties import cases

COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
"""What Rich writes itself, for headings and states."""
COMMANDS = {
    "ps": ["ps"],
    "types": ["types"],
    "describe": ["describe", POISON],
    "telemetry": ["telemetry"],
    "devices": ["devices"],
    "memory": ["memory"],
    "info": ["info"],
    "a change": ["activate", "kernel"],
    "an error": ["deactivate", "kernel"],
    "how to ask": ["ask", "kernel"],
    "a wrong body": ["ask", "kernel", json.dumps({POISON: 1})],
    "proto check": ["proto", "check", "--against", "/nowhere"],
    "JSON": ["ps", "--json"],
    "JSON of a description": ["describe", "kernel", "--json"],
}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with hostile_daemon(with_field("number")) as address:
        yield address


def on_a_terminal(target: str, arguments: list[str]) -> bytes:
    """What a command writes if its output is a terminal."""
    mine, its = pty.openpty()
    try:
        with subprocess.Popen([COMMAND, "--target", target, *arguments], stdout=its, stderr=its) as process:
            os.close(its)
            seen = b""
            while True:
                try:
                    seen += os.read(mine, 65536)
                except OSError:  # The other end is closed.
                    break
            process.wait(WAIT)
    finally:
        os.close(mine)
    return seen.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("command", cases(COMMANDS, quick=["ps", "describe", "an error", "JSON"]))
def test_nothing_but_text_reaches_the_terminal(target: str, command: str) -> None:
    seen = on_a_terminal(target, COMMANDS[command])
    text = COLOUR.sub(b"", seen).decode()
    assert text == escaped_lines(text)
    assert "Traceback" not in text
    assert command == "proto check" or r"\x1b]52" in text or r"\u001b]52" in text


def test_a_forged_line_stands_in_the_row_of_its_kernel(target: str) -> None:
    for arguments in (["ps"], ["types"], ["telemetry"]):
        assert not [line for line in on_a_terminal(target, arguments).splitlines() if line.startswith(b"2026")]


def test_json_is_valid_and_means_the_same(target: str) -> None:
    (kernel,) = json.loads(on_a_terminal(target, ["ps", "--json"]))["kernels"]
    assert (kernel["kernelId"], kernel["failure"]) == (POISON, POISON)
