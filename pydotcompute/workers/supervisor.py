"""Runs the instances of a kernel, and starts their workers again where the kernel says so."""

from __future__ import annotations

import logging
from typing import Any

from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels.actor.runner import ActorError
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.workers.instance import LONGEST_PAUSE, Instance, Restarts, WorkerLostError
from pydotcompute.workers.instances import Instances, header_of

__all__ = ["Supervisor"]

logger = logging.getLogger(__name__)


class Supervisor:
    """Runs the instances of a kernel, and starts their workers again where the kernel says so.

    Args:
        kernel: the kernel.
        instances: its instances.
    """

    def __init__(self, kernel: RingKernel[Any, Any], instances: Instances) -> None:
        self._kernel, self._mail = kernel, kernel.mail
        self._instances = instances
        self._ending = Signal()  # The kernel was asked to end.
        self._is_ending = False

    def end(self) -> None:
        """Ask the actors to end. None is started again."""
        self._is_ending = True
        self._ending.notify_all()
        for instance in self._instances.members:
            if instance.is_ready:
                instance.tell("end")

    async def run(self, instance: Instance) -> None:
        """Run one instance until its actor returns. Start its worker again where the kernel says so."""
        limits, restart = self._kernel.limits, self._kernel.type.restart
        restarts = Restarts(limits.worker_restarts, limits.worker_restart_window)
        while True:
            try:
                await self._serve(instance)
                if restart != "always" or self._is_ending:
                    return
                self._instances.settle(instance)
                next_pause = restarts.next_pause()
                pause = LONGEST_PAUSE if next_pause is None else next_pause
            except ActorError as error:
                goes_on = restart != "never" and not self._is_ending
                next_pause = restarts.next_pause() if goes_on else None
                self._tell_lost(instance, error, goes_on=next_pause is not None)
                if next_pause is None:
                    raise
                pause = next_pause
                self._log_restart(error, pause)
            await instance.stop()
            if self._is_ending or await self._ending.wait(pause):
                return

    async def _serve(self, instance: Instance) -> None:
        if instance.process is None:
            await instance.start()
        if self._instances.is_active:
            instance.tell("resume")
        if self._is_ending:
            instance.tell("end")
        self._instances.changed.notify_all()
        await instance.serve()

    def _tell_lost(self, instance: Instance, error: ActorError, *, goes_on: bool) -> None:
        """Take back what a worker had. Bury what its actor had in hand, and tell the callers of that.

        If the kernel fails of an exception of its actor, it does that itself, as for an actor that runs here.
        """
        was_lost = isinstance(error, WorkerLostError)
        if not (was_lost or goes_on):
            return
        if goes_on:
            failure = self._kernel.failure_of(error)
        else:  # The kernel counts it.
            failure = KernelFailedError(self._kernel.kernel_id, error.cause_type, str(error))
        reason = DeadLetterReason.WORKER_LOST if was_lost else DeadLetterReason.KERNEL_ENDED
        for entry in self._instances.settle(instance):
            self._mail.bury(entry.item[0], str(failure), reason)
            self._mail.replies.fail(header_of(entry).message_id, failure)

    def _log_restart(self, error: ActorError, pause: float) -> None:
        logger.error(
            "%s: %s; it is started again",
            error.cause_type,
            error,
            exc_info=error,
            extra={"kernel_id": self._kernel.kernel_id, "pause_seconds": round(pause, 3)},
        )
