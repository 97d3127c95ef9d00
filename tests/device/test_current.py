"""A coroutine with something current at its steps."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pydotcompute.device.current import Steps

stack: list[str] = []


@contextmanager
def current(name: str) -> Iterator[None]:
    stack.append(name)
    try:
        yield
    finally:
        assert stack.pop() == name


async def steps_of(name: str, seen: list[tuple[str, list[str]]]) -> str:
    async def generate() -> AsyncIterator[int]:
        for number in range(2):
            await asyncio.sleep(0)
            yield number

    seen.append((name, [*stack]))
    async for _ in generate():
        seen.append((name, [*stack]))
    try:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    except TimeoutError:
        seen.append((name, [*stack]))
    return name


def driven(name: str, seen: list[tuple[str, list[str]]]) -> Coroutine[Any, Any, str]:
    return Steps(steps_of(name, seen), lambda: current(name))


async def test_each_sees_its_own_and_nobody_sees_it_between_steps() -> None:
    seen: list[tuple[str, list[str]]] = []
    between: list[list[str]] = []

    async def watch() -> None:
        for _ in range(20):
            between.append([*stack])
            await asyncio.sleep(0)

    async def awaiting(name: str) -> str:
        return await driven(name, seen)

    results = await asyncio.gather(awaiting("a"), driven("b", seen), watch())
    assert list(results[:2]) == ["a", "b"]
    assert seen
    assert all(found == [name] for name, found in seen)
    assert {name for name, _ in seen} == {"a", "b"}
    assert between == [[]] * 20


async def test_what_it_raises_comes_out_and_nothing_stays_current() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("as told")

    with pytest.raises(ValueError, match="as told"):
        await Steps(fail(), lambda: current("a"))
    assert stack == []


@contextmanager
def failed() -> Iterator[None]:
    raise RuntimeError("the device has failed")
    yield


@pytest.mark.parametrize("how", ["goes on", "is cancelled", "is closed"])
async def test_if_its_device_fails_while_it_waits_it_may_clean_up(how: str) -> None:
    seen: list[str] = []
    fails = False

    async def wait() -> None:
        try:
            await asyncio.sleep(0)
        except (RuntimeError, asyncio.CancelledError, GeneratorExit) as error:
            seen.append(type(error).__name__)
            raise
        finally:
            seen.append("cleaned up")

    steps = Steps(wait(), lambda: failed() if fails else current("a"))
    steps.send(None)
    fails = True
    match how:
        case "goes on":
            with pytest.raises(RuntimeError, match="has failed"):
                steps.send(None)
        case "is cancelled":
            with pytest.raises(asyncio.CancelledError):
                steps.throw(asyncio.CancelledError())
        case _:
            steps.close()
    assert seen == [
        {"goes on": "RuntimeError", "is cancelled": "CancelledError"}.get(how, "GeneratorExit"),
        "cleaned up",
    ]


async def test_a_cancellation_reaches_it_with_its_own_current() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.extend(stack)

    task: asyncio.Task[None] = asyncio.create_task(Steps(wait(), lambda: current("a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (seen, stack) == (["a"], [])


def test_to_close_it_is_a_step_too() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            seen.extend(stack)

    steps = Steps(wait(), lambda: current("a"))
    steps.send(None)
    steps.close()
    assert (seen, stack) == (["a"], [])
