"""Whatever fails however often: each caller gets one answer or one error, and what is given again keeps its place."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydotcompute import KernelContext, KernelState, RingKernelRuntime, message, ring_kernel
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels import RuntimeLimits
from tests.contract.world import PATIENCE, eventually
from tests.properties import examples


@message
class Task:
    number: int = 0
    failures: int = 0
    """How often the actor fails with it."""


plans = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([128, 128, 5, 200])), min_size=1, max_size=12)
MOST = 3


@pytest.fixture(autouse=True, scope="module")
def no_pauses() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pydotcompute.ring_kernels.supervision.FIRST_PAUSE", 0.0)
        yield


@given(plan=plans, batch=st.none() | st.integers(1, 5), pauses=st.booleans())
@settings(max_examples=examples(60))
async def test_each_caller_is_told_once(plan: list[tuple[int, int]], batch: int | None, pauses: bool) -> None:
    failed: dict[int, int] = {}
    done: list[int] = []

    def work(ctx: KernelContext[Task, Task], task: Task) -> None:
        if failed.get(task.number, 0) < task.failures:
            failed[task.number] = failed.get(task.number, 0) + 1
            raise ValueError(task.number)
        done.append(task.number)

    @ring_kernel(
        input_type=Task,
        output_type=Task,
        restart="on_failure",
        on_crash="redeliver",
        max_deliveries=MOST,
        auto_register=False,
    )
    async def actor(ctx: KernelContext[Task, Task]) -> None:
        if batch is None:
            async for task in ctx:
                assert ctx.redelivered == (task.number in failed)
                work(ctx, task)
                await ctx.send(task)
            return
        async for tasks in ctx.batches(max_size=batch, max_delay=0.0):
            assert not ctx.redelivered or len(tasks) == 1
            for task in tasks:
                work(ctx, task)
                await ctx.send(task)

    async with RingKernelRuntime(limits=RuntimeLimits(max_restarts=10**6)) as runtime:
        await runtime.launch("k", actor)
        await runtime.activate("k")
        await runtime.deactivate("k")
        tasks = [Task(number, failures, priority=priority) for number, (failures, priority) in enumerate(plan)]  # type: ignore[call-arg]
        asking = [asyncio.create_task(runtime.send_and_receive("k", task, timeout=PATIENCE)) for task in tasks]
        await eventually(lambda: runtime.kernel("k").queue_depth == len(tasks))
        await runtime.reactivate("k")
        if pauses:
            await asyncio.sleep(0)
            await runtime.deactivate("k")
            await runtime.reactivate("k")
        told = await asyncio.gather(*asking, return_exceptions=True)
        answered = {number for number, reply in enumerate(told) if isinstance(reply, Task)}
        assert all(isinstance(reply, Task | KernelFailedError) for reply in told)
        letters = [letter.message.number for letter in runtime.get_dead_letters("k")]
        assert answered | set(letters) == set(range(len(tasks)))
        assert len(letters) + len(answered) == len(tasks)
        assert sorted(done) == sorted(answered)
        assert runtime.get_kernel_state("k") is KernelState.ACTIVE
        assert runtime.kernel("k").mail.inbox.suspects == 0
        certain = {number for number, (failures, _) in enumerate(plan) if failures < MOST}
        if batch is None:
            assert answered == certain
        else:
            # A task may be in the batch of another that fails, and has one failure less of its own then.
            assert answered >= {number for number in certain if plan[number][0] < MOST - 1}
            assert answered <= certain
        assert done == sorted(done, key=lambda number: (-plan[number][1], number))
