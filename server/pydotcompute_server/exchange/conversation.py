"""One Exchange stream, while it carries a session."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import grpc
from google.rpc import status_pb2

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.ring_kernels.lifecycle import KernelState
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.durations import duration
from pydotcompute.wire.errors import to_status
from pydotcompute.wire.exchange.batches import credit_to_proto, fill
from pydotcompute.wire.exchange.flow import Chunk, ProtocolError
from pydotcompute.wire.exchange.frames import PART_BYTES, PartFrame
from pydotcompute.wire.kernels import strategy_to_proto
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.exchange.sessions import CREDIT_BYTES, LARGEST_CREDIT, OUTPUT, REFUSAL, Sent, Session

__all__ = ["Conversation"]

LARGEST_BATCH = 1_024
"""Messages in one frame."""
LARGEST_BATCH_BYTES = 1 << 20
"""Bytes of bodies after which a frame is sent."""
AT_ONCE = 256
"""Messages put into the mailbox, or prepared for sending, before other tasks have their turn."""
TELL_AFTER = 512
"""Messages accepted that the client must hear of at once."""
TELL_BESIDE = 64
"""Messages accepted that it hears of beside the next replies: to tell it of each would cost as much as the message."""
TELL_WITHIN = 0.2
"""Seconds after which it hears of fewer."""
FAREWELL_SECONDS = 1.0
"""How long the client has to acknowledge and close after the daemon's `bye`."""


class Conversation:
    """Moves messages between a session and its client, as long as one stream lives.

    Three tasks: the reader takes frames from the stream and never waits for anything else, so that acknowledgements get
    through while the mailbox is full; the feeder puts messages into the mailbox, and waits where the mailbox makes
    senders wait; the writer sends whatever there is to send, all that has gathered while the last write was under way
    in one frame.
    """

    def __init__(self, session: Session, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._session = session
        self._context = context
        self._fed = Signal()
        self._written = Signal()
        self._told = pb.Accepted()
        self._tell: asyncio.TimerHandle | None = None
        self._tell_now = False
        self._closed_told = False
        self._said_bye = False
        self._frames: deque[pb.ExchangeResponse] = deque()
        self._farewell: status_pb2.Status | None = None
        self._in_a_hurry = False
        self._replaced = asyncio.Event()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the conversation is over."""

    def farewell(self, status: status_pb2.Status) -> None:
        """End the session with this status, after what there is to send."""
        self._farewell = status
        self._session.news.notify()

    def hurry(self) -> None:
        """Say `bye` now, though the client gives no credit for what there is to send."""
        self._in_a_hurry = True
        self._session.news.notify()

    def drain(self, status: status_pb2.Status) -> None:
        """Take no more messages; those that the mailbox has are finished."""
        self._session.draining = status
        self._fed.notify()
        self._session.news.notify()

    def replace(self) -> None:
        """The client has opened another stream for the session: this one is dead."""
        self._replaced.set()

    async def run(self, opening: pb.Open, catalog: Catalog, session_timeout: float) -> bool:
        """Carry the session until the client or the kernel ends it, or the stream does; whether the session is over.

        Raises:
            KernelStateError: the kernel is not activated yet.
            ProtocolError, MessageDeserializationError: the client broke the rules.
        """
        await self._open(opening, catalog, session_timeout)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in (self._read(), self._write(), self._feed())]
                reader, writer, _ = tasks
                replaced = group.create_task(self._replaced.wait())
                await asyncio.wait((reader, writer, replaced), return_when=asyncio.FIRST_COMPLETED)
                if not replaced.done():
                    await asyncio.wait((reader,), timeout=FAREWELL_SECONDS)
                for task in (*tasks, replaced):
                    task.cancel()
        except* PyDotComputeError as errors:
            raise errors.exceptions[0] from None
        finally:
            if self._tell is not None:
                self._tell.cancel()
            self._session.outputs_wanted = self._session.outputs_sent
            self._session.bodies.begin()
        return self._said_bye

    async def _open(self, opening: pb.Open, catalog: Catalog, session_timeout: float) -> None:
        session, kernel = self._session, self._session.kernel
        if kernel.state in (KernelState.CREATED, KernelState.LAUNCHED):
            refusal = kernel.refusal
            assert refusal is not None
            raise refusal.again()
        session.incoming.begin(session.incoming.received)
        session.bodies.begin()
        session.outgoing.resume(opening.received_through)
        session.grant_outgoing(opening.credit)
        session.grant()
        refusal = session.refusal
        self._closed_told = refusal is not None
        self._told = pb.Accepted(credit=credit_to_proto(session.incoming.credit), acks_received=session.acks_received)
        opened = pb.Opened(
            session_token=session.token,
            received_through=session.incoming.received,
            acks_received=session.acks_received,
            credit=self._told.credit,
            types=[catalog.message_type(codec.schema.cls) for codec in session.codecs],
            backpressure_strategy=strategy_to_proto(kernel.config.backpressure_strategy),
            input_queue_size=kernel.config.input_queue_size,
            output_queue_size=kernel.config.output_queue_size,
            max_message_bytes=session.max_message_bytes,
            part_bytes=PART_BYTES,
            shared_memory=session.bodies.offer,
            closed=refusal,
            session_timeout=duration(session_timeout),
        )
        await self._context.write(pb.ExchangeResponse(opened=opened))

    # -- from the client -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        session = self._session
        while isinstance(frame := await self._context.read(), pb.ExchangeRequest | PartFrame):
            if session.bodies.offer is not None:
                session.bodies.settle()
            if isinstance(frame, PartFrame):
                session.bodies.take_part(frame)
                continue
            kind = frame.WhichOneof("frame")
            if frame.HasField("ack"):
                session.take_ack(frame.ack)
                self._tell_now = self._tell_now or kind is None  # One that says nothing else may be waiting for news.
                session.news.notify()
                self._tell_in_time()  # The client keeps what it has told until it knows that it has come.
            match kind:
                case "batch":
                    idle = not session.pending
                    session.take_batch(frame.batch)
                    if idle and session.can_put_at_once:
                        session.put(min(AT_ONCE, session.kernel.inbox.room))
                        session.grant()
                    if session.pending or self._wants_credit():
                        self._fed.notify()
                    self._tell_in_time()
                case "part":
                    session.bodies.take_part(frame.part)
                case "bye":
                    self._said_bye = True
                    return
                case None if frame.HasField("ack"):
                    pass
                case other:
                    raise ProtocolError(f"unexpected frame: {other or 'none'}")

    async def _feed(self) -> None:
        """Put what the client sends into the mailbox, and give credit as there is room."""
        session, inbox = self._session, self._session.kernel.inbox
        while True:
            while session.pending:
                while len(session.outgoing.queue) >= LARGEST_CREDIT:  # The client reads nothing: refusals pile up.
                    await self._written.wait()
                await self._put_some()
                session.grant()
                self._tell_in_time()
                await asyncio.sleep(0)
            session.grant()
            self._tell_in_time()
            if self._wants_credit():
                if not await wait_any((self._fed, inbox.taken), inbox.seconds_to_overdue()):
                    session.kernel.bury_overdue()
            else:
                await self._fed.wait()

    async def _put_some(self) -> None:
        session, kernel = self._session, self._session.kernel
        if session.draining is not None:
            session.refuse_pending(session.draining)
            return
        if kernel.refusal is not None or kernel.inbox.strategy != "block":
            for _ in range(min(AT_ONCE, len(session.pending))):
                await session.put_next()
            return
        try:
            session.put(await kernel.room_for(session.caller, min(AT_ONCE, len(session.pending))))
        except PyDotComputeError:
            return  # The kernel takes no more: what is left will be refused.

    def _wants_credit(self) -> bool:
        incoming = self._session.incoming
        left = incoming.credit.messages - incoming.received
        if incoming.credit.bytes - incoming.received_bytes < CREDIT_BYTES // 2:
            return True
        return left < min(LARGEST_CREDIT, self._session.kernel.inbox.capacity) // 2 or left == 0

    # -- to the client -------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        session = self._session
        while True:
            while not session.collect(AT_ONCE):  # noqa: ASYNC110  # It waits for nothing, and lets others run.
                await asyncio.sleep(0)
            frame = self._next_to_send()
            if frame is not None:
                if isinstance(frame, bytes) or not frame.HasField("batch"):
                    self._pass_on()  # While this is being written, another can take what there is.
                try:
                    await self._context.write(frame)
                except (grpc.aio.InternalError, grpc.aio.UsageError):
                    return  # The client is gone, and the reader will notice.
                self._written.notify()
                if not isinstance(frame, bytes) and frame.HasField("bye"):
                    return
                continue
            signals = [session.news, session.kernel.changed]
            if session.takes_outputs:
                signals.append(session.kernel.replies.wanted)
            await wait_any(signals)
            if not session.takes_outputs:
                self._pass_on()

    def _pass_on(self) -> None:
        """Wake another for the outputs that this one may have been woken for."""
        if self._session.kernel.outputs.items.size:
            self._session.kernel.replies.wanted.notify()

    def _next_to_send(self) -> pb.ExchangeResponse | bytes | None:
        session, outgoing = self._session, self._session.outgoing
        if outgoing.has_pieces and not self._frames and (news := self._news()) is not None:
            return news  # It does not wait for many pieces of a body.
        if not self._frames:
            chunk = outgoing.next_chunk(LARGEST_BATCH, LARGEST_BATCH_BYTES)
            if isinstance(chunk, bytes):
                return chunk
            if chunk is not None:
                self._frames.extend(_frames(chunk))
        if self._frames:
            frame = self._frames.popleft()
            enough = session.incoming.done - self._told.through >= TELL_BESIDE or self._must_tell()
            if enough and not self._frames and outgoing.all_short_sent:  # No refusal of what it tells is yet to come.
                self._add_accepted(frame)
            return frame
        if (news := self._news()) is not None:
            return news
        if not self._closed_told and (refusal := session.refusal) is not None:
            self._closed_told = True
            return pb.ExchangeResponse(closed=pb.Closed(status=refusal))
        if self._farewell is None and session.all_is_sent:
            assert session.kernel.replies.ended is not None
            self._farewell = to_status(session.kernel.replies.ended)
        if self._farewell is not None and (self._in_a_hurry or session.all_is_told):
            frame = pb.ExchangeResponse(bye=pb.Bye(status=self._farewell))
            self._add_accepted(frame)
            return frame
        return None

    def _news(self) -> pb.ExchangeResponse | None:
        """What was accepted, in a frame of its own, if the client should hear of it now."""
        if not (self._tell_now or self._must_tell()) or not self._session.outgoing.all_short_sent:
            return None
        self._tell_now = False
        frame = pb.ExchangeResponse()
        return frame if self._add_accepted(frame) else None

    def _add_accepted(self, frame: pb.ExchangeResponse) -> bool:
        """Say in this frame what was accepted, if the client does not know it; whether there was anything to say."""
        incoming = self._session.incoming
        told, credit = self._told, incoming.credit
        if (
            told.through == incoming.done
            and told.credit.messages == credit.messages
            and told.credit.bytes == credit.bytes
            and told.acks_received == self._session.acks_received
        ):
            return False
        told.through = incoming.done
        told.credit.messages, told.credit.bytes = credit
        told.acks_received = self._session.acks_received
        frame.accepted.CopyFrom(told)
        return True

    def _must_tell(self) -> bool:
        """Whether the client may be waiting to hear what was accepted, or for credit."""
        session, told = self._session, self._told
        incoming = session.incoming
        if session.kernel.inbox.strategy == "reject" and incoming.done > told.through:
            return True
        if incoming.done - told.through >= TELL_AFTER:
            return True
        window = min(LARGEST_CREDIT, session.kernel.inbox.capacity)
        left, more = told.credit.messages - incoming.received, incoming.credit.messages - told.credit.messages
        if more > 0 and (left <= 0 or (left <= window // 2 and more >= window // 8)):
            return True
        left = told.credit.bytes - incoming.received_bytes
        return left <= CREDIT_BYTES // 2 and incoming.credit.bytes > told.credit.bytes

    def _tell_in_time(self) -> None:
        """Something was accepted: the client hears of it soon, beside a reply or else alone."""
        if self._must_tell():
            self._session.news.notify()
        elif self._tell is None:
            self._tell = asyncio.get_running_loop().call_later(TELL_WITHIN, self._time_to_tell)

    def _time_to_tell(self) -> None:
        self._tell = None
        self._tell_now = True
        self._session.news.notify()


def _frames(chunk: Chunk[Sent]) -> Iterator[pb.ExchangeResponse]:
    """The frames for what a session has to send: messages, and refusals, which may come mixed."""
    first = chunk.first
    for is_refusal, group in groupby(chunk.items, lambda item: item[5] == REFUSAL):
        items = list(group)
        frame = pb.ExchangeResponse()
        if is_refusal:
            frame.refused.first_sequence = first
            frame.refused.refusals.extend(item[4] for item in items)
        else:
            _fill(frame.batch, first, items)
            if chunk.before:
                frame.batch.before_replies_to = _requests_of(chunk.before)
        yield frame
        first += len(items)


def _requests_of(replies: Sequence[Sent]) -> bytes:
    """The ids of the requests that these answer; an output answers none."""
    return b"".join(
        (key if answers is None else answers).to_bytes(16) for _, key, _, answers, _, kind in replies if kind < OUTPUT
    )


def _fill(batch: pb.Batch, first: int, items: list[Sent]) -> None:
    fill(batch, first, items)
    kinds = [item[5] for item in items]
    kind = kinds[0]
    if kinds.count(kind) == len(kinds) and kind < OUTPUT:
        if kind:
            batch.types.append(kind)
        return
    batch.types.extend(kind % OUTPUT for kind in kinds)
    batch.outputs.extend(index for index, kind in enumerate(kinds) if kind >= OUTPUT)
