"""What a process may do that was forked from a client, and what its parent notices: nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stubs import KERNELS

ROOT = Path(__file__).resolve().parents[2]
HEAD = """
import asyncio, multiprocessing, os, sys
from pydotcompute_client import connect
from pydotcompute.exceptions import MisuseError
from tests.contract.kernels import Job

target = sys.argv[1]
fork = multiprocessing.get_context("fork")

def ask(runtime):
    return runtime.send_and_receive("square", Job(3), timeout=30)
"""
EACH_ENTRANCE = """
async def fetch(runtime): await runtime.fetch_kernel_ids()
async def blocking(runtime): runtime.kernel_ids
async def send(runtime): await runtime.send("square", Job(1))
async def receive(runtime): await runtime.receive("square")
async def watch(runtime):
    async for _ in runtime.watch_telemetry(): pass
async def launch(runtime): await runtime.launch("square")
async def start(runtime): await runtime.start()
async def another(_):
    async with connect(target): pass
async def shutdown(runtime):
    await runtime.shutdown()
    raise MisuseError("nothing to do")

def child(runtime, use, outcomes):
    try:
        asyncio.run(use(runtime))
    except MisuseError as error:
        outcomes.put(str(error))

async def main():
    async with connect(target) as runtime:
        await ask(runtime)
        runtime.kernel_ids
        session = runtime._sessions["square"]
        for use in (ask, fetch, blocking, send, receive, watch, launch, start, another, shutdown):
            outcomes = fork.SimpleQueue()
            process = fork.Process(target=child, args=(runtime, use, outcomes))
            process.start()
            process.join(30)
            assert process.exitcode == 0, (use, process.exitcode)
            refusal = outcomes.get()
            assert use is shutdown or "forked" in refusal and "spawn" in refusal, (use, refusal)
            assert (await ask(runtime)).number == 9
        runtime.kernel_ids
        assert runtime._sessions["square"] is session
        assert session._cuts.count == 0 and not session._broke, session._broke

asyncio.run(main())
print("fine")
"""
ORDERLY_END = """
loop = asyncio.new_event_loop()
runtime = connect(target)
loop.run_until_complete(runtime.start())
loop.run_until_complete(ask(runtime))
runtime.kernel_ids
for _ in range(10):
    pid = os.fork()
    if not pid:
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert loop.run_until_complete(ask(runtime)).number == 9
    runtime.kernel_ids
session = runtime._sessions["square"]
assert not session._broke, session._broke
loop.run_until_complete(runtime.shutdown())
loop.close()
print("fine")
"""
BEFORE = """
def child(outcomes):
    async def use():
        async with connect(target) as runtime:
            outcomes.put((await ask(runtime)).number)
    asyncio.run(use())

runtime = connect(target)
outcomes = fork.SimpleQueue()
process = fork.Process(target=child, args=(outcomes,))
process.start()
process.join(30)
assert (process.exitcode, outcomes.get()) == (0, 9)
print("fine")
"""


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any]) -> str:
    """A daemon that squares."""
    address: str = start_daemon(str(KERNELS), "--launch", "square").target
    return address


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(EACH_ENTRANCE, id="each use is refused in the child"),
        pytest.param(ORDERLY_END, id="the child ends in good order"),
        pytest.param(BEFORE, id="a fork before the first connect is fine"),
    ],
)
def test_a_fork_harms_nobody(program: str, target: str) -> None:
    # In a process of its own: a fork of the one that runs the tests has their threads and connections.
    command = [sys.executable, "-c", HEAD + program, target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
