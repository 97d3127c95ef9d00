"""A worker that dies: who is told what, what goes on, and what is started again."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pydotcompute import KernelState, RingKernelRuntime
from pydotcompute.exceptions import InvalidConfigurationError, KernelFailedError, KernelStateError
from pydotcompute.ring_kernels import DeadLetterReason, RuntimeLimits
from tests.contract.world import PATIENCE, eventually
from tests.workers import kernels
from tests.workers.kernels import Ask

LIMITS = RuntimeLimits(max_restarts=3)


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime(limits=LIMITS) as started:
        yield started


async def launched(runtime: RingKernelRuntime, kernel: Any, kernel_id: str = "k", *, activate: bool = True) -> str:
    await runtime.launch(kernel_id, kernel)
    if activate:
        await runtime.activate(kernel_id)
    return kernel_id


async def ask(runtime: RingKernelRuntime, number: int = 0, do: str = "", kernel_id: str = "k") -> Any:
    return await runtime.send_and_receive(kernel_id, Ask(number, do), timeout=PATIENCE)


async def test_an_actor_runs_in_a_process_of_its_own(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.fragile)
    await launched(runtime, kernels.here, "here")
    told = await ask(runtime, 7)
    assert (told.number, told.principal) == (7, "local")
    assert told.pid != os.getpid()
    assert (await ask(runtime, kernel_id="here")).pid == os.getpid()


@pytest.mark.parametrize(
    ("do", "cause_type", "text"),
    [
        ("segfault", "SIGSEGV", "was ended by SIGSEGV"),
        ("kill", "SIGKILL", "was ended by SIGKILL"),
        ("exit", "WorkerExited", "ended with exit code 3"),
    ],
)
async def test_the_error_says_how_the_worker_has_died(
    runtime: RingKernelRuntime, do: str, cause_type: str, text: str
) -> None:
    await launched(runtime, kernels.fragile)
    with pytest.raises(KernelFailedError, match=text) as caught:
        await ask(runtime, do=do)
    assert caught.value.cause_type == cause_type
    await eventually(lambda: runtime.get_kernel_state("k") is KernelState.FAILED)
    (letter,) = runtime.get_dead_letters("k")
    assert (letter.reason, letter.message.do) == (DeadLetterReason.WORKER_LOST, do)
    telemetry = runtime.get_telemetry("k")
    assert telemetry is not None
    assert (telemetry.error_count, telemetry.messages_dropped) == (1, 1)
    assert telemetry.last_error is not None
    assert telemetry.last_error.startswith(cause_type)


async def test_the_error_says_that_the_system_had_no_memory_left(
    runtime: RingKernelRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([4, 5])
    monkeypatch.setattr("pydotcompute.workers.process.oom_kills", lambda: next(counts))
    await launched(runtime, kernels.fragile)
    with pytest.raises(KernelFailedError, match="SIGKILL of the system, which had no memory left") as caught:
        await ask(runtime, do="kill")
    assert caught.value.cause_type == "OutOfMemory"
    telemetry = runtime.get_telemetry("k")
    assert telemetry is not None
    assert telemetry.last_crash is not None
    assert telemetry.last_crash.startswith("OutOfMemory: its worker")


async def test_the_log_has_the_stack_of_a_crash(runtime: RingKernelRuntime, caplog: pytest.LogCaptureFixture) -> None:
    await launched(runtime, kernels.restarted)
    with pytest.raises(KernelFailedError, match="SIGSEGV"):
        await ask(runtime, do="segfault")
    await ask(runtime)
    assert "in harm" in caplog.text
    assert "kernels.py" in caplog.text


async def test_the_mailbox_outlives_its_worker_and_only_what_was_in_hand_is_lost(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.restarted, activate=False)
    await runtime.activate("k")
    await runtime.deactivate("k")
    waiting = [asyncio.create_task(ask(runtime, number, "kill" if number == 100 else "")) for number in range(300)]
    await eventually(lambda: runtime.kernel("k").queue_depth == 300)
    await runtime.reactivate("k")
    replies = await asyncio.gather(*waiting, return_exceptions=True)
    lost = [number for number, reply in enumerate(replies) if isinstance(reply, BaseException)]
    # What the actor had answered and the worker had not sent yet is of unknown fate too: it was in the actor's hands.
    assert lost[-1] == 100
    assert lost == list(range(lost[0], 101))
    assert all(isinstance(replies[number], KernelFailedError) for number in lost)
    told = [reply for reply in replies if not isinstance(reply, BaseException)]
    assert [reply.number for reply in told] == [number for number in range(300) if number not in lost]
    assert len({reply.pid for reply in told}) == (2 if lost[0] else 1)
    assert [letter.message.number for letter in runtime.get_dead_letters("k")] == lost
    assert runtime.get_kernel_state("k") is KernelState.ACTIVE


async def test_a_paused_kernel_whose_worker_is_started_again_stays_paused(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.restarted)
    pid = (await ask(runtime)).pid
    await runtime.deactivate("k")
    waiting = asyncio.create_task(ask(runtime, 5))
    os.kill(pid, 9)
    await eventually(lambda: (telemetry := runtime.get_telemetry("k")) is not None and telemetry.error_count == 1)
    await eventually(lambda: runtime.kernel("k").queue_depth == 1)
    await runtime.reactivate("k")
    assert (await waiting).number == 5


async def test_an_actor_that_raises_is_started_again_too(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.restarted)
    with pytest.raises(KernelFailedError, match="ValueError: as told"):
        await ask(runtime, do="raise")
    assert (await ask(runtime, 3)).number == 3
    (letter,) = runtime.get_dead_letters("k")
    assert letter.reason is DeadLetterReason.KERNEL_ENDED


async def test_an_actor_that_returns_is_started_again_if_the_kernel_says_always(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.eternal)
    told = [await ask(runtime, number) for number in range(3)]
    assert [each.number for each in told] == [0, 1, 2]
    assert len({each.pid for each in told}) == 3


async def test_a_worker_that_fails_too_often_fails_its_kernel(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.unlucky)
    for _ in range(LIMITS.max_restarts):
        with pytest.raises(KernelFailedError, match="every time"):
            await ask(runtime)
    assert runtime.get_kernel_state("k") is KernelState.ACTIVE
    with pytest.raises(KernelFailedError, match="every time"):
        await ask(runtime)
    await eventually(lambda: runtime.get_kernel_state("k") is KernelState.FAILED)


async def test_another_kernel_goes_on_beside_one_that_computes(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.fragile)
    await launched(runtime, kernels.here, "here")
    computing = asyncio.create_task(ask(runtime, do="compute"))
    answered = 0
    while not computing.done():
        await ask(runtime, kernel_id="here")
        answered += 1
    await computing
    assert answered > 1  # With the actor in this process, it would be one.


async def test_a_worker_that_does_not_end_is_killed(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.fragile)
    pid = (await ask(runtime, do="thread")).pid
    await runtime.terminate("k", timeout=0.1)
    await eventually(lambda: not is_alive(pid))


PROGRAM = """
import asyncio

from pydotcompute import RingKernelRuntime
from tests.workers import kernels

async def main():
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("k", kernels.fragile):
        print((await runtime.send_and_receive("k", kernels.Ask())).pid, flush=True)
        await runtime.send_and_receive("k", kernels.Ask(do="compute forever"))

asyncio.run(main())
"""


async def test_a_worker_ends_with_the_process_of_its_runtime_also_while_it_computes() -> None:
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE)
    assert program.stdout is not None
    pid = int(await program.stdout.readline())
    assert is_alive(pid)
    program.kill()
    await program.wait()
    await eventually(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_an_actor_logs_is_logged_here(runtime: RingKernelRuntime, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await launched(runtime, kernels.fragile)
        pid = (await ask(runtime, do="log")).pid
        await eventually(lambda: f"said by {pid}" in caplog.text)
    (record,) = [record for record in caplog.records if record.name == "shop"]
    assert getattr(record, "kernel_id", None) == "k"


async def test_of_a_flood_of_log_records_the_rest_is_counted(
    runtime: RingKernelRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await launched(runtime, kernels.fragile)
        await ask(runtime, do="log a flood")
        await eventually(lambda: "records are left out" in caplog.text)
    assert "number 0" in caplog.text
    assert caplog.text.count("number ") < 20_000


async def test_a_function_that_another_process_cannot_import_is_refused(runtime: RingKernelRuntime) -> None:
    with pytest.raises(InvalidConfigurationError, match="another process cannot import"):
        await launched(runtime, kernels.not_at_the_top())


async def test_a_kernel_that_is_terminated_while_its_worker_is_started_again_ends(runtime: RingKernelRuntime) -> None:
    await launched(runtime, kernels.restarted)
    with pytest.raises(KernelFailedError):
        await ask(runtime, do="kill")
    waiting = asyncio.create_task(ask(runtime, 1))
    await runtime.terminate("k", timeout=0.01)
    try:
        assert (await waiting).number == 1
    except KernelStateError:
        assert [letter.message.number for letter in runtime.get_dead_letters("k")][-1] == 1
