"""Points 4 and 6: replies find their caller, and neither a time-out nor a cancellation loses anything."""

import asyncio
import random
from collections import Counter
from contextvars import Context
from typing import Any
from uuid import uuid4

import pytest

from pydotcompute import KernelRuntime
from pydotcompute.exceptions import QueueTimeoutError
from tests.contract import kernels
from tests.contract.kernels import Job, Result
from tests.contract.world import PATIENCE, World, eventually, turns
from tests.moments import Moments
from tests.properties import examples

CLIENTS = 64
REQUESTS = examples(200)

# -- 4. replies find their caller --------------------------------------------------------------------------------------


async def send_then_receive(runtime: KernelRuntime, kernel_id: str, client: int) -> None:
    """A client that sends a random number of its requests, then receives as many replies, and so on."""
    dice = random.Random(client)
    waiting: dict[object, int] = {}
    for number in range(REQUESTS):
        job = Job(number, client)
        waiting[job.message_id] = number
        await runtime.send(kernel_id, job)
        if number == REQUESTS - 1 or dice.random() < 0.2:
            for _ in range(len(waiting)):
                result = await runtime.receive(kernel_id, timeout=60)
                assert result.client == client
                assert result.number == waiting.pop(result.correlation_id) ** 2
            assert not waiting


async def ask(runtime: KernelRuntime, kernel_id: str, client: int) -> None:
    """A client that asks, several requests at a time."""
    dice = random.Random(client)
    number = 0
    while number < REQUESTS:
        jobs = [Job(n, client) for n in range(number, min(REQUESTS, number + dice.randint(1, 10)))]
        number += len(jobs)
        asked = (runtime.send_and_receive(kernel_id, job, timeout=60) for job in jobs)
        for job, result in zip(jobs, await asyncio.gather(*asked), strict=True):
            assert (result.correlation_id, result.client) == (job.message_id, client)
            assert result.number == job.number**2


async def serve_64_clients(world: World, connections: int) -> None:
    kernel_id = await world.launch(kernels.shuffler)
    runtimes = [await world.connect_another() for _ in range(connections)]
    async with asyncio.TaskGroup() as group:
        for client in range(CLIENTS):
            runtime = runtimes[client % connections]
            group.create_task(send_then_receive(runtime, kernel_id, client))
    async with asyncio.TaskGroup() as group:
        for client in range(CLIENTS):
            runtime = runtimes[client % connections]
            group.create_task(ask(runtime, kernel_id, client))
    await world.processed(kernel_id, 2 * CLIENTS * REQUESTS)
    assert await world.nothing_to_receive(kernel_id), "nothing is doubled"
    assert world.telemetry(kernel_id).messages_dropped == 0


async def test_64_clients_each_get_their_own_replies_from_a_kernel_that_finishes_out_of_order(world: World) -> None:
    await serve_64_clients(world, connections=8)


async def test_64_clients_on_connections_of_their_own_each_get_their_own_replies(world: World) -> None:
    await serve_64_clients(world, connections=64)


async def test_a_client_that_receives_and_asks_at_once_gets_each_reply_where_it_belongs(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    for number in range(10):
        await world.runtime.send(kernel_id, Job(number))
    asked = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(100), timeout=PATIENCE))
    await world.processed(kernel_id, 11)
    opened = await world.runtime.send_and_receive(kernel_id, Job(200, note="open"), timeout=PATIENCE)
    assert ((await asked).number, opened.number) == (100**2, 200**2)
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(10)]
    assert received == [number**2 for number in range(10)]


async def test_tasks_that_only_receive_get_the_replies_of_tasks_that_only_send(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    done = asyncio.Event()

    async def produce() -> None:
        for number in range(100):
            await world.runtime.send(kernel_id, Job(number))
        await done.wait()

    async def consume() -> set[int]:
        return {(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(100)}

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        consumer = group.create_task(consume())
        assert await consumer == {number**2 for number in range(100)}
        done.set()


async def test_a_task_started_by_the_sender_receives_on_its_behalf(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    others = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE))
    await world.processed(kernel_id, 1)
    await world.runtime.send(kernel_id, Job(2, note="open"))
    result = await asyncio.wait_for(world.runtime.receive(kernel_id), PATIENCE)
    assert (result.number, (await others).number) == (4, 1)


async def test_requests_that_are_gathered_are_those_of_the_task_that_gathers(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    await world.runtime.send(kernel_id, Job(0, note="open"))
    assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).number == 0
    another = await world.connect_another()

    async def receive() -> Any:
        return await another.receive(kernel_id)

    waiting = asyncio.create_task(receive(), context=Context())  # It receives on nobody's behalf.
    await world.heard(another, kernel_id, Job(0, note="open"))
    await asyncio.gather(*(world.runtime.send(kernel_id, Job(number)) for number in range(10)))
    await world.runtime.send(kernel_id, Job(10, note="open"))
    received = [world.runtime.receive(kernel_id, timeout=PATIENCE) for _ in range(11)]
    assert [result.number for result in await asyncio.gather(*received)] == [number**2 for number in range(11)]
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_replies_of_a_task_that_has_ended_are_outputs(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)

    async def send_and_end() -> None:
        await world.runtime.send(kernel_id, Job(3))
        await world.runtime.send(kernel_id, Job(4, note="open"))

    await asyncio.create_task(send_and_end())
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(2)]
    assert received == [9, 16]


async def test_a_second_reply_finds_the_caller_of_the_first(world: World) -> None:
    kernel_id = await world.launch(kernels.repeater)
    job = Job(5)
    await world.runtime.send(kernel_id, job)
    received = [await world.runtime.receive(kernel_id, timeout=PATIENCE) for _ in range(5)]
    assert [(result.position, result.correlation_id) for result in received] == [(n, job.message_id) for n in range(5)]


async def test_a_second_reply_to_one_who_asked_is_a_dead_letter_and_no_output(world: World) -> None:
    kernel_id = await world.launch(kernels.repeater)
    assert (await world.runtime.send_and_receive(kernel_id, Job(2), timeout=PATIENCE)).position == 0
    assert await world.nothing_to_receive(kernel_id)
    assert await another_receives_nothing(world, kernel_id)
    await eventually(lambda: world.telemetry(kernel_id).messages_dropped == 1)


async def another_receives_nothing(world: World, kernel_id: str) -> bool:
    """Whether a client that has sent nothing finds nothing."""
    another = await world.connect_another()
    return await World(world.name, another, world.connect_another).nothing_to_receive(kernel_id)


async def test_an_echo_finds_its_caller_also_if_the_request_answers_another(world: World) -> None:
    kernel_id = await world.launch(kernels.echo_job)
    asked = Job(1, correlation_id=uuid4())
    assert await world.runtime.send_and_receive(kernel_id, asked, timeout=PATIENCE) == asked
    sent = Job(2, correlation_id=asked.message_id)
    await world.runtime.send(kernel_id, sent)
    assert await world.runtime.receive(kernel_id, timeout=PATIENCE) == sent


async def test_a_request_can_be_sent_again_once_it_is_answered(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    job = Job(3)
    for _ in range(3):
        assert (await world.runtime.send_and_receive(kernel_id, job, timeout=PATIENCE)).number == 9
        await world.runtime.send(kernel_id, job)
        assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).number == 9


async def test_one_task_talks_to_two_kernels_without_mixing_their_replies(world: World) -> None:
    first, second = await world.launch(kernels.shuffler), await world.launch(kernels.echo_job)
    for number in range(50):
        await world.runtime.send(first, Job(number))
        await world.runtime.send(second, Job(number))
    squares = {(await world.runtime.receive(first, timeout=PATIENCE)).number for _ in range(50)}
    echoes = [await world.runtime.receive(second, timeout=PATIENCE) for _ in range(50)]
    assert squares == {number**2 for number in range(50)}
    assert [(type(echo), echo.number) for echo in echoes] == [(Job, number) for number in range(50)]


async def test_outputs_belong_to_whoever_receives_first(world: World) -> None:
    kernel_id = await world.launch(kernels.emitter)
    seen: Counter[int] = Counter()
    total = 400
    everything = asyncio.Event()

    async def consume(runtime: KernelRuntime) -> None:
        while True:
            seen[(await runtime.receive(kernel_id, timeout=PATIENCE)).number] += 1
            if seen.total() == total:
                everything.set()

    consumers = [asyncio.create_task(consume(await world.connect_another())) for _ in range(4)]
    await asyncio.sleep(0)  # All have begun.
    await world.runtime.send(kernel_id, Job(total))
    await asyncio.wait_for(everything.wait(), PATIENCE)
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    assert seen == Counter(range(total))


@pytest.mark.parametrize("how", ["timed out", "was cancelled", "only sent"])
async def test_an_idle_client_holds_no_output_that_another_waits_for(world: World, how: str) -> None:
    kernel_id = await world.launch(kernels.emitter)
    idle = await world.connect_another()
    if how == "timed out":
        with pytest.raises(QueueTimeoutError):
            await idle.receive(kernel_id, timeout=0.05)
    elif how == "was cancelled":
        receiving = asyncio.create_task(idle.receive(kernel_id))
        await asyncio.wait([receiving], timeout=0.05)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
    await idle.send(kernel_id, Job(100))
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(100)]
    assert received == list(range(100))


# -- 6. time-outs and cancellation lose nothing ------------------------------------------------------------------------


async def test_a_receive_that_times_out_leaves_the_message_to_the_next(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    await world.runtime.send(kernel_id, Job(1))
    with pytest.raises(QueueTimeoutError) as late:
        await world.runtime.receive(kernel_id, timeout=0.05)
    assert (late.value.kernel_id, late.value.timeout, late.value.operation) == (kernel_id, 0.05, "receive")
    assert isinstance(late.value, TimeoutError)
    await world.runtime.send(kernel_id, Job(2, note="open"))
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(2)]
    assert received == [1, 4]


async def test_a_receive_times_out_when_it_should(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    loop = asyncio.get_running_loop()
    for timeout in (0.2, 0.05, 0):
        begin = loop.time()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(QueueTimeoutError):
                await world.runtime.receive(kernel_id, timeout=timeout)
        assert loop.time() - begin >= timeout


async def test_a_receive_without_time_finds_what_is_there(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    await world.runtime.send(kernel_id, Job(1))
    await world.runtime.send(kernel_id, Job(2))
    assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).number == 1
    await world.processed(kernel_id, 2)
    async with asyncio.timeout(PATIENCE):
        while True:  # Over the wire the second reply may be a moment behind.
            try:
                assert (await world.runtime.receive(kernel_id, timeout=0)).number == 4
                break
            except QueueTimeoutError:
                continue


async def test_a_receive_cancelled_at_a_random_moment_5000_times_loses_nothing(world: World) -> None:
    kernel_id = await world.launch(kernels.hesitant)
    dice = random.Random(5_000)
    received: list[Result] = []
    sent = cancelled = 0
    while cancelled < examples(5_000) or not received:
        if sent - len(received) < 20 and dice.random() < 0.7:
            await world.runtime.send(kernel_id, Job(sent))
            sent += 1
        receiving = asyncio.create_task(world.runtime.receive(kernel_id))
        await turns(dice.randrange(1, 9))
        receiving.cancel()
        try:
            received.append(await receiving)
        except asyncio.CancelledError:
            cancelled += 1
    while len(received) < sent:
        received.append(await world.runtime.receive(kernel_id, timeout=PATIENCE))
    assert [(result.number, result.position) for result in received] == [(n**2, n) for n in range(sent)]
    assert await world.nothing_to_receive(kernel_id)


async def test_many_receives_of_one_client_cancelled_at_random_lose_nothing(world: World) -> None:
    kernel_id = await world.launch(kernels.emitter)
    dice = random.Random(6)
    seen: Counter[int] = Counter()
    rounds = 100
    for number in range(rounds):
        receiving = [asyncio.create_task(world.runtime.receive(kernel_id)) for _ in range(8)]
        await turns(1)
        await world.runtime.send(kernel_id, Job(3, number))
        await turns(dice.randrange(12))
        for task in dice.sample(receiving, 6):
            task.cancel()
        await turns(dice.randrange(4))
        for task in receiving:
            task.cancel()
        for outcome in await asyncio.gather(*receiving, return_exceptions=True):
            if isinstance(outcome, Result):
                seen[outcome.client * 3 + outcome.number] += 1
    while seen.total() < 3 * rounds:
        result = await world.runtime.receive(kernel_id, timeout=PATIENCE)
        seen[result.client * 3 + result.number] += 1
    assert seen == Counter(range(3 * rounds))
    assert await world.nothing_to_receive(kernel_id)


async def test_a_receive_cancelled_at_a_random_moment_leaves_the_output_to_another_that_waits(world: World) -> None:
    kernel_id = await world.launch(kernels.emitter)
    dice = random.Random(9)
    for number in range(200):
        first, second = (asyncio.create_task(world.runtime.receive(kernel_id, timeout=PATIENCE)) for _ in range(2))
        await turns(2)
        await world.runtime.send(kernel_id, Job(1, number))
        await turns(dice.randrange(10))
        first.cancel()
        if isinstance((await asyncio.gather(first, return_exceptions=True))[0], Result):
            await world.runtime.send(kernel_id, Job(1, number))
        assert (await second).client == number


async def test_an_actor_that_gives_up_its_receives_at_random_loses_nothing(world: World) -> None:
    kernel_id = await world.launch(kernels.fickle)
    total = 1_000
    for number in range(total):
        await world.runtime.send(kernel_id, Job(number))
        if number % 10 == 0:
            await turns(7)
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(total)]
    assert received == [number**2 for number in range(total)]
    assert world.telemetry(kernel_id).messages_processed == total


async def test_a_reply_that_comes_after_its_caller_gave_up_is_a_dead_letter(world: World) -> None:
    kernel_id = await world.launch(kernels.gate)
    with pytest.raises(QueueTimeoutError) as late:
        await world.runtime.send_and_receive(kernel_id, Job(1), timeout=0.05)
    assert (late.value.kernel_id, late.value.timeout, late.value.operation) == (kernel_id, 0.05, "send_and_receive")
    asked = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(2)))
    await world.processed(kernel_id, 2)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    opened = await world.runtime.send_and_receive(kernel_id, Job(3, note="open"), timeout=PATIENCE)
    assert opened.number == 9, "and not the reply to an earlier request"
    assert await world.nothing_to_receive(kernel_id)
    assert await another_receives_nothing(world, kernel_id)
    await eventually(lambda: world.telemetry(kernel_id).messages_dropped == 2)


async def test_every_request_asked_and_given_up_at_random_is_answered_or_a_dead_letter(world: World) -> None:
    kernel_id = await world.launch(kernels.square)
    moments = Moments(8)
    answered = given_up = 0
    enough = examples(250)
    while min(answered, given_up) < enough:
        number = answered + given_up
        asked = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(number), timeout=PATIENCE))
        await moments.wait()
        asked.cancel()
        try:
            assert (await asked).number == number**2
        except asyncio.CancelledError:
            given_up += 1
            moments.was_early()
        else:
            answered += 1
            moments.was_late()
    await world.runtime.send_and_receive(kernel_id, Job(), timeout=PATIENCE)
    # A request whose caller gave up before it was on its way was never sent.
    processed = world.telemetry(kernel_id).messages_processed - 1
    assert answered <= processed <= answered + given_up
    await eventually(lambda: world.telemetry(kernel_id).messages_dropped == processed - answered)
    assert await world.nothing_to_receive(kernel_id)
