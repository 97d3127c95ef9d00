"""The index of the tests says of each file what its docstring says."""

import ast
import os
from pathlib import Path

from tests.docs.pages import ROOT

TESTS = ROOT / "tests"
INDEX = TESTS / "README.md"

HEAD = """\
# What is tested where

One row a file, with the first paragraph of its docstring. Made by `tests/docs/test_index.py`, with `UPDATE_GOLDEN=1`;
[CONTRIBUTING.md](../CONTRIBUTING.md#run-one-test) says how to run a test.
"""


def index() -> str:
    """The text of the index: a table for each folder that has test files."""
    folders: dict[Path, list[Path]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        folders.setdefault(path.parent, []).append(path)
    return HEAD + "".join(table(folder, files) for folder, files in sorted(folders.items()))


def table(folder: Path, files: list[Path]) -> str:
    rows = [f"| [{path.name}]({path.relative_to(TESTS).as_posix()}) | {behaviour(path)} |" for path in files]
    return "\n".join(
        ["", f"## {folder.relative_to(ROOT).as_posix()}", "", "| file | behaviour |", "|---|---|", *rows, ""]
    )


def behaviour(path: Path) -> str:
    """The first paragraph of a file's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path} does not say what it tests"
    return " ".join(docstring.partition("\n\n")[0].split()).replace("|", r"\|")


def test_the_index_has_every_test_file_with_its_behaviour() -> None:
    made = index()
    if os.environ.get("UPDATE_GOLDEN"):
        INDEX.write_text(made)
    assert INDEX.read_text() == made, "a test file has come, gone or changed; run with UPDATE_GOLDEN=1"
