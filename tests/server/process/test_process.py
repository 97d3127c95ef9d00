"""What a kernel, a file of kernels or a signal can do to the daemon's process, and what the daemon makes of it."""

import asyncio
import contextlib
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from tests.properties import cases
from tests.server.process.processes import Process, run, serving, started, until_exists, wired, write
from tests.stubs import PATIENCE, Wire

ROGUES = str(Path(__file__).with_name("rogue_kernels.py"))
FORCED = 3
BRIEF = ("--grace", "0.2", "--limit", "stall=0.2")


@asynccontextmanager
async def rogues(*arguments: str) -> AsyncIterator[tuple[Process, Wire]]:
    """A daemon with kernels that do what they are told."""
    with serving(ROGUES, "--launch", "all", *arguments) as (daemon, target):
        async with wired(target) as wire, asyncio.timeout(2 * PATIENCE):
            yield daemon, wire


async def told(wire: Wire, what: str, kernel_id: str = "rogue", **fields: Any) -> str:
    """Tell a kernel what to do; returns how it says that went."""
    return str((await wire.ask(kernel_id, what=what, **fields))["what"])


def do(wire: Wire, what: str, **fields: Any) -> asyncio.Future[Any]:
    """Tell a kernel what to do that it does not end."""
    doing = asyncio.ensure_future(wire.ask("rogue", what=what, **fields))
    doing.add_done_callback(lambda done: done.cancelled() or done.exception())
    return doing


async def ended(daemon: Process, number: signal.Signals | None = signal.SIGTERM) -> int:
    """Ask a daemon to end; returns its exit code."""
    if number is not None:
        daemon.ask_to_end(number)
    return await asyncio.to_thread(daemon.ended)


# -- what kernels raise ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_id", cases(["rogue", "rogue_thread", "rogue_batch"], quick=["rogue"]))
async def test_an_interrupt_that_a_kernel_raises_is_its_own_failure(kernel_id: str) -> None:
    async with rogues() as (daemon, wire):
        with pytest.raises(grpc.aio.AioRpcError, match="KeyboardInterrupt: a rogue's"):
            await told(wire, "interrupt", kernel_id)
        assert await told(wire, "", "bystander") == "fine"
        kernels = (await wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())).kernels
        failed = [kernel.kernel_id for kernel in kernels if kernel.state == kernel_pb.KERNEL_STATE_FAILED]
        assert failed == [kernel_id]
        assert await ended(daemon) == 0
        assert f"kernel_id={kernel_id}" in daemon.log_line("the actor failed")


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("task interrupts", "KeyboardInterrupt"),
        pytest.param("task exits", "SystemExit", marks=pytest.mark.thorough),
        pytest.param("callback interrupts", "SystemExit", marks=pytest.mark.thorough),
    ],
)
async def test_what_a_task_or_a_callback_of_a_kernel_raises_does_not_end_the_daemon(what: str, name: str) -> None:
    async with rogues() as (daemon, wire):
        for _ in range(2):
            assert await told(wire, what) == "done"
            assert await told(wire, "", "bystander") == "fine"
        assert await ended(daemon) == 0
        assert (
            len([line for line in daemon.logged if f"code of a kernel raised {name}: the daemon goes on" in line]) == 2
        )
        assert any("rogue_kernels.py" in line for line in daemon.logged), "the traceback says where"


@pytest.mark.parametrize("what", ["task exits at the end", "finalizer interrupts"])
async def test_what_a_kernel_raises_elsewhere_does_not_change_how_the_daemon_ends(what: str) -> None:
    async with rogues() as (daemon, wire):
        assert await told(wire, what) == "done"
        assert await told(wire, "", "bystander") == "fine"
        assert await ended(daemon) == 0
        assert daemon.log_line("stopped   ")


# -- what holds the event loop up --------------------------------------------------------------------------------------


def line_of(code: str) -> int:
    """The line of the rogues' file that has this code."""
    (found,) = [at for at, line in enumerate(Path(ROGUES).read_text().splitlines(), 1) if line.strip() == code]
    return found


async def test_a_kernel_that_holds_the_event_loop_up_is_named_with_file_and_line() -> None:
    async with rogues("--limit", "stall=0.2", "--log-format", "json") as (daemon, wire):
        assert await told(wire, "block", seconds=1.0) == "done"
        await asyncio.to_thread(daemon.until_logged, "turns again")
        assert await ended(daemon) == 0
    begin = json.loads(daemon.log_line("has held the event loop"))
    assert begin["place"].endswith(f"rogue_kernels.py:{line_of('time.sleep(seconds)')}")
    assert (begin["kernel_id"], begin["level"]) == ("rogue", "warning")
    assert begin["event"].startswith("kernel 'rogue' has held the event loop for 0.")
    assert begin["event"].endswith(
        f"s at {begin['place']}; make it a plain def, or give the work to a thread, as by asyncio.to_thread"
    )
    assert "kernel 'rogue' held it for" in json.loads(daemon.log_line("turns again"))["event"]


async def test_time_that_the_whole_process_did_not_run_is_nobodys() -> None:
    async with rogues("--limit", "stall=1") as (daemon, wire):
        assert await told(wire, "block with C", seconds=3.0) == "done"
        await asyncio.to_thread(daemon.until_logged, "the process did not run for")
        assert await ended(daemon) == 0
        assert not any("has held the event loop" in line for line in daemon.logged)


@pytest.mark.parametrize("what", cases(["block", "spin", "recurse"], quick=["spin"]))
async def test_a_kernel_that_never_gives_the_loop_up_does_not_delay_the_end(what: str) -> None:
    async with rogues(*BRIEF) as (daemon, wire):
        do(wire, what, seconds=3600)
        await asyncio.to_thread(daemon.until_logged, "kernel 'rogue' has held the event loop")
        assert await ended(daemon) == FORCED
        said = daemon.log_line("ended by force")
        assert "kernel 'rogue' holds the event loop at" in said
        assert "rogue_kernels.py:" in said
        assert "kernels that have not ended: 'rogue', 'rogue_thread', 'rogue_batch', 'bystander'" in said


async def test_an_actor_that_resists_its_cancellation_is_left_behind() -> None:
    async with rogues("--grace", "1", "--limit", "overtime=30") as (daemon, wire):
        asking = do(wire, "resist")
        await asyncio.to_thread(daemon.until_logged, "does: resist")
        assert await ended(daemon) == 0
        assert daemon.log_line("the actor ignores its cancellation")
        await asyncio.wait([asking])
        assert "of unknown fate" in str(asking.exception()), "nobody knows how far the actor came"


# -- what kernels do to the process ------------------------------------------------------------------------------------


async def test_a_crash_in_c_prints_where_it_was() -> None:
    async with rogues() as (daemon, wire):
        do(wire, "crash")
        assert await ended(daemon, None) == -signal.SIGSEGV
        assert daemon.log_line("Fatal Python error: Segmentation fault")
        place = f'rogue_kernels.py", line {line_of("ctypes.string_at(0)")} in do'
        assert any(place in line for line in daemon.logged)


@pytest.mark.parametrize(
    "what", cases(["ignore SIGTERM", "take the wakeup", "add a handler"], quick=["ignore SIGTERM"])
)
async def test_a_kernel_cannot_take_a_signal_away(what: str) -> None:
    async with rogues() as (daemon, wire):
        assert "main thread" in await told(wire, what)
        assert await ended(daemon) == 0


@pytest.mark.parametrize("what", ["start a program", "start a program asynchronously"])
async def test_a_program_that_a_kernel_starts_gets_its_signals(what: str) -> None:
    async with rogues() as (_, wire):
        assert await told(wire, what) == str(-signal.SIGTERM)


async def test_a_thread_that_a_kernel_started_does_not_delay_the_end() -> None:
    async with rogues() as (daemon, wire):
        await told(wire, "start a thread")
        assert await ended(daemon) == 0


# -- signals -----------------------------------------------------------------------------------------------------------


async def test_a_second_interrupt_ends_the_daemon_at_once() -> None:
    async with rogues("--grace", "3600") as (daemon, wire):
        do(wire, "wait")
        await asyncio.to_thread(daemon.until_logged, "does: wait")
        daemon.ask_to_end(signal.SIGINT)
        await asyncio.to_thread(daemon.until_logged, "draining")
        code = None
        while code is None:  # One that comes too soon after the first counts as the same.
            daemon.ask_to_end(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = await asyncio.to_thread(daemon.process.wait, 0.2)
        assert code == FORCED
        assert "SIGINT came again" in await asyncio.to_thread(daemon.until_logged, "ended by force")


async def test_sighup_is_logged_and_nothing_else() -> None:
    async with rogues() as (daemon, wire):
        daemon.ask_to_end(signal.SIGHUP)
        await asyncio.to_thread(daemon.until_logged, "SIGHUP: what may have changed is read again")
        assert await told(wire, "", "bystander") == "fine"
        assert await ended(daemon) == 0


KERNEL = """
from pydotcompute import message, ring_kernel

@message
class Word:
    text: str = ""

@ring_kernel(input_type=Word)
async def idle(ctx):
    async for word in ctx:
        pass
"""


def test_sighup_while_a_file_is_loaded_changes_nothing(tmp_path: Path) -> None:
    slow = f"""
import pathlib, time
pathlib.Path({str(tmp_path / "loading")!r}).touch()
while not pathlib.Path({str(tmp_path / "go on")!r}).exists():
    time.sleep(0.01)
"""
    with started(write(tmp_path / "slow.py", slow + KERNEL), "--listen", "127.0.0.1:0") as daemon:
        until_exists(tmp_path / "loading")
        daemon.ask_to_end(signal.SIGHUP)
        (tmp_path / "go on").touch()
        daemon.address()
        daemon.until_logged("SIGHUP")
        daemon.ask_to_end()
        assert daemon.ended() == 0


def test_handlers_that_a_file_sets_while_it_is_loaded_do_not_stay(tmp_path: Path) -> None:
    takes = "import signal\nfor number in (15, 2, 1):\n    signal.signal(number, signal.SIG_IGN)\n"
    with started(write(tmp_path / "takes.py", takes + KERNEL), "--listen", "127.0.0.1:0") as daemon:
        daemon.address()
        daemon.ask_to_end()
        assert daemon.ended() == 0


def test_a_file_that_goes_on_loading_in_spite_of_a_signal_is_ended_by_force(tmp_path: Path) -> None:
    resists = f"""
import pathlib, threading
while True:
    try:
        pathlib.Path({str(tmp_path / "loading")!r}).touch()
        threading.Event().wait()
    except BaseException:
        pass
"""
    with started(write(tmp_path / "resists.py", resists), "--grace", "0") as daemon:
        until_exists(tmp_path / "loading")
        daemon.ask_to_end()
        assert daemon.ended() == 1
        assert any("resists.py" in line for line in daemon.logged)


def test_a_file_that_interrupts_itself_cannot_be_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "interrupts.py", "raise KeyboardInterrupt\n")
    failed = run(path)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.rstrip() == f"pydotcompute-server: {path}: line 1: KeyboardInterrupt:"
