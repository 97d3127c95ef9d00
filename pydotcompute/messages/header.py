"""The header of a message."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

__all__ = ["Header"]


class Header(Protocol):
    """What the runtime reads of a message."""

    @property
    def message_id(self) -> UUID: ...
    @property
    def priority(self) -> int: ...
    @property
    def correlation_id(self) -> UUID | None: ...
