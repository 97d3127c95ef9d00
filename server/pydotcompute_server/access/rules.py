"""The file that says which role each principal has."""

from __future__ import annotations

import tomllib
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from pydotcompute.access.roles import Grant, Rights, Role, checked_patterns, matches
from pydotcompute.access.tokens import ANONYMOUS_NAME
from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_server.limits import COUNTS_OF_PRINCIPALS, PrincipalLimits

__all__ = ["JwtRules", "LimitsTable", "Rules", "read_rules"]

T = TypeVar("T")

MOST_KEPT = 1_024
"""For how many principals it is kept what they may do."""

_GRANT = {"principals", "role", "kernels", "types"}
_JWT = {"issuer", "audience", "keys", "name"}
_LIMITS = {each.name for each in fields(PrincipalLimits)} | COUNTS_OF_PRINCIPALS


@dataclass(frozen=True)
class JwtRules:
    """Which JSON web tokens are believed."""

    issuer: str
    """The `iss` that a token must have."""
    audience: str
    """The `aud` that a token must have."""
    keys: str
    """The file or the URL of the issuer's keys, a JWKS."""
    name: str = "sub"
    """The claim that is the principal's name."""


@dataclass(frozen=True)
class LimitsTable:
    """The limits of some principals."""

    limits: Mapping[str, int]
    """By the names of the fields of `PrincipalLimits`, and those in `COUNTS_OF_PRINCIPALS`."""
    principals: tuple[str, ...] | None = None
    """Patterns of the names of the principals that have them. None for all names."""
    role: Role | None = None
    """The highest role of the principals that have them. None for all roles."""

    def is_for(self, name: str, role: Role | None) -> bool:
        """Return True if a principal of this name, whose highest role is this one, has these limits."""
        if self.role is not None and self.role is not role:
            return False
        return self.principals is None or any(_is_for(each, name) for each in self.principals)


class Rules:
    """What the file says.

    Args:
        grants: patterns of principals' names, each with what these principals may do.
        jwt: which JSON web tokens are believed; None for none.
        limits: who has other limits than the daemon has for each principal.
    """

    def __init__(
        self,
        grants: Sequence[tuple[tuple[str, ...], Grant]] = (),
        jwt: JwtRules | None = None,
        limits: Sequence[LimitsTable] = (),
    ) -> None:
        self._grants = grants
        self._limits = limits
        self._rights: dict[str, Rights] = {}
        self._limits_of: dict[tuple[str, Role | None], Mapping[str, int]] = {}
        self.jwt = jwt
        """Which JSON web tokens are believed; None for none."""

    def rights_of(self, name: str) -> Rights:
        """Return what the principal of this name may do: all grants that fit the name together."""
        rights = self._rights.get(name)
        if rights is None:
            if len(self._rights) >= MOST_KEPT:
                self._rights.clear()
            fitting = [grant for names, grant in self._grants if any(_is_for(each, name) for each in names)]
            rights = self._rights[name] = Rights(fitting)
        return rights

    def limits_of(self, name: str, role: Role | None) -> Mapping[str, int]:
        """Return the limits that a principal of this name has instead of the daemon's.

        Of each limit, the first table that fits and has it counts.

        Args:
            role: the highest role of the principal. None if it has none.
        """
        key = name, role
        limits = self._limits_of.get(key)
        if limits is None:
            if len(self._limits_of) >= MOST_KEPT:
                self._limits_of.clear()
            fitting = [table.limits for table in self._limits if table.is_for(name, role)]
            limits = self._limits_of[key] = dict(ChainMap(*map(dict, fitting)))
        return limits


def _is_for(pattern: str, name: str) -> bool:
    # Whoever writes `*` means everybody who has a name.
    return pattern == name if name == ANONYMOUS_NAME else matches(pattern, name)


def read_rules(text: str, folder: Path = Path()) -> Rules:
    """Return the rules in a TOML file.

    Args:
        folder: where the file is; the files that it names are found from there.

    Raises:
        InvalidConfigurationError: it is not valid.
    """
    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfigurationError("TOML", "…", str(error)) from None
    _only(whole, {"grants", "jwt", "limits"}, "the file")
    grants = _each(whole, "grants", _grant)
    limits = _each(whole, "limits", _limits)
    return Rules(grants, _jwt(whole["jwt"], folder) if "jwt" in whole else None, limits)


def _each(whole: Mapping[str, Any], key: str, read: Callable[[Mapping[str, Any]], T]) -> list[T]:
    """Return what the tables say that begin with `[[key]]`."""
    tables = whole.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise InvalidConfigurationError(key, "…", f"each of the {key} begins with [[{key}]]")
    found = []
    for number, table in enumerate(tables, 1):
        try:
            found.append(read(table))
        except InvalidConfigurationError as error:
            raise InvalidConfigurationError(key, f"number {number}", str(error)) from None
    return found


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(table.keys() - known):
        raise InvalidConfigurationError(unknown[0], "…", f"{where} has only {', '.join(sorted(known))}")


def _grant(table: Mapping[str, Any]) -> tuple[tuple[str, ...], Grant]:
    _only(table, _GRANT, "a grant")
    for name in ("principals", "role"):
        if name not in table:
            raise InvalidConfigurationError(name, None, "it is missing")
    kernels = checked_patterns("kernels", table.get("kernels", ["*"]))
    types = checked_patterns("types", table.get("types", []))
    return checked_patterns("principals", table["principals"]), Grant(Role.of(table["role"]), kernels, types)


def _limits(table: Mapping[str, Any]) -> LimitsTable:
    _only(table, _LIMITS | {"principals", "role"}, "a table of limits")
    if "principals" not in table and "role" not in table:
        raise InvalidConfigurationError("principals", None, "either this or a role must say whose limits they are")
    limits = {name: value for name, value in table.items() if name in _LIMITS}
    if not limits:
        raise InvalidConfigurationError("limits", "…", f"there must be one of {', '.join(sorted(_LIMITS))}")
    for name, value in limits.items():
        if type(value) is not int or value < 0:
            raise InvalidConfigurationError(name, value, "it is a whole number; 0 for no limit")
        if value == 0 and name in COUNTS_OF_PRINCIPALS:
            raise InvalidConfigurationError(name, value, "it is at least 1; leave it out for the daemon's own limit")
    principals = checked_patterns("principals", table["principals"]) if "principals" in table else None
    return LimitsTable(limits, principals, Role.of(table["role"]) if "role" in table else None)


def _jwt(table: object, folder: Path) -> JwtRules:
    if not isinstance(table, dict):
        raise InvalidConfigurationError("jwt", "…", "it begins with [jwt]")
    _only(table, _JWT, "[jwt]")
    for name in ("issuer", "audience", "keys"):
        if name not in table:
            raise InvalidConfigurationError(f"jwt.{name}", None, "it is missing")
    for name, value in table.items():
        if not isinstance(value, str) or not value:
            raise InvalidConfigurationError(f"jwt.{name}", value, "it is a text that is not empty")
    keys = table["keys"]
    return JwtRules(**{**table, "keys": keys if "://" in keys else str(folder / keys)})
