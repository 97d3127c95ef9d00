"""The files that say who may do what. They are read again when they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydotcompute.access.tokens import read_tokens
from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_server.access.identity import Policy
from pydotcompute_server.access.rules import read_rules

__all__ = ["Policies"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Seen = tuple[tuple[int, int, int] | None, ...]

INTERVAL = 1.0
"""Seconds between two looks at the files."""


class Policies:
    """What the files say now.

    Args:
        access: the file of roles; None for none.
        tokens: the file of tokens; None for none.

    Raises:
        InvalidConfigurationError: a file cannot be read, or is not valid.
    """

    def __init__(self, access: Path | None, tokens: Path | None) -> None:
        self._access = access
        self._tokens = tokens
        self._seen = self._look()
        self.now = self._read()
        """What the files said when they were last valid."""

    def _look(self) -> Seen:
        """Return what tells whether a file has changed."""

        def look(path: Path | None) -> tuple[int, int, int] | None:
            try:
                found = None if path is None else path.stat()
            except OSError:
                return None
            return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)

        return look(self._access), look(self._tokens)

    def _read(self) -> Policy:
        return Policy(_read("access", self._access, read_rules), _read("tokens", self._tokens, read_tokens))

    def reload(self) -> None:
        """Read the files again. If one of them is not valid, log it, and keep to what they said before."""
        self._seen = self._look()
        try:
            self.now = self._read()
        except InvalidConfigurationError as error:
            logger.error("who may do what stays as it was: %s", error)
            return
        logger.info("read again who may do what")

    async def watch(self) -> None:
        """Read the files again whenever they change. This runs until it is cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            if self._look() != self._seen:
                self.reload()


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
