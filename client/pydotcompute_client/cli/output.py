"""What the command prints: texts of daemons and kernels, without control characters, and JSON."""

from __future__ import annotations

import json
from typing import Any

import click

from pydotcompute.printable import escaped_json, escaped_lines

__all__ = ["echo_json", "echo_text"]


def echo_text(text: str, *, nl: bool = True) -> None:
    """Print a text that may contain anything. Control characters are escaped."""
    click.echo(escaped_lines(text), nl=nl)


def echo_json(document: Any) -> None:
    """Print a document as one line."""
    click.echo(escaped_json(json.dumps(document, ensure_ascii=False)))
