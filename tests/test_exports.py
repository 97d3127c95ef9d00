"""The public names: there are those that are listed, all tools see them, and they lead to nothing private."""

import ast
import importlib
import inspect
import os
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PUBLIC = [
    "pydotcompute",
    "pydotcompute.device",
    "pydotcompute.exceptions",
    "pydotcompute.ring_kernels",
    "pydotcompute.ring_kernels.lifecycle",
    "pydotcompute_client",
    "pydotcompute_server",
]
LIST = Path(__file__).with_name("public_names.txt")
OURS = ("pydotcompute", "pydotcompute_client", "pydotcompute_server")
PASSED_ON = {"Asker", "DeadLetters", "DeviceLease", "Journal", "Mail", "Places", "Receiver"}
"""Named in public signatures, described where they are, and not promised."""
MADE_BY_US = {"Batch", "BlockingBatch", "BlockingContext", "KernelContext", "RemoteKernel", "RemoteRuntime"}
"""Nobody else makes instances of these, so their constructors are not public."""


def names_of(module: str) -> list[str]:
    return sorted(importlib.import_module(module).__all__)


def test_the_public_names_are_those_that_are_listed() -> None:
    text = "".join(f"{module}.{name}\n" for module in PUBLIC for name in names_of(module))
    if os.environ.get("UPDATE_GOLDEN"):
        LIST.write_text(text)
    assert text == LIST.read_text(), "a public name has come or gone; if that is meant, run with UPDATE_GOLDEN=1"


@pytest.mark.parametrize("module", PUBLIC)
def test_every_listed_name_is_there(module: str) -> None:
    for name in names_of(module):
        assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", PUBLIC)
def test_a_tool_that_runs_nothing_sees_the_same_names(module: str) -> None:
    source = importlib.import_module(module).__file__
    assert source is not None
    seen: set[str] = set()
    for node in ast.walk(ast.parse(Path(source).read_text())):
        match node:
            case ast.ImportFrom(names=names):
                seen |= {alias.asname or alias.name for alias in names}
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                seen.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                seen.add(name)
    assert set(names_of(module)) <= seen


def public_classes() -> Iterator[type]:
    for module in PUBLIC:
        for name in names_of(module):
            found = getattr(importlib.import_module(module), name)
            if isinstance(found, type):
                yield found


def classes_in(annotation: Any) -> Iterator[type]:
    """Yield the classes that an annotation names, at any depth."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        yield annotation
    if (origin := typing.get_origin(annotation)) is not None and isinstance(origin, type):
        yield origin
    for argument in typing.get_args(annotation):
        yield from classes_in(argument)


def annotations_of(cls: type) -> Iterator[Any]:
    for name, member in inspect.getmembers(cls):
        if name.startswith("_") and (name != "__init__" or cls.__name__ in MADE_BY_US):
            continue
        function = member.fget if isinstance(member, property) else member
        if inspect.isroutine(function):
            try:
                yield from typing.get_type_hints(function).values()
            except (NameError, TypeError):
                continue  # One of Python's own.


CLASSES = {cls.__name__: cls for cls in public_classes()}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_what_a_public_class_takes_and_gives_is_public(name: str) -> None:
    named = {each for annotation in annotations_of(CLASSES[name]) for each in classes_in(annotation)}
    ours = {each.__name__ for each in named if each.__module__.partition(".")[0] in OURS}
    assert ours <= CLASSES.keys() | PASSED_ON, f"{name} leads to what is private"
