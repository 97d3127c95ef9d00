"""Workers are forked from templates: what they find is what a process of their own would find."""

import asyncio
import importlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels import RuntimeLimits
from pydotcompute.workers.templates import TEMPLATES
from tests.contract.world import PATIENCE, eventually
from tests.workers import kernels
from tests.workers.kernels import Ask

FILE = """
import os, pathlib, random, signal, subprocess, sys, threading
import numpy

from pydotcompute import message, ring_kernel

with open({journal!r}, "a") as journal:
    print(os.getpid(), file=journal)
{at_import}

@message
class Question:
    code: str = ""

@message
class Answer:
    text: str = ""

@ring_kernel(input_type=Question, output_type=Answer, isolation="process", restart="on_failure", auto_register=False)
async def kernel(ctx):
    async for question in ctx:
        await ctx.send(Answer(str(eval(question.code)), correlation_id=question.message_id))
"""
"""A file of a kernel that tells what it finds. It notes each process that imports it."""

numbers = iter(range(1_000))


class File:
    """A file of a kernel."""

    def __init__(self, folder: Path) -> None:
        self.name = f"file_of_a_kernel_{next(numbers)}"
        self.path, self._journal = folder / f"{self.name}.py", folder / f"{self.name}.txt"

    def write(self, at_import: str = "") -> None:
        self.path.write_text(FILE.format(journal=str(self._journal), at_import=at_import))

    def kernel(self, at_import: str = "") -> Any:
        self.write(at_import)
        return importlib.import_module(self.name).kernel

    def imports(self) -> list[int]:
        """The processes that have imported it, beside this one."""
        return [int(line) for line in self._journal.read_text().split() if int(line) != os.getpid()]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[File]:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = File(tmp_path)
    yield file
    sys.modules.pop(file.name, None)


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime() as started:
        yield started


async def evaluate(runtime: RingKernelRuntime, code: str, kernel_id: str = "k") -> str:
    """What a worker says."""
    question = sys.modules[runtime.kernel(kernel_id).type.func.__module__].Question(code)
    answer: str = (await runtime.send_and_receive(kernel_id, question, timeout=PATIENCE)).text
    return answer


async def launched(runtime: RingKernelRuntime, kernel: Any, kernel_id: str = "k") -> int:
    """Launch a kernel, and return the process of its worker."""
    await runtime.launch(kernel_id, kernel)
    await runtime.activate(kernel_id)
    return int(await evaluate(runtime, "os.getpid()", kernel_id))


async def killed(runtime: RingKernelRuntime, pid: int) -> int:
    """Kill the worker of the kernel `k`, and return the process of the next."""
    os.kill(pid, signal.SIGKILL)
    return await another(runtime, pid)


async def another(runtime: RingKernelRuntime, pid: int) -> int:
    while True:
        try:
            answered = int(await evaluate(runtime, "os.getpid()"))
        except KernelFailedError:
            continue
        if answered != pid:
            return answered


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_all_workers_of_a_file_come_from_a_process_that_has_imported_it(
    runtime: RingKernelRuntime, file: File
) -> None:
    kernel = file.kernel()
    first = await launched(runtime, kernel)
    second = await launched(runtime, kernel, "another")
    third = await killed(runtime, first)
    (template,) = file.imports()
    assert {parent_of(second), parent_of(third)} == {template}
    assert len({first, second, third, template, os.getpid()}) == 5


async def test_random_numbers_differ(runtime: RingKernelRuntime, file: File) -> None:
    kernel = file.kernel("random.seed(1); numpy.random.seed(1)")
    for kernel_id in "kl":
        await launched(runtime, kernel, kernel_id)
    told = [await evaluate(runtime, f"{each}.random()", kid) for each in ("random", "numpy.random") for kid in "kl"]
    assert len(set(told)) == 4


async def test_a_worker_has_the_environment_the_folder_and_the_path_of_the_moment(
    runtime: RingKernelRuntime, file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = file.kernel("at_import = os.environ.get('COLOUR'), os.getcwd()")
    monkeypatch.setenv("COLOUR", "red")
    await launched(runtime, kernel)
    monkeypatch.setenv("COLOUR", "blue\udcff")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    await launched(runtime, kernel, "later")
    now = "(at_import[0], os.environ.get('COLOUR'), os.environ.get('OMP_NUM_THREADS'))"
    assert await evaluate(runtime, now) == str(("red", "red", None))
    assert await evaluate(runtime, now, "later") == str(("blue\udcff", "blue\udcff", "1"))
    assert await evaluate(runtime, "(at_import[1], os.getcwd())", "later") == str((str(tmp_path), str(tmp_path)))
    assert await evaluate(runtime, "sys.path", "later") == str(sys.path)


async def test_a_worker_is_a_process_like_any_other(runtime: RingKernelRuntime, file: File) -> None:
    pid = await launched(runtime, file.kernel())
    assert await evaluate(runtime, "os.getpgid(0)") == str(pid)
    for number in (signal.SIGTERM, signal.SIGHUP):
        assert await evaluate(runtime, f"signal.getsignal({int(number)}) is signal.SIG_DFL") == "True"
    assert await evaluate(runtime, "__import__('gc').isenabled()") == "True"
    assert await evaluate(runtime, "threading.active_count()") == "1"
    for kernel_id in ("l", "m"):
        last = await launched(runtime, sys.modules[file.name].kernel, kernel_id)
    assert len(open_files(last)) == len(open_files(pid))  # Nothing of the template's, nor of the other workers.


def open_files(pid: int) -> list[str]:
    return [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]


@pytest.mark.parametrize(
    ("at_import", "reason"),
    [
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "it starts a thread"),
        ("kept = open(__file__)", "what it opens while it is imported stays open"),
        ("child = subprocess.Popen(['sleep', '60'])", "it starts a process"),
    ],
    ids=["thread", "file", "process"],
)
async def test_a_file_that_does_what_a_fork_would_not_outlive_is_imported_by_each_worker(
    runtime: RingKernelRuntime, file: File, at_import: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = file.kernel(f"if os.getpid() != {os.getpid()}:\n    {at_import}")
    first = await launched(runtime, kernel)
    second = await launched(runtime, kernel, "another")
    _, *workers = file.imports()
    assert workers == [first, second]
    told = [record.getMessage() for record in caplog.records if record.name == "pydotcompute.workers.templates"]
    assert told == [f"{file.path}: each worker imports it anew, because {told[0].partition(', because ')[2]}"]
    assert reason in told[0]


async def test_a_library_that_ends_its_threads_before_a_fork_does_no_harm(
    runtime: RingKernelRuntime, file: File
) -> None:
    pid = await launched(runtime, file.kernel("numpy.ones((300, 300)) @ numpy.ones((300, 300))"))
    assert await evaluate(runtime, "(numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum()") == "27000000.0"
    assert file.imports() == [parent_of(pid)]


async def test_a_file_that_has_changed_is_imported_again(runtime: RingKernelRuntime, file: File) -> None:
    first = await launched(runtime, file.kernel("colour = 'red'"))
    file.write("colour = 'a longer blue'")
    await killed(runtime, first)
    assert await evaluate(runtime, "colour") == "a longer blue"


async def test_what_was_forgotten_is_imported_again(runtime: RingKernelRuntime, file: File) -> None:
    first = await launched(runtime, file.kernel())
    TEMPLATES.forget()
    await killed(runtime, first)
    assert len(file.imports()) == 2


@pytest.mark.parametrize("which", ["of the file", "the first", "both"])
async def test_when_a_template_dies_workers_go_on_and_others_follow(
    runtime: RingKernelRuntime, file: File, which: str
) -> None:
    worker = await launched(runtime, file.kernel())
    of_file = parent_of(worker)
    first = parent_of(of_file)
    for pid in {"of the file": [of_file], "the first": [first], "both": [first, of_file]}[which]:
        os.kill(pid, signal.SIGKILL)
    assert await evaluate(runtime, "os.getpid()") == str(worker)
    next_worker = await killed(runtime, worker)
    assert await killed(runtime, next_worker) not in (worker, next_worker)


async def test_a_template_that_was_stopped_is_replaced(
    runtime: RingKernelRuntime, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await launched(runtime, file.kernel())
    stopped = [parent_of(worker), parent_of(parent_of(worker))]
    monkeypatch.setattr("pydotcompute.workers.templates.PATIENCE", 0.3)
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        another_worker = await launched(runtime, sys.modules[file.name].kernel, "another")
        assert parent_of(another_worker) not in stopped
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


async def test_the_first_template_is_replaced_too_if_it_was_stopped_before_a_file_was_ordered(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydotcompute.workers.templates.PATIENCE", 0.3)
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("other", kernels.fragile):
        told = await runtime.send_and_receive("other", Ask(), timeout=PATIENCE)
        first = parent_of(parent_of(told.pid))
    os.kill(first, signal.SIGSTOP)
    try:
        async with RingKernelRuntime(limits=RuntimeLimits(worker_start=0.5)) as runtime:
            with pytest.raises(KernelFailedError, match="not ready"):
                await runtime.launch("k", file.kernel())
    finally:
        os.kill(first, signal.SIGCONT)
    async with RingKernelRuntime() as runtime:
        pid = await launched(runtime, sys.modules[file.name].kernel)
        assert parent_of(parent_of(pid)) != first


async def test_how_a_worker_has_ended_is_not_known_if_its_template_has_died(
    runtime: RingKernelRuntime, file: File
) -> None:
    worker = await launched(runtime, file.kernel())
    os.kill(parent_of(worker), signal.SIGKILL)
    await eventually(lambda: parent_of(worker) == 1 or os.getpid() == 1 or not Path(f"/proc/{worker}").exists())
    with pytest.raises(KernelFailedError, match="nobody knows how") as failed:
        await evaluate(runtime, "os._exit(7)")
    assert failed.value.cause_type == "WorkerExited"


async def test_a_failed_import_is_told_and_tried_again(runtime: RingKernelRuntime, file: File) -> None:
    kernel = file.kernel(f"if os.getpid() != {os.getpid()} and not pathlib.Path(__file__ + '.ok').exists(): 1 / 0")
    with pytest.raises(KernelFailedError, match="cannot be imported by its worker: division by zero"):
        await runtime.launch("k", kernel)
    await asyncio.to_thread(Path(f"{file.path}.ok").touch)
    pid = await launched(runtime, kernel)
    assert parent_of(pid) == file.imports()[-1]


async def test_a_crash_in_the_import_is_told(runtime: RingKernelRuntime, file: File) -> None:
    kernel = file.kernel(f"if os.getpid() != {os.getpid()}: os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(KernelFailedError, match="SIGSEGV"):
        await runtime.launch("k", kernel)


async def test_a_launch_that_is_given_up_leaves_no_process(file: File, runtime: RingKernelRuntime) -> None:
    kernel = file.kernel(f"if os.getpid() != {os.getpid()}: threading.Event().wait()")
    launching = asyncio.create_task(runtime.launch("k", kernel))
    await eventually(lambda: len(file.imports()) == 1)
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
    (template,) = file.imports()
    await eventually(lambda: not Path(f"/proc/{template}").exists())


async def test_an_import_that_hangs_is_told_after_a_time(file: File) -> None:
    kernel = file.kernel(f"if os.getpid() != {os.getpid()}: threading.Event().wait()")
    async with RingKernelRuntime(limits=RuntimeLimits(worker_start=0.5)) as runtime:
        with pytest.raises(KernelFailedError, match=r"not ready within 0\.5 seconds"):
            await runtime.launch("k", kernel)
    for template in file.imports():
        await eventually(lambda pid=template: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]


FORKING = """
import asyncio, os, sys

from pydotcompute import RingKernelRuntime
from tests.workers import kernels

async def main():
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("k", kernels.fragile):
        return (await runtime.send_and_receive("k", kernels.Ask())).pid

first = asyncio.run(main())
if (child := os.fork()) == 0:
    assert asyncio.run(main()) != first
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert asyncio.run(main()) != first
"""


def test_a_fork_of_the_program_has_templates_of_its_own() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", FORKING], check=True, timeout=PATIENCE)


async def test_a_template_logs_nothing_of_its_own(runtime: RingKernelRuntime, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "pydotcompute.workers"):
        async with runtime.kernel_scope("k", kernels.fragile):
            await runtime.send_and_receive("k", Ask(), timeout=PATIENCE)
    assert caplog.records == []
