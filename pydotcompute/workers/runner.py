"""Runs the actor of a kernel in worker processes, and keeps the kernel's mail here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from math import inf
from time import monotonic, perf_counter_ns
from typing import Any, cast

from pydotcompute.device.lease import HOST, DeviceLease
from pydotcompute.exceptions import KernelFailedError, KernelNotFoundError, MessageError, PyDotComputeError
from pydotcompute.messages.header import Header
from pydotcompute.messages.ids import uuid_from_int
from pydotcompute.ring_kernels.actor.forwarding import Receiver
from pydotcompute.ring_kernels.actor.room import ENDLESS
from pydotcompute.ring_kernels.actor.runner import ActorError
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.dead_letters import TO_KERNEL, DeadLetterDirection, DeadLetterReason
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.wire.exchange.batches import Columns, Packed
from pydotcompute.wire.worker.errors import from_values, to_values
from pydotcompute.wire.worker.frames import Frame, Handed, LinkError, Note, Recall, Report, Returned, packed
from pydotcompute.wire.worker.ledger import Entry, Window
from pydotcompute.wire.worker.pace import Pace
from pydotcompute.wire.worker.start import Start
from pydotcompute.workers.instance import LONGEST_PAUSE, Instance, Restarts, WorkerLostError

__all__ = ["RunsInWorkers"]

logger = logging.getLogger(__name__)

AHEAD = 256
"""The most messages that are ahead of an actor, beside more urgent ones and larger batches."""
AHEAD_BYTES = 4 << 20
"""No more messages are handed on while this many bytes are ahead of an actor."""
AT_ONCE = 1_024
"""The most messages in one frame."""

Entries = list[Entry[Item[Any]]]


class RunsInWorkers:
    """Runs an actor in worker processes.

    It hands messages on ahead of the actor, within a window. It is a `Runner` to the kernel, `Lent` to its mailbox, and
    `Hands` to those that ask why a reply has not come.
    """

    lease: DeviceLease = HOST  # The messages leave this process from the host. The worker has the device.

    def __init__(self, kernel: RingKernel[Any, Any], find: Callable[[str], Receiver] | None) -> None:
        self._kernel, self._mail, self._gate = kernel, kernel.mail, kernel.gate
        self._inbox = kernel.mail.inbox
        self._find = find
        self._instances = self._make_instances(kernel.type.instances)
        self._sequence = 0
        self._changed = Signal()  # There may be room at a worker.
        self._ending = Signal()  # The kernel was asked to end.
        self._is_active = self._is_ending = False
        self._left: Entries = []  # What the actors had in hand when they ended.
        self._group: asyncio.TaskGroup
        self._forwards: set[asyncio.Task[None]] = set()  # Those under way.
        self._failure: ActorError | None = None  # With which the actor has failed before it first waited.
        self.idle = Signal()
        self.room = ENDLESS
        self._inbox.lent = self
        self._mail.delays.hands = self

    def _make_instances(self, count: int) -> list[Instance]:
        kernel = self._kernel
        # Each actor may fill its share of the output mailbox.
        outputs = max(1, kernel.config.output_queue_size // count)
        config = replace(kernel.config, output_queue_size=outputs)
        start = Start.of(kernel.type, config, kernel.limits, logging.getLogger().getEffectiveLevel())
        drops = self._inbox.backpressure.drops
        instances = []
        for _ in range(count):
            # Under `drop_oldest` the oldest is dropped, and only what is still here can be.
            window = Window(1 if drops or count > 1 else AHEAD, AHEAD_BYTES)
            pace = Pace(AHEAD) if count > 1 and not drops else None
            instances.append(Instance(kernel, start, self._on_frame, window, pace))
        return instances

    # -- for the kernel ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """See `Runner`."""
        try:
            async with asyncio.TaskGroup() as group:
                for instance in self._instances:
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
                self._group = group
                helpers = [group.create_task(self._feed()), group.create_task(self._make_room())]
                serving = [group.create_task(self._supervise(instance)) for instance in self._instances]
                await asyncio.wait(serving)
                for task in (*helpers, *self._forwards):
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def resume(self) -> None:
        """See `Runner`."""
        self._is_active = True
        for instance in self._instances:
            if instance.is_ready:
                instance.tell("resume")
        self._changed.notify_all()

    async def pause(self) -> None:
        """See `Runner`."""
        self._is_active = False
        await asyncio.gather(*(instance.pause() for instance in self._instances))

    def end(self) -> None:
        """See `Runner`."""
        self._is_ending = True
        self._ending.notify_all()
        for instance in self._instances:
            if instance.is_ready:
                instance.tell("end")

    def complete_all(self) -> None:
        """See `Runner`. The workers have told what is done."""

    def take_what_is_left(self) -> list[Item[Any]]:
        """See `Runner`. What the actors have not taken goes back into the mailbox."""
        for instance in self._instances:
            self._left += self._settle(instance)
        left, self._left = self._left, []
        return [entry.item for entry in left]

    async def close(self) -> None:
        """See `Runner`."""
        for instance in self._instances:
            self._left += self._settle(instance)
        stopping = asyncio.gather(*(instance.stop() for instance in self._instances))
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            for instance in self._instances:
                instance.kill()
            await stopping
            raise

    @property
    def is_idle(self) -> bool:
        """See `Runner`."""
        return not any(self._taken())

    @property
    def seconds_in_send(self) -> float | None:
        """See `Runner`."""
        since = [each.process.marks.stuck_since_ns for each in self._instances if each.process is not None]
        return max((perf_counter_ns() - ns) / 1e9 for ns in since if ns) if any(since) else None

    # -- for those that ask why a reply has not come -------------------------------------------------------------------

    def _taken(self) -> Iterator[Entry[Item[Any]]]:
        return chain.from_iterable(each.ledger.taken() for each in self._instances if each.process is not None)

    def has(self, key: int) -> bool:
        """See `Hands`."""
        return any(_header(entry).message_id.int == key for entry in self._taken())

    @property
    def seconds_in_hand(self) -> float:
        """See `Hands`."""
        taken = [max(entry.item[1], self._mail.counters.completed_ns, self._gate.entered_ns) for entry in self._taken()]
        return max(0, perf_counter_ns() - min(taken)) / 1e9 if taken else 0.0

    # -- for the mailbox -----------------------------------------------------------------------------------------------

    def _untaken(self) -> Iterator[Entry[Item[Any]]]:
        return chain.from_iterable(each.ledger.untaken() for each in self._instances if each.process is not None)

    def __len__(self) -> int:
        """See `Lent`."""
        return sum(1 for _ in self._untaken())

    def in_order(self) -> Iterator[Item[Any]]:
        """See `Lent`."""
        untaken = sorted(self._untaken(), key=lambda entry: (-entry.priority, entry.sequence))
        return (entry.item for entry in untaken)

    def take_overdue(self, key: int | None = None) -> list[tuple[int, Item[Any]]]:
        """See `Lent`."""
        now = monotonic()
        found: list[tuple[int, Item[Any]]] = []
        for instance in self._instances:
            if instance.process is None:
                continue
            for before, entry in enumerate(list(instance.ledger.untaken())):
                if key is not None and _header(entry).message_id.int != key:
                    continue
                if key is not None and now < entry.deadline < now + 0.002:  # The timer was early.
                    while (now := monotonic()) < entry.deadline:
                        pass
                if instance.ledger.take_overdue(entry, now):
                    self._inbox.lend(-1)
                    found.append((before, entry.item))
        return found

    def withdraw(self, which: Callable[[Item[Any]], bool]) -> None:
        """See `Lent`."""
        for instance in self._instances:
            if instance.process is None:
                continue
            entries = [entry for entry in instance.ledger.untaken() if not entry.withdrawn and which(entry.item)]
            for entry in entries:
                entry.withdrawn = True
            if entries:
                instance.process.send(Recall([entry.sequence for entry in entries]))

    # -- handing on ----------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Hand messages on, whenever there are some and a worker takes them."""
        while True:
            if perf_counter_ns() >= self.room.look_ns and self.room.is_lacking(self._kernel.kernel_id):
                await wait_any((self.room.freed(), self._changed))
            elif self._hand_on():
                await self._inbox.wait_for_item(self._changed)
            else:
                await self._changed.wait()

    def _hand_on(self) -> bool:
        """Hand on what the workers take. Return True if they would take more."""
        items = self._inbox.items
        handed: dict[Instance, tuple[Entries, list[Packed]]] = {}
        takes_more = True
        while items.size:
            instance = self._next_instance(items.top_priority)
            if instance is None:
                takes_more = False
                break
            item = self._inbox.get_nowait()
            if item is None:  # The mailbox is paused.
                break
            message = self._encoded(item, instance)
            if message is None:
                continue
            self._sequence += 1
            deadline = inf if item[2] is None or item[2].deadline is None else item[2].deadline
            entry = instance.ledger.hand(item, self._sequence, message[2], len(message[0]), deadline)
            self._inbox.lend(1)
            entries, messages = handed.setdefault(instance, ([], []))
            entries.append(entry)
            messages.append(message)
            if len(entries) >= AT_ONCE:
                self._send(instance, *handed.pop(instance))
        for instance, (entries, messages) in handed.items():
            self._send(instance, entries, messages)
        if len(self._instances) > 1 and not items.size and self._is_active:
            self._share()
        return takes_more

    def _share(self) -> None:
        """If an actor has nothing to do, call back what waits behind the messages that others have in hand."""
        if any(instance.is_free for instance in self._instances):
            for instance in self._instances:
                if instance.is_ready and instance.ledger.in_hand and instance.ledger.ahead:
                    instance.call_back()

    def _next_instance(self, priority: int) -> Instance | None:
        """Return the worker that takes a message of this priority and has least to do; None if there is none."""
        able = [each for each in self._instances if each.takes(priority)]
        if len(able) <= 1:
            return able[0] if able else None
        return min(able, key=lambda each: len(each.ledger.ahead) + len(each.ledger.in_hand))

    def _encoded(self, item: Item[Any], instance: Instance) -> Packed | None:
        """Return the message of an item as a frame takes it; None if it is overdue, or cannot be encoded."""
        message, _, terms = item
        if terms is not None and terms.deadline is not None and terms.deadline <= monotonic():
            self._mail.bury_if_overdue(item)
            return None
        types = instance.types
        correlation_id = message.correlation_id
        try:
            body = types.of_input.encode(message)
        except MessageError as error:
            if terms is not None:
                self._inbox.left(terms)
            self._mail.bury(message, str(error), DeadLetterReason.UNDELIVERABLE, TO_KERNEL)
            self._mail.replies.fail(message.message_id, error)
            return None
        correlation = None if correlation_id is None else correlation_id.int
        return packed(body, message.message_id.int, message.priority, correlation, 0)

    def _send(self, instance: Instance, entries: Entries, messages: list[Packed]) -> None:
        replies = self._mail.replies
        keys = [message[1] for message in messages]
        frame = Handed(
            [entry.sequence for entry in entries],
            messages,
            [entry.slot for entry in entries],
            [entry.item[1] for entry in entries],
            [entry.deadline for entry in entries],
            [2 if replies.is_asked(key) else int(replies.is_awaited(key)) for key in keys],
            [replies.principal_of(key) for key in keys],
        )
        assert instance.process is not None
        instance.process.send(frame)
        instance.handed()

    async def _make_room(self) -> None:
        """Tell the workers when outputs were received, so that their actors may send more."""
        outputs = self._mail.outputs
        while True:
            await wait_any((outputs.taken,))
            room = sum(instance.outputs for instance in self._instances) - len(outputs)
            for instance in self._instances:
                if (count := min(room, instance.outputs)) > 0:
                    instance.outputs -= count
                    room -= count
                    instance.tell("room", outputs=count)

    # -- what the workers say ------------------------------------------------------------------------------------------

    def _on_frame(self, instance: Instance, frame: Frame) -> None:
        match frame:
            case Report():
                self._report(instance, frame)
            case Returned(sequences):
                self._put_back(instance.ledger.returned(sequences))
            case Note("refused", {"answers": int(key), "error": dict(error)}):
                self._refused(key, from_values(error))
            case Note("buried", values, body):
                self._buried(instance, values, body)
            case Note("paused"):
                pass
            case Note("forward", values, body):
                task = self._group.create_task(self._forward(instance, values, body))
                self._forwards.add(task)
                task.add_done_callback(self._forwards.discard)
            case _:
                raise LinkError(f"a kernel does not know what to do with {frame}")
        self._changed.notify_all()
        if self.idle.waiters and self.is_idle and not self._inbox.depth:
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
                journal.done(_header(entry).message_id)
        counters.mark()
        instance.done(len(report.done))
        if report.answers:
            self._deliver(instance, report.answers, cast(Columns, report.messages))

    def _deliver(self, instance: Instance, answers: Any, columns: Columns) -> None:
        mail, codecs = self._mail, instance.types.codecs
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
                message = codecs[index].decode(cast(bytes, body), message_id, priority, correlation_id)
            except IndexError:
                raise LinkError(f"a message is of class {index}, and there are {len(codecs)}") from None
            except PyDotComputeError as error:
                self._refused(key, error)
                continue
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

    def _message(self, instance: Instance, values: dict[str, Any], body: bytes) -> Any:
        """Return the message in a note."""
        try:
            message_id, priority, correlation_id, index = values["header"]
            correlation = None if correlation_id is None else uuid_from_int(correlation_id)
            return instance.types.codecs[index].decode(body, uuid_from_int(message_id), priority, correlation)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise LinkError(f"a message is malformed: {error}") from error

    def _buried(self, instance: Instance, values: dict[str, Any], body: bytes) -> None:
        try:
            reason = DeadLetterReason[values["reason"]]
            direction = None if values["direction"] is None else DeadLetterDirection[values["direction"]]
            detail = str(values["detail"])
        except (KeyError, TypeError) as error:
            raise LinkError(f"a dead letter is malformed: {error}") from error
        self._mail.bury(self._message(instance, values, body), detail, reason, direction)

    async def _forward(self, instance: Instance, values: dict[str, Any], body: bytes) -> None:
        """Forward for an actor in a worker, and tell it how that went."""
        process = instance.process
        error: PyDotComputeError | None = None
        try:
            message = self._message(instance, values, body)
            entry = None if values["sequence"] is None else instance.ledger.in_hand.get(values["sequence"])
            receiver = self._receiver(values["kernel_id"])
            await receiver.take_forwarded(self._mail, message, values["key"], None if entry is None else entry.item)
        except PyDotComputeError as raised:
            error = raised
        if process is not None:
            answer = None if error is None else to_values(error)
            process.send(Note("forwarded", {"call": values["call"], "error": answer}))

    def _receiver(self, kernel_id: str) -> Receiver:
        if self._find is None:
            raise KernelNotFoundError(kernel_id, [self._kernel.kernel_id])
        return self._find(kernel_id)

    # -- what comes back, and what is lost -----------------------------------------------------------------------------

    def _put_back(self, entries: Entries) -> None:
        """Put messages that the actor has not taken back into the mailbox, in their places."""
        for entry in sorted(entries, key=lambda entry: -entry.sequence):
            if entry.gone:
                continue
            self._inbox.lend(-1)
            if entry.withdrawn:
                self._mail.was_withdrawn(entry.item)
            else:
                self._inbox.put_anyway(entry.item, entry.priority, front=True)

    def _settle(self, instance: Instance) -> Entries:
        """Take back what a worker had, which has ended. Return what its actor had in hand."""
        if instance.process is None:
            return []
        already = len(instance.ledger.in_hand)
        ended = instance.ledger.ended()
        # What is known only by the marks to be taken still counts as a message of the mailbox.
        for entry in ended.in_hand[already:]:
            self._inbox.lend(-1)
            if entry.item[2] is not None:
                self._inbox.left(entry.item[2])
        self._put_back(ended.ahead)
        return ended.in_hand

    async def _supervise(self, instance: Instance) -> None:
        """Run one instance until its actor returns. Start its worker again where the kernel says so."""
        limits, restart = self._kernel.limits, self._kernel.type.restart
        restarts = Restarts(limits.worker_restarts, limits.worker_restart_window)
        while True:
            try:
                await self._serve(instance)
                if restart != "always" or self._is_ending:
                    return
                self._settle(instance)
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
        if self._is_active:
            instance.tell("resume")
        if self._is_ending:
            instance.tell("end")
        self._changed.notify_all()
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
        for entry in self._settle(instance):
            self._mail.bury(entry.item[0], str(failure), reason)
            self._mail.replies.fail(_header(entry).message_id, failure)

    def _log_restart(self, error: ActorError, pause: float) -> None:
        logger.error(
            "%s: %s; it is started again",
            error.cause_type,
            error,
            exc_info=error,
            extra={"kernel_id": self._kernel.kernel_id, "pause_seconds": round(pause, 3)},
        )


def _header(entry: Entry[Item[Any]]) -> Header:
    header: Header = entry.item[0]
    return header
