"""Loads the files and modules that declare kernel types."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from pydotcompute.ring_kernels.declaration import KernelType, registered_kernel_types

__all__ = ["LoadError", "load_kernel_types"]

NAMESPACE = "pydotcompute_kernels"
"""The package that loaded files become modules of, so that a `json.py` of kernels is not taken for the library's."""


class LoadError(Exception):
    """A source of kernel types cannot be used; the text says which and why, in one line."""


def load_kernel_types(sources: Iterable[str]) -> dict[str, KernelType]:
    """The kernel types that these sources declare, by name.

    Args:
        sources: `.py` files, directories (of which every `.py` file is loaded), or importable module names.

    Raises:
        LoadError: a source does not exist, fails to import, declares no kernel type, or one that another declares too.
    """
    found: dict[str, KernelType] = {}
    origin: dict[str, tuple[str, str]] = {}  # The source, and the file or module of it.
    sys.modules.setdefault(NAMESPACE, ModuleType(NAMESPACE))
    for source in sources:
        for file in _files(source):
            before = registered_kernel_types()
            label = source if file is None else str(file)
            _import(label, source if file is None else f"{NAMESPACE}.{file.stem}", file)
            for name, kernel_type in registered_kernel_types().items():
                if before.get(name) is kernel_type:
                    continue
                if name in found and _place(found[name]) != _place(kernel_type):
                    raise LoadError(f"{label}: kernel type {name!r} is already declared in {origin[name][1]}")
                found[name], origin[name] = kernel_type, (source, label)
        if all(declaring != source for declaring, _ in origin.values()):
            raise LoadError(f"{source}: declares no ring kernel; decorate an async function with @ring_kernel")
    return found


def _place(kernel_type: KernelType) -> tuple[str, int]:
    """Where a kernel type is declared: a file that another one imports is run twice, under two names."""
    code = inspect.unwrap(kernel_type.func).__code__
    return code.co_filename, code.co_firstlineno


def _files(source: str) -> list[Path | None]:
    """The files of a source; None stands for a module name."""
    path = Path(source)
    if path.is_dir():
        files = sorted(f for f in path.glob("*.py") if not f.name.startswith("_"))
        if not files:
            raise LoadError(f"{source}: no .py file in this directory")
        return list(files)
    if path.is_file():
        return [path]
    if source.endswith(".py") or "/" in source:
        raise LoadError(f"{source}: no such file")
    return [None]


def _import(source: str, name: str, file: Path | None = None) -> None:
    try:
        if file is None:
            importlib.import_module(name)
            return
        if name in sys.modules:
            raise LoadError(
                f"{source}: another file of kernels is called {file.name} too: {sys.modules[name].__file__}"
            )
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        directory = str(file.resolve().parent)
        if directory not in sys.path:
            sys.path.append(directory)  # So that kernels can import what lies beside them.
        spec.loader.exec_module(module)
    except (LoadError, KeyboardInterrupt):
        raise
    except BaseException as error:  # A file may also call sys.exit().
        raise LoadError(f"{source}: {_where(error, file)}{type(error).__name__}: {error}") from error


def _where(error: BaseException, file: Path | None) -> str:
    """The line of the file that the error came through."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    if file is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    return f"line {lines[-1]}: " if lines else ""
