"""The audit log: who has done what, and what was refused to whom. A JSON object on each line."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TextIO, TypeGuard

from pydotcompute.exceptions import (
    AccessError,
    InvalidConfigurationError,
    LimitExceededError,
    MemoryExhaustedError,
    PyDotComputeError,
)

__all__ = ["Audit", "is_refusal"]

logger = logging.getLogger("pydotcompute_server.audit")

MOST_ADDRESSES = 4_096
"""How many pairs of token and address are remembered."""
REFUSALS_A_SECOND = 100
"""How many refusals are written in a second. Further ones are counted, so that nobody can fill the disk with them."""
LONGEST_TEXT = 300
"""The most characters of a text that a client has chosen."""


class Audit:
    """Writes the audit log.

    Args:
        path: its file; None for the daemon's log.

    Raises:
        InvalidConfigurationError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._addresses: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._last_used: dict[str, str] = {}  # The last peer, by the id of the token.
        self._second = 0.0
        self._written = 0
        self._suppressed = 0
        if path is not None:
            try:
                self._open(path)
            except OSError as error:
                raise InvalidConfigurationError("audit_log", path, error.strerror or str(error)) from None

    def _open(self, path: Path) -> None:
        file = path.open("a", encoding="utf-8", buffering=1)  # Each line is written at once.
        if self._file is not None:
            self._file.close()
        self._file = file

    def reopen(self) -> None:
        """Open the file again, which a program that rotates logs has moved away."""
        if self._path is not None:
            try:
                self._open(self._path)
            except OSError as error:
                logger.error("the audit log stays in the file that was open: %s", error)

    def close(self) -> None:
        """Close the file. What is written afterwards goes to the log."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def operation(self, principal: str, peer: str, method: str, kernel: str, error: BaseException | None) -> None:
        """Write that somebody has made a call that needs the role of an operator, and how it ended."""
        self._write("operation", principal, peer, method, kernel, "done" if error is None else _reason(error))

    def refused(self, principal: str, peer: str, method: str, kernel: str, error: BaseException) -> None:
        """Write that a call was denied, or has met a limit."""
        now = monotonic()
        if now - self._second >= 1.0:
            self._second, self._written = now, 0
        self._written += 1
        if self._written > REFUSALS_A_SECOND:
            self._suppressed += 1
            return
        event = "limit" if isinstance(error, LimitExceededError | MemoryExhaustedError) else "denial"
        more = {"problem": str(error)} if event == "limit" or not kernel else {}
        self._write(event, principal, peer, method, kernel, _reason(error), **more)

    def token_used(self, principal: str, peer: str, method: str, token: str) -> None:
        """Write that a token comes from this address for the first time, or for the first time since long."""
        if self._last_used.get(token) == peer:  # Most calls come over the same connection as the one before.
            return
        if len(self._last_used) >= MOST_ADDRESSES:
            self._last_used.clear()
        self._last_used[token] = peer
        key = token, _host(peer)
        if key in self._addresses:
            self._addresses.move_to_end(key)
            return
        self._addresses[key] = None
        if len(self._addresses) > MOST_ADDRESSES:
            self._addresses.popitem(last=False)
        self._write("new address", principal, peer, method, "", "accepted", token=token)

    def _write(
        self, event: str, principal: str, peer: str, method: str, kernel: str, outcome: str, **more: str
    ) -> None:
        entry: dict[str, object] = {
            "event": event,
            "principal": principal,
            "peer": peer,
            "method": method[:LONGEST_TEXT],
            "kernel": kernel[:LONGEST_TEXT],
            "outcome": outcome,
            **{key: value[:LONGEST_TEXT] for key, value in more.items()},
        }
        if self._suppressed and self._written <= REFUSALS_A_SECOND:
            entry["suppressed_before"], self._suppressed = self._suppressed, 0
        if self._file is None:
            del entry["event"]
            logger.info("audit: %s", event, extra=entry)
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            self._file.write(json.dumps({"time": time, **entry}) + "\n")
        except OSError as error:
            logger.error("the audit log cannot be written: %s", error)


def is_refusal(error: BaseException) -> TypeGuard[PyDotComputeError]:
    """Return True if the error denies something, or is that of a limit."""
    return isinstance(error, AccessError | LimitExceededError | MemoryExhaustedError)


def _reason(error: BaseException) -> str:
    return getattr(error, "reason", "") or type(error).__name__


def _host(peer: str) -> str:
    """Return the address in a peer such as `ipv4:10.0.0.1:50000`, without the port."""
    return peer.rpartition(":")[0] if peer.startswith("ip") else peer
