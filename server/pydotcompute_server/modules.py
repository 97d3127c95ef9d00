"""Imports a user's file as the module that it is to the files beside it, and at most once."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from pydotcompute.imports import finds, import_as

__all__ = ["NAMESPACE", "NameTakenError", "import_file", "import_name"]

NAMESPACE = "pydotcompute_kernels"
"""The first part of a module's name where the file's own name belongs to another module, such as `json`."""

_folders: set[str] = set()
"""The folders whose files can import each other by their plain names, because a file of them was imported."""


class NameTakenError(ImportError):
    """A package or module of the user has a name under which Python finds another one."""


def import_file(file: Path) -> ModuleType:
    """Import a file, and return its module. A file that is imported already, under whatever name, is not run again.

    A file in a package, which is a folder with an `__init__.py`, is imported as a module of that package. Another file
    is imported under its own name, so that a file beside it that imports it gets the same module. If that name belongs
    to another module, the file gets a longer name, and takes nothing away from the other.

    Raises:
        NameTakenError: the file is in a package, and Python finds another package of that name.
        BaseException: what running the file raises.
    """
    path = Path(os.path.abspath(file))
    loaded = next((module for module in list(sys.modules.values()) if _is_of(module, path)), None)
    if loaded is not None:
        return loaded
    importlib.invalidate_caches()
    root, parents = _package_around(path)
    if parents:
        return _import_from_package(path, root, parents)
    with _folder_first(str(path.parent)):
        if path.stem.isidentifier() and _finds(path.stem, path):
            return importlib.import_module(path.stem)
        return import_as(_free_name(path), path)


def import_name(name: str) -> ModuleType:
    """Import a module by its name, which may be that of a module or a package in the current folder.

    Raises:
        NameTakenError: the current folder has the module, and Python finds another one first.
        BaseException: what running the module raises.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    first = name.partition(".")[0]
    local = [path for path in (Path(here, f"{first}.py"), Path(here, first, "__init__.py")) if path.is_file()]
    if local and not any(_is_of(sys.modules.get(first), path) for path in local):
        raise NameTakenError(_taken(first, f"give the path instead, {os.path.relpath(local[0])}"))
    return module


def _import_from_package(path: Path, root: Path, parents: list[str]) -> ModuleType:
    if str(root) not in sys.path:
        sys.path.append(str(root))
    if not _finds(parents[0], root / parents[0] / "__init__.py"):
        raise NameTakenError(_taken(parents[0], "rename the folder"))
    return importlib.import_module(".".join(parents if path.stem == "__init__" else [*parents, path.stem]))


def _package_around(path: Path) -> tuple[Path, list[str]]:
    """Return the names of the packages that a file is in, outermost first, and the folder of the outermost one."""
    folder, names = path.parent, list[str]()
    while folder.name.isidentifier() and (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return folder, names


def _is_of(module: object, path: Path) -> bool:
    """Return True if the module was made from this file. The main program does not count: it is no module of a name."""
    file = getattr(module, "__file__", None)
    return (
        isinstance(file, str)
        and os.path.basename(file) == path.name
        and getattr(module, "__name__", None) != "__main__"
        and os.path.realpath(file) == os.path.realpath(path)
    )


def _finds(name: str, path: Path) -> bool:
    """Return True if Python, asked for the module `name`, finds this file."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return _is_of(loaded, path)
    return finds(name, path)


def _taken(name: str, advice: str) -> str:
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    file = getattr(sys.modules.get(name), "__file__", None) or getattr(spec, "origin", None)
    return f"the name {name!r} belongs to {file or 'a module of Python'}; {advice}"


def _free_name(path: Path) -> str:
    """Return a name that no module has: the file's own after the names of as many folders as it needs."""
    parts = [re.sub(r"\W", "_", part) for part in path.with_suffix("").parts]
    names = (".".join([NAMESPACE, *parts[start:]]) for start in range(len(parts) - 1, -1, -1))
    return next(name for name in names if name not in sys.modules)


@contextmanager
def _folder_first(folder: str) -> Iterator[None]:
    """Let the files of this folder import each other, also where those of another folder have the same names.

    Modules of other folders that have the name of a file here are set aside meanwhile. Afterwards they have their names
    back, and the modules of this folder that stood in for them keep a longer name.
    """
    if folder not in sys.path:
        sys.path.append(folder)
    others = _folders - {folder}
    _folders.add(folder)
    path = list(sys.path)
    aside = {name: module for name, module in list(sys.modules.items()) if _stands_in_the_way(name, folder, others)}
    for name in aside:
        del sys.modules[name]
    rest = [entry for entry in path if entry not in others]
    sys.path[:] = rest + [entry for entry in path if entry in others]
    try:
        yield
    finally:
        sys.path[:] = path + [entry for entry in sys.path if entry not in path]
        for name, module in aside.items():
            if name in sys.modules:
                own = sys.modules[name]
                sys.modules[_free_name(Path(folder, *name.split(".")))] = own
            sys.modules[name] = module


def _stands_in_the_way(name: str, folder: str, others: set[str]) -> bool:
    """Return True if a module of another folder, or of a package there, has the name of a file or package here."""
    first = name.partition(".")[0]
    file = getattr(sys.modules.get(first), "__file__", None)
    if not isinstance(file, str):
        return False
    place = os.path.dirname(file)
    if os.path.basename(file) == "__init__.py":
        place = os.path.dirname(place)
    is_here = os.path.isfile(os.path.join(folder, f"{first}.py")) or os.path.isfile(
        os.path.join(folder, first, "__init__.py")
    )
    return is_here and place in others
