"""Point 5: what happens when there is no room."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from pydotcompute import KernelRuntime
from pydotcompute.exceptions import QueueFullError
from tests.contract import kernels
from tests.contract.kernels import Job
from tests.contract.world import PATIENCE, Clogged, World

Clog = Callable[..., Awaitable[Clogged]]

# -- block -------------------------------------------------------------------------------------------------------------


async def test_block_gives_up_after_the_time_out_and_sends_nothing(clog: Clog) -> None:
    clogged = await clog("block")
    runtime, kernel_id = clogged.world.runtime, clogged.kernel_id
    loop = asyncio.get_running_loop()
    for put in (runtime.send, runtime.send_and_receive):
        begin = loop.time()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(QueueFullError) as full:
                await put(kernel_id, Job(99), timeout=0.1)
        assert loop.time() - begin >= 0.1
        assert full.value == QueueFullError(kernel_id, 4)
    await runtime.reactivate(kernel_id)
    received = [(await runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(4)]
    assert received == [0, 1, 4, 9]
    assert await clogged.world.nothing_to_receive(kernel_id)
    assert clogged.world.telemetry(kernel_id).messages_processed == 4


async def test_block_goes_through_when_there_is_room(clog: Clog) -> None:
    clogged = await clog("block")
    runtime, kernel_id = clogged.world.runtime, clogged.kernel_id
    sending = asyncio.create_task(runtime.send(kernel_id, Job(5)))
    asking = asyncio.create_task(runtime.send_and_receive(kernel_id, Job(6), timeout=PATIENCE))
    await asyncio.wait([sending, asking], timeout=0.1)
    assert not sending.done()
    assert not asking.done()
    assert clogged.world.telemetry(kernel_id).queue_depth == 4
    await runtime.reactivate(kernel_id)
    await asyncio.wait_for(sending, PATIENCE)
    assert (await asking).number == 36
    received = {(await runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(5)}
    assert received == {0, 1, 4, 9, 25}


async def test_a_blocked_send_that_is_cancelled_sends_nothing_and_lets_the_next_one_in(clog: Clog) -> None:
    clogged = await clog("block")
    runtime, kernel_id = clogged.world.runtime, clogged.kernel_id
    first, second = (asyncio.create_task(runtime.send(kernel_id, Job(number))) for number in (5, 6))
    await asyncio.wait([first, second], timeout=0.05)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await runtime.reactivate(kernel_id)
    await asyncio.wait_for(second, PATIENCE)
    received = {(await runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(5)}
    assert received == {0, 1, 4, 9, 36}
    assert await clogged.world.nothing_to_receive(kernel_id)


async def test_blocked_sends_are_told_when_the_kernel_ends(clog: Clog) -> None:
    clogged = await clog("block")
    runtime, kernel_id = clogged.world.runtime, clogged.kernel_id
    sending = asyncio.create_task(runtime.send(kernel_id, Job(5)))
    await asyncio.wait([sending], timeout=0.05)
    await runtime.terminate(kernel_id)
    (outcome,) = await asyncio.wait_for(asyncio.gather(sending, return_exceptions=True), PATIENCE)
    assert type(outcome).__name__ == "KernelStateError"


async def test_16_producers_and_16_consumers_on_mailboxes_of_four_never_hang(world: World) -> None:
    kernel_id = await world.launch(kernels.square, input_queue_size=4, output_queue_size=4)
    seen = await produce_and_consume(kernel_id, [world.runtime] * 16, [world.runtime] * 16, lambda number: Job(number))
    assert seen == Counter(number**2 for number in range(16 * EACH))
    assert world.telemetry(kernel_id).messages_processed == 16 * EACH


async def test_16_producers_and_16_consumers_of_different_clients_never_hang(world: World) -> None:
    # Outputs: a reply would be its producer's alone.
    kernel_id = await world.launch(kernels.emitter, input_queue_size=4, output_queue_size=4)
    producers = [await world.connect_another() for _ in range(4)] * 4
    consumers = [await world.connect_another() for _ in range(4)] * 4
    seen = await produce_and_consume(kernel_id, producers, consumers, lambda number: Job(1, number))
    assert seen == Counter({0: 16 * EACH})
    assert world.telemetry(kernel_id).messages_processed == 16 * EACH


EACH = 100


async def produce_and_consume(
    kernel_id: str, producers: list[KernelRuntime], consumers: list[KernelRuntime], job: Callable[[int], Job]
) -> Counter[int]:
    """Tasks that only send and tasks that only receive; how often each number was received, when all were."""
    seen: Counter[int] = Counter()
    everything = asyncio.Event()

    async def produce(runtime: KernelRuntime, first: int) -> None:
        for number in range(first, first + EACH):
            await runtime.send(kernel_id, job(number), timeout=60)
        await everything.wait()

    async def consume(runtime: KernelRuntime) -> None:
        while True:
            seen[(await runtime.receive(kernel_id, timeout=60)).number] += 1
            if seen.total() >= EACH * len(producers):
                everything.set()

    async with asyncio.TaskGroup() as group:
        consuming = [group.create_task(consume(runtime)) for runtime in consumers]
        for index, runtime in enumerate(producers):
            group.create_task(produce(runtime, index * EACH))
        await everything.wait()
        await asyncio.wait(consuming, timeout=0.05)  # A doubled message would come now.
        for task in consuming:
            task.cancel()
    return seen


# -- reject ------------------------------------------------------------------------------------------------------------


async def test_reject_refuses_the_very_send_that_finds_no_room(clog: Clog) -> None:
    clogged = await clog("reject")
    runtime, kernel_id = clogged.world.runtime, clogged.kernel_id
    for put in (runtime.send, runtime.send_and_receive):
        async with asyncio.timeout(PATIENCE):  # At once, and not after the time-out.
            with pytest.raises(QueueFullError) as full:
                await put(kernel_id, Job(99), timeout=3600)
        assert full.value == QueueFullError(kernel_id, 4)
    await runtime.reactivate(kernel_id)
    received = [(await runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(4)]
    assert received == [0, 1, 4, 9], "what was in the mailbox stays"
    assert await clogged.world.nothing_to_receive(kernel_id)


async def test_reject_takes_messages_again_when_there_is_room(clog: Clog) -> None:
    clogged = await clog("reject")
    runtime, kernel_id = clogged.world.runtime, clogged.kernel_id
    with pytest.raises(QueueFullError):
        await runtime.send(kernel_id, Job(99))
    await runtime.reactivate(kernel_id)
    for number in range(4):
        assert (await runtime.receive(kernel_id, timeout=PATIENCE)).number == number**2
    assert (await runtime.send_and_receive(kernel_id, Job(7), timeout=PATIENCE)).number == 49
    assert clogged.world.telemetry(kernel_id).messages_dropped == 0, "a refused message was never accepted"


async def test_reject_refuses_exactly_what_does_not_fit(world: World) -> None:
    kernel_id = await world.launch(kernels.square, input_queue_size=10, backpressure_strategy="reject")
    await world.runtime.deactivate(kernel_id)
    outcomes = []
    for number in range(30):
        try:
            await world.runtime.send(kernel_id, Job(number))
            outcomes.append(number)
        except QueueFullError:
            pass
    assert outcomes == list(range(10))
    await world.runtime.reactivate(kernel_id)
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(10)]
    assert received == [number**2 for number in range(10)]


# -- drop_oldest -------------------------------------------------------------------------------------------------------


async def test_drop_oldest_drops_the_oldest_of_the_lowest_priority_and_tells_its_sender(clog: Clog) -> None:
    clogged = await clog("drop_oldest", priorities=(5, 1, 1, 9))
    world, kernel_id = clogged.world, clogged.kernel_id
    await world.runtime.send(kernel_id, Job(4, priority=200))
    with pytest.raises(QueueFullError) as dropped:
        await world.runtime.receive(kernel_id, timeout=PATIENCE)
    assert dropped.value == QueueFullError(kernel_id, 4)
    telemetry = world.telemetry(kernel_id)
    assert (telemetry.messages_dropped, telemetry.queue_depth) == (1, 4)
    await world.runtime.reactivate(kernel_id)
    received = [(await world.runtime.receive(kernel_id, timeout=PATIENCE)).number for _ in range(4)]
    assert received == [16, 9, 0, 4], "number 1 is gone"
    assert await world.nothing_to_receive(kernel_id)


async def test_drop_oldest_tells_the_one_who_asked(world: World) -> None:
    kernel_id = await world.launch(kernels.square, input_queue_size=2, backpressure_strategy="drop_oldest")
    await world.runtime.deactivate(kernel_id)
    asked = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(1), timeout=PATIENCE))
    await world.queued(kernel_id, 1)
    kept = asyncio.create_task(world.runtime.send_and_receive(kernel_id, Job(2), timeout=PATIENCE))
    await world.queued(kernel_id, 2)
    await world.runtime.send(kernel_id, Job(3))
    with pytest.raises(QueueFullError) as dropped:
        await asked
    assert dropped.value == QueueFullError(kernel_id, 2)
    await world.runtime.reactivate(kernel_id)
    assert (await kept).number == 4
    assert (await world.runtime.receive(kernel_id, timeout=PATIENCE)).number == 9


async def test_drop_oldest_answers_or_drops_every_request_of_many_clients(world: World) -> None:
    kernel_id = await world.launch(kernels.shuffler, input_queue_size=4, backpressure_strategy="drop_oldest")
    each = 200

    async def client(runtime: KernelRuntime, client: int) -> int:
        """How many of its requests were dropped; all the others are answered, and to none but their sender."""
        dropped = 0
        for start in range(0, each, 10):
            for number in range(start, start + 10):
                await runtime.send(kernel_id, Job(number, client, priority=number % 3))
            for _ in range(10):
                try:
                    assert (await runtime.receive(kernel_id, timeout=PATIENCE)).client == client
                except QueueFullError:
                    dropped += 1
        return dropped

    runtimes = [await world.connect_another() for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client(runtimes[number % 4], number)) for number in range(8)]
    dropped = sum(client.result() for client in clients)
    telemetry = world.telemetry(kernel_id)
    assert dropped > 0
    assert (telemetry.messages_dropped, telemetry.messages_processed) == (dropped, 8 * each - dropped)
    assert await world.nothing_to_receive(kernel_id)


# -- slow clients ------------------------------------------------------------------------------------------------------


async def test_a_client_that_never_receives_stalls_neither_another_nor_the_kernel(world: World) -> None:
    kernel_id = await world.launch(kernels.square, input_queue_size=32, output_queue_size=16)
    slow, quick = await world.connect_another(), await world.connect_another()
    sent = 0

    async def send_on_and_on() -> None:
        nonlocal sent
        for number in range(2_000):
            await slow.send(kernel_id, Job(number))
            sent += 1

    sending = asyncio.create_task(send_on_and_on())
    for number in range(300):
        assert (await quick.send_and_receive(kernel_id, Job(number), timeout=PATIENCE)).number == number**2
    for number in range(300):
        await quick.send(kernel_id, Job(number), timeout=PATIENCE)
        assert (await quick.receive(kernel_id, timeout=PATIENCE)).number == number**2
    assert not sending.done()
    assert sent < 1_000, "what waits for one client is bounded"
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_slow_client_finds_all_its_replies_when_it_receives_at_last(world: World) -> None:
    kernel_id = await world.launch(kernels.square, input_queue_size=32, output_queue_size=16)
    slow, quick = await world.connect_another(), await world.connect_another()
    released = asyncio.Event()
    total = 500

    async def send_all_receive_later() -> list[int]:
        async def receive_all() -> list[int]:
            await released.wait()
            return [(await slow.receive(kernel_id, timeout=PATIENCE)).number for _ in range(total)]

        await slow.send(kernel_id, Job(0))
        receiving = asyncio.create_task(receive_all())  # On behalf of this task, which goes on sending.
        for number in range(1, total):
            await slow.send(kernel_id, Job(number))
        return await receiving

    client = asyncio.create_task(send_all_receive_later())
    for number in range(200):
        assert (await quick.send_and_receive(kernel_id, Job(number), timeout=PATIENCE)).number == number**2
    assert not client.done()
    released.set()
    assert await client == [number**2 for number in range(total)]


async def test_outputs_that_nobody_receives_stall_their_kernel_alone(world: World) -> None:
    stalled = await world.launch(kernels.emitter, output_queue_size=8)
    other = await world.launch(kernels.square)
    await world.runtime.send(stalled, Job(100))
    for number in range(50):
        assert (await world.runtime.send_and_receive(other, Job(number), timeout=PATIENCE)).number == number**2
    assert world.telemetry(stalled).messages_processed == 0
    received = [(await world.runtime.receive(stalled, timeout=PATIENCE)).number for _ in range(100)]
    assert received == list(range(100))
    await world.processed(stalled, 1)
