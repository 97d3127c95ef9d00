"""What the checks of daemons and of clients have come to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BrokenError", "Result", "require"]


class BrokenError(Exception):
    """A rule is broken. The text says how."""


@dataclass(frozen=True)
class Result:
    """Whether a rule was kept."""

    name: str
    """The name of the rule, or of the case that checks it."""
    rule: str
    """What must be, in words."""
    problem: str | None = None
    """How it was broken; None if it was not."""
    tried: bool = True
    """False if nothing has happened by which it could have been broken."""

    @property
    def outcome(self) -> str:
        """`ok`, `FAIL`, or `not tried`."""
        if self.problem is not None:
            return "FAIL"
        return "ok" if self.tried else "not tried"


def require(holds: object, problem: str) -> None:
    """Raise BrokenError with this problem, unless `holds` is true."""
    if not holds:
        raise BrokenError(problem)
