"""A client of Exchange in plain grpcio, written from docs/wire.md alone. It has nothing of `pydotcompute_client`."""

import asyncio
from collections import deque
from typing import Any
from uuid import uuid4

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub

CREDIT, CREDIT_BYTES, LARGEST_BATCH = 500, 4 << 20, 100
LONGEST_PAUSE = 1.0


class Refused(Exception):
    """A request will not be answered."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.reason = reason_of(status)


def reason_of(status: status_pb2.Status | None) -> str:
    """The reason in the status's ErrorInfo; empty if it has none, because no daemon has made it."""
    info = error_details_pb2.ErrorInfo()
    found = [info.reason for detail in (status.details if status else ()) if detail.Unpack(info)]
    return str(found[0]) if found else ""


class Session:
    """One session, over as many streams as it takes."""

    def __init__(self, channel: grpc.aio.Channel, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        self.streams = 0
        self._exchange: Any = MessageServiceStub(channel).Exchange
        self._token = b""
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._queue: deque[tuple[bytes, bytes]] = deque()  # Ids and bodies that have no sequence yet.
        self._kept: deque[tuple[int, bytes, bytes]] = deque()  # Sequences, ids and bodies that are not accepted yet.
        self._again: deque[tuple[int, bytes, bytes]] = deque()  # Those of them that have to be written on this stream.
        self._sent = self._sent_bytes = 0
        self._received = self._received_bytes = 0
        self._acks = self._acknowledged = 0
        self._credit = pb.Credit()
        self._news = asyncio.Event()
        self._leaving = self._hears_bye = self._over = False
        self._end = Refused(status_pb2.Status(message="the session is closed"))
        self._task = asyncio.create_task(self._run())

    async def ask(self, body: bytes) -> bytes:
        """Send a request, and return its reply. Raises Refused if there will be none."""
        if self._over:
            raise self._end
        message_id = uuid4().bytes
        reply: asyncio.Future[bytes] = asyncio.Future()
        self._waiting[message_id] = reply
        self._queue.append((message_id, body))
        self._news.set()
        return await reply

    async def close(self) -> None:
        """End the session."""
        self._leaving = True
        self._news.set()
        await self._task

    # -- streams -------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = 0.0
        try:
            while not self._over:
                before = self._received, len(self._kept)
                await self._hold_stream()
                pause = 0.0 if before != (self._received, len(self._kept)) else min(LONGEST_PAUSE, 2 * pause + 0.01)
                await asyncio.sleep(pause)
        except Refused as error:
            self._end = error
            for reply in self._waiting.values():
                if not reply.done():
                    reply.set_exception(error)
        finally:
            self._over = True

    async def _hold_stream(self) -> None:
        self.streams += 1
        call = self._exchange()
        opening = pb.Open(
            kernel_id=self.kernel_id,
            session_token=self._token,
            received_through=self._received,
            credit=self._my_credit(),
            error_in_bye=True,
        )
        writer: asyncio.Task[None] | None = None
        try:
            await call.write(pb.ExchangeRequest(open=opening))
            while isinstance(frame := await call.read(), pb.ExchangeResponse):
                self._take(frame)
                if frame.HasField("opened"):
                    writer = asyncio.create_task(self._write(call))
                elif frame.HasField("bye"):
                    self._end, self._hears_bye = Refused(frame.bye.status), True
                    if writer is None:
                        await call.done_writing()
                self._news.set()  # The writer answers `bye`, and this reads on until the stream ends.
            self._over = self._leaving and await call.code() is grpc.StatusCode.OK
        except (grpc.aio.InternalError, grpc.aio.UsageError, asyncio.InvalidStateError):
            pass  # The stream is cut.
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise  # Else it is gRPC's word for a stream that has ended with CANCELLED.
        except grpc.aio.AioRpcError as error:
            status = rpc_status.from_call(error)
            if reason_of(status) or error.code() is grpc.StatusCode.ABORTED:
                raise Refused(status or status_pb2.Status(message=error.details())) from None
        finally:
            if writer is not None:
                writer.cancel()
            call.cancel()
        if self._hears_bye:
            raise self._end

    # -- to the daemon -------------------------------------------------------------------------------------------------

    async def _write(self, call: Any) -> None:
        while True:
            self._news.clear()
            frame = pb.ExchangeRequest()
            if batch := [] if self._hears_bye else self._next_messages():
                frame.batch.first_sequence = batch[0][0]
                frame.batch.message_ids = b"".join(message_id for _, message_id, _ in batch)
                frame.batch.bodies.extend(body for _, _, body in batch)
            if self._received > self._acknowledged:
                frame.ack.CopyFrom(self._ack())
            is_done = self._leaving and not (batch or self._queue or self._kept or self._waiting)
            if is_done or self._hears_bye:
                frame.bye.SetInParent()
            if not frame.ByteSize():
                await self._news.wait()
                continue
            try:
                await call.write(frame)
            except (grpc.aio.AioRpcError, grpc.aio.InternalError, grpc.aio.UsageError, asyncio.InvalidStateError):
                return  # The reader learns why.
            if frame.HasField("bye"):
                await call.done_writing()
                return

    def _next_messages(self) -> list[tuple[int, bytes, bytes]]:
        """The next messages to write: first those that come again, and then new ones, as far as the credit goes."""
        batch: list[tuple[int, bytes, bytes]] = []
        while self._again and len(batch) < LARGEST_BATCH:
            batch.append(self._again.popleft())
        while not self._again and self._queue and len(batch) < LARGEST_BATCH:
            if self._sent >= self._credit.messages or self._sent_bytes >= self._credit.bytes:
                break
            message_id, body = self._queue.popleft()
            self._sent, self._sent_bytes = self._sent + 1, self._sent_bytes + len(body)
            batch.append((self._sent, message_id, body))
            self._kept.append(batch[-1])
        return batch

    def _ack(self) -> pb.Ack:
        self._acks, self._acknowledged = self._acks + 1, self._received
        return pb.Ack(number=self._acks, through=self._received, credit=self._my_credit())

    def _my_credit(self) -> pb.Credit:
        return pb.Credit(messages=self._received + CREDIT, bytes=self._received_bytes + CREDIT_BYTES)

    # -- from the daemon -----------------------------------------------------------------------------------------------

    def _take(self, frame: pb.ExchangeResponse) -> None:
        if frame.HasField("opened"):
            self._token = frame.opened.session_token
            self._again = deque(each for each in self._kept if each[0] > frame.opened.received_through)
            self._take_credit(frame.opened.credit)
            self._acknowledged = 0  # So that there is an `ack` on this stream.
        elif frame.HasField("batch"):
            ids = frame.batch.correlation_ids or frame.batch.message_ids
            for index, body in enumerate(frame.batch.bodies):
                if self._is_new(frame.batch.first_sequence + index, len(body)):
                    self._answer(ids[16 * index : 16 * index + 16]).set_result(body)
        elif frame.HasField("refused"):
            for index, refusal in enumerate(frame.refused.refusals):
                if self._is_new(frame.refused.first_sequence + index, 0):
                    self._answer(refusal.message_id).set_exception(Refused(refusal.status))
        if frame.HasField("accepted"):
            while self._kept and self._kept[0][0] <= frame.accepted.through:
                self._kept.popleft()
            self._take_credit(frame.accepted.credit)

    def _is_new(self, sequence: int, size: int) -> bool:
        if sequence <= self._received:
            return False
        assert sequence == self._received + 1, "the daemon leaves something out"
        self._received, self._received_bytes = sequence, self._received_bytes + size
        return True

    def _answer(self, message_id: bytes) -> asyncio.Future[bytes]:
        return self._waiting.pop(message_id)

    def _take_credit(self, credit: pb.Credit) -> None:
        self._credit.messages = max(self._credit.messages, credit.messages)
        self._credit.bytes = max(self._credit.bytes, credit.bytes)
