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
"""Loaded files become modules of this package, so that a file `json.py` is not taken for the module `json`."""


class LoadError(Exception):
    """A source of kernel types cannot be used. The text says in one line which source, and why."""


def load_kernel_types(sources: Iterable[str]) -> dict[str, KernelType]:
    """Load these sources, and return the kernel types that they declare, by name.

    Args:
        sources: `.py` files, directories, or names of importable modules. Of a directory every `.py` file is loaded
            whose name does not begin with `_`.

    Raises:
        LoadError: a source does not exist, fails to import, declares no kernel type, or declares one that another
            source declares too.
    """
    found: dict[str, KernelType] = {}
    origin: dict[str, tuple[str, str]] = {}  # Kernel type → its source, and the file or module in that source.
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
    """Return the file and the line of a kernel type's declaration.

    A file that another file imports is run twice, under two names. Its kernel types are the same if their places are.
    """
    code = inspect.unwrap(kernel_type.func).__code__
    return code.co_filename, code.co_firstlineno


def _files(source: str) -> list[Path | None]:
    """Return the files of a source, or [None] if the source is the name of a module."""
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
            sys.path.append(directory)  # Kernels can import the modules beside them.
        spec.loader.exec_module(module)
    except LoadError:
        raise
    except BaseException as error:  # A file may also call sys.exit(), or be interrupted.
        raise LoadError(f"{source}: {_where(error, file)}{type(error).__name__}: {error}") from error


def _where(error: BaseException, file: Path | None) -> str:
    """Return the line of the file at which the error arose, as `line 7: `, or an empty text if it is not known."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    if file is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    return f"line {lines[-1]}: " if lines else ""
