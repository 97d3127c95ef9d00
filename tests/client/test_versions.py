"""Daemons and programs with two versions of one message, each a process that runs in a folder of its own."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.world import PATIENCE

OLD = """
import enum
from dataclasses import dataclass

from pydotcompute import message, ring_kernel

class Unit(enum.Enum):
    METRE = 1

@dataclass
class Circle:
    radius: float = 1.0

@dataclass
class Square:
    side: float = 1.0

@message
class Division:
    a: float
    b: float
    unit: Unit = Unit.METRE
    shape: Circle | Square | None = None

@message
class Quotient:
    value: float
    unit: Unit = Unit.METRE

@ring_kernel(input_type=Division, output_type=Quotient)
async def divider(ctx):
    async for each in ctx:
        if each.b == 0:
            await ctx.send(Quotient(each.a, list(Unit)[-1]))  # An output, in the newest unit.
        unit = list(Unit)[-1] if each.b == 0 else each.unit
        value = each.a / (each.b or 1.0)
        await ctx.send(Quotient(value, unit, correlation_id=each.message_id))
"""
NEW = (
    OLD.replace("    METRE = 1\n", "    METRE = 1\n    FOOT = 2\n")
    .replace("class Square:", "class Triangle:\n    base: float = 1.0\n\n@dataclass\nclass Square:")
    .replace("Circle | Square", "Circle | Square | Triangle")
    .replace("| None = None\n", "| None = None\n    precision: int = 3\n")
    .replace("class Quotient:\n    value: float\n    unit: Unit = Unit.METRE\n",
             "class Quotient:\n    value: float\n    unit: Unit = Unit.METRE\n    digits: int = 0\n")
    .replace("Quotient(value, unit,", "Quotient(round(value, each.precision), unit, each.precision,")
)  # fmt: skip
STRICT = OLD.replace("| None = None\n", "| None = None\n    owner: UUID = field(kw_only=True)\n").replace(
    "from dataclasses import dataclass\n", "from dataclasses import dataclass, field\nfrom uuid import UUID\n"
)

PROGRAM = """
import asyncio, sys
import calc
from calc import *
from pydotcompute.exceptions import PyDotComputeError
from pydotcompute_client import connect

async def main(runtime):
    async def ask(*values, **more):
        try:
            reply = await runtime.send_and_receive("divider", Division(*values, **more), timeout=30)
        except PyDotComputeError as error:
            print(type(error).__name__, error)
        else:
            header = ("message_id", "correlation_id", "priority")
            print({name: value for name, value in vars(reply).items() if name not in header})
BODY

async def run():
    async with connect(sys.argv[1]) as runtime:
        await main(runtime)

asyncio.run(run())
"""


class Folders:
    """A folder for each version, with its daemon and its programs."""

    def __init__(self, root: Path, start_daemon: Callable[..., Any]) -> None:
        self._root = root
        self._start = start_daemon
        self._targets: dict[str, str] = {}

    def _folder(self, version: str) -> Path:
        folder = self._root / version
        folder.mkdir(exist_ok=True)
        (folder / "calc.py").write_text({"old": OLD, "new": NEW, "strict": STRICT}[version])
        return folder

    def target(self, version: str) -> str:
        """The address of the daemon that has this version."""
        if version not in self._targets:
            daemon = self._start(str(self._folder(version) / "calc.py"), "--launch", "all")
            self._targets[version] = daemon.target
        return self._targets[version]

    def run(self, program: str, daemon: str, *lines: str) -> list[str]:
        """What a program of one version prints that runs these lines against a daemon of the other."""
        folder = self._folder(program)
        path = folder / "program.py"
        path.write_text(PROGRAM.replace("BODY", "\n".join(f"    {line}" for line in lines)))
        done = subprocess.run(
            [sys.executable, str(path), self.target(daemon)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, start_daemon: Callable[..., Any]) -> Folders:
    return Folders(tmp_path_factory.mktemp("versions"), start_daemon)


def test_an_older_program_goes_on_with_a_newer_daemon(folders: Folders) -> None:
    assert folders.run("old", "new", "await ask(1, 3)", "await ask(4, 2, shape=Square())") == [
        "{'value': 0.333, 'unit': <Unit.METRE: 1>}",
        "{'value': 2.0, 'unit': <Unit.METRE: 1>}",
    ]


def test_a_newer_program_goes_on_with_an_older_daemon(folders: Folders) -> None:
    assert (
        folders.run("new", "old", "await ask(1, 4)", "await ask(1, 4, precision=3, shape=Circle())")
        == ["{'value': 0.25, 'unit': <Unit.METRE: 1>, 'digits': 0}"] * 2
    )


def test_what_the_older_daemon_has_no_place_for_is_refused_and_the_next_goes_on(folders: Folders) -> None:
    asked = ("precision=5", "unit=Unit.FOOT", "shape=Triangle()")
    printed = folders.run("new", "old", *(f"await ask(1, 4, {each})" for each in asked), "await ask(1, 2)")
    assert printed == [
        "MessageSerializationError cannot serialize Division: $.precision: the daemon's calc.v1.Division lacks "
        "'precision: int', which your calc.Division has; it can only be sent while it has its default, 3",
        "MessageSerializationError cannot serialize Division: $.unit: the daemon's calc.v1.Unit lacks the member FOOT, "
        "which your calc.Unit has",
        "MessageSerializationError cannot serialize Division: $.shape: Triangle: the daemon's union has only circle, "
        "square",
        "{'value': 0.5, 'unit': <Unit.METRE: 1>, 'digits': 0}",
    ]


def test_a_reply_that_the_older_program_cannot_read_costs_its_caller_alone(folders: Folders) -> None:
    unreadable = "FOOT = 2, which the other side has, is none of the enum's members"
    printed = folders.run(
        "old",
        "new",
        "await asyncio.gather(ask(1, 2), ask(1, 0), ask(3, 2))",
        "try: await runtime.receive('divider', timeout=30)",
        "except PyDotComputeError as error: print('output', type(error).__name__, error)",
        "await ask(1, 1)",
        "while not (letters := await runtime.fetch_dead_letters('divider')): await asyncio.sleep(0.01)",
        "print(letters[-1].reason.name)",
    )
    assert sorted(printed[:3]) == [
        f"MessageDeserializationError cannot deserialize Quotient: $.unit: {unreadable}",
        "{'value': 0.5, 'unit': <Unit.METRE: 1>}",
        "{'value': 1.5, 'unit': <Unit.METRE: 1>}",
    ]
    assert printed[3:] == [
        f"output MessageDeserializationError cannot deserialize Quotient: $.unit: {unreadable}",
        "{'value': 1.0, 'unit': <Unit.METRE: 1>}",
        "CALLER_GONE",
    ]


def test_a_field_without_a_default_is_refused_with_the_side_that_lacks_it(folders: Folders) -> None:
    assert folders.run("old", "strict", "await ask(1, 2)") == [
        "MessageTypeError $.owner: your calc.Division lacks 'owner: str', which the daemon's calc.v1.Division has, and "
        "requires"
    ]
    assert folders.run("strict", "old", "import uuid", "await ask(1, 2, owner=uuid.uuid4())") == [
        "MessageTypeError $.owner: the daemon's calc.v1.Division lacks 'owner: UUID', which your calc.Division has, "
        "without a default"
    ]


def test_the_check_of_an_export_says_the_same(folders: Folders, tmp_path: Path) -> None:
    command = os.path.join(sysconfig.get_path("scripts"), "pydotcompute")

    def proto(version: str, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [command, "--target", folders.target(version), "proto", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    assert proto("old", "export", "--out", "protos")[0] == 0
    code, printed = proto("new", "check", "--against", "protos")
    assert code == 0, printed
    code, printed = proto("strict", "check", "--against", "protos")
    assert code == 1
    assert "calc.v1.Division" in printed
