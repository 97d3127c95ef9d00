"""The files that say who may do what. They are read again when they change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydotcompute.access.tokens import read_tokens
from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_server.access.identity import Policy
from pydotcompute_server.access.rules import Rules, read_rules

__all__ = ["Policies"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Seen = tuple[tuple[int, int, int] | None, ...]


class Policies:
    """What the files say now.

    Args:
        access: the file of roles; None for none.
        tokens: the file of tokens; None for none.
        is_open: True if everybody may do everything.

    Raises:
        InvalidConfigurationError: a file cannot be read, or is not valid.
    """

    def __init__(self, access: Path | None, tokens: Path | None, *, is_open: bool) -> None:
        self._access = access
        self._tokens = tokens
        self._is_open = is_open
        self._keys: Path | None = None
        self._seen = self._look()
        self.now = self._read()
        """What the files said when they were last valid."""

    def _look(self) -> Seen:
        """Return what tells whether a file has changed."""
        return _look(self._access), _look(self._tokens), _look(self._keys)

    def _read(self) -> Policy:
        if self._is_open:
            return Policy(None, None, is_open=True)
        rules = _read("access", self._access, self._read_rules)
        keys = None if rules is None or rules.jwt is None or "://" in rules.jwt.keys else Path(rules.jwt.keys)
        self._keys, self._seen = keys, (*self._seen[:2], _look(keys))
        tokens = _read("tokens", self._tokens, read_tokens)
        try:
            return Policy(rules, tokens)
        except InvalidConfigurationError as error:
            raise InvalidConfigurationError("access", self._access, str(error)) from None

    def _read_rules(self, text: str) -> Rules:
        assert self._access is not None
        return read_rules(text, self._access.parent)

    def reload(self) -> None:
        """Read the files again. If one of them is not valid, log it, and keep to what they said before."""
        self._seen = self._look()
        try:
            self.now = self._read()
        except InvalidConfigurationError as error:
            logger.error("who may do what stays as it was: %s", error)
            return
        except Exception:  # Whatever is wrong with a file, the daemon goes on.
            logger.exception("who may do what stays as it was")
            return
        logger.info("read again who may do what")

    def reload_if_changed(self) -> None:
        """Read the files again if one of them has changed since they were last read."""
        if self._look() != self._seen:
            self.reload()


def _look(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def _read(setting: str, path: Path | None, read: Callable[[str], T]) -> T | None:
    if path is None:
        return None
    try:
        return read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfigurationError(setting, path, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise InvalidConfigurationError(setting, path, "it is not UTF-8") from None
    except InvalidConfigurationError as error:
        raise InvalidConfigurationError(setting, path, str(error)) from None
