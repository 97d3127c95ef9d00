"""Runs the instances of a kernel, and starts their workers again where the kernel says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydotcompute.ring_kernels.actor import supervisor
from pydotcompute.ring_kernels.actor.runner import ActorError, WorkerLostError
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.workers.instance import Instance
from pydotcompute.workers.instances import Instances

__all__ = ["Supervisor"]


class Supervisor:
    """Runs the instances of a kernel, and starts their workers again where the kernel says so.

    Args:
        kernel: the kernel.
        instances: its instances.
    """

    def __init__(self, kernel: RingKernel[Any, Any], instances: Instances) -> None:
        self._kernel = kernel
        self._instances = instances
        self._rules = supervisor.Supervisor(kernel.mail, kernel.type.supervision, kernel.limits)
        self._is_ending = False

    def end(self) -> None:
        """Ask the actors to end. None is started again."""
        self._is_ending = True
        for instance in self._instances.members:
            if instance.is_ready:
                instance.tell("end")

    async def run(self, instance: Instance) -> None:
        """Run one instance until its actor returns. Start its worker again where the kernel says so."""
        await self._rules.run(_Member(self, instance))

    async def serve(self, instance: Instance) -> None:
        """Start the worker of an instance, unless it runs already, and wait until its actor returns."""
        if instance.process is None:
            await instance.start()
            self.look_for_actors()
        if self._instances.is_active:
            instance.tell("resume")
        if self._is_ending:
            instance.tell("end")
        self._instances.changed.notify_all()
        await instance.serve()

    def look_for_actors(self) -> None:
        """Note whether any instance has an actor for the kernel's messages."""
        self._kernel.gate.set_actor(any(instance.is_ready for instance in self._instances.members))

    @property
    def has_one_instance(self) -> bool:
        """True if no other instance may have messages of the kernel."""
        return len(self._instances.members) == 1

    def dismiss(self, instance: Instance) -> None:
        """Take back what an instance had that was told to end. Decide about what its actor has not finished."""
        if instance.process is not None and any(instance.ledger.taken()):
            error = WorkerLostError("WorkerStopped", f"its worker (process {instance.process.pid}) was told to end")
            self._rules.settle(_Member(self, instance), error, goes_on=True)
        self._instances.settle(instance)

    def take_in_hand(self, instance: Instance) -> list[Item[Any]]:
        """Take back what the worker of an instance had, which has ended. Return what its actor had in hand."""
        return [entry.item for entry in self._instances.settle(instance)]


class _Member:
    """One instance, as what is started again and again. See `Supervised`."""

    def __init__(self, owner: Supervisor, instance: Instance) -> None:
        self._owner, self._instance = owner, instance

    @property
    def completed(self) -> int:
        return self._instance.completed

    @property
    def is_leaving(self) -> bool:
        return self._instance.is_leaving

    @property
    def is_only(self) -> bool:
        return self._owner.has_one_instance

    async def run_once(self) -> None:
        await self._owner.serve(self._instance)

    def can_restart(self, error: BaseException) -> bool:
        return isinstance(error, ActorError)

    def take_in_hand(self) -> Sequence[Item[Any]]:
        return self._owner.take_in_hand(self._instance)

    def complete_all(self) -> None:
        """Take back what the worker had. It has told what is done."""
        self._owner.take_in_hand(self._instance)

    async def stop(self) -> None:
        self._owner.look_for_actors()
        await self._instance.stop()
