"""The answer to a call of a method that does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from pydotcompute.protobuf.pool import TypePool
from pydotcompute_server.limits import Limits

__all__ = ["unknown_method"]


def unknown_method(path: str, types: TypePool, services: Sequence[str], limits: Limits) -> str:
    """Return a text that lists the existing services or methods, those most like `/service/Method` first.

    Args:
        services: the names of the services that the one who calls may know of.
    """
    most = limits.unknown_names_told
    service, _, method = path[1 : limits.unknown_name_characters + 1].rpartition("/")
    if service not in services:
        return f"there is no service {service!r}; those here are {_by_likeness(service, services, most)}"
    methods = [each.name for each in types.pool.FindServiceByName(service).methods]
    return f"service {service} has no method {method!r}; it has {_by_likeness(method, methods, most)}"


def _by_likeness(name: str, names: Iterable[str], most: int) -> str:
    matcher = SequenceMatcher(b=name.lower())

    def likeness(other: str) -> float:
        matcher.set_seq1(other.lower())
        return matcher.ratio()

    likest = sorted(names, key=likeness, reverse=True)
    return ", ".join([*likest[:most], "…"] if len(likest) > most else likest)
