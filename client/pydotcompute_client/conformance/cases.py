"""The cases that a daemon has to pass, each with its rule. docs/conformance.md has the same table."""

from __future__ import annotations

from pydotcompute_client.conformance.daemon import Case
from pydotcompute_client.conformance.sessions import SESSIONS
from pydotcompute_client.conformance.unary import UNARY
from pydotcompute_client.conformance.violations import VIOLATIONS

__all__ = ["CASES"]

CASES: tuple[Case, ...] = (*UNARY, *SESSIONS, *VIOLATIONS)
