"""Roles, and the kernels for which somebody has them."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["EVERYTHING", "NOTHING", "Grant", "Rights", "Role", "matches"]

LONGEST_NAME = 256
"""The most characters of a name that a pattern matches. No kernel's id is longer."""
MOST_STARS = 8
"""The most `*` in a pattern: each may multiply the work for a name."""


class Role(enum.IntEnum):
    """What somebody may do. Each role may do what those before it may."""

    VIEWER = 1
    """Lists and describes kernels, and reads their telemetry and health."""
    CALLER = 2
    """Sends and receives messages."""
    OPERATOR = 3
    """Launches, pauses and ends kernels, and reads failures and dead letters."""
    ADMIN = 4
    """Manages the clients of the daemon."""

    @property
    def word(self) -> str:
        """The name in files and in errors, such as `viewer`."""
        return self.name.lower()

    @classmethod
    def of(cls, word: object) -> Role:
        """Return the role of this name. InvalidConfigurationError if there is none."""
        for role in cls:
            if role.word == word:
                return role
        raise InvalidConfigurationError("role", word, f"the roles are {', '.join(role.word for role in cls)}")


def matches(pattern: str, name: str) -> bool:
    """Return True if the pattern matches the whole name.

    `*` stands for any characters, `/` too, and `?` for one. Every other character stands for itself.
    """
    return len(name) <= LONGEST_NAME and _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=1_024)
def _compiled(pattern: str) -> re.Pattern[str]:
    begin, *rest = ("".join("." if each == "?" else re.escape(each) for each in part) for part in pattern.split("*"))
    # What follows a `*` is found at its first place, and never looked for again: so the time does not explode.
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(begin + middle + "".join(f".*{part}" for part in rest[-1:]), re.DOTALL)


def checked_patterns(parameter: str, patterns: object) -> tuple[str, ...]:
    """Return the patterns in a list. InvalidConfigurationError if one of them is none."""
    if not isinstance(patterns, list | tuple) or not all(isinstance(each, str) for each in patterns):
        raise InvalidConfigurationError(parameter, patterns, "it is a list of patterns, such as ['sensors/*']")
    for each in patterns:
        if not each or len(each) > LONGEST_NAME or each.count("*") > MOST_STARS:
            problem = f"a pattern has 1 to {LONGEST_NAME} characters, and at most {MOST_STARS} of them are *"
            raise InvalidConfigurationError(parameter, each[: LONGEST_NAME + 1], problem)
    return tuple(patterns)


@dataclass(frozen=True, slots=True)
class Grant:
    """A role for some kernels."""

    role: Role
    """The role."""
    kernels: tuple[str, ...] = ("*",)
    """Patterns of the ids of the kernels; see `matches`."""
    types: tuple[str, ...] = ()
    """Patterns of the names of further kernel types, those of which kernels may be launched under these ids. A type
    whose name is one of `kernels` need not be here."""


class Rights:
    """The grants that somebody has."""

    __slots__ = ("_everything", "_roles", "grants", "highest")

    def __init__(self, grants: Sequence[Grant]) -> None:
        self.grants = tuple(grants)
        self.highest = max((grant.role for grant in grants), default=None)
        """The highest role for any kernel. None without grants."""
        self._everything = max((grant.role for grant in grants if "*" in grant.kernels), default=None)
        self._roles: dict[str, Role | None] = {}

    def role_for(self, kernel_id: str) -> Role | None:
        """Return the highest role for a kernel of this id. None if there is no role for it."""
        if self._everything is self.highest:
            return self._everything
        if len(kernel_id) > LONGEST_NAME:
            return None
        if kernel_id in self._roles:
            return self._roles[kernel_id]
        fitting = (grant.role for grant in self.grants if any(matches(each, kernel_id) for each in grant.kernels))
        role = max(fitting, default=None)
        if len(self._roles) >= 1_024:
            self._roles.clear()
        self._roles[kernel_id] = role
        return role

    def have(self, role: Role, kernel_id: str) -> bool:
        """Return True if they include this role, or a higher one, for a kernel of this id."""
        found = self.role_for(kernel_id)
        return found is not None and found >= role

    @property
    def see_everything(self) -> bool:
        """True if no kernel is hidden."""
        return self._everything is not None

    def see(self, kernel_id: str) -> bool:
        """Return True if a kernel of this id may be known."""
        return self._everything is not None or self.role_for(kernel_id) is not None

    def see_type(self, name: str) -> bool:
        """Return True if the kernel type of this name may be known even if no kernel of it is."""
        return self.see(name) or any(matches(each, name) for grant in self.grants for each in grant.types)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of the ids of all kernels that may be known, each once."""
        return tuple(dict.fromkeys(each for grant in self.grants for each in grant.kernels))


EVERYTHING = Rights([Grant(Role.ADMIN)])
"""Every role for every kernel."""
NOTHING = Rights([])
"""No role for any kernel."""
