"""The Python client over a connection that breaks: `send` and `receive` take longer, or say exactly what is lost."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from pydotcompute.exceptions import ConnectionLostError, QueueFullError, SessionLostError
from pydotcompute_client import RemoteRuntime, connect
from tests.contract import kernels
from tests.contract.kernels import Job, Result
from tests.contract.world import PATIENCE, eventually
from tests.forwarder import Forwarder
from tests.stubs import KERNELS, Talk, Wire, how_it_ends


@pytest.fixture
async def way(daemon: Any) -> AsyncIterator[Forwarder]:
    """The way to the daemon of this suite."""
    async with Forwarder(daemon.target) as way:
        yield way


@pytest.fixture
async def runtime(way: Forwarder) -> AsyncIterator[RemoteRuntime]:
    """A client that goes this way."""
    async with connect(way.address, scoped=True, timeout=PATIENCE) as runtime:
        yield runtime


@pytest.fixture
async def direct(daemon: Any) -> AsyncIterator[RemoteRuntime]:
    """A client whose connection is never cut; the kernels that it launches end with the test."""
    async with connect(daemon.target, scoped=True) as direct:
        yield direct


async def launched(runtime: RemoteRuntime, kernel_func: Any, kernel_id: str = "") -> str:
    kernel_id = kernel_id or f"{kernel_func.__name__}-{uuid4().hex[:8]}"
    await runtime.launch(kernel_id, kernel_func)
    await runtime.activate(kernel_id)
    return kernel_id


async def lose(way: Forwarder) -> None:
    """Nobody gets through any more, and the client has noticed: it has tried to, and then again."""
    way.close()
    tried = way.refused
    await eventually(lambda: way.refused >= tried + 2)


# -- the connection is cut and comes back ------------------------------------------------------------------------------


async def test_requests_under_way_as_the_connection_is_cut_are_all_answered(
    direct: RemoteRuntime, runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(direct, kernels.shuffler)
    replies = 0
    every = 150

    def replied() -> None:
        nonlocal replies
        replies += 1
        if replies % every == 0:
            way.cut()

    async def ask(client: int) -> None:
        for number in range(100):
            result = await runtime.send_and_receive(kernel_id, Job(number, client), timeout=60)
            assert (result.number, result.client) == (number**2, client)
            replied()

    async def send_and_then_receive(client: int) -> None:
        waiting = {}
        for number in range(300):
            job = Job(number, client)
            waiting[job.message_id] = number
            await runtime.send(kernel_id, job)
            if number % 100 == 99:
                while waiting:
                    result = await runtime.receive(kernel_id, timeout=60)
                    assert (result.number, result.client) == (waiting.pop(result.correlation_id) ** 2, client)
                    replied()

    async with asyncio.TaskGroup() as group:
        for client in range(6):
            group.create_task(ask(client))
        for client in range(6, 8):
            group.create_task(send_and_then_receive(client))
    assert replies == 1_200
    assert way.connections > 3
    telemetry = await direct.fetch_telemetry(kernel_id)
    assert telemetry is not None
    assert (telemetry.messages_processed, telemetry.messages_dropped) == (replies, 0)


async def test_while_there_is_no_connection_send_and_receive_just_take_longer(
    direct: RemoteRuntime, runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(direct, kernels.square)
    await runtime.send_and_receive(kernel_id, Job(1))
    await lose(way)
    await runtime.send(kernel_id, Job(2))
    receiving = asyncio.create_task(runtime.receive(kernel_id))
    asking = asyncio.create_task(runtime.send_and_receive(kernel_id, Job(3)))
    tried = way.refused
    await eventually(lambda: way.refused > tried)
    assert not receiving.done()
    assert not asking.done()
    way.is_open = True
    async with asyncio.timeout(PATIENCE):
        assert (await receiving).number == 4, "the reply to the task that started the one that receives"
        assert (await asking).number == 9


async def test_a_time_out_ends_the_wait_for_a_connection(
    direct: RemoteRuntime, runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(direct, kernels.square)
    await runtime.send_and_receive(kernel_id, Job(1))
    await lose(way)
    with pytest.raises(TimeoutError):
        await runtime.send_and_receive(kernel_id, Job(2), timeout=0.05)
    with pytest.raises(TimeoutError):
        await runtime.receive(kernel_id, timeout=0.05)
    way.is_open = True
    result = await runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)
    assert (result.number, result.position) == (9, 1), "what was given up before it was sent is not sent"
    telemetry = await direct.fetch_telemetry(kernel_id)
    assert telemetry is not None
    assert telemetry.messages_dropped == 0


async def test_outputs_that_are_pulled_as_the_connection_is_cut_come_once(
    direct: RemoteRuntime, runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(direct, kernels.emitter)
    count, burst = 20, 50
    numbers: Counter[tuple[int, int]] = Counter()

    async def pull() -> None:
        while numbers.total() < count * burst:
            result = await runtime.receive(kernel_id, timeout=60)
            numbers[result.client, result.number] += 1
            if numbers.total() % 101 == 0:
                way.cut()

    pulling = [asyncio.create_task(pull()) for _ in range(3)]
    for client in range(count):
        await direct.send(kernel_id, Job(burst, client))
    await asyncio.wait(pulling, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    assert numbers == Counter({(client, number): 1 for client in range(count) for number in range(burst)})
    for task in pulling:
        task.cancel()
    await asyncio.gather(*pulling, return_exceptions=True)
    assert way.connections > 5
    with pytest.raises(TimeoutError):
        await direct.receive(kernel_id, timeout=0.05)


async def test_outputs_that_nobody_received_before_the_cut_are_not_lost_to_others(
    direct: RemoteRuntime, runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(direct, kernels.emitter)
    receiving = asyncio.create_task(runtime.receive(kernel_id))
    await direct.send(kernel_id, Job(1))
    assert (await receiving).number == 0
    giving_up = asyncio.create_task(runtime.receive(kernel_id))
    await asyncio.sleep(0)
    way.close()
    giving_up.cancel()
    await asyncio.wait((giving_up,))
    way.is_open = True
    await direct.send(kernel_id, Job(3))
    assert [(await direct.receive(kernel_id, timeout=PATIENCE)).number for _ in range(3)] == [0, 1, 2]


async def test_a_send_that_is_to_know_at_once_knows_after_the_cut(
    direct: RemoteRuntime, runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(direct, kernels.small)
    dice = random.Random(3)
    taken: list[UUID] = []
    refused = 0

    async def send(count: int) -> None:
        nonlocal refused
        for _ in range(count):
            job = Job(1)
            if dice.random() < 0.05:
                way.cut()
            try:
                await runtime.send(kernel_id, job)
                taken.append(job.message_id)
            except QueueFullError:
                refused += 1
            while len(taken) and dice.random() < 0.5:
                result = await runtime.receive(kernel_id, timeout=60)
                taken.remove(result.correlation_id)

    await send(120)
    while taken:
        taken.remove((await runtime.receive(kernel_id, timeout=60)).correlation_id)
    telemetry = await direct.fetch_telemetry(kernel_id)
    assert telemetry is not None
    assert telemetry.messages_processed == 120 - refused
    assert way.connections > 2


async def test_a_request_that_is_cancelled_without_a_connection_is_withdrawn_when_there_is_one(
    direct: RemoteRuntime, runtime: RemoteRuntime, way: Forwarder
) -> None:
    kernel_id = await launched(direct, kernels.square)
    await runtime.send_and_receive(kernel_id, Job(1))
    await direct.deactivate(kernel_id)
    asking = asyncio.create_task(runtime.send_and_receive(kernel_id, Job(2)))
    await depth(direct, kernel_id, 1)
    way.close()
    asking.cancel()
    await asyncio.wait((asking,))
    way.is_open = True
    await depth(direct, kernel_id, 0)
    await direct.reactivate(kernel_id)
    assert (await runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)).position == 1


async def depth(runtime: RemoteRuntime, kernel_id: str, count: int) -> None:
    """Wait until so many messages are in the kernel's mailbox."""
    async with asyncio.timeout(PATIENCE):
        while True:
            telemetry = await runtime.fetch_telemetry(kernel_id)
            if telemetry is not None and telemetry.queue_depth == count:
                return


# -- the session is lost -----------------------------------------------------------------------------------------------


class Mortal:
    """A daemon that is killed and started again, always at the end of the same way."""

    def __init__(self, start_daemon: Callable[..., Any]) -> None:
        self._start = start_daemon
        self.daemon = start_daemon(str(KERNELS), "--launch", "gate", "--launch", "sink")
        self.way = Forwarder(self.daemon.target)

    async def kill(self) -> None:
        """It is gone, without a word, and nobody gets through. When this returns, the client has noticed."""
        self.way.is_open = False
        self.daemon.process.kill()
        self.daemon.process.wait()
        await lose(self.way)

    def rise(self) -> None:
        """Another is there in its place."""
        self.daemon = self._start(str(KERNELS), "--launch", "gate", "--launch", "sink")
        self.way.target = self.daemon.target
        self.way.is_open = True


@pytest.fixture
async def mortal(start_daemon: Callable[..., Any]) -> AsyncIterator[Mortal]:
    """A daemon that a test may kill."""
    mortal = Mortal(start_daemon)
    async with mortal.way:
        yield mortal
    if mortal.daemon.process.poll() is None:
        mortal.daemon.stop()


async def hold(runtime: RemoteRuntime, *jobs: Job) -> None:
    """Send jobs, which the kernel takes and does not answer for now."""
    before = await runtime.fetch_telemetry("gate")
    assert before is not None
    for job in jobs:
        await runtime.send("gate", job)
    await handled(runtime, "gate", before.messages_processed + len(jobs))


async def handled(runtime: RemoteRuntime, kernel_id: str, count: int) -> None:
    """Wait until the kernel has handled so many messages."""
    async with asyncio.timeout(PATIENCE):
        while True:
            telemetry = await runtime.fetch_telemetry(kernel_id)
            if telemetry is not None and telemetry.messages_processed == count:
                return


def ids(*jobs: Job) -> set[UUID]:
    return {job.message_id for job in jobs}


def known(lost: SessionLostError, kernel_id: str, target: str) -> tuple[set[UUID], set[UUID]]:
    """The ids that it tells, each once."""
    assert (lost.kernel_id, lost.target) == (kernel_id, target)
    assert len(lost.message_ids) == len(set(lost.message_ids))
    assert len(lost.unsent_ids) == len(set(lost.unsent_ids))
    return set(lost.message_ids), set(lost.unsent_ids)


async def test_who_waits_in_receive_is_told_what_is_lost_when_the_daemon_was_restarted(mortal: Mortal) -> None:
    async with connect(mortal.way.address) as runtime:
        sent, unsent = [Job(n) for n in range(3)], [Job(n) for n in range(2)]
        await hold(runtime, *sent)
        await mortal.kill()
        for job in unsent:
            await runtime.send("gate", job)
        receiving = asyncio.create_task(runtime.receive("gate", timeout=60))
        await asyncio.sleep(0)
        mortal.rise()
        with pytest.raises(SessionLostError, match="has restarted") as lost:
            await receiving
        assert known(lost.value, "gate", mortal.way.address) == (ids(*sent), ids(*unsent))
        await works(runtime)


async def works(runtime: RemoteRuntime) -> None:
    """A new conversation does what the old one did, and nobody is told twice."""
    asked = Job(5, note="open")
    reply = await runtime.send_and_receive("gate", asked, timeout=PATIENCE)
    assert (reply.number, reply.correlation_id) == (25, asked.message_id)
    with pytest.raises(TimeoutError):
        await runtime.receive("gate", timeout=0.05)


async def test_everyone_who_asks_is_told_what_is_lost_when_the_daemon_was_restarted(mortal: Mortal) -> None:
    async with connect(mortal.way.address) as runtime:
        await hold(runtime)
        sent, unsent = [Job(n) for n in range(3)], [Job(n) for n in range(2)]
        asking = [asyncio.create_task(runtime.send_and_receive("gate", job)) for job in sent]
        await handled(runtime, "gate", 3)
        await mortal.kill()
        asking += [asyncio.create_task(runtime.send_and_receive("gate", job)) for job in unsent]
        await asyncio.sleep(0)
        mortal.rise()
        for outcome in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(outcome, SessionLostError)
            assert known(outcome, "gate", mortal.way.address) == (ids(*sent), ids(*unsent))
        await works(runtime)


async def test_one_who_only_sends_is_told_what_is_lost_at_its_next_send(mortal: Mortal) -> None:
    async with connect(mortal.way.address) as runtime:
        sent = [Job(n) for n in range(3)]
        for job in sent:
            await runtime.send("sink", job)
        await handled(runtime, "sink", 3)
        await mortal.kill()
        unsent = [Job(n) for n in range(2)]
        for job in unsent:
            await runtime.send("sink", job)
        mortal.rise()

        async def go_on_sending() -> None:
            while True:  # Until it is noticed, what is sent waits with the rest.
                await runtime.send("sink", job := Job(9))
                unsent.append(job)
                await asyncio.sleep(0.01)

        with pytest.raises(SessionLostError) as lost:
            await asyncio.wait_for(go_on_sending(), PATIENCE)
        assert known(lost.value, "sink", mortal.way.address) == (ids(*sent), ids(*unsent))
        await runtime.send("sink", Job(1))
        await handled(runtime, "sink", 1)


async def test_a_task_that_sent_and_receives_later_is_told_then(mortal: Mortal) -> None:
    async with connect(mortal.way.address) as runtime:
        mine, others = Job(1), Job(2)
        told = asyncio.Event()

        async def send_and_wait() -> SessionLostError:
            await hold(runtime, others)
            await told.wait()
            with pytest.raises(SessionLostError) as lost:
                await runtime.receive("gate", timeout=PATIENCE)
            return lost.value

        other = asyncio.create_task(send_and_wait())
        await handled(runtime, "gate", 1)
        await hold(runtime, mine)
        await mortal.kill()
        mortal.rise()
        with pytest.raises(SessionLostError) as lost:
            await runtime.receive("gate", timeout=60)
        told.set()
        for error in (lost.value, await other):
            assert known(error, "gate", mortal.way.address) == (ids(mine, others), set())


async def test_replies_that_came_before_the_loss_are_received_first(mortal: Mortal) -> None:
    async with connect(mortal.way.address) as runtime:
        held = Job(4)
        await runtime.send("gate", Job(2, note="open"))
        await hold(runtime, held)
        await mortal.kill()
        mortal.rise()
        assert (await runtime.receive("gate", timeout=PATIENCE)).number == 4
        with pytest.raises(SessionLostError) as lost:
            await runtime.receive("gate", timeout=60)
        assert known(lost.value, "gate", mortal.way.address) == (ids(held), set())


async def test_another_daemon_at_the_same_address_is_called_so(start_daemon: Callable[..., Any]) -> None:
    one, two = (start_daemon(str(KERNELS), "--launch", "gate") for _ in range(2))
    async with Forwarder(one.target) as way, connect(way.address) as runtime:
        job = Job(1)
        await hold(runtime, job)
        way.target = two.target
        receiving = asyncio.create_task(runtime.receive("gate", timeout=60))
        await asyncio.sleep(0)
        way.cut()
        with pytest.raises(SessionLostError, match="another daemon has the session") as lost:
            await receiving
        assert known(lost.value, "gate", way.address) == (ids(job), set())
    for daemon in (one, two):
        daemon.stop()


async def test_a_session_with_nothing_under_way_is_replaced_without_a_word(mortal: Mortal) -> None:
    async with connect(mortal.way.address) as runtime:
        assert (await runtime.send_and_receive("gate", Job(3, note="open"))).number == 9
        await mortal.kill()
        mortal.rise()
        job = Job(4, note="open")
        try:
            reply: Result = await runtime.send_and_receive("gate", job, timeout=PATIENCE)
        except SessionLostError as lost:  # It was too early, and knows that it can be sent again.
            told = known(lost, "gate", mortal.way.address)
            reply = await runtime.send_and_receive("gate", job, timeout=PATIENCE)
        else:
            told = set(), ids(job)
        assert reply.number == 16
        assert told == (set(), ids(job))


async def test_a_daemon_that_is_not_reached_in_time_is_given_up(direct: RemoteRuntime, way: Forwarder) -> None:
    kernel_id = await launched(direct, kernels.gate)
    async with connect(way.address, reconnect_timeout=1.5) as runtime:
        sent, unsent = Job(1), Job(2)
        await runtime.send(kernel_id, sent)
        await handled(direct, kernel_id, 1)
        await lose(way)
        await runtime.send(kernel_id, unsent)
        with pytest.raises(SessionLostError) as lost:
            await runtime.receive(kernel_id, timeout=60)
        assert known(lost.value, kernel_id, way.address) == ({sent.message_id}, {unsent.message_id})
        with pytest.raises(ConnectionLostError):
            await runtime.send(kernel_id, Job(3), timeout=PATIENCE)
        way.is_open = True
        assert await until_reached(lambda: runtime.send_and_receive(kernel_id, Job(5, note="open"))) == 25


async def until_reached(ask: Callable[[], Awaitable[Any]]) -> int:
    """Ask until there is a connection again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return int((await ask()).number)
            except ConnectionLostError:
                await asyncio.sleep(0.02)


# -- somebody else has the token ---------------------------------------------------------------------------------------


class Other:
    """Another client, which has got hold of the token of a session."""

    def __init__(self, wire: Wire, runtime: RemoteRuntime, kernel_id: str) -> None:
        self._session, self.talk = runtime._sessions[kernel_id], Talk(wire)
        self.talk.kernel_id = kernel_id

    async def take_over(self) -> None:
        """Have the session, until its client has it again."""
        self.talk.opened.session_token = self._session._token
        await self.talk.resume(received_through=self._session._arrivals.incoming.received)


async def test_a_session_that_another_stream_takes_is_taken_back_once(
    direct: RemoteRuntime, runtime: RemoteRuntime, wire: Wire
) -> None:
    kernel_id = await launched(direct, kernels.square)
    await runtime.send_and_receive(kernel_id, Job(1))
    other = Other(wire, runtime, kernel_id)
    await other.take_over()
    assert (await runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)).number == 9
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await how_it_ends(other.talk.call, read=False)
    assert ended.value.code() is grpc.StatusCode.ABORTED


async def test_two_clients_with_one_token_do_not_take_it_from_each_other_for_ever(
    direct: RemoteRuntime, runtime: RemoteRuntime, wire: Wire
) -> None:
    kernel_id = await launched(direct, kernels.gate)
    await runtime.send(kernel_id, Job(1))
    await runtime.send(kernel_id, Job(2))
    other = Other(wire, runtime, kernel_id)
    await other.take_over()
    with pytest.raises(grpc.aio.AioRpcError):
        await how_it_ends(other.talk.call, read=False)
    await other.take_over()
    with pytest.raises(SessionLostError, match="a later stream, opened with the same token") as lost:
        await runtime.receive(kernel_id, timeout=PATIENCE)
    assert len(lost.value.message_ids) == 2
    await other.talk.ack()
    await other.talk.heard()  # It is not taken back again.
