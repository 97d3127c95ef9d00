"""The file of contexts: under a name each, a daemon's address and what is needed to be let in there."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_client.credentials import TLS, choose
from pydotcompute_client.tokens import Token

__all__ = [
    "CONTEXTS_VARIABLE",
    "SETTINGS",
    "Contexts",
    "Way",
    "contexts_path",
    "read_contexts",
    "way_of",
    "write_contexts",
]

CONTEXTS_VARIABLE = "PYDOTCOMPUTE_CONTEXTS"
"""Names the file of contexts."""

SETTINGS = {
    "target": str,
    "tls": bool,
    "tls_directory": str,
    "tls_ca": str,
    "tls_name": str,
    "tls_certificate": str,
    "tls_key": str,
    "token_file": str,
}
"""What a context may have, by the names of the command's options."""


@dataclass
class Contexts:
    """What the file says."""

    current: str = ""
    """The name of the context that is used unless another one is named. Empty for none."""
    by_name: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The settings of each context."""


@dataclass(frozen=True)
class Way:
    """How a context says that a daemon is reached."""

    target: str
    """The address of the daemon."""
    tls: TLS | None
    """What it needs for TLS; None for plain text."""
    token: Token | None
    """Reads the file of the token for each call, so that a new one counts at once. None without a file."""


def contexts_path() -> Path:
    """Return the file of contexts."""
    import click  # For where programs keep their files on this system.

    return Path(os.environ.get(CONTEXTS_VARIABLE) or Path(click.get_app_dir("pydotcompute")) / "contexts.toml")


def way_of(name: str) -> Way:
    """Return how the daemon of a context is reached.

    Raises:
        InvalidConfigurationError: there is no such context, its file is not valid, or a file that the context names.
    """
    path = contexts_path()
    by_name = read_contexts(path).by_name
    settings = by_name.get(name)
    if settings is None:
        known = ", ".join(by_name) or "none"
        raise InvalidConfigurationError("context", name, f"there is no such context in {path}; there are {known}")
    tls = choose(
        tls=settings.get("tls", False),
        directory=settings.get("tls_directory"),
        ca=settings.get("tls_ca"),
        certificate=settings.get("tls_certificate"),
        key=settings.get("tls_key"),
        name=settings.get("tls_name"),
    )
    file = settings.get("token_file")
    token = None if file is None else partial(_token_in, Path(file))
    if token is not None:
        token()  # So that a file that is not there is an error now, and not with the first call.
    return Way(settings["target"], tls, token)


def _token_in(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise InvalidConfigurationError("token_file", file, error.strerror or str(error)) from None


def check_context_name(name: str) -> str:
    """Return the name of a context. InvalidConfigurationError if none can have this name."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        problem = "the name of a context has 1 to 64 letters, digits, dots, hyphens and underscores"
        raise InvalidConfigurationError("context", name[:65], problem)
    return name


def read_contexts(path: Path) -> Contexts:
    """Return what a file of contexts says; a file that is not there says nothing.

    Raises:
        InvalidConfigurationError: the file cannot be read, or is not valid.
    """
    try:
        whole = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError) as error:
        raise InvalidConfigurationError("contexts", path, str(error)) from None
    current, tables = whole.pop("current", ""), whole.pop("contexts", {})
    if whole or not isinstance(current, str) or not isinstance(tables, dict):
        raise InvalidConfigurationError("contexts", path, "it has only `current` and `[contexts.NAME]`")
    for name, table in tables.items():
        check_context_name(name)
        for key, value in table.items() if isinstance(table, dict) else [("it", table)]:
            if type(value) is not SETTINGS.get(key):
                problem = f"context {name}: {key} is none of {', '.join(SETTINGS)}, or of another type"
                raise InvalidConfigurationError("contexts", path, problem)
        if "target" not in table:
            raise InvalidConfigurationError("contexts", path, f"context {name}: target is missing")
    if current and current not in tables:
        raise InvalidConfigurationError("contexts", path, f"current is {current}, and there is no such context")
    return Contexts(current, tables)


def write_contexts(path: Path, contexts: Contexts) -> None:
    """Write the file anew; who reads it meanwhile reads what was there or what is there then, and nothing between.

    Raises:
        InvalidConfigurationError: the file cannot be written.
    """
    # JSON's texts are TOML's, without escapes for what is not ASCII.
    lines = [f"current = {json.dumps(contexts.current)}"]
    for name, settings in sorted(contexts.by_name.items()):
        lines += ["", f"[contexts.{json.dumps(name)}]"]
        lines += [f"{key} = {json.dumps(settings[key], ensure_ascii=False)}" for key in SETTINGS if key in settings]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write("\n".join(lines) + "\n")
        os.replace(file.name, path)
    except OSError as error:
        raise InvalidConfigurationError("contexts", path, error.strerror or str(error)) from None
