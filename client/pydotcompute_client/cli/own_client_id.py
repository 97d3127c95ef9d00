"""The client_id of whoever runs the command without `--client-id`."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

import click

from pydotcompute_client.cli.connection import PROGRAM

__all__ = ["own_client_id"]

BYTES = 16


def own_client_id() -> tuple[str, bool]:
    """Return a client_id that nobody else has, and True if the next call returns it again.

    It is made at random when it is first wanted, and kept in a file of the user's. So what a user sends, the same user
    receives, and two users do not get each other's replies. If no file can be kept, each call makes another one.
    """
    path = Path(click.get_app_dir(PROGRAM)) / "client-id"
    made = secrets.token_hex(BYTES)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file is there with its text or not at all, also if two commands make it at the same time.
        draft = path.with_name(f"client-id.{made}")
        if not path.exists():
            draft.touch(0o600)
            draft.write_text(made)
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
    with suppress(OSError):
        kept = path.read_text().strip()
        if re.fullmatch(rf"[0-9a-f]{{{2 * BYTES}}}", kept):
            return kept, True
    return made, False
