"""The output of `--json`."""

from __future__ import annotations

import json
from typing import Any

import click

__all__ = ["echo_json"]


def echo_json(document: Any) -> None:
    """Print a document as one line."""
    click.echo(json.dumps(document, ensure_ascii=False))
