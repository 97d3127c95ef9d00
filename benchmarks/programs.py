"""Runs a program to its end."""

import os
import signal
import subprocess
from collections.abc import Sequence


class ProgramError(Exception):
    """A program failed; the text is what it printed last."""


def output_of(command: Sequence[str], *, timeout: float, python_path: bool = True) -> str:
    """What a program prints; ProgramError, with the end of that, if it fails or takes longer than `timeout` seconds.

    Without `python_path` it does not see PYTHONPATH.
    """
    environment = {name: value for name, value in os.environ.items() if python_path or name != "PYTHONPATH"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except BaseException as interruption:
        os.killpg(process.pid, signal.SIGKILL)  # with the server it may have started
        _, errors = process.communicate()
        if not isinstance(interruption, subprocess.TimeoutExpired):
            raise
        raise ProgramError(f"no result after {timeout:.0f} s\n{errors[-2000:]}") from None
    if process.returncode != 0:
        raise ProgramError(f"exit code {process.returncode}\n{(output + errors)[-2000:]}")
    return output
