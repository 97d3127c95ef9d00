"""The command as its users run it: a process."""

import os
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "EXAMPLES", "WAIT", "start"]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = os.path.join(sysconfig.get_path("scripts"), "pydotcompute")
WAIT = 20.0
"""Seconds that a command may take to end."""


@contextmanager
def start(target: str, *arguments: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the command as a process, to the end of the block at most."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    command = [COMMAND, *arguments]
    with subprocess.Popen(command, env={**os.environ, "PYDOTCOMPUTE_TARGET": target}, **settings) as process:
        try:
            yield process
        finally:
            process.kill()
