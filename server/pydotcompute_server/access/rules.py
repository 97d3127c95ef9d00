"""The file that says which role each principal has."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydotcompute.access.roles import Grant, Rights, Role, checked_patterns, matches
from pydotcompute.access.tokens import ANONYMOUS_NAME
from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["JwtRules", "Rules", "read_rules"]

MOST_KEPT = 1_024
"""For how many principals it is kept what they may do."""

_GRANT = {"principals", "role", "kernels", "types"}
_JWT = {"issuer", "audience", "keys", "name"}


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


class Rules:
    """What the file says.

    Args:
        grants: patterns of principals' names, each with what these principals may do.
        jwt: which JSON web tokens are believed; None for none.
    """

    def __init__(self, grants: Sequence[tuple[tuple[str, ...], Grant]] = (), jwt: JwtRules | None = None) -> None:
        self._grants = grants
        self._rights: dict[str, Rights] = {}
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
    _only(whole, {"grants", "jwt"}, "the file")
    tables = whole.get("grants", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise InvalidConfigurationError("grants", "…", "each grant begins with [[grants]]")
    grants = []
    for number, table in enumerate(tables, 1):
        try:
            grants.append(_grant(table))
        except InvalidConfigurationError as error:
            raise InvalidConfigurationError("grants", f"number {number}", str(error)) from None
    return Rules(grants, _jwt(whole["jwt"], folder) if "jwt" in whole else None)


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
