"""Callers, and the rules by which a task sends and receives on behalf of a caller.

A *caller* sends requests and gets the replies. In-process a caller is a task; in the daemon it is the conversation of
one client. The rules for tasks also hold in a client process, where many tasks share one conversation:

* A reply goes to the task that called `send`, even if another task then awaits the coroutine. For example
  `asyncio.gather(*(runtime.send(…) for …))` sends for the task that gathers.
* A task that was started by a sender after its first `send` receives on behalf of that sender, until the task itself
  sends.
* A task that has no unanswered request of its own may also take replies of tasks that have sent and never received. So
  one task can send while another receives. Such replies are called *unclaimed*.
* When a task ends, its replies that nobody has received become outputs.
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
from pydotcompute.ring_kernels.mail.loops import require_loop
from pydotcompute.ring_kernels.mail.priority_queue import PriorityQueue
from pydotcompute.ring_kernels.mail.signals import Signal

__all__ = ["LOCAL", "Caller", "TaskCallers", "Unanswered", "current_task_or_none", "receive_for_oneself"]

T = TypeVar("T", bound=Header)

LOCAL = "local"
"""The principal of everybody in the process of the runtime. No client of a daemon has this name."""


@dataclass(frozen=True)
class Unanswered:
    """Stands in the place of a reply: there will be no reply to the request, because of `error`."""

    message_id: UUID
    error: PyDotComputeError


class Caller(Generic[T]):
    """A sender of requests to one kernel, with the replies that wait for this sender."""

    __slots__ = (
        "arrived",
        "claims",
        "cut_off",
        "failed",
        "gone",
        "most",
        "principal",
        "private",
        "ready",
        "room",
        "unanswered",
    )

    def __init__(
        self,
        *,
        private: bool = False,
        arrived: Signal | None = None,
        most: int | None = None,
        principal: str | None = LOCAL,
    ) -> None:
        self.principal = principal
        """Who sends, by name; None if nobody knows."""
        self.private = private
        """True if nobody else gets the caller's replies, not even when the caller is gone."""
        self.ready: PriorityQueue[T | Unanswered] = PriorityQueue()
        """The replies that have arrived for the caller and were not taken yet."""
        self.arrived = Signal() if arrived is None else arrived
        """Notified when `ready` gets something."""
        self.room = Signal()
        """Notified when something is taken from `ready`."""
        self.unanswered = 0
        """The number of the caller's requests that wait for their first reply."""
        self.failed = 0
        """How often an `Unanswered` has been put into `ready`."""
        self.claims = private
        """True once the caller has received: then nobody else takes its replies."""
        self.gone = False
        """True once nobody will ever receive for this caller again."""
        self.most = most
        """The most replies that may wait for the caller; None means as many as the output mailbox holds.

        The limit holds for further replies only: the second and later replies to one request. Where `most` is set, the
        caller gets no further reply at all after one has found no room; see `cut_off`.
        """
        self.cut_off: int | None = None
        """The `message_id.int` of the request whose further reply was the first to find no room; None if none was."""

    def take(self) -> T | Unanswered | None:
        """Take and return the next item of `ready`; None if there is none."""
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
        """Take and return the next items of `ready`, at most `most` of them."""
        ready = self.ready
        if most <= 0 or not ready.size:
            return []
        items = ready.pop_all() if ready.size <= most else [ready.pop() for _ in range(most)]
        self.room.notify_all()
        return items


def receive_for_oneself() -> None:
    """Let the current task, and the tasks that it starts, no longer receive on behalf of a task that started them."""
    _sending_task.set(None)


_sending_task: ContextVar[asyncio.Task[Any] | None] = ContextVar("pydotcompute_sending_task", default=None)


def current_task_or_none() -> asyncio.Task[Any] | None:
    """Return the current task; None if no event loop runs, as when a coroutine is made to be run later."""
    try:
        return current_task()
    except RuntimeError:
        return None


class TaskCallers(Generic[T]):
    """The tasks that have sent to one kernel, as callers."""

    __slots__ = ("_on_end", "_tasks", "loop")

    def __init__(self, on_end: Callable[[Caller[T]], None]) -> None:
        """Make an empty set of callers. `on_end(caller)` is called when the task of a caller ends."""
        self._tasks: dict[asyncio.Task[Any], Caller[T]] = {}
        self._on_end = on_end
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of all callers; None until it is known."""

    def sending(self, task: asyncio.Task[Any] | None = None) -> Caller[T] | None:
        """Return the caller that sends for `task`, or for the current task if none is named. None if no task runs."""
        # `current_task` is given the loop, because to find the loop it would (before Python 3.12) ask the operating
        # system.
        task = task or current_task(self.loop)
        if task is None:
            return None
        caller = self._tasks.get(task)
        return self.running(task) if caller is None or _sending_task.get() is not task else caller

    def running(self, task: asyncio.Task[Any] | None = None) -> Caller[T]:
        """Return the caller that sends, as `sending` does. There must be a current task if none is named.

        Raises:
            MisuseError: the running event loop is not that of the callers.
        """
        # `sending` need not check this: where another loop runs in this thread, the callers' loop has no current task.
        # Where it runs in another thread, there may be one, but the context of this thread has not sent for it.
        require_loop(self.loop)
        task = task or current_task()
        assert task is not None
        caller = self._tasks.get(task)
        if caller is None:
            caller = self._tasks[task] = Caller()
            task.add_done_callback(self._task_ended)
        _sending_task.set(task)
        return caller

    def receiving(self, task: asyncio.Task[Any] | None = None) -> Caller[T] | None:
        """Return the caller for which `task` receives, or the current task if none is named.

        This is the task's own caller, or that of the task on whose behalf it receives. None if that task has sent
        nothing.
        """
        if task is not None and (caller := self._tasks.get(task)) is not None:
            return caller
        sending = _sending_task.get()  # The current task, if it has sent anything.
        return None if sending is None else self._tasks.get(sending)

    @property
    def any_ready(self) -> bool:
        """True if a reply waits for any of the tasks."""
        return any(caller.ready.size for caller in self._tasks.values())

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        caller = self._tasks.pop(task)
        caller.gone = True
        self._on_end(caller)
