"""Finds a kernel's function and its message classes in the worker, as its parent has found them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pydotcompute.imports import finds, import_as
from pydotcompute.wire.worker.start import Place

__all__ = ["find"]

MAIN = "pydotcompute_main"
"""The first part of the module's name of a program that is the parent's `__main__`."""


def find(place: Place) -> Any:
    """Return what is found in this place. Its module is imported if need be.

    The program that is the parent's `__main__` is imported as a module, so what stands under
    `if __name__ == "__main__":` does not run.

    Raises:
        BaseException: what running the module raises.
    """
    value: Any = _module(place)
    for part in place.name.split("."):
        value = getattr(value, part)
    return value


def _module(place: Place) -> ModuleType:
    name = f"{MAIN}.{Path(place.file).stem}" if place.module == "__main__" else place.module
    loaded = sys.modules.get(name)
    if loaded is not None and name != __name__:
        return loaded
    if name is place.module and _is_found(name, place.file):
        return importlib.import_module(name)
    return import_as(name, place.file)


def _is_found(name: str, file: str) -> bool:
    """Return True if Python finds this file under this name."""
    try:
        return finds(name, file)
    except (ImportError, ValueError):
        return False
