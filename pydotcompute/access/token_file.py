"""Changes the file of tokens, such that whoever reads it meanwhile finds it whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pydotcompute.access.tokens import Token, line_of, read_tokens
from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["add_token", "load_tokens", "revoke_tokens"]


def load_tokens(path: Path) -> dict[str, Token]:
    """Return the tokens in a file, by their ids.

    Raises:
        InvalidConfigurationError: the file cannot be read, or is not valid.
    """
    return read_tokens(_text(path))


def add_token(path: Path, make: Callable[[dict[str, Token]], Token]) -> None:
    """Add the token that `make` returns, which is given the tokens that there are. A file that is missing is made.

    Raises:
        InvalidConfigurationError: the file cannot be read or written, or is not valid.
    """
    with _changing(path):
        text = _text(path) if path.exists() else ""
        token = make(read_tokens(text))
        _replace(path, [*text.splitlines(), line_of(token)])


def revoke_tokens(path: Path, ids: set[str]) -> None:
    """Remove tokens. Other lines, comments too, stay as they are. Raises as `add_token`."""
    with _changing(path):
        text = _text(path)
        read_tokens(text)
        _replace(path, [line for line in text.splitlines() if _id_in(line) not in ids])


def _id_in(line: str) -> str | None:
    return next(iter(read_tokens(line)), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfigurationError("file", path, getattr(error, "strerror", None) or "it is not UTF-8") from None


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Wait until nobody else changes the file, and keep others from changing it during the `with` block."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise InvalidConfigurationError("file", path, error.strerror or str(error)) from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # The folder, because the file itself is replaced.
        yield
    finally:
        os.close(folder)


def _replace(path: Path, lines: list[str]) -> None:
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            try:
                os.fchmod(file.fileno(), mode)
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise InvalidConfigurationError("file", path, error.strerror or str(error)) from None
