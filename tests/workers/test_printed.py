"""What an actor in a worker prints."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import KernelFailedError
from pydotcompute_client import connect
from tests.contract.world import PATIENCE, eventually
from tests.workers import kernels
from tests.workers.kernels import Ask

Shown = Callable[[], tuple[str, str]]


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime() as started, started.kernel_scope("k", kernels.printing):
        yield started


async def prints(runtime: Any, code: str, kernel_id: str = "k") -> None:
    await runtime.send_and_receive(kernel_id, Ask(do=code), timeout=PATIENCE)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """What this program has printed so far."""
    so_far = ["", ""]

    def show() -> tuple[str, str]:
        for place, text in enumerate(capsys.readouterr()):
            so_far[place] += text
        return so_far[0], so_far[1]

    return show


async def test_it_goes_where_the_program_prints(shown: Shown, runtime: RingKernelRuntime) -> None:
    await prints(runtime, "print('to stdout'); print('to stderr', file=sys.stderr); os.write(1, b'by C\\xff\\n')")
    await eventually(lambda: shown() == ("to stdout\nby C\\xff\n", "to stderr\n"))


async def test_lines_come_whole(shown: Shown, runtime: RingKernelRuntime) -> None:
    await runtime.launch("l", kernels.printing)
    await runtime.activate("l")
    code = "for n in range(200): os.write(1, b'begun '); os.write(1, b'and done\\n')"
    await asyncio.gather(prints(runtime, code), prints(runtime, code, "l"))
    await eventually(lambda: shown()[0] == "begun and done\n" * 400)


async def test_the_beginning_of_a_line_does_not_wait_for_ever(shown: Shown, runtime: RingKernelRuntime) -> None:
    await prints(runtime, "print('50 %', end='', flush=True)")
    await eventually(lambda: shown()[0] == "50 %")


async def test_the_last_words_of_a_worker_are_printed(shown: Shown, runtime: RingKernelRuntime) -> None:
    with pytest.raises(KernelFailedError):
        await prints(runtime, "print('last words'); print('and half a', end='', flush=True); os._exit(1)")
    await eventually(lambda: shown()[0] == "last words\nand half a")


async def test_a_flood_does_not_hold_the_runtime_up(shown: Shown, runtime: RingKernelRuntime) -> None:
    flood = asyncio.create_task(prints(runtime, "for n in range(5_000): print('flood', n)"))
    turns = 0
    while not flood.done():
        await asyncio.sleep(0.001)
        turns += 1
    await flood
    await eventually(lambda: shown()[0].endswith("flood 4999\n"))
    assert shown()[0].count("\n") == 5_000
    assert turns > 10


@pytest.mark.parametrize("stream", [None, "closed"])
async def test_a_program_that_cannot_print_goes_on(
    runtime: RingKernelRuntime, monkeypatch: pytest.MonkeyPatch, stream: str | None
) -> None:
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stdout", None if stream is None else gone)
    await prints(runtime, "print('to nobody')")
    await prints(runtime, "print('x' * 100_000)")


async def test_at_a_daemon_it_goes_through_the_log(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(Path(kernels.__file__)), "--launch", "printing", "--log-format", "json")
    async with connect(daemon.target) as runtime:
        await prints(runtime, "print('printed', 1); os.write(2, b'to descriptor 2\\n')", "printing")
    await eventually(lambda: "printed 1" in daemon.log_text() and "to descriptor 2" in daemon.log_text())
    events = {event["event"]: event for event in map(json.loads, daemon.log_text().splitlines())}
    printed, written = events["printed 1"], events["to descriptor 2"]
    assert (printed["level"], printed["kernel_id"], printed.get("source")) == ("info", "printing", None)
    assert (written["level"], written["kernel_id"], written["source"]) == ("warning", "printing", "stderr")
