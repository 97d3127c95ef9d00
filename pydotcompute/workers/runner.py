"""Runs the actor of a kernel in worker processes, and keeps the kernel's mail here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydotcompute.device.lease import HOST, DeviceLease
from pydotcompute.ring_kernels.actor.forwarding import Receiver
from pydotcompute.ring_kernels.actor.room import Room
from pydotcompute.ring_kernels.actor.runner import ActorError
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.wire.worker.ledger import Window
from pydotcompute.wire.worker.pace import Pace
from pydotcompute.wire.worker.start import Start
from pydotcompute.workers.feeder import Feeder
from pydotcompute.workers.instance import Instance
from pydotcompute.workers.instances import Entries, Instances
from pydotcompute.workers.reports import Reports
from pydotcompute.workers.supervisor import Supervisor

__all__ = ["RunsInWorkers"]

AHEAD = 256
"""The most messages that are ahead of an actor, beside more urgent ones and larger batches."""
AHEAD_BYTES = 4 << 20
"""No more messages are handed on while this many bytes are ahead of an actor."""


class RunsInWorkers:
    """Runs an actor in worker processes. It is a `Runner` to the kernel.

    The feeder hands messages on, the reports say what the actors did with them, the supervisor starts workers again.
    """

    lease: DeviceLease = HOST  # The messages leave this process from the host. The worker has the device.

    def __init__(self, kernel: RingKernel[Any, Any], find: Callable[[str], Receiver] | None) -> None:
        self._reports = Reports(kernel, find)
        self._instances = self._reports.instances = Instances(kernel, _make(kernel, self._reports))
        self._feeder = Feeder(kernel, self._instances)
        self._supervisor = Supervisor(kernel, self._instances)
        self._left: Entries = []  # What the actors had in hand when they ended.
        self._failure: ActorError | None = None  # With which the actor has failed before it first waited.
        kernel.mail.inbox.lent = self._instances
        kernel.mail.delays.hands = self._instances

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

    @property
    def seconds_in_send(self) -> float | None:
        """See `Runner`."""
        return self._instances.seconds_in_send

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
                self._reports.group = group
                helpers = [group.create_task(self._feeder.feed()), group.create_task(self._feeder.make_room())]
                serving = [group.create_task(self._supervisor.run(each)) for each in self._instances.members]
                await asyncio.wait(serving)
                for task in helpers:
                    task.cancel()
                self._reports.cancel()
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
        stopping = asyncio.gather(*(instance.stop() for instance in self._instances.members))
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            for instance in self._instances.members:
                instance.kill()
            await stopping
            raise

    def _settle(self) -> None:
        for instance in self._instances.members:
            self._left += self._instances.settle(instance)


def _make(kernel: RingKernel[Any, Any], reports: Reports) -> list[Instance]:
    """Return the instances of a kernel, without their workers."""
    count = kernel.type.instances
    # Each actor may fill its share of the output mailbox.
    outputs = max(1, kernel.config.output_queue_size // count)
    config = replace(kernel.config, output_queue_size=outputs)
    start = Start.of(kernel.type, config, kernel.limits, logging.getLogger().getEffectiveLevel())
    drops = kernel.mail.inbox.backpressure.drops
    instances = []
    for _ in range(count):
        # Under `drop_oldest` the oldest is dropped, and only what is still here can be.
        window = Window(1 if drops or count > 1 else AHEAD, AHEAD_BYTES)
        pace = Pace(AHEAD) if count > 1 and not drops else None
        instances.append(Instance(kernel, start, reports.on_frame, window, pace))
    return instances
