"""What to say of a method that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

from pydotcompute.protobuf.pool import TypePool

__all__ = ["unknown_method"]

LONGEST_NAME = 200
"""Characters that are looked at, and quoted, of a name that may have thousands."""
NAMES_TOLD = 30


def unknown_method(path: str, types: TypePool) -> str:
    """Names what there is in the place of `/service/Method`, the likest first."""
    service, _, method = path[1 : LONGEST_NAME + 1].rpartition("/")
    services = types.services()
    if service not in services:
        return f"there is no service {service!r}; those here are {_by_likeness(service, services)}"
    methods = [each.name for each in types.pool.FindServiceByName(service).methods]
    return f"service {service} has no method {method!r}; it has {_by_likeness(method, methods)}"


def _by_likeness(name: str, names: Iterable[str]) -> str:
    matcher = SequenceMatcher(b=name.lower())

    def likeness(other: str) -> float:
        matcher.set_seq1(other.lower())
        return matcher.ratio()

    likest = sorted(names, key=likeness, reverse=True)
    return ", ".join([*likest[:NAMES_TOLD], "…"] if len(likest) > NAMES_TOLD else likest)
