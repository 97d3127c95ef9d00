"""Who a call is from, and what they may know.

The call of a client runs in a task of its own. The step that finds out who the client is (see `pipeline`) says so in
that task with `calling_as`. The handler, and all tasks that the handler starts, hear it from `current`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from pydotcompute.access.roles import EVERYTHING, Rights, Role
from pydotcompute.exceptions import (
    InvalidConfigurationError,
    KernelFailedError,
    KernelNotFoundError,
    PyDotComputeError,
)
from pydotcompute.ring_kernels.mail.callers import LOCAL

__all__ = ["ANONYMOUS", "Principal", "as_told", "calling_as", "crash_as_told", "current", "failure_as_told", "own_most"]

E = TypeVar("E", bound=BaseException)


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or program that the daemon tells from others.

    Raises:
        InvalidConfigurationError: nobody may have this name.
    """

    name: str
    """The name in the client's certificate, or of its token."""
    rights: Rights = field(default=EVERYTHING, compare=False)
    """What the principal may do. A step has checked that before the handler is called. The handler asks only what to
    leave out of a list."""
    limits: Mapping[str, int] = field(default_factory=dict, compare=False)
    """What holds for this principal instead of the daemon's limits for each principal. The keys are the names of the
    fields of `PrincipalLimits`, and those in `COUNTS_OF_PRINCIPALS`. The mapping does not change."""

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


def own_most(name: str) -> int:
    """Return the number that the one who calls has instead of a setting of `COUNTS_OF_PRINCIPALS`; 0 if none."""
    return _current.get().limits.get(name, 0)


def calling_as(principal: Principal) -> None:
    """From now on, the call in whose task this runs is from this principal."""
    _current.set(principal)


def failure_as_told(failure: KernelFailedError) -> KernelFailedError:
    """Return the failure of a kernel, without its text if the one who calls may not read it.

    Such a text may tell what another client has sent.
    """
    if current().rights.have(Role.OPERATOR, failure.kernel_id):
        return failure
    return KernelFailedError(failure.kernel_id, failure.cause_type, "operators of the kernel can read the text")


def crash_as_told(kernel_id: str, crash: str) -> str:
    """Return how a worker has died, without the text after the name if the one who calls may not read it."""
    return crash if current().rights.have(Role.OPERATOR, kernel_id) else crash.partition(":")[0]


def as_told(error: E) -> E | PyDotComputeError:
    """Return the error without what the one who calls may not know, or the error itself."""
    if isinstance(error, KernelFailedError):
        return failure_as_told(error)
    rights = current().rights
    if isinstance(error, KernelNotFoundError) and not rights.see_everything:
        return KernelNotFoundError(error.kernel_id, rights.patterns, error.is_type and rights.see_type(error.kernel_id))
    return error
