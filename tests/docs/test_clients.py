"""The pages about clients in other languages show the very programs that tests/interop runs."""

import json
import re

import pytest

from tests.docs.pages import ROOT, Block, blocks

PAGES = ROOT / "docs" / "clients"
CLIENTS = ROOT / "tests" / "interop"
LANGUAGES = ["go", "typescript", "rust", "java"]
BROUGHT = {"go.mod", "go.sum", "package.json", "package-lock.json", "Cargo.lock"}
"""What the programs of the page make by themselves."""

SHOWN = [
    pytest.param(language, block, id=f"{language}: {block.directives['file']}")
    for language in LANGUAGES
    for block in blocks(PAGES / f"{language}.md")
    if "file" in block.directives
]


@pytest.mark.parametrize(("language", "block"), SHOWN)
def test_the_page_shows_the_very_file(language: str, block: Block) -> None:
    assert block.text == (CLIENTS / language / block.directives["file"]).read_text()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_every_file(language: str) -> None:
    folder = CLIENTS / language
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    shown = {block.directives.get("file") for block in blocks(PAGES / f"{language}.md")}
    assert files - BROUGHT == shown - {None}


def versions(page: str) -> dict[str, str]:
    """What the commands of a page install, by its name."""
    commands = "\n".join(block.text for block in blocks(PAGES / page) if block.language == "console")
    return dict(re.findall(r"(?<= )(@?[\w./-]+)@(v?\d[\w.]*)", commands))


def test_the_go_page_installs_what_is_tested() -> None:
    required = dict(re.findall(r"^\t(\S+) (v\S+)$", (CLIENTS / "go" / "go.mod").read_text(), re.MULTILINE))
    installed = dict(re.findall(r"^    (\S+)@(v\S+)$", (ROOT / ".ci" / "install-tools").read_text(), re.MULTILINE))
    named = versions("go.md")
    assert len(named) == 4
    assert named.items() <= (required | installed).items()


def test_the_typescript_page_installs_what_is_tested() -> None:
    package = json.loads((CLIENTS / "typescript" / "package.json").read_text())
    assert versions("typescript.md") == package["dependencies"] | package["devDependencies"]
