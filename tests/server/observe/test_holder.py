"""What an event loop in another thread is running: the task, the kernel, the user's file and line."""

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute_server.observe.holder import Holder, find_holder

ACTOR = """
import asyncio
from pydotcompute import message, ring_kernel
from {helper} import wait

@message
class Word:
    text: str = ""

@ring_kernel(input_type=Word)
async def slow(ctx):
    async for word in ctx:
        wait()

@ring_kernel(input_type=Word)
async def starter(ctx):
    async for word in ctx:
        async def run():
            wait()
        await asyncio.create_task(run(), name="a task of its own")
"""
HELPER = """
import threading
is_there, go_on = threading.Event(), threading.Event()

def wait():
    is_there.set(); go_on.wait()
"""


class Thread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    @property
    def ident(self) -> int:
        assert self._thread.ident is not None
        return self._thread.ident

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def thread() -> Iterator[Thread]:
    thread = Thread()
    yield thread
    thread.stop()


def load(path: Path, name: str, text: str) -> ModuleType:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Files = Callable[[str], tuple[Any, Any]]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Makes a file of kernels, and in a folder below it the file with what they call. The modules are returned."""

    def make(folder: str) -> tuple[Any, Any]:
        helper = load(tmp_path / folder / "helper_of_slow.py", "helper_of_slow", HELPER)
        monkeypatch.setitem(__import__("sys").modules, "helper_of_slow", helper)
        return load(tmp_path / "rk.py", "rk", ACTOR.format(helper="helper_of_slow")), helper

    return make


async def held_by(kernel_type: Any, word: Any, helper: Any, thread: Thread, source: str) -> Holder:
    """What the loop of the thread runs while this kernel holds it up."""

    async def hold() -> None:
        async with RingKernelRuntime() as runtime:
            await runtime.launch("mine", kernel_type)
            await runtime.activate("mine")
            await runtime.send("mine", word)
            await runtime.wait_idle()

    holding = asyncio.run_coroutine_threadsafe(hold(), thread.loop)
    try:
        assert await asyncio.to_thread(helper.is_there.wait, 30)
        return find_holder(thread.loop, thread.ident, [source])
    finally:
        helper.go_on.set()
        await asyncio.wrap_future(holding)


@pytest.mark.parametrize(
    ("folder", "file", "line"),
    [("", "helper_of_slow.py", "is_there.set(); go_on.wait()"), ("env/lib/site-packages", "rk.py", "wait()")],
)
async def test_the_place_is_the_innermost_in_the_users_own_files(
    folder: str, file: str, line: str, files: Files, thread: Thread, tmp_path: Path
) -> None:
    kernels, helper = files(folder)
    holder = await held_by(kernels.slow, kernels.Word(), helper, thread, kernels.__file__)
    text = (tmp_path / (folder if "helper" in file else "") / file).read_text()
    number = next(at for at, each in enumerate(text.splitlines(), 1) if each.strip() == line)
    assert (holder.task, holder.kernel_id, holder.is_users) == ("ring kernel mine", "mine", True)
    assert holder.place.endswith(f"{file}:{number}")
    assert str(holder) == "kernel 'mine'"


async def test_a_task_that_a_kernel_started_is_known_by_its_file(files: Files, thread: Thread) -> None:
    kernels, helper = files("")
    holder = await held_by(kernels.starter, kernels.Word(), helper, thread, kernels.__file__)
    assert (holder.task, holder.is_users) == ("a task of its own", True)
    # Since Python 3.12 a task can be asked for its context, in which the kernel is.
    has_context = hasattr(asyncio.Task, "get_context")
    assert str(holder) == ("kernel 'mine'" if has_context else "code of a kernel")


def test_a_file_that_is_installed_is_a_users_file_and_its_neighbours_are_not(tmp_path: Path, thread: Thread) -> None:
    neighbour = load(tmp_path / "site-packages" / "neighbour.py", "neighbour", HELPER)
    thread.loop.call_soon_threadsafe(neighbour.wait)
    assert neighbour.is_there.wait(30)
    theirs = find_holder(thread.loop, thread.ident, [str(tmp_path / "site-packages" / "rk.py")])
    own = find_holder(thread.loop, thread.ident, [neighbour.__file__ or ""])
    neighbour.go_on.set()
    assert (theirs.is_users, str(theirs)) == (False, "the daemon itself")
    assert (own.is_users, str(own), own.task) == (True, "code of a kernel", "")


def test_a_thread_that_has_ended_runs_nothing(thread: Thread) -> None:
    assert find_holder(thread.loop, 0, []).place == ""
