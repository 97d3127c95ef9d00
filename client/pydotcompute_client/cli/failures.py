"""The ways in which the command ends without success: one line on stderr, and an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from pydotcompute.exceptions import Violation
from pydotcompute.printable import escaped

__all__ = ["BadBody", "BadInput", "Failure", "TimedOut", "Unreachable"]


class Failure(click.ClickException):
    """Ends the command with one line on stderr, and with the exit code of its class."""

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(escaped(" ".join(line.strip() for line in text.splitlines())))

    def show(self, file: Any = None) -> None:
        """Print the line to stderr."""
        click.echo(f"error: {self.format_message()}", file, err=True)


class BadInput(Failure):
    """A body or a file is not valid."""

    exit_code = 2


class BadBody(BadInput):
    """A body is not of the kernel's input type. After the error's line comes one line for each fault of the body."""

    def __init__(self, text: str, violations: Iterable[Violation]) -> None:
        super().__init__(text)
        self.violations = [escaped(" ".join(f"{path}: {problem}".split())) for path, problem in violations]

    def show(self, file: Any = None) -> None:
        """Print the error's line and the lines of the faults to stderr."""
        super().show(file)
        for violation in self.violations:
            click.echo(f"  {violation}", file, err=True)


class Unreachable(Failure):
    """There is no daemon at the target."""

    exit_code = 3


class TimedOut(Failure):
    """The answer did not come in time."""

    exit_code = 4
