"""However messages fall into batches, each is answered as if it had come alone."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pydotcompute import RingKernelMessage, message
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels.actor.blocking import BlockingContext
from pydotcompute.ring_kernels.kernel import RingKernel, managed_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from tests.properties import examples

PATIENCE = 30.0
WRONG = "no number is below zero"


@message
class Row(RingKernelMessage):
    """A row of numbers, a number, and whether it can be answered."""

    row: np.ndarray
    factor: float
    is_wrong: bool = False


@message
class Answer(RingKernelMessage):
    """What a row is answered with."""

    row: np.ndarray | None = None
    total: float = 0.0
    count: int = 0
    is_large: bool = False
    note: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Load:
    """Messages, and how they are gathered into batches."""

    rows: list[Row]
    max_size: int
    max_delay: float
    pauses: list[int]
    """After how many messages, each time, whoever sends them lets the others have their turn."""
    as_list: bool
    """Whether the actor replies with lists, and not with arrays."""


@st.composite
def loads(draw: st.DrawFn) -> Load:
    dtype = draw(st.sampled_from(["f4", "f8", "i2", "i8", "u1", "c8", "?", ">f4"]))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    wrong = draw(st.lists(st.sampled_from([False, False, False, True]), min_size=1, max_size=40))
    dice = np.random.default_rng(draw(st.integers(0, 1000)))
    priorities = draw(st.sampled_from([[128], [128, 7, 255]]))
    return Load(
        [
            Row(
                dice.integers(-3, 4, shape).astype(dtype),
                factor=dice.normal() * 1e3,
                is_wrong=is_wrong,
                priority=int(dice.choice(priorities)),
            )
            for is_wrong in wrong
        ],
        max_size=draw(st.integers(1, 12)),
        max_delay=draw(st.sampled_from([0.0, 0.0, 0.001])),
        pauses=draw(st.lists(st.integers(1, 10), max_size=5)),
        as_list=draw(st.booleans()),
    )


def compute(xp: Any, rows: Any, factors: Any) -> dict[str, Any]:
    """The same for rows, one or many: what is done with one does not depend on the others."""
    axes = tuple(range(np.ndim(factors), rows.ndim))
    totals = (rows != 0).sum(axis=axes) * factors
    return {
        "row": xp.flip(rows, axis=axes),
        "total": totals,
        "count": (rows != 0).sum(axis=axes),
        "is_large": totals > 10,
    }


async def one_by_one(ctx: KernelContext[Row, Answer]) -> None:
    async for row in ctx:
        answer = Answer(error=WRONG, correlation_id=row.message_id)
        if not row.is_wrong:
            answer = Answer(**compute(ctx.xp, row.row, row.factor), note="fine", correlation_id=row.message_id)
        await ctx.send(answer)


def columns(ctx: Any, batch: Any, as_list: bool) -> dict[str, Any]:
    made = compute(ctx.xp, batch.stack("row"), batch.stack("factor"))
    wrong = [row.is_wrong for row in batch]
    made["row"] = [None if is_wrong else row for is_wrong, row in zip(wrong, made["row"], strict=True)]
    for name in ("total", "count", "is_large"):
        made[name] = np.where(wrong, 0, made[name]).astype(made[name].dtype)
        if as_list:
            made[name] = list(made[name])
    made["error"] = [WRONG if is_wrong else None for is_wrong in wrong]
    made["note"] = "fine" if not any(wrong) else ["" if is_wrong else "fine" for is_wrong in wrong]
    return made


def batching(load: Load, sizes: list[int]) -> Any:
    async def actor(ctx: KernelContext[Row, Answer]) -> None:
        async for batch in ctx.batches(max_size=load.max_size, max_delay=load.max_delay):
            sizes.append(len(batch))
            await batch.reply(**columns(ctx, batch, load.as_list))

    return actor


def batching_in_a_thread(load: Load, sizes: list[int]) -> Any:
    def actor(ctx: BlockingContext[Row, Answer]) -> None:
        for batch in ctx.batches(max_size=load.max_size, max_delay=load.max_delay):
            sizes.append(len(batch))
            batch.reply(**columns(ctx, batch, load.as_list))

    return actor


async def ask_all(kernel: RingKernel[Row, Answer], load: Load) -> list[Answer | KernelFailedError]:
    """What each is answered, in their order, or the error that its caller gets."""
    tasks: list[asyncio.Task[Answer]] = []
    pauses = list(load.pauses)
    for row in load.rows:
        if pauses and pauses[0] == len(tasks):
            pauses.pop(0)
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(kernel.send_and_receive(row, timeout=PATIENCE)))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, Answer | KernelFailedError) for outcome in outcomes), outcomes
    return outcomes  # type: ignore[return-value]


def same_arrays(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    # `numpy.stack` has the byte order of the machine.
    return one.dtype == other.dtype.newbyteorder(one.dtype.byteorder) and np.array_equal(one, other)


def same(one: Answer, other: Answer) -> bool:
    names = ("total", "count", "is_large", "note", "error", "correlation_id")
    return same_arrays(one.row, other.row) and all(
        getattr(one, name) == getattr(other, name) and type(getattr(one, name)) is type(getattr(other, name))
        for name in names
    )


async def check_answers(load: Load, make_actor: Any) -> None:
    sizes: list[int] = []
    settings: dict[str, Any] = {"input_type": Row, "output_type": Answer}
    async with managed_kernel("alone", one_by_one, **settings) as kernel:
        alone = await ask_all(kernel, load)
    async with managed_kernel("batched", make_actor(load, sizes), **settings) as kernel:
        batched = await ask_all(kernel, load)
        telemetry = kernel.get_telemetry()
    for one, other, row in zip(alone, batched, load.rows, strict=True):
        assert isinstance(one, Answer)
        assert isinstance(other, Answer)
        assert one.correlation_id == row.message_id
        assert same(one, other), (one, other)
    assert sum(sizes) == len(load.rows) == telemetry.messages_processed
    assert max(sizes) <= load.max_size
    assert (telemetry.batches, telemetry.max_batch_size) == (len(sizes), max(sizes))


@given(load=loads())
@settings(max_examples=examples(200))
def test_a_batched_answer_is_the_answer_to_the_message_alone(load: Load) -> None:
    asyncio.run(check_answers(load, batching))


@given(load=loads())
@settings(max_examples=examples(50))
def test_and_so_it_is_in_a_thread(load: Load) -> None:
    asyncio.run(check_answers(load, batching_in_a_thread))


@given(load=loads(), survives=st.integers(0, 40))
def test_when_a_batch_fails_each_caller_has_its_own_answer_or_the_failure(load: Load, survives: int) -> None:
    """The actor fails when it has answered so many, in the middle of a batch."""

    async def actor(ctx: KernelContext[Row, Answer]) -> None:
        left = survives
        async for batch in ctx.batches(max_size=load.max_size, max_delay=load.max_delay):
            for row in batch:
                if not left:
                    raise RuntimeError("enough")
                left -= 1
                await ctx.send(Answer(**compute(ctx.xp, row.row, row.factor), correlation_id=row.message_id))

    async def check() -> None:
        async with managed_kernel("batched", actor, input_type=Row, output_type=Answer) as kernel:
            outcomes = await ask_all(kernel, replace(load, pauses=[]))  # What comes after the failure is refused.
            answered = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
            assert len(answered) == min(survives, len(load.rows))
            for outcome, row in zip(outcomes, load.rows, strict=True):
                if isinstance(outcome, Answer):
                    expected = Answer(**compute(np, row.row, row.factor), correlation_id=row.message_id)
                    assert same(outcome, expected)
            letters = [letter.message.message_id for letter in kernel.dead_letters]
            assert sorted(letters) == sorted(
                row.message_id
                for row, outcome in zip(load.rows, outcomes, strict=True)
                if not isinstance(outcome, Answer)
            )
            assert {letter.reason for letter in kernel.dead_letters} <= {DeadLetterReason.KERNEL_ENDED}

    asyncio.run(check())
