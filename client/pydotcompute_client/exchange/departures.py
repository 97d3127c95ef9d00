"""The messages that this program's tasks send to the daemon in a session, as far as there is credit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import Any
from uuid import UUID

from pydotcompute.exceptions import (
    MessageSerializationError,
    MessageTooLargeError,
    PyDotComputeError,
    QueueFullError,
    QueueTimeoutError,
)
from pydotcompute.messages.header import MAX_PRIORITY, check_header
from pydotcompute.messages.message import door
from pydotcompute.ring_kernels.mail.callers import Caller
from pydotcompute.ring_kernels.mail.replies import Replies
from pydotcompute.ring_kernels.mail.requests import TAKEN
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.batches import Packed, fill, key_of
from pydotcompute.wire.exchange.bodies import Bodies, Body
from pydotcompute.wire.exchange.flow import Ahead, Credit, Outgoing
from pydotcompute.wire.exchange.limits import LARGEST_BATCH, LARGEST_BATCH_BYTES, WINDOW
from pydotcompute.wire.kernels import strategy_from_proto
from pydotcompute_client.exchange.acks import Acks
from pydotcompute_client.exchange.delays import Delays
from pydotcompute_client.types import RemoteTypes

__all__ = ["Departures"]

SENT_IN_A_ROW = 512
"""Messages that a task sends before other tasks, and so the writer, have their turn."""


class Departures:
    """Takes messages from tasks, and keeps each until the daemon has accepted it.

    Args:
        news: notified when there is something to send.
        delays: says why a request was not answered in time.
    """

    def __init__(
        self, kernel_id: str, types: RemoteTypes, replies: Replies[Any], acks: Acks, news: Signal, delays: Delays
    ) -> None:
        self.outgoing: Outgoing[Packed] = Outgoing()
        self.refusal: PyDotComputeError | None = None
        """The error that `send` raises because the kernel takes no messages; None while it takes them."""
        self.refusing = Signal()
        """Notified when `refusal` is set."""
        self.batch_bytes = LARGEST_BATCH_BYTES
        """Bytes of bodies at which a frame is full."""
        self._kernel_id = kernel_id
        self._types = types
        self._replies = replies
        self._acks = acks
        self._news = news
        self._delays = delays
        self._encoders: dict[type, tuple[Callable[[object], None], Callable[[Any], bytes | Body]]] = {}
        self._outcomes: dict[int, asyncio.Future[None]] = {}  # Under `reject`, each `send` waits for one.
        self._room = Signal()
        self._long_gone = Signal()
        self._reply_limit = WINDOW
        self._over = False
        self._reached = 0  # The daemon has received everything through this sequence, as it said when the stream began.
        self._tried = False  # True if messages were sent on this stream.

    def begin(self, opened: pb.Opened, bodies: Bodies, type_name: str) -> None:
        """Begin the session. `type_name` is the full name of the kernel's input type at the daemon."""
        self._bodies = bodies
        self._type_name = type_name
        self._rejects = strategy_from_proto(opened.backpressure_strategy) == "reject"
        self._input_queue_size = opened.input_queue_size
        self._reply_limit = opened.output_queue_size

    # -- from the program ----------------------------------------------------------------------------------------------

    async def send(self, caller: Caller[Any] | None, message: Any, timeout: float | None) -> None:
        """Send a message. Wait only if there is no credit, or if the strategy is `reject`.

        Args:
            caller: gets the reply; None for the current task.
            timeout: seconds to wait; None for ever.

        Raises:
            MessageError: the message cannot be encoded, is too long, or has the id of a request that waits.
            QueueFullError: the wait took longer than `timeout`, or the kernel has refused the message.
            PyDotComputeError: the kernel takes no messages, or the session is over.
        """
        if caller is None:
            caller = self._replies.callers.running()
        if caller.ready.size >= self._reply_limit:
            await self._wait_until_received(caller, timeout)
        body = self._encode(message)
        outgoing = self.outgoing
        if outgoing.long or body.__class__ is not bytes:
            await self._wait_for_long(body, caller, timeout)
        elif len(outgoing.queue) >= outgoing.allowed or outgoing.queued_bytes >= outgoing.allowed_bytes or self.refusal:
            await self._wait_for_credit(timeout)
        message_id, correlation_id = message.message_id, message.correlation_id
        if self._replies.expect(message_id, caller) is TAKEN or message_id.int in self._outcomes:
            raise self._id_taken(message)
        answers = None if correlation_id is None else correlation_id.int
        item = (body, message_id.int, message.priority, answers, 0, False, None, None)
        if body.__class__ is bytes:
            outgoing.queue.append(item)
            outgoing.queued_bytes += len(body)
        else:
            outgoing.put(item, caller)
        if self._news.waiters:
            self._news.notify()
        if self._rejects:
            await self._outcome(message_id)
        elif len(outgoing.queue) % SENT_IN_A_ROW == 0:
            await asyncio.sleep(0)

    async def send_and_receive(self, message: Any, timeout: float | None, deadline: float | None) -> Any:
        """Send a request, wait for its own reply, and return that.

        Args:
            timeout: seconds to wait since the program asked; None for ever.
            deadline: the same as a time of `time.monotonic()`.

        Raises:
            QueueTimeoutError: there was no reply in time.
            PyDotComputeError: as `send`, or the error that the kernel answers with.
        """
        body = self._encode(message)
        message_id, correlation_id = message.message_id, message.correlation_id
        reply = self._replies.ask(message_id)
        if reply is None:
            raise self._id_taken(message)
        outgoing = self.outgoing
        try:
            if outgoing.long or body.__class__ is not bytes:
                await self._wait_for_long(body, self._sender(), timeout)
            elif (
                len(outgoing.queue) >= outgoing.allowed
                or outgoing.queued_bytes >= outgoing.allowed_bytes
                or self.refusal
            ):
                await self._wait_for_credit(timeout)
        except BaseException:
            self._replies.unask(message_id)
            raise
        answers = None if correlation_id is None else correlation_id.int
        item = (body, message_id.int, message.priority, answers, 0, False, deadline, None)
        if body.__class__ is bytes:
            outgoing.queue.append(item)
            outgoing.queued_bytes += len(body)
        else:
            outgoing.put(item, self._sender())
        if self._news.waiters:
            self._news.notify()
        try:
            return await self._replies.reply_to(message_id, reply, timeout, deadline)
        except (TimeoutError, asyncio.CancelledError) as error:
            if outgoing.drop(item):  # The request was never sent.
                self._long_gone.notify_all()
                self._replies.forget(message_id)
            elif isinstance(error, asyncio.CancelledError) and not self._over:
                self._acks.withdraw(message_id.bytes)
            if isinstance(error, QueueTimeoutError) and not error.cause:
                delay = self._delays.of(message_id.int)
                raise QueueTimeoutError(error.kernel_id, error.timeout, error.operation, *delay) from None
            raise

    def _sender(self) -> object:
        """Return the caller for which the current task sends; the task itself if there is none."""
        task = asyncio.current_task()
        return self._replies.callers.receiving(task) or task

    async def _outcome(self, message_id: UUID) -> None:
        """Wait until the kernel has taken a message. If the kernel refuses the message, raise its error."""
        outcome = self._outcomes[message_id.int] = asyncio.get_running_loop().create_future()
        try:
            await outcome
        except PyDotComputeError:
            self._replies.forget(message_id)
            raise

    async def _wait_until_received(self, caller: Caller[Any], timeout: float | None) -> None:
        """Wait until the caller has received some of its replies, because too many wait for it.

        Raises:
            QueueFullError: the caller did not in time, or the strategy is `reject`.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while caller.ready.size >= self._reply_limit:
            remaining = None if deadline is None else deadline - monotonic()
            if self._rejects or not await wait_any((caller.room, self.refusing), remaining):
                raise QueueFullError(self._kernel_id, self._reply_limit)
            if self.refusal is not None:
                raise self.refusal.again()

    def _encode(self, message: Any) -> bytes | Body:
        """Check a message, and return its encoded body.

        Raises:
            MessageError: the message is not valid, is not of the kernel's input type, or is too long.
        """
        cls = message.__class__
        try:
            check, encode = self._encoders[cls]
        except KeyError:
            codec = self._types.codec(cls, self._type_name)
            check, encode = self._encoders[cls] = (door(cls), self._bodies.encoder(codec))
        check(message)
        priority, correlation_id = message.priority, message.correlation_id
        if (
            priority.__class__ is not int
            or not 0 <= priority <= MAX_PRIORITY
            or message.message_id.__class__ is not UUID
            or (correlation_id is not None and correlation_id.__class__ is not UUID)
        ):
            check_header(message)
        body = encode(message)
        if len(body) <= self._bodies.longest_plain:
            return body
        if len(body) > self._bodies.longest:
            raise MessageTooLargeError(cls.__name__, len(body), self._bodies.longest)
        return self._bodies.pack(body)

    def _id_taken(self, message: Any) -> MessageSerializationError:
        problem = "another request of this id waits for its reply"
        return MessageSerializationError(type(message).__name__, problem, "$.message_id")

    async def _wait_for_credit(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        outgoing, woken = self.outgoing, True
        while True:
            if self.refusal is not None:
                raise self.refusal.again()
            free = outgoing.allowed - len(outgoing.queue)
            if free > 0 and outgoing.queued_bytes < outgoing.allowed_bytes:
                if free > 1:
                    self._room.notify()
                return
            if not woken:
                raise QueueFullError(self._kernel_id, self._input_queue_size)
            woken = await self._room.wait(None if deadline is None else deadline - monotonic())

    async def _wait_for_long(self, body: bytes | Body, sender: object, timeout: float | None) -> None:
        """Wait for credit while the body of another message goes ahead of that message.

        A message waits until the other one is sent if both have the same sender, or if its own body goes ahead too.
        """
        deadline = None if timeout is None else monotonic() + timeout
        outgoing, goes_ahead, woken = self.outgoing, isinstance(body, Ahead), True
        while True:
            while outgoing.long and (goes_ahead or outgoing.is_held_up(sender)):
                if self.refusal is not None:
                    raise self.refusal.again()
                if not woken:
                    assert timeout is not None
                    raise QueueTimeoutError(self._kernel_id, timeout, "the wait for a longer message to be sent")
                woken = await self._long_gone.wait(None if deadline is None else deadline - monotonic())
            await self._wait_for_credit(None if deadline is None else deadline - monotonic())
            if not (outgoing.long and goes_ahead):
                return

    # -- to and from the daemon ----------------------------------------------------------------------------------------

    def resume(self, received_through: int) -> None:
        """Begin a new stream, when the daemon has received everything through this sequence."""
        self.outgoing.resume(received_through)
        self._reached, self._tried = received_through, False

    def cut_short(self, has_moved: bool) -> tuple[int, int] | None:
        """Return the `message_id.int` and the bytes of a message that the end of a stream has kept from the daemon.

        None if no message was under way, or if others got through on that stream (`has_moved`) and none is a long one.
        """
        if not self._tried:
            return None
        outgoing = self.outgoing
        items = [*islice(outgoing.unacknowledged(), max(0, self._reached - outgoing.acknowledged), None)]
        if (long := outgoing.long_under_way) is not None:
            items.append(long)
        long = next((item for item in items if isinstance(item[0], Ahead)), None)
        stuck = long or (items[0] if items and not has_moved else None)
        return None if stuck is None else (key_of(stuck), len(stuck[0]))

    def next_frame(self, frame: pb.ExchangeRequest) -> bytes | None:
        """Put the next messages to send into `frame`, and return None.

        If the next thing to send is a part of a body, leave `frame` as it is, and return that part's bytes.
        """
        outgoing = self.outgoing
        chunk = outgoing.next_chunk(LARGEST_BATCH, self.batch_bytes)
        if chunk is None:
            return None
        self._tried = True
        if isinstance(chunk, bytes):
            return chunk
        fill(frame.batch, chunk.first, chunk.items)
        if self._long_gone.waiters and not outgoing.long:
            self._long_gone.notify_all()
        return None

    def accepted(self, through: int) -> None:
        """Note that the daemon has accepted every message through this sequence."""
        acknowledged = self.outgoing.acknowledge(through)
        if self._outcomes:
            for item in acknowledged:
                if (outcome := self._outcomes.pop(key_of(item), None)) is not None and not outcome.done():
                    outcome.set_result(None)

    def grant(self, credit: pb.Credit) -> None:
        """Take the credit that the daemon gives, and wake a task that waits for it."""
        self.outgoing.grant(Credit(credit.messages, credit.bytes))
        if self._room.waiters:
            self._room.notify()

    def not_taken(self, key: int, error: PyDotComputeError) -> bool:
        """Raise the error in the `send` of this `message_id.int`. Return False if no `send` waits for the outcome."""
        outcome = self._outcomes.pop(key, None)
        if outcome is not None and not outcome.done():
            outcome.set_exception(error)
        return outcome is not None

    def close(self, error: PyDotComputeError) -> None:
        """Raise this error in every `send` from now on, because the kernel takes no more messages."""
        if self.refusal is None:
            self.refusal = error
            self._room.notify_all()
            self._long_gone.notify_all()
            self.refusing.notify_all()

    def end(self, error: PyDotComputeError) -> bool:
        """Raise the error in every `send` that waits for its outcome. Return True if there is one."""
        self._over = True
        told = bool(self._outcomes)
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_exception(error.again())
        self._outcomes.clear()
        return told
