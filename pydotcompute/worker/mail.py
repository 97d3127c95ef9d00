"""The mail of a kernel in its worker: what the actor's context uses. The real mail is at the other end of the link."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from time import monotonic, perf_counter_ns
from typing import Any

from pydotcompute.exceptions import MessageDeserializationError, PyDotComputeError
from pydotcompute.protobuf.runtime_helpers import text_of
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterDirection, DeadLetterReason, DeadLetters
from pydotcompute.ring_kernels.mail.gate import Gate
from pydotcompute.ring_kernels.mail.inbox import Inbox, Item, Terms
from pydotcompute.ring_kernels.mail.journal import Journal
from pydotcompute.ring_kernels.mail.mail import Check, Mail
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.replies import Replies
from pydotcompute.ring_kernels.mail.telemetry import Counters
from pydotcompute.wire.worker.errors import to_values
from pydotcompute.wire.worker.frames import Handed
from pydotcompute.wire.worker.types import LinkTypes
from pydotcompute.worker.marks import Marks
from pydotcompute.worker.outbox import OUTPUT, Outbox

__all__ = ["WorkerMail"]

ASKED = 2
"""How `Handed.awaited` says that a `send_and_receive` waits for the reply."""


class Arrival(int):
    """When a message arrived at its kernel, in nanoseconds of `time.perf_counter_ns()`, and what it is to the link.

    It is the number that an `Item` has, so it comes along wherever the item goes.
    """

    sequence: int
    slot: int


class WorkerInbox(Inbox[Any]):
    """The messages that are ahead of the actor. Whatever is handed out is marked as taken first."""

    def begin(self, outbox: Outbox, marks: Marks) -> None:
        """Begin to mark and to report."""
        self._outbox, self._marks = outbox, marks
        self._ahead = 0  # How many messages the kernel knows to hand on ahead at least; 0 is its own choice.

    def get_nowait(self) -> Item[Any] | None:
        """See `Mailbox`."""
        item = super().get_nowait()
        if item is not None:
            arrival: Any = item[1]
            self._marks.taken[arrival.slot] = 1
            self._outbox.taken.append(arrival.sequence)
            self._outbox.soon()
        return item

    async def ripen(self, size: int, max_delay: float) -> None:
        """See `Inbox`. A batch must be ahead as a whole, so the kernel is told its size."""
        if size > self._ahead:
            self._ahead = size
            self._outbox.tell("batches", {"size": size})
        await super().ripen(size, max_delay)

    def give_back(self, which: Callable[[int], bool] | None = None) -> list[int]:
        """Take out the messages with these sequences, None for all, and return the sequences."""
        items = self.remove_all(lambda item: which is None or which(_sequence(item)))
        return [_sequence(item) for item in items]


def _sequence(item: Item[Any]) -> int:
    arrival: Any = item[1]
    sequence: int = arrival.sequence
    return sequence


class WorkerOutputs(Mailbox[Any]):
    """The outputs of the actor, which go on to the kernel at once. Those that wait there take the room here."""

    def begin(self, outbox: Outbox, marks: Marks) -> None:
        """Begin to pass outputs on."""
        self._outbox, self._marks = outbox, marks
        self._waiting = 0

    def offer(self, item: Any, priority: int) -> bool:
        """See `Mailbox`."""
        if self._open <= 0:
            return False
        self.add(item, priority)
        return True

    def add(self, item: Any, priority: int) -> None:
        """See `Mailbox`."""
        self.lend(1)
        self._outbox.put(item, OUTPUT)

    async def put(self, item: Any, priority: int = 128, timeout: float | None = None) -> Any:
        """See `Mailbox`. The kernel can see since when the actor waits here."""
        if not self._waiting:
            self._marks.stuck_since_ns = perf_counter_ns()
        self._waiting += 1
        try:
            return await super().put(item, priority, timeout)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._marks.stuck_since_ns = 0


class WorkerReplies(Replies[Any]):
    """Tells replies from outputs. Who gets a reply is known at the kernel."""

    def follow(self, outbox: Outbox, limits: RuntimeLimits) -> None:
        """Begin to pass replies on."""
        self._outbox, self._limits = outbox, limits
        # The requests that were handed on and are awaited, by `message_id.int`, with who awaits them; and those that
        # were answered, as in `Replies`.
        self._awaited: dict[int, tuple[int, str | None]] = {}
        self._replied: dict[int, None] = {}
        self._replied_before: dict[int, None] = {}

    def handed(self, key: int, awaited: int, principal: str | None) -> None:
        """Note that a request was handed on, who awaits a reply to it, as in `Handed.awaited`, and who has sent it."""
        if not awaited:
            return
        self._awaited[key] = awaited, principal
        if len(self._awaited) >= self._limits.requests + self._limits.requests_forgotten:
            for oldest in tuple(islice(self._awaited, self._limits.requests_forgotten)):
                del self._awaited[oldest]

    def deliver(self, message: Any, key: int | None = None) -> bool:
        """See `Replies`."""
        own: int = message.message_id.int
        if key is None:
            key = own if message.correlation_id is None else message.correlation_id.int
        if key not in self._awaited and own in self._awaited:
            key = own  # An echo of a request that itself has a `correlation_id`.
        if self._awaited.pop(key, None) is not None:
            self._replied[key] = None
            if len(self._replied) >= self._limits.answers:
                self._replied_before, self._replied = self._replied, {}
        elif key not in self._replied and key not in self._replied_before:
            return False
        self._outbox.put(message, key)
        return True

    def is_asked(self, key: int) -> bool:
        """See `Replies`."""
        return self._awaited.get(key, (0, None))[0] == ASKED

    def is_awaited(self, key: int) -> bool:
        """See `Replies`."""
        return key in self._awaited

    def principal_of(self, key: int) -> str | None:
        """See `Replies`."""
        return self._awaited.get(key, (0, None))[1]


class WorkerCounters(Counters):
    """Reports what the kernel counts."""

    def begin(self, outbox: Outbox) -> None:
        """Begin to report."""
        self._outbox = outbox

    def handed_batch(self, size: int) -> None:
        """See `Counters`."""
        self._outbox.batches.append(size)
        self._outbox.soon()

    def complete(self, arrived_ns: int) -> None:
        """See `Counters`."""
        arrival: Any = arrived_ns
        self.completed_ns = perf_counter_ns()
        self._outbox.done.append(arrival.sequence)
        self._outbox.soon()


class WorkerMail(Mail[Any, Any]):
    """The mail of a kernel in its worker."""

    def __init__(
        self,
        outbox: Outbox,
        marks: Marks,
        types: LinkTypes,
        gate: Gate,
        config: RingKernelConfig,
        check_in: Check,
        check_out: Check,
        *,
        limits: RuntimeLimits = DEFAULT_LIMITS,
        dead_letters: DeadLetters | None = None,
        journal: Journal | None = None,
    ) -> None:
        super().__init__(gate, config, check_in, check_out, limits=limits, dead_letters=dead_letters, journal=journal)
        self._outbox = outbox
        self._decode = types.of_input.decode_checked
        self._input_name = types.of_input.schema.name
        inbox = self.inbox = WorkerInbox(gate.kernel_id, config.input_queue_size, paused=True)
        inbox.begin(outbox, marks)
        outputs = self.outputs = WorkerOutputs(gate.kernel_id, config.output_queue_size)
        outputs.begin(outbox, marks)
        replies = self.replies = WorkerReplies(gate.kernel_id, self.outputs, self.bury, limits)
        replies.follow(outbox, limits)
        counters = self.counters = WorkerCounters()
        counters.begin(outbox)
        self._inbox, self._replies = inbox, replies
        self.deliveries = 0
        """How often the actor has had the next message already; see `Terms.deliveries`."""

    @classmethod
    def maker(cls, outbox: Outbox, marks: Marks, types: LinkTypes) -> Callable[..., WorkerMail]:
        """Return a function that makes the mail of a kernel with these, and takes the arguments of `Mail`."""
        return partial(cls, outbox, marks, types)

    def take(self, handed: Handed) -> None:
        """Put messages into the mailbox that were handed on. Those that are none of the input type are refused."""
        messages: Any = handed.messages
        deliveries, self.deliveries = self.deliveries, 0  # Such a message comes alone.
        for body, message_id, priority, correlation_id, sequence, slot, arrived, deadline, awaited, principal in zip(
            messages.bodies,
            messages.message_ids,
            messages.priorities,
            messages.correlation_ids,
            handed.sequences,
            handed.slots,
            handed.arrivals,
            handed.deadlines,
            handed.awaited,
            handed.principals,
            strict=True,
        ):
            try:
                message = self._decode(body, message_id, priority, correlation_id)
            except Exception as error:  # The class may have a constructor of its own.
                self._refuse(sequence, error)
                continue
            arrival = Arrival(arrived)
            arrival.sequence, arrival.slot = sequence, slot
            self._replies.handed(message_id.int, awaited, principal)
            is_timed = deadline != float("inf")
            terms = None
            if is_timed or deliveries:
                terms = Terms(deadline=deadline if is_timed else None, deliveries=deliveries)
            self._inbox.add((message, arrival, terms), priority)

    def give_back(self, sequences: Sequence[int] | None = None) -> list[int]:
        """Take messages out that the actor has not taken, None for all, and return the sequences of those."""
        return self._inbox.give_back(None if sequences is None else frozenset(sequences).__contains__)

    def bury_if_overdue(self, item: Item[Any]) -> bool:
        """See `Mail`. The kernel buries the message."""
        terms = item[2]
        assert terms is not None
        if terms.deadline is None or monotonic() < terms.deadline:
            return False
        self._outbox.expired.append(_sequence(item))
        self._outbox.soon()
        return True

    def _refuse(self, sequence: int, error: Exception) -> None:
        if not isinstance(error, PyDotComputeError):
            error = MessageDeserializationError(self._input_name, text_of(error))
        self._outbox.tell("undecodable", {"sequence": sequence, "error": to_values(error)})

    def bury(
        self,
        message: Any,
        detail: str,
        reason: DeadLetterReason = DeadLetterReason.CALLER_GONE,
        direction: DeadLetterDirection | None = None,
    ) -> None:
        """See `Mail`. The kernel keeps the dead letter."""
        values = {"detail": detail, "reason": reason.name, "direction": None if direction is None else direction.name}
        self._outbox.tell_message("buried", message, values)

    def end(self, error: PyDotComputeError, in_hand: Iterable[Item[Any]]) -> None:
        """See `Mail`. The kernel knows what was not done, and tells the callers."""
        self.inbox.close(error)
