"""Loads the files and modules that declare kernel types."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from pydotcompute.ring_kernels.declaration import KernelType, declared_during, kernel_type_of, registered_kernel_types
from pydotcompute_server.modules import NAMESPACE, NameTakenError, import_file, import_name

__all__ = ["LoadError", "load_kernel_types"]

_DECLARED = "__declared_kernel_types__"


class LoadError(Exception):
    """A source of kernel types cannot be used. The text says in one line which source, and why."""


def load_kernel_types(sources: Iterable[str], on_file: Callable[[str], None] = lambda _: None) -> dict[str, KernelType]:
    """Load these sources, and return the kernel types that they declare, by name.

    Args:
        sources: `.py` files, directories, or names of importable modules. Of a directory every `.py` file is loaded
            whose name does not begin with `_`. Names are looked up in the current folder too. A source, or a file,
            that is there twice is loaded once.
        on_file: called with the path of each file, or the name of each module, before it is imported.

    Raises:
        LoadError: a source does not exist, fails to import, declares no kernel type, or declares one that another
            source declares too.
    """
    found: dict[str, tuple[KernelType, str]] = {}
    for source in sources:
        declares = False
        for file in _files(source):
            label = source if file is None else str(file)
            on_file(label)
            for kernel_type in _declared_by(label, file):
                declares = True
                known, declaring = found.setdefault(kernel_type.name, (kernel_type, label))
                if not _is_the_same(known, kernel_type):
                    raise LoadError(_declared_twice(label, declaring, known, kernel_type))
                found[kernel_type.name] = (kernel_type, declaring)
        if not declares:
            raise LoadError(f"{source}: declares no ring kernel; decorate an async function with @ring_kernel")
    return {name: kernel_type for name, (kernel_type, _) in found.items()}


def _declared_by(label: str, file: Path | None) -> list[KernelType]:
    """Import a file or a module. Return the registered kernel types that it declares, or has imported."""
    with declared_during() as declared:
        module = _import(label, file)
    seen: list[KernelType] = module.__dict__.setdefault(_DECLARED, [])
    seen += declared
    registered = registered_kernel_types()
    shown = [kernel_type_of(value) for value in vars(module).values() if callable(value)]
    seen += [each for each in shown if each and registered.get(each.name) is each and each not in seen]
    return seen


def _declared_twice(label: str, declaring: str, one: KernelType, other: KernelType) -> str:
    """Return what to say of two kernel types of one name."""
    (file, line), (other_file, other_line) = _place(one), _place(other)
    if file == other_file:
        lines = f"in line {line}" if line == other_line else f"in lines {line} and {other_line}"
        return f"{label}: kernel type {one.name!r} is declared twice, {lines}; give one of them another kernel_id"
    return f"{label}: kernel type {one.name!r} is already declared in {file if declaring == label else declaring}"


def _is_the_same(one: KernelType, other: KernelType) -> bool:
    """Return True if two kernel types are one: a file may have been run twice, as modules of two names."""
    modules = {getattr(each.func, "__module__", None) for each in (one, other)}
    return one is other or (_place(one) == _place(other) and len(modules) == 2)


def _place(kernel_type: KernelType) -> tuple[str, int]:
    """Return the file and the line of a kernel type's declaration."""
    func: object = kernel_type.func
    while isinstance(func, functools.partial):
        func = func.func
    code = getattr(inspect.unwrap(func) if callable(func) else func, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else (repr(func), 0)


def _files(source: str) -> list[Path | None]:
    """Return the files of a source, or [None] if the source is the name of a module."""
    path = Path(source)
    if path.is_dir():
        files = sorted(f for f in path.glob("*.py") if not f.name.startswith("_"))
        package = path / "__init__.py"
        if package.is_file():
            files.insert(0, package)
        if not files:
            raise LoadError(f"{source}: no .py file in this directory")
        return list(files)
    if path.is_file():
        return [path]
    if source.endswith(".py") or "/" in source:
        raise LoadError(f"{source}: no such file{_suggestion(source)}")
    return [None]


def _suggestion(source: str) -> str:
    """Return a question about the file or the folder that may be meant, or an empty text."""
    path = Path(source)
    with suppress(OSError):
        near = [entry for entry in path.parent.iterdir() if entry.suffix == ".py" or entry.is_dir()]
        by_stem = {entry.stem: entry for entry in near if not entry.name.startswith((".", "_"))}
        names = get_close_matches(path.stem if path.suffix == ".py" else path.name, by_stem, 1)
        if names:
            return f"; did you mean {by_stem[names[0]]}?"
    return ""


def _import(source: str, file: Path | None) -> ModuleType:
    try:
        return import_name(source) if file is None else import_file(file)
    except NameTakenError as error:
        raise LoadError(f"{source}: {error}") from error
    except BaseException as error:  # A file may also call sys.exit(), or be interrupted.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if file is None and missing and f"{source}.".startswith(f"{missing}."):
            text = f"{source}: no such file, folder or module{_suggestion(source.replace('.', '/'))}"
            raise LoadError(text) from error
        raise LoadError(f"{source}: {_where(source, error, file)}{_what(error, missing)}") from error


def _what(error: BaseException, missing: str | None) -> str:
    is_alone = "no known parent package" in str(error) or (missing or "").partition(".")[0] == NAMESPACE
    if isinstance(error, ImportError) and is_alone:
        return "a relative import needs a package: put an empty __init__.py beside the file, or import without the dot"
    return f"{type(error).__name__}: {error}"


def _where(source: str, error: BaseException, file: Path | None) -> str:
    """Return the line of the file at which the error arose, as `line 7: `, or an empty text if it is not known."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    if file is None:
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(source)
            file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    if file is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    return f"line {lines[-1]}: " if lines else ""
