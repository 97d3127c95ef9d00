"""Batches: arrays of their fields, and rows of arrays as their replies."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from pydotcompute import message
from pydotcompute.exceptions import InvalidConfigurationError, KernelFailedError, MessageTypeError
from pydotcompute.ring_kernels.actor.batches import Batch
from pydotcompute.ring_kernels.kernel import managed_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
class Point:
    at: np.ndarray
    weight: float = 1.0


@message
class Answer:
    at: np.ndarray | None = None
    weight: float = 0.0
    label: str = ""


Handler = Callable[[Batch[Point]], Awaitable[None]]


async def answers(handle: Handler, points: list[Point], output_type: type[Answer] | None = Answer) -> list[Answer]:
    """What the points are answered when `handle` handles them as one batch."""

    async def actor(ctx: KernelContext[Point, Answer]) -> None:
        async for batch in ctx.batches(max_size=len(points), max_delay=60.0):
            await handle(batch)

    async with managed_kernel("points", actor, input_type=Point, output_type=output_type) as kernel:
        return await asyncio.gather(*(kernel.send_and_receive(point, timeout=10.0) for point in points))


def points(count: int) -> list[Point]:
    return [Point(np.array([number, number + 0.5]), weight=number) for number in range(count)]


async def test_values_are_stacked_and_rows_of_arrays_are_values() -> None:
    async def handle(batch: Batch[Point]) -> None:
        at, weight = batch.stack("at"), batch.stack("weight")
        assert (at.shape, weight.shape, weight.dtype) == ((3, 2), (3,), np.float64)
        await batch.reply(at=at * 2, weight=weight + 1, label="same for all")

    replies = await answers(handle, points(3))
    assert [reply.at.tolist() for reply in replies if reply.at is not None] == [[0, 1], [2, 3], [4, 5]]
    assert [reply.weight for reply in replies] == [1, 2, 3]
    assert all(type(reply.weight) is float for reply in replies)
    assert {reply.label for reply in replies} == {"same for all"}


async def test_a_batch_is_a_sequence_of_its_messages() -> None:
    async def handle(batch: Batch[Point]) -> None:
        assert (len(batch), batch[1].weight, [point.weight for point in batch[::2]]) == (3, 1, [0, 2])
        assert batch[0] in batch
        await batch.reply(label=["a", "b", "c"])

    assert [reply.label for reply in await answers(handle, points(3))] == ["a", "b", "c"]


async def test_a_column_of_the_wrong_length_is_an_error_that_says_so() -> None:
    async def handle(batch: Batch[Point]) -> None:
        await batch.reply(weight=np.zeros(2))

    with pytest.raises(KernelFailedError, match="weight: 2 rows for a batch of 3 messages"):
        await answers(handle, points(3))


async def test_arrays_of_different_shapes_are_not_stacked() -> None:
    async def handle(batch: Batch[Point]) -> None:
        batch.stack("at")

    with pytest.raises(KernelFailedError, match=r"at: a batch of the shapes \(1,\), \(2,\) cannot be stacked"):
        await answers(handle, [Point(np.zeros(2)), Point(np.zeros(1))])


async def test_a_kernel_without_an_output_type_cannot_make_replies() -> None:
    async def handle(batch: Batch[Point]) -> None:
        with pytest.raises(MessageTypeError, match="output_type"):
            await batch.reply(weight=1.0)
        raise RuntimeError("seen")

    with pytest.raises(KernelFailedError, match="seen"):
        await answers(handle, points(1), output_type=None)


@pytest.mark.parametrize("settings", [{"max_size": 0}, {"max_delay": -1.0}, {"max_delay": float("nan")}])
async def test_settings_that_cannot_work_are_refused(settings: dict[str, float]) -> None:
    async def actor(ctx: KernelContext[Point, Answer]) -> None:
        async for _ in ctx.batches(**settings):  # type: ignore[arg-type]
            pass

    with pytest.raises(KernelFailedError) as caught:
        async with managed_kernel("points", actor):
            pass
    assert isinstance(caught.value.__cause__, InvalidConfigurationError)


async def test_two_requests_of_one_id_are_both_done_with() -> None:
    async def actor(ctx: KernelContext[Point, Answer]) -> None:
        async for batch in ctx.batches(max_size=2, max_delay=60.0):
            await batch.reply(weight=batch.stack("weight"))

    async with managed_kernel("points", actor, input_type=Point, output_type=Answer) as kernel:
        point = Point(np.zeros(1), weight=5)
        await kernel.send(point)
        await kernel.send(point)
        assert [(await kernel.receive(timeout=10.0)).weight for _ in range(2)] == [5, 5]
        assert await kernel.wait_idle(10.0)
        assert kernel.get_telemetry().messages_processed == 2
