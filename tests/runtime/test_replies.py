"""The rules by which replies and outputs find those they belong to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest

from pydotcompute import message
from pydotcompute.exceptions import KernelStateError, PyDotComputeError, QueueFullError, QueueTimeoutError
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.callers import Caller, Unanswered
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.replies import Replies

T = TypeVar("T")


@message
@dataclass
class Note:
    """A message of any direction."""

    text: str = ""
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


def note(text: str = "", answers: UUID | None = None, priority: int = 128) -> Any:
    return Note(text, priority=priority, correlation_id=answers)


class Desk:
    """Replies with what was found undeliverable."""

    def __init__(self, capacity: int = 100, limits: RuntimeLimits = DEFAULT_LIMITS) -> None:
        self.undeliverable: list[tuple[str, str]] = []
        self.outputs: Mailbox[Any] = Mailbox("k", capacity)
        self.replies: Replies[Any] = Replies(
            "k", self.outputs, lambda m, why: self.undeliverable.append((m.text, why)), limits
        )

    def kernel_sends(self, message: Any) -> None:
        """As a kernel does."""
        if not self.replies.deliver(message):
            self.outputs.put_nowait(message, message.priority)
            self.replies.wanted.notify()

    def send(self) -> UUID:
        """A request of the current task."""
        request = uuid4()
        self.replies.expect(request, self.replies.callers.running())
        return request

    async def receive(self, timeout: float | None = 0) -> str:
        """The text of what the current task receives."""
        message = await self.replies.receive(self.replies.callers.receiving(), timeout)
        assert isinstance(message, Note)
        return message.text


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def as_task(awaitable: Awaitable[T]) -> T:
    """Run something in a task of its own."""
    return await asyncio.ensure_future(awaitable)


class Person:
    """A task that does one thing after another, as it is told."""

    def __init__(self) -> None:
        self._orders: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        # In a context of its own, so that it receives on nobody's behalf.
        self.task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def _run(self) -> None:
        while True:
            order, outcome = await self._orders.get()
            if order is None:
                return
            try:
                result = order()
                outcome.set_result(await result if asyncio.iscoroutine(result) else result)
            except Exception as error:
                outcome.set_exception(error)

    async def does(self, order: Any) -> Any:
        """Do this in the person's task."""
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._orders.put_nowait((order, outcome))
        return await outcome

    async def leaves(self) -> None:
        """End the task."""
        self._orders.put_nowait((None, asyncio.get_running_loop().create_future()))
        await self.task
        await asyncio.sleep(0)  # Its callbacks.


@pytest.fixture
async def people() -> AsyncIterator[list[Person]]:
    everyone = [Person() for _ in range(3)]
    yield everyone
    for person in everyone:
        if not person.task.done():
            await person.leaves()


# -- tasks -------------------------------------------------------------------------------------------------------------


async def test_a_reply_goes_to_the_task_that_sent_the_request(desk: Desk, people: list[Person]) -> None:
    requests = [await person.does(desk.send) for person in people]
    for index in (2, 0, 1):
        desk.kernel_sends(note(f"for {index}", requests[index]))
    assert [await person.does(desk.receive) for person in people] == ["for 0", "for 1", "for 2"]
    assert not desk.undeliverable


async def test_a_task_that_waits_is_woken_by_its_own_reply_alone(desk: Desk, people: list[Person]) -> None:
    first, second, _ = people
    await first.does(desk.send)
    request = await second.does(desk.send)
    waiting = asyncio.ensure_future(first.does(lambda: desk.receive(None)))
    await asyncio.sleep(0)
    desk.kernel_sends(note("for the second", request))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert await second.does(desk.receive) == "for the second"
    desk.kernel_sends(note("an output"))
    assert await waiting == "an output"


async def test_tasks_started_by_the_sender_receive_on_its_behalf(desk: Desk) -> None:
    request = desk.send()
    desk.kernel_sends(note("mine", request))
    assert await as_task(desk.receive()) == "mine"


async def test_a_task_started_by_the_sender_is_a_caller_of_its_own_once_it_sends(desk: Desk) -> None:
    request = desk.send()

    async def sends_itself() -> str:
        own = desk.send()
        desk.kernel_sends(note("the parent's", request))
        desk.kernel_sends(note("the child's", own))
        return await desk.receive()

    assert await as_task(sends_itself()) == "the child's"
    assert await desk.receive() == "the parent's"


async def test_a_task_that_never_sent_takes_replies_of_one_that_never_received(
    desk: Desk, people: list[Person]
) -> None:
    sender, receiver, _ = people
    for number in range(3):
        desk.kernel_sends(note(f"{number}", await sender.does(desk.send)))
    assert [await receiver.does(desk.receive) for _ in range(3)] == ["0", "1", "2"]
    waiting = asyncio.ensure_future(receiver.does(lambda: desk.receive(1)))
    await asyncio.sleep(0)
    desk.kernel_sends(note("3", await sender.does(desk.send)))
    assert await waiting == "3"


async def test_nobody_takes_replies_of_one_who_has_ever_received(desk: Desk, people: list[Person]) -> None:
    sender, receiver, _ = people
    with pytest.raises(QueueTimeoutError):
        await sender.does(desk.receive)
    request = await sender.does(desk.send)
    with pytest.raises(QueueTimeoutError):
        await sender.does(desk.receive)
    desk.kernel_sends(note("mine", request))
    with pytest.raises(QueueTimeoutError):
        await receiver.does(desk.receive)
    assert await sender.does(desk.receive) == "mine"


async def test_one_with_an_unanswered_request_takes_no_replies_of_others(desk: Desk, people: list[Person]) -> None:
    sender, busy, _ = people
    own = await busy.does(desk.send)
    desk.kernel_sends(note("another's", await sender.does(desk.send)))
    with pytest.raises(QueueTimeoutError):
        await busy.does(desk.receive)
    desk.kernel_sends(note("own", own))
    assert await busy.does(desk.receive) == "own"
    assert await busy.does(desk.receive) == "another's", "now it has none any more"


async def test_replies_to_a_task_that_has_ended_are_outputs(desk: Desk, people: list[Person]) -> None:
    sender, receiver, _ = people
    early, late = await sender.does(desk.send), await sender.does(desk.send)
    desk.kernel_sends(note("early", early))
    await sender.leaves()
    desk.kernel_sends(note("late", late))
    assert [await receiver.does(desk.receive) for _ in range(2)] == ["early", "late"]
    assert not desk.undeliverable


async def test_the_end_of_a_task_wakes_those_who_can_have_its_replies(desk: Desk, people: list[Person]) -> None:
    sender, receiver, _ = people
    request = await sender.does(desk.send)
    with pytest.raises(QueueTimeoutError):
        await sender.does(desk.receive)  # So that its replies are its own.
    waiting = asyncio.ensure_future(receiver.does(lambda: desk.receive(1)))
    await asyncio.sleep(0)
    desk.kernel_sends(note("inherited", request))
    await sender.leaves()
    assert await waiting == "inherited"


async def test_many_who_only_receive_get_everything_once(desk: Desk) -> None:
    total = 300
    sent: list[UUID] = []

    async def produce() -> None:
        for _ in range(total // 3):
            sent.append(desk.send())
            await asyncio.sleep(0)

    async def answer() -> None:
        done = 0
        while done < total:
            while sent:
                desk.kernel_sends(note(str(done), sent.pop()))
                done += 1
            await asyncio.sleep(0)

    async def consume() -> list[str]:
        got: list[str] = []
        while True:
            try:
                got.append(await desk.receive(0.05))
            except QueueTimeoutError:
                return got

    consumers = [asyncio.create_task(consume()) for _ in range(5)]
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(produce())
        group.create_task(answer())
    received = [text for consumer in consumers for text in await consumer]
    assert sorted(received, key=int) == [str(number) for number in range(total)]


# -- order and outputs -------------------------------------------------------------------------------------------------


async def test_what_waits_for_one_caller_is_received_by_priority(desk: Desk) -> None:
    for text, priority in (("low", 1), ("first high", 200), ("second high", 200)):
        desk.kernel_sends(note(text, desk.send(), priority))
    assert [await desk.receive() for _ in range(3)] == ["first high", "second high", "low"]


async def test_an_output_is_received_once_by_whoever_is_first(desk: Desk, people: list[Person]) -> None:
    desk.kernel_sends(note("one"))
    assert await people[1].does(desk.receive) == "one"
    with pytest.raises(QueueTimeoutError):
        await people[2].does(desk.receive)


async def test_outputs_wake_as_many_as_there_are(desk: Desk, people: list[Person]) -> None:
    waiting = [asyncio.ensure_future(person.does(lambda: desk.receive(1))) for person in people]
    for _ in range(3):
        await asyncio.sleep(0)
    for number in range(3):
        desk.kernel_sends(note(str(number)))
    assert sorted(await asyncio.gather(*waiting)) == ["0", "1", "2"]


async def test_a_receive_that_is_cancelled_as_it_is_woken_leaves_the_output_to_another(desk: Desk) -> None:
    first, second = asyncio.create_task(desk.receive(1)), asyncio.create_task(desk.receive(1))
    await asyncio.sleep(0)
    desk.kernel_sends(note("one"))
    first.cancel()
    assert await second == "one"


async def test_a_message_given_back_is_the_next_again(desk: Desk) -> None:
    for text in ("a", "b"):
        desk.kernel_sends(note(text))
    taken = await desk.replies.receive(None, 0)
    desk.replies.give_back(taken)
    assert [await desk.receive() for _ in range(2)] == ["a", "b"]


async def test_the_number_of_those_who_receive_is_told(desk: Desk) -> None:
    told: list[int] = []
    desk.replies.on_receiving = lambda: told.append(desk.replies.receiving)
    waiting = [asyncio.create_task(desk.receive(1)) for _ in range(2)]
    await asyncio.sleep(0)
    assert told == [1, 2]
    desk.kernel_sends(note("one"))
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert told[-1] == 0


# -- echoes and second replies -----------------------------------------------------------------------------------------


async def test_a_request_sent_back_is_a_reply(desk: Desk) -> None:
    request = note("echo")
    desk.replies.expect(request.message_id, desk.replies.callers.running())
    desk.kernel_sends(request)
    assert await desk.receive() == "echo"
    assert len(desk.outputs) == 0


async def test_a_request_that_answers_another_is_a_reply_when_it_is_sent_back(desk: Desk) -> None:
    caller: Caller[Any] = Caller(private=True)
    request = note("echo", answers=uuid4())
    desk.replies.expect(request.message_id, caller)
    desk.kernel_sends(request)
    assert caller.take() is request


async def test_a_second_reply_finds_the_caller_of_the_first(desk: Desk) -> None:
    request = desk.send()
    for text in ("first", "second", "third"):
        desk.kernel_sends(note(text, request))
    assert [await desk.receive() for _ in range(3)] == ["first", "second", "third"]


async def test_second_replies_to_one_who_does_not_receive_are_bounded() -> None:
    desk = Desk(capacity=3)
    request = desk.send()
    for number in range(5):
        desk.kernel_sends(note(str(number), request))
    assert [text for text, _ in desk.undeliverable] == ["3", "4"]
    assert [await desk.receive() for _ in range(3)] == ["0", "1", "2"]


# -- one request, one reply --------------------------------------------------------------------------------------------


async def reply_to(desk: Desk, request: UUID, timeout: float | None, deadline: float | None) -> Any:
    reply = desk.replies.ask(request)
    assert reply is not None
    return await desk.replies.reply_to(request, reply, timeout, deadline)


async def test_who_asks_gets_the_reply_past_everything_else_that_waits(desk: Desk) -> None:
    other, request = desk.send(), uuid4()
    desk.kernel_sends(note("another", other))
    desk.kernel_sends(note("an output"))
    asked = asyncio.create_task(reply_to(desk, request, None, None))
    await asyncio.sleep(0)
    desk.kernel_sends(note("the reply", request))
    assert (await asked).text == "the reply"
    assert [await desk.receive() for _ in range(2)] == ["another", "an output"]


async def ask(desk: Desk, request: UUID, timeout: float | None = None) -> Any:
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    return await reply_to(desk, request, timeout, deadline)


async def test_a_reply_after_the_time_out_is_undeliverable(desk: Desk) -> None:
    request = uuid4()
    with pytest.raises(QueueTimeoutError) as late:
        await ask(desk, request, 0.01)
    assert late.value == QueueTimeoutError("k", 0.01, "send_and_receive")
    desk.kernel_sends(note("late", request))
    assert [text for text, _ in desk.undeliverable] == ["late"]
    assert len(desk.outputs) == 0


async def test_a_reply_after_a_cancellation_is_undeliverable(desk: Desk) -> None:
    request = uuid4()
    asked = asyncio.create_task(ask(desk, request))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    desk.kernel_sends(note("late", request))
    assert [text for text, _ in desk.undeliverable] == ["late"]


async def test_a_reply_in_the_moment_of_the_cancellation_is_undeliverable(desk: Desk) -> None:
    request = uuid4()
    asked = asyncio.create_task(ask(desk, request))
    await asyncio.sleep(0)
    asked.cancel()
    desk.kernel_sends(note("crossed", request))
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert [text for text, _ in desk.undeliverable] == ["crossed"]
    assert len(desk.outputs) == 0


async def test_a_reply_that_has_arrived_when_its_caller_is_cancelled_is_undeliverable(desk: Desk) -> None:
    request = uuid4()
    asked = asyncio.create_task(ask(desk, request))
    await asyncio.sleep(0)
    desk.kernel_sends(note("crossed", request))
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert [text for text, _ in desk.undeliverable] == ["crossed"]


async def test_a_second_reply_to_one_who_asked_is_undeliverable(desk: Desk) -> None:
    request = uuid4()
    asked = asyncio.create_task(ask(desk, request))
    await asyncio.sleep(0)
    desk.kernel_sends(note("first", request))
    desk.kernel_sends(note("second", request))
    assert (await asked).text == "first"
    assert [text for text, _ in desk.undeliverable] == ["second"]
    assert len(desk.outputs) == 0


# -- private callers: the daemon's clients -----------------------------------------------------------------------------


async def test_a_private_callers_replies_are_its_own_even_if_it_never_receives(desk: Desk) -> None:
    caller: Caller[Any] = Caller(private=True)
    request = uuid4()
    desk.replies.expect(request, caller)
    desk.kernel_sends(note("private", request))
    with pytest.raises(QueueTimeoutError):
        await desk.receive()
    taken = caller.take()
    assert isinstance(taken, Note)
    assert taken.text == "private"


async def test_replies_to_a_private_caller_that_is_gone_are_undeliverable(desk: Desk) -> None:
    caller: Caller[Any] = Caller(private=True)
    request = uuid4()
    desk.replies.expect(request, caller)
    caller.gone = True
    desk.kernel_sends(note("late", request))
    assert [text for text, _ in desk.undeliverable] == ["late"]
    assert len(desk.outputs) == 0


async def test_taking_a_reply_makes_room_for_one_who_waits_to_send(desk: Desk) -> None:
    caller: Caller[Any] = Caller(private=True)
    request = uuid4()
    desk.replies.expect(request, caller)
    desk.kernel_sends(note("one", request))
    waiting = asyncio.create_task(caller.room.wait(1))
    await asyncio.sleep(0)
    caller.take()
    assert await waiting


# -- requests without a reply ------------------------------------------------------------------------------------------

FULL = QueueFullError("k", 4)


async def test_the_sender_of_a_failed_request_is_told_where_it_receives(desk: Desk) -> None:
    failed, answered = desk.send(), desk.send()
    desk.kernel_sends(note("reply", answered))
    desk.replies.fail(failed, FULL)
    assert await desk.receive() == "reply"
    with pytest.raises(QueueFullError) as told:
        await desk.receive()
    assert told.value == FULL


async def test_who_asked_is_told_of_the_failure(desk: Desk) -> None:
    request = uuid4()
    asked = asyncio.create_task(ask(desk, request))
    await asyncio.sleep(0)
    desk.replies.fail(request, FULL)
    with pytest.raises(QueueFullError):
        await asked


async def test_a_private_caller_finds_out_which_request_failed(desk: Desk) -> None:
    caller: Caller[Any] = Caller(private=True)
    request = uuid4()
    desk.replies.expect(request, caller)
    desk.replies.fail(request, FULL)
    assert caller.take() == Unanswered(request, FULL)


async def test_a_request_that_waits_is_taken_until_it_is_answered(desk: Desk) -> None:
    caller: Caller[Any] = Caller(private=True)
    request = uuid4()
    assert not desk.replies.is_taken(request)
    desk.replies.expect(request, caller)
    assert desk.replies.is_taken(request)
    assert not desk.replies.is_taken(request, caller), "its own caller may send it again"
    desk.kernel_sends(note("reply", request))
    assert not desk.replies.is_taken(request)
    asked = asyncio.create_task(ask(desk, request))
    await asyncio.sleep(0)
    assert desk.replies.is_taken(request, caller)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)


async def test_the_oldest_of_very_many_unanswered_requests_are_forgotten() -> None:
    desk = Desk(limits=RuntimeLimits(requests=10, requests_forgotten=5))
    caller: Caller[Any] = Caller(private=True)
    requests = [uuid4() for _ in range(100)]
    for request in requests:
        desk.replies.expect(request, caller)
    assert 10 <= caller.unanswered <= 15
    desk.kernel_sends(note("newest", requests[-1]))
    desk.kernel_sends(note("oldest", requests[0]))
    newest = caller.take()
    assert isinstance(newest, Note)
    assert newest.text == "newest"
    assert caller.take() is None
    assert await desk.receive() == "oldest", "its caller is not known any more"


async def test_a_principal_with_very_many_requests_makes_the_kernel_forget_its_own() -> None:
    desk = Desk(limits=RuntimeLimits(requests=20, requests_forgotten=5))
    alice: Caller[Any] = Caller(private=True, principal="alice")
    requests = [uuid4() for _ in range(9)]  # More than any one of Bob's callers has.
    for request in requests:
        desk.replies.expect(request, alice)
    for _ in range(20):
        bob: Caller[Any] = Caller(private=True, principal="bob")
        for _ in range(5):
            desk.replies.expect(uuid4(), bob)
    assert alice.unanswered == len(requests)
    for request in requests:
        desk.kernel_sends(note("hers", request))
    assert len(alice.take_many(100)) == len(requests)


async def test_a_principal_with_very_many_answers_makes_the_kernel_forget_its_own() -> None:
    desk = Desk(limits=RuntimeLimits(answers=10))
    alice: Caller[Any] = Caller(private=True, principal="alice")
    bob: Caller[Any] = Caller(private=True, principal="bob")
    first = uuid4()
    desk.replies.expect(first, alice)
    desk.kernel_sends(note("first", first))
    for _ in range(100):
        request = uuid4()
        desk.replies.expect(request, bob)
        desk.kernel_sends(note("", request))
    desk.kernel_sends(note("further", first))  # It is a reply to her, and no output for anybody.
    assert [each.text for each in alice.take_many(10) if isinstance(each, Note)] == ["first", "further"]
    assert len(desk.replies._answered) + len(desk.replies._answered_before) <= 30


async def test_very_many_answers_are_not_remembered_for_ever() -> None:
    desk = Desk(limits=RuntimeLimits(answers=10))
    caller: Caller[Any] = Caller(private=True)
    for _ in range(100):
        request = uuid4()
        desk.replies.expect(request, caller)
        desk.kernel_sends(note("", request))
    assert len(desk.replies._answered) + len(desk.replies._answered_before) <= 20
    for _ in range(100):
        request = uuid4()
        asked = asyncio.create_task(ask(desk, request))
        await asyncio.sleep(0)
        desk.kernel_sends(note("", request))
        await asked
    assert len(desk.replies._answered) + len(desk.replies._answered_before) <= 20


# -- the end -----------------------------------------------------------------------------------------------------------

ENDED = KernelStateError("k", "TERMINATED", "handle messages")


async def test_at_the_end_everyone_who_waits_is_told(desk: Desk, people: list[Person]) -> None:
    asked = asyncio.create_task(ask(desk, uuid4()))
    waiting: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(person.does(lambda: desk.receive(None))) for person in people
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    desk.replies.end(ENDED)
    outcomes: list[Any] = await asyncio.gather(asked, *waiting, return_exceptions=True)
    assert outcomes == [ENDED] * 4


async def test_after_the_end_what_was_sent_before_can_be_received(desk: Desk) -> None:
    desk.kernel_sends(note("reply", desk.send()))
    desk.kernel_sends(note("output"))
    desk.replies.end(ENDED)
    assert [await desk.receive(None) for _ in range(2)] == ["reply", "output"]
    with pytest.raises(PyDotComputeError) as ended:
        await desk.receive(None)
    assert ended.value == ENDED


async def test_callers_count_their_unanswered_requests(desk: Desk) -> None:
    caller = desk.replies.callers.running()
    requests = [desk.send() for _ in range(4)]
    assert caller.unanswered == 4
    desk.kernel_sends(note("a", requests[0]))
    desk.kernel_sends(note("a second reply", requests[0]))
    desk.replies.fail(requests[1], FULL)
    desk.replies.forget(requests[2])
    assert caller.unanswered == 1
    desk.replies.expect(requests[3], caller)
    assert caller.unanswered == 1
