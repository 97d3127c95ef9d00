"""Which class of the program the replies have, when it is declared again: the latest."""

import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydotcompute_client import RemoteRuntime, connect
from tests.contract.world import PATIENCE

MODULE = "declared_again"
DECLARATION = """
from pydotcompute import message

@message
class Note:
    text: str = ""

    def version(self):
        return {version}
"""
KERNEL = """
from pydotcompute import ring_kernel

@ring_kernel(input_type=Note, output_type=Note)
async def repeat(ctx):
    async for note in ctx:
        await ctx.send(Note(note.text, correlation_id=note.message_id))
"""


class Cell:
    """A module that is run again and again, as a cell of a notebook is."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"{MODULE}.py"

    def run(self, version: int, field: str = 'text: str = ""') -> Any:
        """Declare the class; returns it."""
        text = DECLARATION.format(version=version).replace('text: str = ""', field)
        self._file.write_text(text + f"# {version}\n" * version)
        importlib.invalidate_caches()
        old = sys.modules.get(MODULE)
        module = importlib.import_module(MODULE) if old is None else importlib.reload(old)
        return module.Note


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Cell(tmp_path)
    sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A daemon that repeats what it is told."""
    file = tmp_path_factory.mktemp("kernels") / f"{MODULE}.py"
    file.write_text(DECLARATION.format(version=0) + KERNEL)
    address: str = start_daemon(str(file), "--launch", "repeat").target
    return address


@pytest.fixture
async def runtime(target: str) -> AsyncIterator[RemoteRuntime]:
    async with connect(target) as runtime:
        yield runtime


async def reply_to(runtime: RemoteRuntime, note: Any) -> Any:
    return await runtime.send_and_receive("repeat", note, timeout=PATIENCE)


async def test_a_reply_has_the_class_that_was_declared_last(runtime: RemoteRuntime, cell: Cell) -> None:
    for version in range(1, 4):
        note_class = cell.run(version)
        reply = await reply_to(runtime, note_class("hello"))
        assert isinstance(reply, note_class)
        assert (reply.text, reply.version()) == ("hello", version)


async def test_so_has_a_reply_to_what_was_sent_before(runtime: RemoteRuntime, cell: Cell) -> None:
    old = cell.run(1)
    await reply_to(runtime, old("first"))
    await runtime.send("repeat", old("second"))
    new = cell.run(2)
    assert isinstance(await runtime.receive("repeat", timeout=PATIENCE), old | new)
    assert isinstance(await reply_to(runtime, old("third")), new)


async def test_another_client_begins_with_the_class_that_was_declared_last(target: str, cell: Cell) -> None:
    kept = [cell.run(version) for version in range(1, 6)]
    async with connect(target) as runtime:
        assert type(await reply_to(runtime, kept[0]("hello"))) is kept[-1]


async def test_one_that_no_longer_stands_for_the_type_is_left_out(runtime: RemoteRuntime, cell: Cell) -> None:
    old = cell.run(1)
    assert type(await reply_to(runtime, old("hello"))) is old
    cell.run(2, field="text: int = 0")
    assert type(await reply_to(runtime, old("hello"))) is old
    new = cell.run(3)
    assert type(await reply_to(runtime, old("hello"))) is new


async def test_one_with_another_optional_field_stands_for_the_type(runtime: RemoteRuntime, cell: Cell) -> None:
    old = cell.run(1)
    assert type(await reply_to(runtime, old("hello"))) is old
    new = cell.run(2, field='text: str = ""\n    size: float = 0.5')
    reply = await reply_to(runtime, old("hello"))
    assert type(reply) is new
    assert (reply.text, reply.size) == ("hello", 0.5)


async def test_a_class_that_launch_names_is_used_although_another_was_declared_after_it(
    target: str, cell: Cell
) -> None:
    named, later = cell.run(1), cell.run(2)
    async with connect(target, scoped=True) as runtime:
        await runtime.launch("other", "repeat", output_type=named)
        await runtime.activate("other")
        assert type(await runtime.send_and_receive("other", later("hello"), timeout=PATIENCE)) is named


async def test_classes_made_for_a_program_without_them_stay_the_same(target: str) -> None:
    async with connect(target) as runtime, connect(target) as other:
        described = await runtime.describe("repeat")
        assert described.output_type is not None
        await other.describe("repeat")
        assert type(await reply_to(runtime, described.output_type("hello"))) is described.output_type
