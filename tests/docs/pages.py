"""The documentation as data: its pages, and the fenced blocks in them."""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "changelog.d/README.md", "tests/README.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]

RUNNABLE = {"python", "console"}
NOT_PROGRAMS = {"text", "mermaid", "proto", "json", "toml", "make", "yaml", "xml", "nginx", "haproxy"}
NOT_PROGRAMS |= {"go", "typescript", "rust", "java"}
DIRECTIVES = {"file", "daemon", "output", "exit", "not run", "brings"}

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>.*)$")
_COMMENT = re.compile(r"^<!-- (?P<name>[a-z ]+?)(?:: (?P<value>.*))? -->$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    HTML comments on the lines just before it say how it is run:

    * `file: NAME`: a file of this name, in whatever language, for the blocks after it, one of which must name it;
    * `daemon`: a console block whose command, a daemon, runs on until the next such block or the end of the page;
    * `output`: a text block with what the Python block before it prints;
    * `exit: N`: the last command of this console block ends with that exit code;
    * `not run: REASON`: not run, and why;
    * `brings: PATH…`: what a block that is not run would have brought, and is taken from the repository instead: from
      what belongs to it, or from what `.ci/install-tools` has installed. It is put into the page's folder.
    """

    page: Path
    line: int
    """The line of its opening fence, counted from 1."""
    language: str
    text: str
    directives: dict[str, str]

    @property
    def where(self) -> str:
        """`docs/wire.md:12`."""
        return f"{os.path.relpath(self.page, ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether it is a program, or a part of one."""
        return (self.language in RUNNABLE or "file" in self.directives) and "not run" not in self.directives


@dataclass(frozen=True)
class Command:
    """One command of a console block, with the output that is shown for it."""

    text: str
    output: list[str]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    directives: dict[str, str] = {}
    position = 0
    while position < len(lines):
        line = lines[position]
        if opening := _FENCE.match(line):
            end = lines.index(opening["fence"], position + 1)
            text = "\n".join(lines[position + 1 : end]) + "\n"
            found.append(Block(page, position + 1, opening["language"].strip(), text, directives))
            position = end
        if comment := _COMMENT.match(line):
            directives = {**directives, comment["name"]: comment["value"] or ""}
        else:
            directives = {}
        position += 1
    return found


def prose(page: Path) -> list[tuple[int, str]]:
    """The lines of a page that are in no fenced block, each with its number."""
    inside: set[int] = set()
    for block in blocks(page):
        inside.update(range(block.line, block.line + len(block.text.splitlines()) + 2))
    return [(number, line) for number, line in enumerate(page.read_text().splitlines(), 1) if number not in inside]


def commands(block: Block) -> list[Command]:
    """The commands of a console block: each begins with `$ `, and goes on until its quotes are closed and its last
    line does
    not end in a backslash.
    """
    found: list[Command] = []
    for line in block.text.splitlines():
        if found and not found[-1].output and not _is_complete(found[-1].text):
            found[-1] = Command(f"{found[-1].text}\n{line}", [])
        elif line.startswith("$ "):
            found.append(Command(line[2:], []))
        else:
            assert found, f"{block.where}: output before the first command"
            found[-1].output.append(line)
    return found


def _is_complete(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return not command.endswith("\\")


def matches(shown: list[str], printed: str) -> bool:
    """Whether output is what the page shows, where a line `...` stands for any lines, and `...` for any text in a
    line.
    """
    patterns = [
        r"(?:.*\n)*?"
        if line.strip() in ("...", "…")
        else ".*?".join(map(re.escape, re.split(r"\.\.\.|…", line))) + r"[ \t]*\n"
        for line in shown
    ]
    return re.fullmatch("".join(patterns), printed if printed.endswith("\n") else f"{printed}\n") is not None
