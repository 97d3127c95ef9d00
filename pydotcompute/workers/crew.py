"""The instances that serve one kernel, each in a task: as many as are wanted, and new ones in the place of old ones."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

from pydotcompute.exceptions import InvalidConfigurationError, KernelFailedError, LimitExceededError, PyDotComputeError
from pydotcompute.ring_kernels.actor.runner import ActorError
from pydotcompute.ring_kernels.kernel import LIVING, RingKernel
from pydotcompute.ring_kernels.mail.signals import wait_any
from pydotcompute.ring_kernels.places import COME_AGAIN
from pydotcompute.workers.instance import Instance
from pydotcompute.workers.instances import Instances
from pydotcompute.workers.supervisor import Supervisor

__all__ = ["Crew"]

logger = logging.getLogger(__name__)


class Crew:
    """The instances that serve one kernel.

    An instance that is to go is told to end: it finishes what its actor has in hand, and what is ahead of the actor
    comes back into the mailbox for the others. It stays in `Instances.members` until its process is gone.

    Args:
        kernel: the kernel.
        instances: its instances, which the crew changes.
        supervisor: runs each of them.
        make: makes the instance of a number, without its worker.
    """

    def __init__(
        self,
        kernel: RingKernel[Any, Any],
        instances: Instances,
        supervisor: Supervisor,
        make: Callable[[int], Instance],
    ) -> None:
        self._kernel, self._gate = kernel, kernel.gate
        self._instances, self._supervisor, self._make = instances, supervisor, make
        self._starting: list[Instance] = []  # Their workers are started, and they are no members yet.
        self._serving: dict[Instance, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()  # One change after the other.
        self._renewals: set[asyncio.Task[PyDotComputeError | None]] = set()
        self._group: asyncio.TaskGroup

    @property
    def everyone(self) -> list[Instance]:
        """All instances that may have a process."""
        return [*self._instances.members, *self._starting]

    @property
    def staying(self) -> list[Instance]:
        """The instances that serve the kernel, without those that were told to end or whose actors have returned."""
        return [each for each in self._instances.members if not (each.is_leaving or self._has_ended(each))]

    def _has_ended(self, instance: Instance) -> bool:
        task = self._serving.get(instance)
        return task is not None and task.done()

    @property
    def _free_number(self) -> int:
        """The lowest number that no instance has. So a new instance gets the device of the one that it stands for."""
        taken = {each.number for each in self.everyone}
        return next(number for number in itertools.count() if number not in taken)

    def join(self, count: int) -> None:
        """Let the kernel begin with so many instances.

        Raises:
            LimitExceededError: there are more than `max_instances`.
        """
        most = self._kernel.limits.max_instances
        if count > most:
            raise LimitExceededError("max_instances", most, count)
        self._instances.members += [self._make(number) for number in range(count)]
        self._share()

    def _share(self) -> None:
        """Tell each instance how many there are."""
        staying = self.staying
        for instance in staying:
            instance.share(len(staying))

    # -- serving -------------------------------------------------------------------------------------------------------

    async def serve(self, group: asyncio.TaskGroup) -> None:
        """Run all instances, also those that come later, until their actors have returned.

        Args:
            group: the instances run in tasks of this group. If one fails for good, so does the group.
        """
        self._group = group
        for instance in self._instances.members:
            self._serve(instance)
        while tasks := [task for task in (*self._serving.values(), *self._renewals) if not task.done()]:
            await asyncio.wait(tasks)

    def end(self) -> None:
        """Change nothing any more, because the kernel was asked to end."""
        for renewal in self._renewals:
            renewal.cancel()

    def _serve(self, instance: Instance) -> asyncio.Task[None]:
        task = self._serving[instance] = self._group.create_task(self._run(instance))
        task.add_done_callback(lambda _: self._instances.changed.notify_all())
        return task

    async def _run(self, instance: Instance) -> None:
        try:
            await self._supervisor.run(instance)
        except asyncio.CancelledError:
            if not instance.is_leaving:
                raise
        if instance.is_leaving:
            self._supervisor.dismiss(instance)
            await instance.stop()
            self._instances.members.remove(instance)
            del self._serving[instance]

    def _let_go(self, instance: Instance) -> asyncio.Task[None]:
        """Tell an instance to end, and return the task that does when it has."""
        task = self._serving[instance]
        if not instance.is_ready:  # It has nothing in hand.
            task.cancel()
        instance.leave()
        return task

    # -- how many ------------------------------------------------------------------------------------------------------

    async def scale(self, count: int) -> None:
        """See `RingKernel.scale`."""
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InvalidConfigurationError("instances", count, "must be a whole number of at least 1")
        most = self._kernel.limits.max_instances
        if count > most:
            raise LimitExceededError("max_instances", most, count)
        async with self._changing:
            self._gate.require("scale", *LIVING)
            staying = self.staying
            if (missing := count - len(staying)) > 0:
                there_would_be = len(self._instances.members) + missing
                if there_would_be > most:  # Some have not finished yet.
                    raise LimitExceededError("max_instances", most, there_would_be, COME_AGAIN)
                await self._grow(missing, count)
            for instance in staying[count:]:
                self._let_go(instance)
            self._share()
            for instance in staying[:count]:
                if missing > 0:
                    instance.call_back()  # What is ahead of it is for all now.
            self._instances.changed.notify_all()

    async def _grow(self, missing: int, count: int) -> None:
        """Add instances: all of them or, if one cannot be started, none."""
        new = self._starting = []
        for _ in range(missing):
            new.append(self._make(self._free_number))
        try:
            try:
                async with asyncio.TaskGroup() as group:
                    for instance in new:
                        instance.share(count)
                        group.create_task(instance.start())
            except BaseExceptionGroup as errors:
                self._gate.require("scale", *LIVING)  # If the kernel has ended meanwhile, its end is the reason.
                raise self._told(errors.exceptions[0]) from errors.exceptions[0]
            self._gate.require("scale", *LIVING)
        except BaseException:
            for instance in new:
                instance.kill()
            await asyncio.gather(*(instance.stop() for instance in new))
            raise
        finally:
            self._starting = []
        self._instances.members += new
        for instance in new:
            self._serve(instance)

    def _told(self, error: BaseException) -> BaseException:
        if isinstance(error, ActorError):
            return KernelFailedError(self._kernel.kernel_id, error.cause_type, str(error))
        return error

    # -- anew ----------------------------------------------------------------------------------------------------------

    async def restart(self, timeout: float) -> None:
        """See `RingKernel.restart`."""
        renewal = self._group.create_task(self._renew_all(timeout))
        self._renewals.add(renewal)
        renewal.add_done_callback(self._renewals.discard)
        await asyncio.wait((renewal,))  # If the caller goes, this goes on.
        if not renewal.cancelled():
            error = renewal.result()
        else:
            while not self._gate.should_terminate:
                await self._gate.changed.wait()
            error = self._gate.failure or self._gate.error("restart", *LIVING)
        if error is not None:
            raise error.again()

    async def _renew_all(self, timeout: float) -> PyDotComputeError | None:
        """Replace one instance after the other. Return the error if the kernel ends before that begins."""
        async with self._changing:
            try:
                self._gate.require("restart", *LIVING)
            except PyDotComputeError as error:
                return error
            for instance in self.staying:
                await self._renew(instance, timeout)
            return None

    async def _renew(self, old: Instance, timeout: float) -> None:
        """Replace an instance. The new one is started when the old one is gone, whose devices it may need."""
        task = self._let_go(old)
        await asyncio.wait((task,), timeout=timeout)
        if not task.done():
            logger.warning("a worker did not end in time: it is killed", extra={"kernel_id": self._kernel.kernel_id})
            task.cancel()
            await asyncio.wait((task,))
        new = self._make(self._free_number)
        self._instances.members.append(new)
        self._share()
        task = self._serve(new)
        while not (new.is_ready or task.done()):
            await wait_any((self._instances.changed, self._gate.changed))
