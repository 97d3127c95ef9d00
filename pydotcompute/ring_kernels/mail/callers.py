"""Who is a caller, and on whose behalf a task sends and receives.

A *caller* is whoever sends requests and wants the replies: in-process a task, in the daemon one client's conversation.
The rules for tasks, which also hold in a client process, where many tasks share one conversation:

* A reply goes to the task that sent the request: the one that called `send`, wherever the coroutine then runs (so
  `asyncio.gather(*(runtime.send(…) for …))` sends for the task that gathers). Tasks which that task starts after its
  first `send` receive on its behalf, until they send themselves.
* A task that has no unanswered request of its own may also take replies to tasks that have sent and never received: so
  one task can send while another receives.
* When a task ends, the replies to it that nobody has received are outputs.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.mail.priority_queue import PriorityQueue
from pydotcompute.ring_kernels.mail.signals import Signal

__all__ = ["Caller", "TaskCallers", "Unanswered", "current_task_or_none", "receive_for_oneself"]

T = TypeVar("T", bound=Header)


@dataclass(frozen=True)
class Unanswered:
    """Stands where the reply to a request would: there will be none."""

    message_id: UUID
    error: PyDotComputeError


class Caller(Generic[T]):
    """One who sends requests to one kernel, and the replies that wait for it."""

    __slots__ = ("arrived", "claims", "cut_off", "gone", "most", "private", "ready", "room", "unanswered")

    def __init__(self, *, private: bool = False, arrived: Signal | None = None, most: int | None = None) -> None:
        self.private = private
        """Whether nobody else gets its replies, not even when it is gone."""
        self.ready: PriorityQueue[T | Unanswered] = PriorityQueue()
        """What has arrived for it and was not taken yet."""
        self.arrived = Signal() if arrived is None else arrived
        """Notified when `ready` gets something."""
        self.room = Signal()
        """Notified when something of `ready` is taken."""
        self.unanswered = 0
        self.claims = private
        """Whether it has ever received: then nobody else takes its replies."""
        self.gone = False
        """Whether nobody will ever receive for it again."""
        self.most = most
        """How many replies may wait for it and a further reply still find room; None: as the output mailbox holds.
        Where it is set, the first that finds none is the last: `cut_off` tells of it.
        """
        self.cut_off: int | None = None
        """Of which request, by its `message_id.int`, a further reply found no room."""

    def take(self) -> T | Unanswered | None:
        """The next of `ready`, None if there is none."""
        ready = self.ready
        if not ready.size:
            return None
        item = ready.top.popleft()
        ready.size -= 1
        if ready.others and not ready.top:
            ready.find_top()
        if self.room.waiters:
            self.room.notify()
        return item

    def take_many(self, most: int) -> list[T | Unanswered]:
        """The next of `ready`, up to so many."""
        ready = self.ready
        if most <= 0 or not ready.size:
            return []
        items = ready.pop_all() if ready.size <= most else [ready.pop() for _ in range(most)]
        self.room.notify_all()
        return items


def receive_for_oneself() -> None:
    """From now on the current task, and those it starts, receive on behalf of no task that started them."""
    _sending_task.set(None)


_sending_task: ContextVar[asyncio.Task[Any] | None] = ContextVar("pydotcompute_sending_task", default=None)


def current_task_or_none() -> asyncio.Task[Any] | None:
    """The current task; None where no event loop runs, as when a coroutine is made to be run later."""
    try:
        return current_task()
    except RuntimeError:
        return None


class TaskCallers(Generic[T]):
    """The tasks that have sent to one kernel, as callers."""

    __slots__ = ("_on_end", "_tasks", "loop")

    def __init__(self, on_end: Callable[[Caller[T]], None]) -> None:
        """`on_end(caller)` is told of each task that has ended."""
        self._tasks: dict[asyncio.Task[Any], Caller[T]] = {}
        self._on_end = on_end
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of all callers, once it is known."""

    def sending(self, task: asyncio.Task[Any] | None = None) -> Caller[T] | None:
        """Return a task (the current one, if none is named) as a caller that sends. None if no task runs."""
        # With the loop named, `current_task` need not look for it, which (before Python 3.12) asks the operating
        # system.
        task = task or current_task(self.loop)
        if task is None:
            return None
        caller = self._tasks.get(task)
        return self.running(task) if caller is None or _sending_task.get() is not task else caller

    def running(self, task: asyncio.Task[Any] | None = None) -> Caller[T]:
        """As `sending`, where there is a current task."""
        task = task or current_task()
        assert task is not None
        caller = self._tasks.get(task)
        if caller is None:
            caller = self._tasks[task] = Caller()
            task.add_done_callback(self._task_ended)
        _sending_task.set(task)
        return caller

    def receiving(self, task: asyncio.Task[Any] | None = None) -> Caller[T] | None:
        """Return a task (the current one, if none is named), or the one on whose behalf it receives, as a caller that
        receives; None if that task has sent nothing.
        """
        if task is not None and (caller := self._tasks.get(task)) is not None:
            return caller
        sending = _sending_task.get()  # The current task, if it has sent anything.
        return None if sending is None else self._tasks.get(sending)

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        caller = self._tasks.pop(task)
        caller.gone = True
        self._on_end(caller)
