"""Carries out what the workers of a kernel say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.messages.ids import uuid_from_int
from pydotcompute.ring_kernels.actor.forwarding import Receiver
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterDirection, DeadLetterReason
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.wire.exchange.batches import Columns
from pydotcompute.wire.worker.errors import from_values
from pydotcompute.wire.worker.frames import Frame, Letter, LinkError, Note, Report, Returned
from pydotcompute.workers.calls import Calls
from pydotcompute.workers.instance import Instance
from pydotcompute.workers.instances import Instances, header_of

__all__ = ["Reports"]

logger = logging.getLogger(__name__)


class Reports:
    """Carries out what the workers of a kernel say.

    Args:
        kernel: the kernel.
        find: returns the kernel of an id, for what the actors forward and ask; None if there is no other.
    """

    instances: Instances
    """The kernel's instances. Set before the first frame."""

    def __init__(self, kernel: RingKernel[Any, Any], find: Callable[[str], Receiver] | None) -> None:
        self._kernel, self._mail, self._inbox = kernel, kernel.mail, kernel.mail.inbox
        self._calls = Calls(kernel, find)
        self.idle = Signal()
        """Notified when the actors have nothing in hand and ask for the next message."""

    def on_frame(self, instance: Instance, frame: Frame) -> None:
        """Carry out what a worker says.

        Raises:
            LinkError: the frame breaks the rules of the link.
        """
        match frame:
            case Report():
                self._report(instance, frame)
            case Returned(sequences):
                self.instances.put_back(instance.ledger.returned(sequences))
            case Note("refused", {"answers": int(key), "error": dict(error)}):
                self._refused(key, from_values(error))
            case Letter("buried", values, Columns() as columns):
                self._buried(instance, values, columns)
            case Note("undecodable", {"sequence": int(sequence), "error": dict(error)}):
                self._undecodable(instance, sequence, from_values(error))
            case Note("paused"):
                pass
            case Letter("forward" | "ask", values, Columns() as columns):
                self._calls.begin(instance, frame.what, values, self._message(instance, columns))
            case Note("never mind", {"call": int(number)}):
                if (call := instance.calls.get(number)) is not None:
                    call.cancel()
            case _:
                raise LinkError(f"a kernel does not know what to do with {frame}")
        self.instances.changed.notify_all()
        if self.idle.waiters and self.instances.is_idle and not self._inbox.depth:
            self.idle.notify_all()

    def _report(self, instance: Instance, report: Report) -> None:
        ledger, inbox, counters, journal = instance.ledger, self._inbox, self._mail.counters, self._mail.journal
        expired = frozenset(report.expired)
        left = 0
        for entry in ledger.took(report.taken):
            if entry.gone:
                continue
            left += 1
            terms = entry.item[2]
            if terms is not None and entry.sequence not in expired:
                inbox.left(terms)
        if left:
            inbox.lend(-left)
        for entry in ledger.done(report.expired):
            if not entry.gone:
                self._mail.bury_if_overdue(entry.item)
        for size in report.batches:
            counters.handed_batch(size)
        for entry in ledger.done(report.done):
            counters.complete(entry.item[1])
            if journal is not None:
                journal.done(header_of(entry).message_id)
        counters.mark()
        instance.done(len(report.done))
        if report.answers:
            self._deliver(instance, report.answers, cast(Columns, report.messages))

    def _undecodable(self, instance: Instance, sequence: int, error: PyDotComputeError) -> None:
        """Make a request a dead letter that the worker cannot decode, and give its caller the error."""
        (entry,) = instance.ledger.returned((sequence,))
        if entry.gone:
            return
        self._inbox.lend(-1)
        if entry.withdrawn:
            self._mail.was_withdrawn(entry.item)
            return
        message, _, terms = entry.item
        if terms is not None:
            self._inbox.left(terms)
        self._mail.bury(message, str(error), DeadLetterReason.UNDELIVERABLE, DeadLetterDirection.TO_KERNEL)
        self._mail.replies.fail(header_of(entry).message_id, error)

    def _deliver(self, instance: Instance, answers: Any, columns: Columns) -> None:
        mail, classes = self._mail, instance.types.raw
        for key, body, message_id, priority, correlation_id, index in zip(
            answers,
            columns.bodies,
            columns.message_ids,
            columns.priorities,
            columns.correlation_ids,
            columns.types,
            strict=True,
        ):
            try:
                message = classes[index](body, message_id, priority, correlation_id)
            except IndexError:
                raise LinkError(f"a message is of class {index}, and there are {len(classes)}") from None
            if key and mail.replies.deliver(message, key):
                continue
            instance.outputs += not key
            mail.outputs.put_anyway(message, priority)
            mail.replies.wanted.notify()

    def _refused(self, key: int, error: PyDotComputeError) -> None:
        """Give a caller the error in place of a reply that cannot cross the link."""
        logger.error("what the actor has sent is lost: %s", error, extra={"kernel_id": self._kernel.kernel_id})
        self._mail.counters.dropped += 1
        if key:
            self._mail.replies.fail(uuid_from_int(key), error)

    def _message(self, instance: Instance, columns: Columns) -> Any:
        """Return the message in a letter."""
        ((body, message_id, priority, correlation_id, index),) = zip(*columns, strict=True)
        try:
            return instance.types.raw[index](body, message_id, priority, correlation_id)
        except IndexError as error:
            raise LinkError(f"a message is malformed: {error}") from error

    def _buried(self, instance: Instance, values: dict[str, Any], columns: Columns) -> None:
        try:
            reason = DeadLetterReason[values["reason"]]
            direction = None if values["direction"] is None else DeadLetterDirection[values["direction"]]
            detail = str(values["detail"])
        except (KeyError, TypeError) as error:
            raise LinkError(f"a dead letter is malformed: {error}") from error
        self._mail.bury(self._message(instance, columns), detail, reason, direction)
