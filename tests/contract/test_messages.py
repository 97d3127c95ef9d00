"""Points 3, 10 and 11: order, floats, and the check at the door; and what counts as a message."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import pytest

from pydotcompute import message
from pydotcompute.exceptions import KernelFailedError, MessageError, MessageSerializationError, MessageTypeError
from tests.contract import kernels
from tests.contract.kernels import Bare, Inherited, Job, Loose, Page, Result, UserId
from tests.contract.world import PATIENCE, World

# -- 3. order ----------------------------------------------------------------------------------------------------------


async def test_all_256_priorities_shuffled_are_handled_in_order(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    await world.runtime.deactivate(kernel_id)
    priorities = [*range(256)] * 2
    random.Random(3).shuffle(priorities)
    for number, priority in enumerate(priorities):
        await world.runtime.send(kernel_id, Job(number, priority=priority))
    await world.queued(kernel_id, 512)
    await world.runtime.reactivate(kernel_id)
    received = [await world.runtime.receive(kernel_id, timeout=PATIENCE) for _ in range(512)]
    in_order = sorted(range(512), key=lambda number: (-priorities[number], number))
    assert [result.number for result in received] == [number**2 for number in in_order]
    assert [result.position for result in received] == list(range(512)), "and so they are received"


async def test_outputs_that_wait_are_received_by_priority(world: World) -> None:
    kernel_id = await world.launch(kernels.emitter)
    priorities = [*range(256)] * 2
    random.Random(4).shuffle(priorities)
    await world.runtime.send(kernel_id, Job(512, note=" ".join(map(str, priorities))))
    await world.processed(kernel_id, 1)
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(512)]
    assert received == sorted(range(512), key=lambda number: (-priorities[number], number))


async def test_messages_of_one_priority_are_handled_first_in_first_out(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    for number in range(2_000):
        await world.runtime.send(kernel_id, Job(number))
    received = [await world.runtime.receive(kernel_id, timeout=PATIENCE) for _ in range(2_000)]
    assert [(result.number, result.position) for result in received] == [(n**2, n) for n in range(2_000)]


@pytest.mark.parametrize("priority", [-1, 256, 10**6])
def test_a_priority_outside_0_to_255_is_refused_when_the_message_is_made(priority: int) -> None:
    for make in (
        lambda: Job(priority=priority),
        lambda: Bare(1.0, priority=priority),  # type: ignore[call-arg]
        lambda: Inherited(priority=priority),
    ):
        with pytest.raises(MessageSerializationError) as refused:
            make()
        assert refused.value.path == "$.priority"


# -- 10. a float field holds a float -----------------------------------------------------------------------------------


async def test_an_int_in_a_float_field_becomes_a_float(world: World) -> None:
    kernel_id = await world.launch(kernels.echo)
    sent = Bare(10, [1, 2, 3])
    assert (repr(sent.x), repr(sent.series)) == ("10.0", "[1.0, 2.0, 3.0]")
    back = await world.runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE)
    assert (repr(back.x), repr(back.series)) == ("10.0", "[1.0, 2.0, 3.0]")


async def test_an_int_assigned_later_to_a_float_field_is_a_float_to_the_actor(world: World) -> None:
    kernel_id = await world.launch(kernels.total)
    sent = Bare(0.5)
    sent.x = 10
    back = await world.runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE)
    assert (back.label, repr(back.total)) == ("10.0", "10.0")


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), -0.0, 5e-324, 0.1 + 0.2, 1.7976931348623157e308])
async def test_a_float_comes_back_as_it_was(world: World, value: float) -> None:
    kernel_id = await world.launch(kernels.echo)
    assert repr((await world.runtime.send_and_receive(kernel_id, Bare(value), timeout=PATIENCE)).x) == repr(value)


# -- what counts as a message ------------------------------------------------------------------------------------------


async def test_a_kernel_without_an_output_type_answers_with_messages_of_any_class(world: World) -> None:
    kernel_id = await world.launch(kernels.undeclared)

    async def answer(number: int) -> object:
        return await world.runtime.send_and_receive(kernel_id, Job(number), timeout=PATIENCE)

    first = await answer(3)
    assert (type(first), first.x) == (Bare, 3.0)  # type: ignore[attr-defined]
    answers = await asyncio.gather(*map(answer, range(100)))
    assert [type(each) for each in answers] == [Job, *([Bare, Result] * 50)[:99]]
    await world.runtime.send(kernel_id, Job(-1))
    output = await world.runtime.receive(kernel_id, timeout=PATIENCE)
    assert (type(output), output.value) == (Loose, {"number": -1})
    assert world.runtime.get_dead_letters(kernel_id) == []


async def test_values_of_any_kind_arrive_as_json_has_them(world: World) -> None:
    kernel_id = await world.launch(kernels.echo_loose)
    value = {"n": [1, -2, 0.5, 3.0, 2**53, True, None, "é"], "": {"deep": [[], {}]}}
    sent = Loose(value, [np.int64(7), np.float32(0.5)], {"a": -0.0}, Page([UserId(5)]))
    back = await world.runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE)
    assert back.value == value
    assert repr((back.value["n"][3], back.items, back.table)) == "(3, [7, 0.5], {'a': -0.0})"
    assert back.users == Page([UserId(5)])
    back = await world.runtime.send_and_receive(kernel_id, Loose(), timeout=PATIENCE)
    assert (back.value, back.items, back.table) == (None, [], None)


async def test_a_priority_of_numpy_is_an_int_to_the_actor(world: World) -> None:
    kernel_id = await world.launch(kernels.echo_job)
    job = Job(1)
    object.__setattr__(job, "priority", np.int64(7))  # As if it was set after the message was made.
    back = await world.runtime.send_and_receive(kernel_id, job, timeout=PATIENCE)
    assert (back.priority, type(back.priority)) == (7, int)


async def test_a_message_needs_no_declared_header(world: World) -> None:
    kernel_id = await world.launch(kernels.echo)
    sent = Bare(2.5)
    back = await world.runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE)
    assert (type(back), back.x, back.message_id) == (Bare, 2.5, sent.message_id)  # type: ignore[attr-defined]
    assert (back.priority, back.correlation_id) == (128, None)


async def test_a_message_may_inherit_the_header(world: World) -> None:
    kernel_id = await world.launch(kernels.total)
    sent = Bare(1, [2, 3])
    back = await world.runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE)
    assert (type(back), back.label, back.total) == (Inherited, "1.0", 6.0)
    assert back.correlation_id == sent.message_id  # type: ignore[attr-defined]


async def test_the_whole_header_arrives(world: World) -> None:
    kernel_id = await world.launch(kernels.echo_job)
    sent = Job(1, 2, "three", priority=4, correlation_id=uuid4())
    assert await world.runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE) == sent


async def test_extreme_values_arrive(world: World) -> None:
    kernel_id = await world.launch(kernels.echo_job)
    for sent in (
        Job(2**63 - 1, -(2**63), "\N{SNOWMAN} \0 \U0001f40d"),
        Job(0, 0, ""),
        Job(-1, 1, "x" * 100_000, priority=0),
        Job(priority=255),
    ):
        assert await world.runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE) == sent


# -- 11. types are checked at the door ---------------------------------------------------------------------------------


@message
@dataclass
class Stranger:
    """A message that no kernel of the suite takes."""

    number: int = 0


class NoMessage:
    """Not even a message."""


async def _send(world: World, kernel_id: str, value: object) -> None:
    await world.runtime.send(kernel_id, value)


async def _ask(world: World, kernel_id: str, value: object) -> None:
    await world.runtime.send_and_receive(kernel_id, value, timeout=PATIENCE)


both_ways = pytest.mark.parametrize("put", [_send, _ask])
Put = Callable[[World, str, object], Awaitable[None]]


@both_ways
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (Stranger(), MessageTypeError("Job", "Stranger")),
        (Result(), MessageTypeError("Job", "Result")),
        (NoMessage(), MessageTypeError("Job", "NoMessage")),
        ({"number": 1}, MessageTypeError("Job", "dict")),
        (None, MessageTypeError("Job", "NoneType")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_message_of_another_class_is_refused_at_send(
    world: World, put: Put, value: object, error: MessageTypeError
) -> None:
    kernel_id = await world.launch(kernels.square)
    with pytest.raises(MessageTypeError) as refused:
        await put(world, kernel_id, value)
    assert refused.value == error
    assert (await world.runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)).number == 9, "and life goes on"


@both_ways
@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
async def test_an_int_out_of_range_is_refused_at_send(world: World, put: Put, number: int) -> None:
    kernel_id = await world.launch(kernels.square)
    with pytest.raises(MessageSerializationError) as refused:
        await put(world, kernel_id, Job(number))
    assert (refused.value.message_type, refused.value.path) == ("Job", "$.number")
    assert str(number) in refused.value.problem
    assert (await world.runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)).number == 9


@both_ways
@pytest.mark.parametrize(
    ("sent", "error_class", "path"),
    [
        (Job("seven"), MessageTypeError, "$.number"),  # type: ignore[arg-type]
        (Job(1.5), MessageTypeError, "$.number"),  # type: ignore[arg-type]
        (Job(note=b"bytes"), MessageTypeError, "$.note"),  # type: ignore[arg-type]
        (Job(note="\ud800"), MessageSerializationError, "$.note"),
    ],
    ids=["a str for an int", "a float for an int", "bytes for a str", "a text that is not Unicode"],
)
async def test_a_field_of_the_wrong_type_is_refused_at_send(
    world: World, put: Put, sent: Job, error_class: type[MessageError], path: str
) -> None:
    kernel_id = await world.launch(kernels.square)
    with pytest.raises(error_class) as refused:
        await put(world, kernel_id, sent)
    assert getattr(refused.value, "path") == path  # noqa: B009
    assert (await world.runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)).number == 9


@both_ways
async def test_a_value_that_json_has_not_is_refused_at_send(world: World, put: Put) -> None:
    kernel_id = await world.launch(kernels.echo_loose)
    with pytest.raises(MessageTypeError) as refused:
        await put(world, kernel_id, Loose({"a": [b"bytes"]}))
    assert refused.value.path == '$.value["a"][0]'


@both_ways
async def test_a_bad_value_deep_inside_is_named_by_its_path(world: World, put: Put) -> None:
    kernel_id = await world.launch(kernels.echo)
    sent = Bare(1.0, [0.0, 1.0, "two"])  # type: ignore[list-item]
    with pytest.raises(MessageTypeError) as refused:
        await put(world, kernel_id, sent)
    assert refused.value == MessageTypeError("float", "str", "$.series[2]")


@both_ways
async def test_a_priority_spoiled_after_the_message_was_made_is_refused_at_send(world: World, put: Put) -> None:
    kernel_id = await world.launch(kernels.square)
    sent = Job(1)
    sent.priority = 256
    with pytest.raises(MessageSerializationError) as refused:
        await put(world, kernel_id, sent)
    assert (refused.value.message_type, refused.value.path) == ("Job", "$.priority")
    sent.priority = 255
    await put(world, kernel_id, sent)


@both_ways
async def test_a_request_of_an_id_that_still_waits_for_its_reply_is_refused(world: World, put: Put) -> None:
    kernel_id = await world.launch(kernels.square)
    await world.runtime.deactivate(kernel_id)
    first = Job(1)
    waiting = asyncio.create_task(world.runtime.send_and_receive(kernel_id, first, timeout=PATIENCE))
    await world.queued(kernel_id, 1)
    with pytest.raises(MessageSerializationError) as refused:
        await put(world, kernel_id, Job(2, message_id=first.message_id))
    assert refused.value.path == "$.message_id"
    await world.runtime.reactivate(kernel_id)
    assert (await waiting).number == 1


async def test_an_actor_that_sends_the_wrong_class_is_told_and_its_kernel_fails(world: World) -> None:
    kernel_id = await world.launch(kernels.confused)
    with pytest.raises(KernelFailedError) as failed:
        await world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE)
    assert failed.value == KernelFailedError(
        kernel_id, "MessageTypeError", str(MessageTypeError("Result or Job", "Bare"))
    )
