"""One Exchange stream, while it carries a session."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Any

import grpc
from google.rpc import status_pb2

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.durations import duration
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute.wire.exchange.frames import PART_BYTES, PartFrame
from pydotcompute.wire.exchange.limits import LARGEST_BATCH, LARGEST_BATCH_BYTES, WINDOW
from pydotcompute.wire.kernels import strategy_to_proto
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.calls.errors import told_status
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.clients import pass_outputs_on, require_activated
from pydotcompute_server.exchange.acceptance import Acceptance
from pydotcompute_server.exchange.outbound import frames_of
from pydotcompute_server.exchange.session import Session
from pydotcompute_server.limits import Limits

__all__ = ["Conversation", "CutOffError", "TakenOverError"]


class CutOffError(Exception):
    """Raised to end a stream, and not its session, because the client makes no progress. The text says why."""


class TakenOverError(Exception):
    """Raised to end a stream, and not its session, because a later stream has the session."""


LATEST_EXPLANATIONS = 16
"""The most answers to inquiries that wait to be sent to one client."""


class Conversation:
    """Moves messages between a session and its client, as long as one stream lives.

    It has three tasks. The reader takes frames from the stream and never waits for anything else, so that
    acknowledgements get through while the mailbox is full. The feeder puts messages into the mailbox, and waits where
    the mailbox makes senders wait. The writer sends messages to the client; the messages that gather during one write
    go together in the next frame.
    """

    def __init__(
        self, session: Session, context: grpc.aio.ServicerContext[Any, Any], limits: Limits, memory: Memory
    ) -> None:
        self._session = session
        self._limits = limits
        self._memory = memory
        self._at_once = limits.messages_at_once
        self._context = context
        self._fed = Signal()
        self._written = Signal()
        self._closed_told = False
        self._said_bye = False
        self._frames: deque[pb.ExchangeResponse] = deque()
        # A client that reads nothing while it asks again and again has the newest answers only.
        self._explanations: deque[pb.Explanation] = deque(maxlen=LATEST_EXPLANATIONS)
        self._farewell: status_pb2.Status | None = None
        self._in_a_hurry = False
        self._replaced = asyncio.Event()
        self._cut_off: str | None = None
        # Times of `time.monotonic()`: since when a frame is being written, or the client is at its limit without
        # acknowledging anything; and when the last part of a body came. None while there is nothing to wait for.
        self._writing_since: float | None = None
        self._at_limit_since: float | None = None
        self._part_came = 0.0
        self._acknowledged = -1

    def farewell(self, status: status_pb2.Status) -> None:
        """End the session with this status, after everything that waits to be sent."""
        self._farewell = status
        self._session.news.notify()

    def hurry(self) -> None:
        """Say `bye` now, even if messages wait to be sent for which the client gives no credit."""
        self._in_a_hurry = True
        self._session.news.notify()

    def drain(self, status: status_pb2.Status) -> None:
        """Refuse further messages with this status. The kernel still handles those in its mailbox."""
        self._session.inbound.draining = status
        self._fed.notify()
        self._session.news.notify()

    def replace(self) -> None:
        """End this stream, because another one has been opened for the session."""
        self._replaced.set()

    def check_progress(self, now: float) -> None:
        """End the stream if the client has made no progress for too long. Call this now and then.

        Args:
            now: the time of `time.monotonic()`.
        """
        longest = self._limits.stalled_reader
        outbound = self._session.outbound
        acknowledged = outbound.outgoing.acknowledged
        if not outbound.is_at_limit or acknowledged != self._acknowledged:
            self._at_limit_since = None
        elif self._at_limit_since is None:
            self._at_limit_since = now
        self._acknowledged = acknowledged
        if self._writing_since is not None and now - self._writing_since > longest:
            self._cut_off = f"the client has read nothing for {longest:g} s; the session can be resumed"
        elif self._at_limit_since is not None and now - self._at_limit_since > longest:
            self._cut_off = (
                f"the client has acknowledged nothing for {longest:g} s, and leaves as much unacknowledged as it may; "
                f"the session can be resumed"
            )
        elif self._session.bodies.has_parts and now - self._part_came > self._limits.stalled_parts:
            self._cut_off = (
                f"the next part of a body has not come for {self._limits.stalled_parts:g} s; the session can be resumed"
            )
        if self._cut_off is not None:
            self._replaced.set()

    async def run(self, opening: pb.Open, catalog: Catalog) -> bool:
        """Carry the session until the client or the kernel ends it, or until the stream ends.

        Return True if the client has ended the session.

        Raises:
            KernelStateError: the kernel is not activated yet.
            ProtocolError, MessageDeserializationError: the client broke the rules.
            CutOffError: the client has made no progress for too long.
            TakenOverError: another stream has been opened for the session.
        """
        self._catalog = catalog
        await self._open(opening)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in (self._read(), self._write(), self._feed())]
                reader, writer, _ = tasks
                replaced = group.create_task(self._replaced.wait())
                await asyncio.wait((reader, writer, replaced), return_when=asyncio.FIRST_COMPLETED)
                if not replaced.done():
                    await asyncio.wait((reader,), timeout=self._limits.farewell)
                for task in (*tasks, replaced):
                    task.cancel()
        except* PyDotComputeError as errors:
            raise errors.exceptions[0] from None
        finally:
            self._acceptance.stop()
            self._session.outbound.forget_wish()
            self._session.bodies.begin()
        if self._replaced.is_set() and not self._said_bye:
            raise TakenOverError if self._cut_off is None else CutOffError(self._cut_off)
        return self._said_bye

    async def _open(self, opening: pb.Open) -> None:
        session, kernel = self._session, self._session.kernel
        inbound, outbound = session.inbound, session.outbound
        require_activated(kernel)
        inbound.incoming.begin(inbound.incoming.received)
        session.bodies.begin()
        outbound.outgoing.resume(opening.received_through)
        outbound.grant(opening.credit)
        inbound.grant()
        closed = inbound.refusal
        self._closed_told = closed is not None
        self._acceptance = Acceptance(session)
        outbound.untold_types()  # They are all in `opened`.
        opened = pb.Opened(
            session_token=session.token,
            received_through=inbound.incoming.received,
            acks_received=outbound.acks_received,
            credit=self._acceptance.told.credit,
            types=[self._catalog.message_type(codec.schema.cls) for codec in session.codecs],
            backpressure_strategy=strategy_to_proto(kernel.config.backpressure_strategy),
            input_queue_size=kernel.config.input_queue_size,
            output_queue_size=kernel.config.output_queue_size,
            max_message_bytes=session.max_message_bytes,
            part_bytes=PART_BYTES,
            shared_memory=session.bodies.offer,
            closed=closed,
            session_timeout=duration(self._limits.session_timeout),
            explains=True,
            daemon_epoch=session.epoch.name,
        )
        await self._context.write(pb.ExchangeResponse(opened=opened))

    # -- from the client -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        session, inbound, bodies = self._session, self._session.inbound, self._session.bodies
        acceptance = self._acceptance
        while isinstance(frame := await self._context.read(), pb.ExchangeRequest | PartFrame):
            if bodies.offer is not None:
                bodies.settle()
            if isinstance(frame, PartFrame):
                self._take_part(frame)
                continue
            kind = frame.WhichOneof("frame")
            if frame.HasField("ack"):
                session.take_ack(frame.ack)
                if kind is None:  # A client that sends an acknowledgement alone may be waiting for news.
                    acceptance.is_due = True
                session.news.notify()
                if self._fed.waiters and inbound.pending:
                    self._fed.notify()  # The client may send more again.
                acceptance.tell_in_time()  # The client keeps an acknowledgement until it knows that it has arrived.
            match kind:
                case "batch":
                    idle = not inbound.pending
                    inbound.take_batch(frame.batch)
                    outbound = session.outbound
                    if idle and len(outbound.outgoing.queue) < WINDOW and not outbound.holds_back:
                        inbound.put_at_once()
                    if self._fed.waiters and (inbound.pending or inbound.wants_credit):
                        self._fed.notify()
                    acceptance.tell_in_time()
                case "part":
                    self._take_part(frame.part)
                case "inquiry":
                    self._explanations.append(session.explain(frame.inquiry))
                    session.news.notify()
                case "bye":
                    self._said_bye = True
                    return
                case None if frame.HasField("ack"):
                    pass
                case None:
                    raise ProtocolError("a frame with nothing in it, or of a kind that this daemon does not know")
                case other:
                    raise ProtocolError(f"unexpected frame: {other}")

    def _take_part(self, part: PartFrame | pb.Part) -> None:
        self._part_came = monotonic()
        self._session.inbound.take_part(part)

    async def _feed(self) -> None:
        """Put the client's messages into the mailbox, and give credit as there is room."""
        inbound, inbox = self._session.inbound, self._session.kernel.mail.inbox
        outbound, memory = self._session.outbound, self._memory
        closing = self._session.kernel.gate.closing
        while True:
            while inbound.pending:
                while len(outbound.outgoing.queue) >= WINDOW:  # The client reads nothing, and refusals pile up.
                    await self._written.wait()
                while outbound.holds_back and inbound.refusal is None:  # The client must acknowledge something first.
                    await wait_any((self._fed, closing))
                await inbound.put_some()
                inbound.grant()
                self._acceptance.tell_in_time()
                await asyncio.sleep(0)
            inbound.grant()
            self._acceptance.tell_in_time()
            if inbound.wants_credit:
                signals = (self._fed, inbox.taken, memory.freed()) if memory.is_tight else (self._fed, inbox.taken)
                seconds = inbox.seconds_to_overdue()
                if inbound.account is not None and inbound.is_starved:
                    later = inbound.account.seconds_to_credit
                    seconds = later if seconds is None else min(seconds, later)
                if not await wait_any(signals, seconds):
                    self._session.kernel.mail.bury_overdue()
            else:
                await self._fed.wait()

    # -- to the client -------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        session, outbound, kernel = self._session, self._session.outbound, self._session.kernel
        while True:
            while not outbound.collect(self._at_once):  # noqa: ASYNC110  # The loop waits for nothing; it lets other tasks run.
                await asyncio.sleep(0)
            frame = self._next_to_send()
            if frame is not None:
                if isinstance(frame, bytes) or not frame.HasField("batch"):
                    pass_outputs_on(kernel)  # While this frame is being written, another client can take outputs.
                self._writing_since = monotonic()
                try:
                    await self._context.write(frame)
                except (grpc.aio.InternalError, grpc.aio.UsageError):
                    return  # The client is gone, and the reader will notice.
                self._writing_since = None
                if self._written.waiters:
                    self._written.notify()
                if not isinstance(frame, bytes) and frame.HasField("bye"):
                    return
                continue
            if outbound.outputs_wanted > 0 and outbound.takes_outputs:
                await wait_any((session.news, kernel.gate.closing, kernel.mail.replies.wanted))
            else:
                await wait_any((session.news, kernel.gate.closing))
            if kernel.mail.outputs.items.size and not outbound.takes_outputs:
                pass_outputs_on(kernel)

    def _next_to_send(self) -> pb.ExchangeResponse | bytes | None:
        session, outgoing, acceptance = self._session, self._session.outbound.outgoing, self._acceptance
        if self._explanations:  # A caller that is about to give up waits for it.
            return pb.ExchangeResponse(explanation=self._explanations.popleft())
        if session.outbound.types_told < len(session.codecs):
            untold = map(self._catalog.message_type, session.outbound.untold_types())
            return pb.ExchangeResponse(types=pb.NewTypes(types=untold))
        if acceptance.is_due and not self._frames and outgoing.has_pieces and (news := self._news()) is not None:
            return news  # The news does not wait for the many pieces of a long body.
        if not self._frames and (outgoing.queue or outgoing.long or outgoing.again):
            chunk = outgoing.next_chunk(LARGEST_BATCH, LARGEST_BATCH_BYTES)
            if isinstance(chunk, bytes):
                return chunk
            if chunk is not None:
                self._frames.extend(frames_of(chunk))
        if (outgoing.queue or session.caller.failed > session.outbound.failed_told) and not self._frames:
            refusals = session.outbound.next_refusals(LARGEST_BATCH)  # What waits now waits for credit.
            if refusals is not None:
                self._frames.extend(frames_of(refusals))
        if self._frames:
            frame = self._frames.popleft()
            # The news waits while a refusal of a message that it would call accepted is yet to be sent.
            if acceptance.is_due_beside and not self._frames and session.outbound.all_is_refused:
                acceptance.add_to(frame)
            return frame
        if acceptance.is_due and (news := self._news()) is not None:
            return news
        if not self._closed_told and (refusal := session.inbound.refusal) is not None:
            self._closed_told = True
            return pb.ExchangeResponse(closed=pb.Closed(status=refusal))
        if self._farewell is None and (ended := session.kernel.mail.replies.ended) is not None and session.all_is_sent:
            self._farewell = told_status(ended)
        if self._farewell is not None and (self._in_a_hurry or session.outbound.all_is_told):
            frame = pb.ExchangeResponse(bye=pb.Bye(status=self._farewell))
            acceptance.add_to(frame)
            return frame
        return None

    def _news(self) -> pb.ExchangeResponse | None:
        """Return a frame that tells what was accepted.

        None if the client knows all of it, or while refusals are yet to be sent.
        """
        frame = pb.ExchangeResponse()
        return frame if self._session.outbound.all_is_refused and self._acceptance.add_to(frame) else None
