"""Names a run of the daemon, so that its sessions can be told from those of other daemons and of earlier runs."""

from __future__ import annotations

import secrets
from time import time

__all__ = ["Epoch"]


ID_BYTES = 8
TOKEN_BYTES = ID_BYTES + 8 + 16


class Epoch:
    """One run of a daemon. The tokens of its sessions tell whose they are, and are secrets."""

    def __init__(self) -> None:
        self._id = secrets.token_bytes(ID_BYTES)
        self.began = time()
        """When the run began, in seconds since 1970."""
        self.name = self._id.hex()
        """Another text for each run, and for each daemon."""

    def new_token(self) -> bytes:
        """Return the token of a new session."""
        return self._id + int(1_000 * time()).to_bytes(8) + secrets.token_bytes(16)

    def why_unknown(self, token: bytes) -> str:
        """Return the reason, in words, why a token is not that of a session which this daemon has."""
        if len(token) != TOKEN_BYTES:
            return "it is not a token of a session"
        if token[:ID_BYTES] == self._id:
            return "the session was too long without a stream, or has ended"
        if int.from_bytes(token[ID_BYTES : ID_BYTES + 8]) > 1_000 * self.began:
            return (
                "another daemon has the session: this one was running already when the session began, so the address "
                "leads to several daemons, which share nothing; each needs an address of its own"
            )
        return "the daemon has restarted since the session began, or is another one"
