"""Finds a kernel's function and its message classes in the worker, as its parent has found them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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
    spec = importlib.util.spec_from_file_location(name, place.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place.file} is no file of Python", name=name, path=place.file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_found(name: str, file: str) -> bool:
    """Return True if Python finds this file under this name."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and os.path.realpath(spec.origin) == os.path.realpath(file)
