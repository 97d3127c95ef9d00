"""Imports a file as a module of a given name."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["finds", "import_as"]


def import_as(name: str, file: Path | str) -> ModuleType:
    """Import a file as the module `name`, and return the module. If that fails, there is no such module.

    Raises:
        ImportError: the file is no file of Python.
        BaseException: what running the file raises.
    """
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no file of Python", name=name, path=str(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def finds(name: str, file: Path | str) -> bool:
    """Return True if Python, asked to import `name`, would import this file.

    Raises:
        ImportError: a package around the module cannot be imported.
        ValueError: the module is loaded, and has no `__spec__`.
    """
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None and os.path.realpath(spec.origin) == os.path.realpath(file)
