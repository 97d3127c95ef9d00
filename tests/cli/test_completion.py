"""Completion where people meet it: in the shells themselves, at a daemon."""

import asyncio
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from pydotcompute_client import connect
from tests.properties import cases

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = os.path.join(sysconfig.get_path("scripts"), "pydotcompute")
WAIT = 30.0

KERNEL_IDS = ["my kernel", "x:one", "x:two", "c,omma", "do$lar", "at@home"]
KERNEL_IDS += ['run $(echo `id`) "now"!', "it's", "the end'"]
"""What a shell may take for something else, beside the calculator."""

COMPLETED = {
    "a name": ("pydotcompute ask calc", ["ask", "calculator"]),
    "a space": ("pydotcompute ask my", ["ask", "my kernel"]),
    "in quotes": ('pydotcompute ask "my k', ["ask", "my kernel"]),
    "a command in double quotes": ('pydotcompute ask "ru', ["ask", 'run $(echo `id`) "now"!']),
    "a command in single quotes": ("pydotcompute ask 'ru", ["ask", 'run $(echo `id`) "now"!']),
    "a command": ("pydotcompute ask ru", ["ask", 'run $(echo `id`) "now"!']),
    "an apostrophe in quotes": ("pydotcompute ask 'it", ["ask", "it's"]),
    "an apostrophe in double quotes": ('pydotcompute ask "it', ["ask", "it's"]),
    "an apostrophe at the end": ("pydotcompute ask 'the", ["ask", "the end'"]),
    "a colon": ("pydotcompute ask x:o", ["ask", "x:one"]),
    "an at": ("pydotcompute ask at@h", ["ask", "at@home"]),
    "a comma": ("pydotcompute ask c,", ["ask", "c,omma"]),
    "a dollar": ("pydotcompute ask do", ["ask", "do$lar"]),
    "behind an address": ("pydotcompute --target {target} ask calc", ["--target", "{target}", "ask", "calculator"]),
    "behind =": ("pydotcompute launch mine --type=calc", ["launch", "mine", "--type=calculator"]),
    "an option": ("pydotcompute ask calculator --prio", ["ask", "calculator", "--priority"]),
    "a subcommand": ("pydotcompute deact", ["deactivate"]),
    "the same again": ("pydotcompute telemetry calculator calculator", ["telemetry", "calculator", "calculator"]),
}  # fmt: skip
"""A line, and the arguments that it has when TAB was pressed at its end."""
CASES = pytest.mark.parametrize("name", cases(COMPLETED, quick=["in quotes", "a colon", "a dollar", "behind ="]))


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any]) -> str:
    address: str = start_daemon(str(EXAMPLES / "calculator.py"), "--launch", "calculator").target

    async def launch() -> None:
        async with connect(address) as runtime:
            for kernel_id in KERNEL_IDS:
                await runtime.launch(kernel_id, "calculator")

    asyncio.run(launch())
    return address


def environment(target: str) -> dict[str, str]:
    """That of a shell that finds the command, and no settings of its user."""
    path = f"{os.path.dirname(COMMAND)}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYDOTCOMPUTE_TARGET": target, "TERM": "dumb", "HISTFILE": ""}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the file with what `pydotcompute completion` prints for a shell."""
    folder = tmp_path_factory.mktemp("completion")

    def script(shell: str) -> Path:
        file = folder / shell
        if not file.exists():
            file.write_bytes(subprocess.run([COMMAND, "completion", shell], check=True, stdout=subprocess.PIPE).stdout)
        return file

    return script


def after_tab(shell: list[str], setup: str, line: str, target: str) -> list[str]:
    """The words of a line in a shell at a terminal, after TAB at its end.

    The shell handles one key after the other, so that none of them needs to wait for an earlier one. In the end the
    line is made one that prints its words.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(shell[0], shell, environment(target))
    try:
        os.write(terminal, f"{setup}; PS1='READ''Y> '\n".encode())
        _until(terminal, b"READY> ")  # Before its prompt, a shell has not made the terminal its own.
        os.write(terminal, f"{line}\t\x01printf '<%s>' BEG''IN \x05 E''ND\n".encode())
        seen = _until(terminal, b"<END>")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
    printed = seen[seen.rindex(b"<BEGIN>") : seen.rindex(b"<END>")].decode()
    return printed.removeprefix("<BEGIN><").removesuffix(">").split("><")


def _until(terminal: int, mark: bytes) -> bytes:
    """What is written to a terminal, up to a mark."""
    seen, deadline = b"", monotonic() + WAIT
    while mark not in seen:
        assert select.select([terminal], [], [], deadline - monotonic())[0], seen
        seen += os.read(terminal, 65536)
    return seen


@CASES
def test_bash_completes(target: str, script: Callable[[str], Path], name: str) -> None:
    line, arguments = COMPLETED[name]
    setup = f"source {script('bash')}"
    words = after_tab(["bash", "--norc", "--noprofile", "-i"], setup, line.format(target=target), target)
    assert words == ["pydotcompute", *(each.format(target=target) for each in arguments)]


def test_bash_offers_what_several_kernels_begin_with(target: str, script: Callable[[str], Path]) -> None:
    setup = f"source {script('bash')}"
    assert after_tab(["bash", "--norc", "--noprofile", "-i"], setup, "pydotcompute ask x", target)[-1] == "x:"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
@CASES
def test_zsh_completes(target: str, script: Callable[[str], Path], name: str) -> None:
    line, arguments = COMPLETED[name]
    setup = f"bindkey -e; autoload -U compinit; compinit -u -D; source {script('zsh')}"
    words = after_tab(["zsh", "-f", "-i"], setup, line.format(target=target), target)
    assert words == ["pydotcompute", *(each.format(target=target) for each in arguments)]


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
@CASES
def test_fish_completes(target: str, script: Callable[[str], Path], name: str) -> None:
    line, arguments = COMPLETED[name]
    # What fish offers at the end of a line, each with its description.
    asked = f'source {script("fish")}; complete -C "$argv"'
    command = ["fish", "--no-config", "-c", asked, line.format(target=target)]
    offered = subprocess.run(
        command, env=environment(target), check=True, capture_output=True, text=True, timeout=WAIT
    ).stdout
    assert [each.partition("\t")[0] for each in offered.splitlines()] == [arguments[-1]]


@pytest.mark.parametrize("away", ["nothing listens", "nobody answers"])
def test_a_daemon_that_is_away_completes_nothing_and_says_nothing(away: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if away == "nobody answers":
            taken.listen()
        asked = {"_PYDOTCOMPUTE_COMPLETE": "bash_complete", "COMP_WORDS": "pydotcompute describe c"}
        env = {**environment(f"127.0.0.1:{taken.getsockname()[1]}"), **asked}
        completed = subprocess.run([COMMAND], env=env, capture_output=True, text=True, timeout=WAIT)
    assert (completed.returncode, completed.stdout.strip(), completed.stderr) == (0, "", "")
