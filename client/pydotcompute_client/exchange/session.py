"""The client's side of a session: a conversation with one kernel, over one stream after another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2

from pydotcompute.exceptions import (
    BackendUnavailableError,
    ConnectionLostError,
    PyDotComputeError,
    SessionLostError,
)
from pydotcompute.messages.ids import uuid_from_int, uuids_from_ints
from pydotcompute.messages.message import classes_declared
from pydotcompute.protobuf.codec import Codec
from pydotcompute.ring_kernels.mail.replies import Replies
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.errors import from_rpc_error, from_status
from pydotcompute.wire.exchange.batches import credit_to_proto, key_of
from pydotcompute.wire.exchange.bodies import Bodies
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute.wire.exchange.frames import PART_BYTES, PartFrame, read_response, request_part, to_bytes
from pydotcompute.wire.exchange.limits import LARGEST_BATCH_BYTES
from pydotcompute.wire.exchange.shared_memory import SharedMemory
from pydotcompute_client.exchange.acks import Acks
from pydotcompute_client.exchange.arrivals import Arrivals, Outputs
from pydotcompute_client.exchange.cuts import Cuts, Obstacle
from pydotcompute_client.exchange.delays import Delays
from pydotcompute_client.exchange.departures import Departures
from pydotcompute_client.pauses import LONGEST_PAUSE, pause
from pydotcompute_client.tokens import Metadata, no_metadata
from pydotcompute_client.types import RemoteTypes

__all__ = ["Session"]

logger = logging.getLogger(__name__)

EXCHANGE = f"/{pb.DESCRIPTOR.services_by_name['MessageService'].full_name}/Exchange"
"""The path of the method. Frames are read and written by `wire.exchange.frames`, and not by the generated stub."""
FAREWELL_SECONDS = 2.0
"""How long `close` waits until the daemon has accepted the messages that were sent."""
LAST_WORD_SECONDS = 0.5
"""How long `close` may take, after that, to tell the daemon that the client leaves."""
OPEN_AGAIN_SECONDS = 1.0
"""How long to try again to begin a session, if the connection breaks meanwhile."""

STAND_IN = "Internal error from Core"
"""What gRPC says of a stream on which a write has failed, until the real status comes."""
REAL_STATUS_SECONDS = 0.2
"""How long to wait for that."""
NARROW_BATCH_BYTES = 64 << 10
"""Bytes of bodies at which a frame is full, after a stream on which nothing got through."""
HINT = "; perhaps a proxy on the way limits the bytes or the seconds of a stream, see docs/proxies.md"

_BROKEN = (grpc.aio.InternalError, grpc.aio.UsageError, asyncio.InvalidStateError)
"""The errors that reading and writing raise on a stream that has ended."""


class Session:
    """One session. When it is over (`over` says why), another can be opened that takes over its `replies`.

    While the session has a stream it has two tasks. The reader delivers the messages that come. The writer sends
    messages; those that gather during one write go together in the next frame. When the stream breaks, another is
    opened.
    """

    def __init__(
        self,
        kernel_id: str,
        target: str,
        types: RemoteTypes,
        channel: grpc.aio.Channel,
        *,
        reconnect_timeout: float,
        max_message_bytes: int,
        shared_memory: bool = False,
        metadata: Callable[[], Metadata] = no_metadata,
        replies: Replies[Any] | None = None,
    ) -> None:
        self.kernel_id = kernel_id
        self.over: PyDotComputeError | None = None
        """The error with which the session ended; None while it goes on."""
        self.untold: SessionLostError | None = None
        """The loss of the session, if no task was waiting to hear of it. The next `send` raises it."""
        self._target = target
        self._types = types
        # A session is part of reference cycles. While it refers to the channel or to a call, the connection stays open
        # until the garbage collector runs, even if the channel is closed. So both are dropped as soon as they are over.
        self._channel: grpc.aio.Channel | None = channel
        self._call: Any = None
        self._reconnect_timeout = reconnect_timeout
        self._max_message_bytes = max_message_bytes
        self._shared_memory = shared_memory
        self._metadata = metadata
        self._token = b""
        self._type_names: list[str] = []
        self._news = Signal()
        self._stirred = False  # True if something has happened since the writer last looked for frames to send.
        self._acks = Acks(self._stir)
        self._cuts = Cuts(reconnect_timeout)
        self._times_taken_over = 0
        self._broke = ""  # The status with which the last stream ended, in words.
        self._release: asyncio.TimerHandle | None = None
        self._closing = self._leaving = False
        if replies is None:
            replies = Replies(kernel_id, Outputs(kernel_id), self._nobody_waits)
        replies.begin(asyncio.get_running_loop(), self._nobody_waits, self._stir)
        self.replies = replies
        self._arrivals = Arrivals(replies, self._acks)
        self._delays = Delays(self._stir)
        replies.explain(self._delays.of_receive, self._delays.ask)
        self._departures = Departures(kernel_id, types, replies, self._acks, self._news, self._delays)
        # These are not wrapped in methods, which would cost one more call for each message.
        self.send = self._departures.send
        self.send_and_receive = self._departures.send_and_receive
        outputs = replies.outputs
        assert isinstance(outputs, Outputs)
        outputs.on_taken = self._acks.output_taken
        self._task: asyncio.Task[None] | None = None

    @property
    def is_spent(self) -> bool:
        """True if the session is over, and there is nothing left to receive and nothing left to tell."""
        return self.over is not None and self.untold is None and not self.replies.any_left

    # -- streams -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin the session.

        Raises:
            KernelNotFoundError, KernelStateError, MessageTypeError: the daemon says so.
            ConnectionLostError: the daemon cannot be reached.
        """
        try:
            try:
                await self._open_stream(wait_for_ready=False)
            except ConnectionLostError as error:
                # The connection may have broken just now, and nothing has been sent.
                if await self._open_again(OPEN_AGAIN_SECONDS) is not None:
                    raise error from None
        except BaseException:
            self._channel = None
            raise
        self._task = asyncio.create_task(self._run(), name=f"session with {self.kernel_id}")

    async def _open_stream(self, *, wait_for_ready: bool) -> None:
        assert self._channel is not None
        exchange: Any = self._channel.stream_stream(EXCHANGE, to_bytes, read_response)
        self._call = exchange(metadata=self._metadata(), wait_for_ready=wait_for_ready)
        try:
            opening = pb.Open(
                kernel_id=self.kernel_id,
                session_token=self._token,
                received_through=self._arrivals.incoming.received,
                credit=credit_to_proto(self._arrivals.incoming.credit),
                max_message_bytes=self._max_message_bytes,
                part_bytes=PART_BYTES,
                shared_memory=self._shared_memory,
                new_types=True,
                error_in_bye=True,
            )
            self._arrivals.incoming.begin(self._arrivals.incoming.received)
            try:
                await self._call.write(pb.ExchangeRequest(open=opening))
                frame = await self._call.read()
            except (grpc.aio.AioRpcError, *_BROKEN):
                raise await self._why_it_broke() from None
            if not isinstance(frame, pb.ExchangeResponse):
                raise await self._why_it_broke()
            if frame.HasField("bye"):
                await self._end_call()
                raise self._error(frame.bye.status)
            try:
                self._opened(frame.opened)
            except BackendUnavailableError:
                await self._say_bye()
                raise
        except BaseException:
            self._drop_call()
            raise

    def _drop_call(self) -> None:
        self._call.cancel()
        self._call = None

    def _opened(self, opened: pb.Opened) -> None:
        codecs = self._learn(opened.types[len(self._type_names) :])
        if not self._token:
            self._bodies = self._arrivals.bodies = Bodies(
                self._arrivals.incoming,
                request_part,
                longest=opened.max_message_bytes,
                longest_received=self._max_message_bytes,
                part_bytes=opened.part_bytes,
                memory=SharedMemory.open(opened, codecs) if self._shared_memory else None,
            )
            self._departures.begin(opened, self._bodies, self._type_names[0])
        self._token = opened.session_token
        self._delays.connected(explains=opened.explains)
        self._bodies.begin()
        self._departures.resume(opened.received_through)
        self._opened_at, self._reached = monotonic(), self._progress
        self._departures.grant(opened.credit)
        self._acks.resume(opened.acks_received)
        if opened.HasField("closed"):
            self._departures.close(self._error(opened.closed))

    def _learn(self, message_types: Iterable[pb.MessageType]) -> list[Codec[Any]]:
        """Take in the next types of the kernel. Return the codecs of all its types."""
        self._type_names += map(self._types.learn, message_types)
        return self._find_codecs()

    def _find_codecs(self) -> list[Codec[Any]]:
        """Return the codecs of the kernel's types, for the classes that were declared last, and receive with them."""
        self._declared = classes_declared()
        codecs = self._arrivals.codecs
        codecs[:] = map(self._types.receiving_codec, self._type_names)  # The shared memory has the same list.
        return codecs

    async def _say_bye(self) -> None:
        """Tell the daemon to end a session that was just opened."""
        with suppress(grpc.aio.AioRpcError, *_BROKEN):
            await self._call.write(pb.ExchangeRequest(bye=pb.Bye()))
        await self._end_call()

    async def _end_call(self) -> None:
        """End this side of a stream, and wait for the daemon to end its own."""
        with suppress(grpc.aio.AioRpcError, *_BROKEN):
            await self._call.done_writing()
            await asyncio.wait((asyncio.ensure_future(self._call.code()),), timeout=LAST_WORD_SECONDS)

    async def _run(self) -> None:
        """Carry the session to its end, over one stream after another."""
        ending: PyDotComputeError | None = None
        try:
            while (ending := await self._converse()) is None:
                self._delays.disconnected()
                await self._reconnect()
        except PyDotComputeError as error:
            ending = error
        except Exception as broken:  # For example, a message class of the program raises.
            logger.exception("a conversation with %r has failed", self.kernel_id)
            ending = PyDotComputeError(f"the conversation with {self.kernel_id!r} has failed: {broken!r}")
        finally:
            # No task may go on waiting when nothing reads the stream any more.
            self._end(ending or ConnectionLostError(self._target, "the conversation was cancelled"))

    async def _converse(self) -> PyDotComputeError | None:
        """Carry the session over one stream. Return the session's last error, or None if only the stream ended."""
        writer = asyncio.create_task(self._write(), name=f"writer to {self.kernel_id}")
        try:
            ending = await self._read()
            if ending is not None:
                self._end(ending)
                # The writer sends the last frame; a cancelled call would overtake that.
                await asyncio.wait((writer,), timeout=FAREWELL_SECONDS)
                await asyncio.wait((asyncio.ensure_future(self._call.code()),), timeout=LAST_WORD_SECONDS)
            return ending
        finally:
            writer.cancel()
            await asyncio.wait((writer,))
            self._drop_call()

    async def _reconnect(self) -> None:
        """Open another stream for the session, later each time if the streams before it were cut at the same place.

        Raises:
            SessionLostError: the daemon has lost the session, or was not reached in time, or nothing gets through.
        """
        cuts, now = self._cuts, monotonic()
        cuts.cut(self._obstacle(now), now)
        # If nothing got through, the way may be too narrow for a frame and not for a message.
        self._departures.batch_bytes = LARGEST_BATCH_BYTES if cuts.obstacle is None else NARROW_BATCH_BYTES
        if cuts.count > 1:
            what = getattr(cuts.obstacle, "what", "") or "anything"
            problem = f"{cuts.count} streams in a row were cut before {what} got through"
            if cuts.is_hopeless(now):
                raise self._lost(f"{problem}, in {cuts.seconds(now):.3g} s; the last ended with {self._broke!r}{HINT}")
            if cuts.count == 2:
                where = f"kernel {self.kernel_id!r} at {self._target}"
                logger.warning("%s: %s; the last ended with %r%s", where, problem, self._broke, HINT)
            await self._wait_before_next(cuts.delay())
        try:
            error = await self._open_again(self._reconnect_timeout)
        except SessionLostError as lost:
            raise self._lost(lost.problem) from None
        if error is not None:
            raise self._lost(f"not reached again within {self._reconnect_timeout:g} s ({error.problem})")

    def _obstacle(self, now: float) -> Obstacle | None:
        """Return what the stream that has just ended was cut short in; None if it got on, or had time to."""
        has_moved = self._progress != self._reached
        if (key_and_size := self._departures.cut_short(has_moved)) is not None:
            key, size = key_and_size
            return Obstacle(("to the kernel", key), f"a message of {size:,} bytes")
        if (coming := self._bodies.coming) is not None:
            return Obstacle(("from the kernel", coming), f"a reply of {coming.body_bytes:,} bytes")
        if has_moved or now - self._opened_at > LONGEST_PAUSE:
            return None
        # Perhaps the beginning of a reply has come, which nobody sees here.
        return Obstacle(self._reached, "a reply" if self.replies.waiting_keys() else "")

    @property
    def _progress(self) -> tuple[int, int]:
        """The messages that have got through, in each direction."""
        return self._departures.outgoing.acknowledged, self._arrivals.incoming.received

    async def _wait_before_next(self, seconds: float) -> None:
        """Wait before the next try. If only a long message is held up, the next stream has it wait, and nobody else."""
        outgoing = self._departures.outgoing
        if outgoing.long_under_way is None:
            await asyncio.sleep(seconds)
        else:
            outgoing.holds_long = True
            self._release = asyncio.get_running_loop().call_later(seconds, self._release_long)

    def _release_long(self) -> None:
        self._departures.outgoing.holds_long = False
        self._stir()

    async def _open_again(self, timeout: float) -> ConnectionLostError | None:
        """Open another stream within `timeout` seconds. Return None, or the error if the daemon was not reached.

        Raises:
            SessionLostError: the daemon has no such session any more.
        """
        failures = 0
        error = ConnectionLostError(self._target, "the connection was cut off")
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await self._open_stream(wait_for_ready=True)
                        return None
                    except SessionLostError:
                        raise
                    except ConnectionLostError as broken:
                        error = broken
                    await asyncio.sleep(pause(failures))
                    failures += 1
        return error

    def _lost(self, problem: str, not_taken: Iterable[int] = ()) -> SessionLostError:
        """Return the error of a session that cannot go on, with the fate of its messages as far as it is known.

        Args:
            not_taken: the `message_id.int`s of messages that the kernel has certainly not taken.
        """
        unsent = dict.fromkeys([*not_taken, *map(key_of, self._departures.outgoing.unsent())])
        unknown = [key for key in self.replies.waiting_keys() if key not in unsent]
        return SessionLostError(
            self._target, problem, self.kernel_id, uuids_from_ints(unknown), uuids_from_ints(list(unsent))
        )

    async def _why_it_broke(self) -> PyDotComputeError:
        """Return the status of a stream that has ended, as an error."""
        code = await self._call.code()
        with suppress(TimeoutError):
            async with asyncio.timeout(REAL_STATUS_SECONDS):
                while await self._call.details() == STAND_IN:  # noqa: ASYNC110  # gRPC does not say when it comes.
                    await asyncio.sleep(0.001)
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return ConnectionLostError(self._target, "the daemon has ended the stream")
        details = await self._call.details()
        error = grpc.aio.AioRpcError(
            code, await self._call.initial_metadata(), await self._call.trailing_metadata(), details
        )
        known = from_rpc_error(error, self._target)
        if code is grpc.StatusCode.ABORTED and type(known) is PyDotComputeError:
            return self._taken_over(details or "")
        return known

    async def close(self) -> None:
        """End the session, after a short wait for the daemon to accept the messages that were sent."""
        if self._task is not None:
            if self.over is None:
                self._closing = True
                self._acks.ask_for_news()
            await asyncio.wait((self._task,), timeout=FAREWELL_SECONDS)  # A session that is over sends its last frame.
            if self.over is None:  # The daemon is told to end the session too, so that it keeps nothing for it.
                self._leaving = True
                self._stir()
                await asyncio.wait((self._task,), timeout=LAST_WORD_SECONDS)
            self._end(ConnectionLostError(self._target, "the client has closed the connection"))
            self._task.cancel()
            await asyncio.wait((self._task,))
            if self._call is not None:  # The task was cancelled before its first step.
                self._drop_call()

    async def wait_closed(self, timeout: float) -> None:
        """Wait until the daemon has said that the kernel takes no more messages, or for `timeout` seconds."""
        while self._departures.refusal is None and await self._departures.refusing.wait(timeout):
            pass

    async def wait_over(self, timeout: float) -> None:
        """Wait until the session has ended, which it does once the kernel has; at most for `timeout` seconds."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=timeout)

    # -- to the daemon -------------------------------------------------------------------------------------------------

    def _stir(self) -> None:
        """Wake the writer, because there may be something to send."""
        self._stirred = True
        if self._news.waiters:
            self._news.notify()

    async def _write(self) -> None:
        outgoing, news = self._departures.outgoing, (self._news,)
        while True:
            self._stirred = False
            frame = self._next_to_send()
            if frame is not None:
                try:
                    await self._call.write(frame)
                    if not isinstance(frame, bytes) and frame.HasField("bye"):
                        await self._call.done_writing()
                        return
                except (grpc.aio.AioRpcError, *_BROKEN):
                    return  # The reader finds out why the stream has ended.
                if self._stirred or outgoing.queue or outgoing.long or outgoing.again:
                    continue
            await wait_any(news)

    def _next_to_send(self) -> pb.ExchangeRequest | bytes | None:
        outgoing, acks, replies = self._departures.outgoing, self._acks, self.replies
        frame = pb.ExchangeRequest()
        has_batch = False
        if self.over is None:
            if acks.outputs_held and not replies.receiving:
                self._arrivals.return_outputs()
            # This comes before any message, because the kernel's outputs for that message may be for another client.
            acks.want_outputs(replies.receiving)
            if self._delays.wants_to_ask:
                self._delays.fill(frame.inquiry)
                self._stirred = True  # There may be more to send.
                return frame
            # An acknowledgement that is due does not wait for the many pieces of a long body.
            if not (acks.is_due and outgoing.has_pieces):
                if (ahead := self._departures.next_frame(frame)) is not None:
                    return ahead
                has_batch = frame.HasField("batch")
        finished = self.over is not None or self._leaving or (self._closing and outgoing.all_acknowledged)
        if acks.is_due or (has_batch and acks.can_go_beside) or (finished and acks.has_news):
            self._arrivals.grant()
            acks.fill(frame.ack)
            frame.ack.credit.CopyFrom(credit_to_proto(self._arrivals.incoming.credit))
        if finished and not has_batch:
            frame.bye.SetInParent()
        elif not has_batch and not frame.HasField("ack"):
            return None
        return frame

    def _nobody_waits(self, message: Any, why: str) -> None:
        """Tell the daemon of a reply that has come too late. The daemon makes it a dead letter."""
        if not self._acks.undeliverable(message):
            logger.warning("a reply of %r is lost: %s after it was acknowledged", self.kernel_id, why)

    # -- from the daemon -----------------------------------------------------------------------------------------------

    async def _read(self) -> PyDotComputeError | None:
        """Read frames, and act on them. Return the error that ends the session, or None if only the stream ended."""
        try:
            while isinstance(frame := await self._call.read(), pb.ExchangeResponse | PartFrame):
                if isinstance(frame, PartFrame):
                    self._bodies.take_part(frame)
                elif (ending := self._take(frame)) is not None:
                    return ending
            error = await self._why_it_broke()
        except (grpc.aio.AioRpcError, *_BROKEN):
            error = await self._why_it_broke()
        except ConnectionLostError as taken_over:
            error = taken_over
            await self._end_call()
        if self._leaving or (self._closing and self._departures.outgoing.all_acknowledged):
            return ConnectionLostError(self._target, "the client has closed the connection")
        if isinstance(error, SessionLostError):
            return self._lost(error.problem)
        if not isinstance(error, ConnectionLostError):
            return error
        self._broke = error.problem
        return None

    def _take(self, frame: pb.ExchangeResponse) -> PyDotComputeError | None:
        """Act on a frame. Return the error that ends the session, or None if it goes on."""
        match frame.WhichOneof("frame"):
            case "batch":
                if self._declared != classes_declared():
                    self._find_codecs()
                self._arrivals.take_batch(frame.batch)
            case "part":
                self._bodies.take_part(frame.part)
            case "types":
                self._learn(frame.types.types)
            case "refused":
                self._take_refused(frame.refused)
            case "closed":
                self._departures.close(self._error(frame.closed.status))
            case "bye":
                if frame.HasField("accepted"):
                    self._take_accepted(frame.accepted)
                error = self._error(frame.bye.status)
                if _is_taken_over(frame.bye.status):
                    raise error  # The session goes on, with another stream.
                if isinstance(error, ConnectionLostError):
                    # The daemon will never accept the messages that it has not accepted until now. Others may have been
                    # accepted and not answered: if there are any, the session is lost.
                    lost = self._lost(error.problem, [*map(key_of, self._departures.outgoing.unacknowledged())])
                    return lost if lost.message_ids else error
                return error
            case "explanation":
                self._delays.take(frame.explanation)
            case None if frame.HasField("accepted"):
                pass
            case None:
                raise ProtocolError("a frame with nothing in it, or of a kind that this client does not know")
            case other:
                raise ProtocolError(f"unexpected frame: {other}")
        if frame.HasField("accepted"):
            self._take_accepted(frame.accepted)
        return None

    def _error(self, status: status_pb2.Status) -> PyDotComputeError:
        """Return the error of a status from the daemon. UNAVAILABLE means that the daemon is about to end."""
        if status.code == code_pb2.UNAVAILABLE:
            return ConnectionLostError(self._target, status.message)
        return self._taken_over(status.message) if _is_taken_over(status) else from_status(status)

    def _taken_over(self, problem: str) -> ConnectionLostError:
        """Return the error of a stream whose session another stream has.

        That may have been a stream of this client's, which came late. So the client takes the session back, but once:
        if somebody else has the token, the two would take it from each other for ever.
        """
        self._times_taken_over += 1
        return ConnectionLostError(self._target, problem) if self._times_taken_over == 1 else self._lost(problem)

    def _take_accepted(self, accepted: pb.Accepted) -> None:
        self._departures.accepted(accepted.through)
        self._departures.grant(accepted.credit)
        if self._closing or not self._departures.outgoing.all_sent:
            self._stir()
        self._acks.confirm(accepted.acks_received)

    def _take_refused(self, refused: pb.Refused) -> None:
        again = self._arrivals.take_refused(refused.first_sequence, len(refused.refusals))
        for refusal in refused.refusals[again:]:
            error = self._error(refusal.status)
            key = int.from_bytes(refusal.message_id)
            if not (refusal.sequence and self._departures.not_taken(key, error)):
                self.replies.fail(uuid_from_int(key), error)

    def _end(self, error: PyDotComputeError) -> None:
        if self.over is not None:
            return
        self.over = error
        self._channel = None
        self._arrivals.end()
        self._acks.stop()
        if self._release is not None:
            self._release.cancel()
        told = self._departures.end(error)
        if isinstance(error, ConnectionLostError):
            if isinstance(error, SessionLostError):
                self._arrivals.forget_outputs()
            told = self.replies.lose(error) or told
        if isinstance(error, SessionLostError) and not told and (error.message_ids or error.unsent_ids):
            self.untold = error
        self._departures.close(error)
        self.replies.end(error)
        self._stir()


def _is_taken_over(status: status_pb2.Status) -> bool:
    """Return True for the status of a stream whose session another stream has."""
    return status.code == code_pb2.ABORTED and not status.details
