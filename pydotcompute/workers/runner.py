"""Runs the actor of a kernel in worker processes, and keeps the kernel's mail here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pydotcompute.device.lease import HOST, DeviceLease
from pydotcompute.ring_kernels.actor.forwarding import Receiver
from pydotcompute.ring_kernels.actor.room import Room
from pydotcompute.ring_kernels.actor.runner import ActorError, Decide
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.ring_kernels.mail.telemetry import WorkerTelemetry
from pydotcompute.wire.worker.start import Start
from pydotcompute.workers.crew import Crew, Maker
from pydotcompute.workers.feeder import Feeder
from pydotcompute.workers.instance import Instance
from pydotcompute.workers.instances import Entries, Instances
from pydotcompute.workers.placing import placed
from pydotcompute.workers.reports import Reports
from pydotcompute.workers.supervisor import Supervisor
from pydotcompute.workers.templates import TEMPLATES

__all__ = ["RunsInWorkers"]


class RunsInWorkers:
    """Runs an actor in worker processes. It is a `Runner` to the kernel.

    The feeder hands messages on, the reports say what the actors did with them, the crew has as many instances as are
    wanted, and the supervisor starts their workers again.
    """

    lease: DeviceLease = HOST  # The messages leave this process from the host. The worker has the device.

    def __init__(self, kernel: RingKernel[Any, Any], find: Callable[[str], Receiver] | None) -> None:
        self._kernel = kernel
        self._reports = Reports(kernel, find)
        self._instances = self._reports.instances = Instances(kernel)
        self._feeder = Feeder(kernel, self._instances)
        self._supervisor = Supervisor(kernel, self._instances)
        self._crew = Crew(kernel, self._instances, self._supervisor, self._maker())
        self._crew.join(kernel.type.instances)
        self._left: Entries = []  # What the actors had in hand when they ended.
        self._failure: ActorError | None = None  # With which the actor has failed before it first waited.
        kernel.mail.inbox.lent = self._instances
        kernel.mail.delays.hands = self._instances

    @staticmethod
    def prepare() -> None:
        """Start the template from which workers are forked. Raises OSError if the system allows no more processes."""
        TEMPLATES.prepare()

    @property
    def room(self) -> Room:
        """See `Runner`."""
        return self._feeder.room

    @room.setter
    def room(self, room: Room) -> None:
        self._feeder.room = room

    @property
    def idle(self) -> Signal:
        """See `Runner`."""
        return self._reports.idle

    @property
    def is_idle(self) -> bool:
        """See `Runner`."""
        return self._instances.is_idle

    def workers(self) -> tuple[WorkerTelemetry, ...]:
        """See `Runner`."""
        figures = (instance.telemetry() for instance in self._instances.members)
        return tuple(each for each in figures if each is not None)

    @property
    def seconds_in_send(self) -> float | None:
        """See `Runner`."""
        return self._instances.seconds_in_send

    def _maker(self, kernel_type: KernelType | None = None) -> Maker:
        """Return what makes an instance of a kernel type; None is that of the kernel."""
        kernel = self._kernel
        made_of = kernel.type if kernel_type is None else kernel_type
        start = Start.of(made_of, kernel.config, kernel.limits, logging.getLogger().getEffectiveLevel())

        def make(number: int) -> Instance:
            return Instance(kernel, made_of, placed(start, made_of.devices, number), self._reports.on_frame, number)

        return make

    async def open(self) -> None:
        """See `Runner`."""
        try:
            async with asyncio.TaskGroup() as group:
                for instance in self._instances.members:
                    group.create_task(instance.start())
        except BaseExceptionGroup as errors:
            error = errors.exceptions[0]
            if not isinstance(error, ActorError):
                await self.close()
                raise error from None
            self._failure = error  # It is the kernel's failure, which it has once it runs.
        except BaseException:
            await self.close()
            raise

    async def run(self, on_first_wait: Callable[[], None]) -> None:
        """See `Runner`."""
        if self._failure is not None:
            raise self._failure
        on_first_wait()
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._feeder.feed()), group.create_task(self._feeder.make_room())]
                await self._crew.serve(group)
                for task in helpers:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def resume(self) -> None:
        """See `Runner`."""
        self._instances.is_active = True
        for instance in self._instances.members:
            if instance.is_ready:
                instance.tell("resume")
        self._instances.changed.notify_all()

    async def pause(self) -> None:
        """See `Runner`."""
        self._instances.is_active = False
        await asyncio.gather(*(instance.pause() for instance in self._instances.members))

    def end(self) -> None:
        """See `Runner`."""
        self._supervisor.end()
        self._crew.end()

    @property
    def instances(self) -> int:
        """See `Runner`."""
        return len(self._crew.staying)

    async def scale(self, instances: int) -> None:
        """See `Runner`."""
        await self._crew.scale(instances)

    async def try_out(self, kernel_type: KernelType) -> Decide:
        """See `Runner`."""
        return await self._crew.try_out(self._maker(kernel_type))

    async def restart(self, timeout: float) -> None:
        """See `Runner`."""
        await self._crew.restart(timeout)

    def complete_all(self) -> None:
        """See `Runner`. The workers have told what is done."""

    def take_what_is_left(self) -> list[Item[Any]]:
        """See `Runner`. What the actors have not taken goes back into the mailbox."""
        self._settle()
        left, self._left = self._left, []
        return [entry.item for entry in left]

    async def close(self) -> None:
        """See `Runner`."""
        self._settle()
        everyone = self._crew.everyone
        stopping = asyncio.gather(*(instance.stop() for instance in everyone))
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            for instance in everyone:
                instance.kill()
            await stopping
            raise

    def _settle(self) -> None:
        for instance in self._instances.members:
            self._left += self._instances.settle(instance)
