"""Starts an actor again after it has ended: the same for one that runs in this process, and for one in a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol, cast

from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.actor.failures import count_failure, failure_of
from pydotcompute.ring_kernels.actor.runner import WorkerLostError
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.mail import Mail
from pydotcompute.ring_kernels.supervision import Restarts, Supervision

__all__ = ["Supervised", "Supervisor"]

logger = logging.getLogger(__name__)


class Supervised(Protocol):
    """An actor that can be started again and again."""

    @property
    def completed(self) -> int:
        """The messages that the actor has done. It only grows."""

    @property
    def is_leaving(self) -> bool:
        """True if the actor was told to end while the kernel goes on. Then the actor is not started again."""

    @property
    def is_only(self) -> bool:
        """True if no other actor has messages of the kernel."""

    async def run_once(self) -> None:
        """Start the actor, unless it is started already, and run it until it returns.

        Raises:
            BaseException: whatever the actor raises.
        """

    def can_restart(self, error: BaseException) -> bool:
        """Return True if this is a failure of the actor, after which it can be started again."""

    def take_in_hand(self) -> Sequence[Item[Any]]:
        """Remove and return what the actor had in hand when it ended. What is ahead of it goes back to the mailbox."""

    def complete_all(self) -> None:
        """Complete what the actor had in hand when it returned."""

    async def stop(self) -> None:
        """Free what the actor that has ended had. There is none until it is started again: see `Gate.has_actor`."""


class Supervisor:
    """Runs actors of one kernel, and starts each again where the kernel says so.

    Args:
        mail: the kernel's mail.
        supervision: what the kernel says.
        limits: the limits of the runtime.
    """

    def __init__(self, mail: Mail[Any, Any], supervision: Supervision, limits: RuntimeLimits) -> None:
        self._mail, self._gate = mail, mail.gate
        self._supervision, self._limits = supervision, limits

    async def run(self, actor: Supervised) -> None:
        """Run an actor until it returns, or has failed for good.

        Raises:
            BaseException: the last failure.
        """
        gate, counters, supervision = self._gate, self._mail.counters, self._supervision
        restarts = Restarts.of(supervision, self._limits)
        while True:
            completed = actor.completed
            try:
                await actor.run_once()
            except BaseException as error:
                pause = None
                if actor.is_leaving and actor.can_restart(error):  # It would have ended anyway.
                    self.settle(actor, error, goes_on=True)
                    return
                if self._may_restart(actor, error):
                    pause = restarts.next_pause(has_progressed=actor.completed > completed)
                redelivered = self.settle(actor, error, goes_on=pause is not None)
                if pause is None:
                    raise
                self._log(error, pause, redelivered)
            else:
                if supervision.restart != "always" or gate.should_terminate or actor.is_leaving:
                    return
                actor.complete_all()
                pause = restarts.pause_after_return(has_progressed=actor.completed > completed)
            await actor.stop()
            if gate.should_terminate or await gate.closing.wait(pause):
                return
            counters.restarts += 1

    def _may_restart(self, actor: Supervised, error: BaseException) -> bool:
        if self._gate.should_terminate or self._supervision.restart == "never" or actor.is_leaving:
            return False
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            return False
        return actor.can_restart(error)

    def settle(self, actor: Supervised, error: BaseException, *, goes_on: bool) -> int:
        """Decide what becomes of what the actor had in hand: it is given again, or buried, and the callers are told.

        If the kernel fails of an exception of its actor, the kernel does that itself.

        Returns:
            The number of messages that are given again.
        """
        was_lost = isinstance(error, WorkerLostError)
        if not (was_lost or goes_on):
            return 0
        mail = self._mail
        # If the actor has failed for good, the kernel counts that.
        failure = count_failure(mail, error) if goes_on else failure_of(mail.kernel_id, error)
        reason = DeadLetterReason.WORKER_LOST if was_lost else DeadLetterReason.KERNEL_ENDED
        if was_lost:
            mail.counters.last_crash = f"{failure.cause_type}: {failure.cause_message}"
        again = []
        for item in actor.take_in_hand():
            message, _, terms = item
            deliveries = 1 if terms is None else 1 + terms.deliveries
            if goes_on and self._supervision.gives_again(deliveries):
                again.append(item)
                continue
            times = f"; the actor had it {deliveries} times" if deliveries > 1 else ""
            mail.bury(message, f"{failure}{times}", reason)
            mail.replies.fail(cast(Header, message).message_id, failure)
        for item in reversed(again):
            mail.give_again(item)
        mail.counters.redelivered += len(again)
        if goes_on and actor.is_only:
            mail.fail_held(failure)
        return len(again)

    def _log(self, error: BaseException, pause: float, redelivered: int) -> None:
        failure = failure_of(self._mail.kernel_id, error)
        logger.error(
            "%s: %s; the actor is started again",
            failure.cause_type,
            failure.cause_message,
            exc_info=error,
            extra={
                "kernel_id": self._mail.kernel_id,
                "pause_seconds": round(pause, 3),
                "redelivered": redelivered,
            },
        )
