"""The instances that serve one kernel, each in a task: as many as are wanted, and new ones in the place of old ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any, TypeAlias

from pydotcompute.exceptions import InvalidConfigurationError, KernelFailedError, LimitExceededError, PyDotComputeError
from pydotcompute.ring_kernels.actor.runner import ActorError, Decide
from pydotcompute.ring_kernels.kernel import LIVING, RingKernel
from pydotcompute.ring_kernels.mail.signals import wait_any
from pydotcompute.ring_kernels.places import COME_AGAIN
from pydotcompute.workers.instance import Instance
from pydotcompute.workers.instances import Instances
from pydotcompute.workers.supervisor import Supervisor

__all__ = ["Crew", "Maker"]

Maker: TypeAlias = Callable[[int], Instance]
"""Makes the instance of a number, without its worker."""

logger = logging.getLogger(__name__)


class Crew:
    """The instances that serve one kernel.

    An instance that is to go is told to end: it finishes what its actor has in hand, and what is ahead of the actor
    comes back into the mailbox for the others. It stays in `Instances.members` until its process is gone.

    Args:
        kernel: the kernel.
        instances: its instances, which the crew changes.
        supervisor: runs each of them.
        make: makes an instance.
    """

    def __init__(self, kernel: RingKernel[Any, Any], instances: Instances, supervisor: Supervisor, make: Maker) -> None:
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

    def _free_numbers(self) -> Iterator[int]:
        """Iterate over the numbers that no instance has, the lowest first. So each gets a device that is free."""
        taken = {each.number for each in self.everyone}
        return (number for number in count() if number not in taken)

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

    async def scale(self, wanted: int) -> None:
        """See `RingKernel.scale`."""
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
            raise InvalidConfigurationError("instances", wanted, "must be a whole number of at least 1")
        most = self._kernel.limits.max_instances
        if wanted > most:
            raise LimitExceededError("max_instances", most, wanted)
        async with self._changing:
            self._gate.require("scale", *LIVING)
            staying = self.staying
            if (missing := wanted - len(staying)) > 0:
                there_would_be = len(self._instances.members) + missing
                if there_would_be > most:  # Some have not finished yet.
                    raise LimitExceededError("max_instances", most, there_would_be, COME_AGAIN)
                new = [self._make(number) for number in islice(self._free_numbers(), missing)]
                self._add(await self._start(new, wanted))
            for instance in staying[wanted:]:
                self._let_go(instance)
            self._share()
            for instance in staying[:wanted]:
                if missing > 0:
                    instance.call_back()  # What is ahead of it is for all now.
            self._instances.changed.notify_all()

    async def _start(self, new: list[Instance], count: int) -> list[Instance]:
        """Start instances, and return them: all of them or, if one cannot be started, none.

        Args:
            new: the instances.
            count: how many there will be in all.
        """
        self._starting = new
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
            await _give_up(new)
            raise
        finally:
            self._starting = []
        return new

    def _add(self, new: list[Instance]) -> None:
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
        new = self._make(old.number)
        self._add([new])
        self._share()
        task = self._serving[new]
        while not (new.is_ready or task.done()):
            await wait_any((self._instances.changed, self._gate.changed))

    # -- of another text -----------------------------------------------------------------------------------------------

    async def try_out(self, make: Maker) -> Decide:
        """See `Runner.try_out`."""
        await self._changing.acquire()
        try:
            self._gate.require("reload", *LIVING)
            staying = self.staying
            new = await self._start([make(each.number) for each in staying], len(staying))
        except BaseException:
            self._changing.release()
            raise
        self._starting = new

        async def decide(take_over: bool) -> None:
            try:
                self._starting = []
                if not take_over or self._gate.should_terminate:
                    await _give_up(new)
                    return
                self._make = make
                self._add(new)
                for old in staying:
                    if old in self._serving and not self._has_ended(old):
                        self._let_go(old)
                self._share()
                self._instances.changed.notify_all()
            finally:
                self._changing.release()

        return decide


async def _give_up(instances: list[Instance]) -> None:
    for instance in instances:
        instance.kill()
    await asyncio.gather(*(instance.stop() for instance in instances))
