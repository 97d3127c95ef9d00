"""Who a call is from.

The call of a client runs in a task of its own. The step that finds out who the client is (see `pipeline`) says so in
that task with `calling_as`. The handler, and all tasks that the handler starts, hear it from `current`.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.ring_kernels.mail.callers import LOCAL

__all__ = ["ANONYMOUS", "Principal", "calling_as", "current"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or program that the daemon tells from others.

    Raises:
        InvalidConfigurationError: nobody may have this name.
    """

    name: str
    """The name in the client's certificate, or of its token."""

    def __post_init__(self) -> None:
        if self.name == LOCAL:
            problem = "this name is kept for senders in the daemon's own process"
            raise InvalidConfigurationError("principal", self.name, problem)


ANONYMOUS = Principal("anonymous")
"""Everybody who has not said who they are."""

_current: ContextVar[Principal] = ContextVar("principal", default=ANONYMOUS)


def current() -> Principal:
    """Return who the call is from in whose task this runs. `ANONYMOUS` if nobody has said so."""
    return _current.get()


def calling_as(principal: Principal) -> None:
    """From now on, the call in whose task this runs is from this principal."""
    _current.set(principal)
