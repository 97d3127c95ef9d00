"""Whatever clients do, the daemon knows what its messages take: nothing is forgotten, or counted for ever."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any
from uuid import uuid4

import grpc
import pytest

from pydotcompute import message
from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import message_service_pb2_grpc as pb_grpc
from pydotcompute_server import Daemon, Limits, Settings
from tests.contract.world import eventually
from tests.properties import examples
from tests.stubs import PATIENCE, duration

KIB = 1 << 10
BUDGET = 2_000 * KIB
SIZES = (0, 10, 300, 5 * KIB, 5 * KIB, 60 * KIB, 300 * KIB)
CLIENT_IDS = ("", "a", "b")
ROUNDS = 60
TASKS = 6


@message(package="blob.v1")
class Blob:
    """Some bytes."""

    data: bytes = b""


blob_of: Any = Blob


async def echo(ctx: KernelContext[Any, Any]) -> None:
    """Answers each message with its bytes."""
    async for blob in ctx:
        await ctx.send(blob_of(blob.data, correlation_id=blob.message_id))


async def crier(ctx: KernelContext[Any, Any]) -> None:
    """Turns each message into an output."""
    async for blob in ctx:
        await ctx.send(Blob(blob.data))


async def twice(ctx: KernelContext[Any, Any]) -> None:
    """Answers each message twice; fails at an empty one."""
    async for blob in ctx:
        if not blob.data:
            raise ValueError
        for _ in range(2):
            await ctx.send(blob_of(blob.data, correlation_id=blob.message_id))


async def sink(ctx: KernelContext[Any, Any]) -> None:
    """Answers nothing."""
    async for _ in ctx:
        pass


def kernel_type(actor: Any, **settings: Any) -> KernelType:
    name = actor.__name__
    return KernelType(name, actor, RingKernelConfig(name, **settings), Blob, Blob)


TYPES = {
    each.name: each
    for each in (
        kernel_type(echo, input_queue_size=20),
        kernel_type(crier, output_queue_size=8),
        kernel_type(twice, input_queue_size=4, backpressure_strategy="drop_oldest"),
        kernel_type(sink, input_queue_size=4, backpressure_strategy="reject"),
    )
}


@asynccontextmanager
async def running(limits: Limits) -> AsyncIterator[tuple[Daemon, grpc.aio.Channel]]:
    """A daemon in this process, with all kernels."""
    daemon = Daemon(Settings(listen="127.0.0.1:0", launch=["all"], limits=limits), TYPES)
    await daemon.start()
    task = asyncio.create_task(daemon.run())
    try:
        async with grpc.aio.insecure_channel(daemon.address) as channel:
            yield daemon, channel
    finally:
        daemon.stop()
        await task


def true_figures(daemon: Daemon) -> None:
    """Each figure that is kept is what a count gives."""
    for kernel in daemon._runtime.all_kernels():
        inbox = kernel.mail.inbox
        assert inbox.bytes == sum(terms.size for _, _, terms in inbox.items if terms is not None)
    for session in daemon._exchange._sessions._sessions.values():
        outgoing, inbound = session.outbound.outgoing, session.inbound
        assert outgoing.kept_bytes == sum(len(item[0]) for item in outgoing.unacknowledged())
        assert outgoing.queued_bytes == sum(len(item[0]) for item in outgoing.queue)
        assert inbound._pending_bytes == sum(len(item[0]) for item in inbound.pending)
        assert 0 <= inbound._without_room <= len(inbound.pending)
    for place, size in daemon.memory.report().items():
        assert size >= 0, place


def body(data: bytes) -> bytes:
    """A `Blob` on the wire."""
    length, left = b"", len(data)
    while left >= 128:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return b"\x0a" + length + bytes([left]) + data


class Crowd:
    """Clients of all lanes that do what comes into their minds."""

    def __init__(self, daemon: Daemon, channel: grpc.aio.Channel, seed: int) -> None:
        self._daemon = daemon
        self._channel = channel
        self._stub: Any = pb_grpc.MessageServiceStub(channel)
        self._dice = Random(seed)

    def _data(self) -> bytes:
        return bytes(self._dice.choice(SIZES))

    def _kernel(self) -> str:
        return self._dice.choice(list(TYPES))

    async def act(self) -> None:
        """Do many things, one after the other."""
        deeds: list[Callable[[], Any]] = [
            *(self._send, self._send, self._ask, self._receive, self._lease, self._session, self._session),
            *(self._stream, self._pause, self._end, self._requeue),
        ]
        for _ in range(ROUNDS):
            task = asyncio.ensure_future(self._dice.choice(deeds)())
            await asyncio.wait((task,), timeout=self._dice.choice((0.002, 0.02, 0.1)))
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, grpc.RpcError | PyDotComputeError | asyncio.InvalidStateError), error
            true_figures(self._daemon)

    def _message(self, **fields: Any) -> pb.Message:
        made = pb.Message(**fields)
        made.body.type_url = "type.googleapis.com/blob.v1.Blob"
        made.body.value = body(self._data())
        return made

    async def _send(self) -> None:
        message_id = str(uuid4()) if self._dice.random() < 0.3 else ""
        request = pb.SendRequest(
            kernel_id=self._kernel(),
            message=self._message(message_id=message_id),
            client_id=self._dice.choice(CLIENT_IDS),
            timeout=duration(self._dice.choice((0.001, 0.05))),
        )
        await self._stub.Send(request)

    async def _ask(self) -> None:
        request = pb.AskRequest(kernel_id=self._kernel(), message=self._message())
        request.timeout.CopyFrom(duration(self._dice.choice((0.001, 0.05))))
        await self._stub.Ask(request)

    def _receive_request(self, **fields: Any) -> pb.ReceiveRequest:
        return pb.ReceiveRequest(
            kernel_id=self._kernel(), client_id=self._dice.choice(CLIENT_IDS), timeout=duration(0.005), **fields
        )

    async def _receive(self) -> None:
        for _ in range(8):
            await self._stub.Receive(self._receive_request())

    async def _lease(self) -> None:
        request = self._receive_request(lease=duration(self._dice.choice((0.05, 0.3))))
        answer = await self._stub.Receive(request)
        if self._dice.random() < 0.5:
            await self._stub.Acknowledge(
                pb.AcknowledgeRequest(kernel_id=request.kernel_id, delivery_ids=[answer.delivery_id])
            )

    async def _stream(self) -> None:
        name = TYPES[self._kernel()].service
        outputs = self._dice.choice(("true", "false"))
        call: Any = self._channel.stream_stream(f"/{name}/Stream")(metadata=[("pydotcompute-outputs", outputs)])
        for _ in range(self._dice.randint(1, 12)):
            await call.write(body(self._data()))
            if self._dice.random() < 0.4:
                await call.read()
        if self._dice.random() < 0.5:
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
        call.cancel()

    async def _session(self) -> None:
        visit = Visit(self._stub, self._kernel(), self._dice)
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await visit.converse(self._data)
            for _ in range(self._dice.randint(0, 2)):
                await visit.converse(self._data)

    # -- operators -----------------------------------------------------------------------------------------------------

    async def _pause(self) -> None:
        kernel = self._daemon._runtime.kernel(self._kernel())
        await (kernel.reactivate() if kernel.state is KernelState.DEACTIVATED else kernel.deactivate())

    async def _end(self) -> None:
        if self._dice.random() < 0.5:
            return
        kernel_id = self._kernel()
        runtime = self._daemon._runtime
        await runtime.terminate(kernel_id, timeout=0.01)
        await runtime.launch(kernel_id)
        await runtime.activate(kernel_id)

    async def _requeue(self) -> None:
        await self._daemon._runtime.requeue_dead_letters(self._kernel())


class Visit:
    """A session over one stream after another, which obeys the credit and little else."""

    def __init__(self, stub: Any, kernel_id: str, dice: Random) -> None:
        self._stub = stub
        self._kernel_id = kernel_id
        self._dice = dice
        self._token = b""
        self._sent = self._sent_bytes = self._seen = self._acks = 0
        self._credit = pb.Credit()
        self._reading: asyncio.Future[Any] | None = None

    async def converse(self, data: Callable[[], bytes]) -> None:
        """Open a stream, send and receive, and leave it in some way or other."""
        call = self._stub.Exchange()
        try:
            opening = pb.Open(kernel_id=self._kernel_id, session_token=self._token, received_through=self._seen)
            opening.credit.messages, opening.credit.bytes = 1_000_000, 1 << 40
            opening.part_bytes = 16 * KIB
            await call.write(pb.ExchangeRequest(open=opening))
            frame = await call.read()
            if not isinstance(frame, pb.ExchangeResponse):
                return
            self._token = frame.opened.session_token
            self._credit = frame.opened.credit
            self._sent = frame.opened.received_through
            for _ in range(self._dice.randint(1, 20)):
                await self._step(call, data())
            if self._dice.random() < 0.3:
                await call.write(pb.ExchangeRequest(bye=pb.Bye()))
        finally:
            call.cancel()
            if self._reading is not None:
                await asyncio.wait((self._reading,))
                self._reading.exception()
                self._reading = None

    async def _step(self, call: Any, data: bytes) -> None:
        choice = self._dice.random()
        if choice < 0.6 and self._sent < self._credit.messages and self._sent_bytes < self._credit.bytes:
            whole = body(data)
            batch = pb.Batch(first_sequence=self._sent + 1, message_ids=os.urandom(16))
            if len(whole) > 50 * KIB:
                for offset in range(0, len(whole), 50 * KIB):
                    part = pb.Part(body_bytes=len(whole), offset=offset, data=whole[offset : offset + 50 * KIB])
                    await call.write(pb.ExchangeRequest(part=part))
                    if self._dice.random() < 0.1:
                        return  # The rest never comes, or not on this stream.
                batch.body_in_parts, whole = True, b""
            batch.bodies.append(whole)
            await call.write(pb.ExchangeRequest(batch=batch))
            self._sent += 1
            self._sent_bytes += len(data) + 5
        elif choice < 0.8:
            self._acks += 1
            ack = pb.Ack(number=self._acks, through=self._dice.randint(0, self._seen), outputs=self._acks)
            ack.credit.messages, ack.credit.bytes = 1_000_000, 1 << 40
            await call.write(pb.ExchangeRequest(ack=ack))
        else:
            if self._reading is None:
                self._reading = asyncio.ensure_future(call.read())
            await asyncio.wait((self._reading,), timeout=0.02)
            if self._reading.done():
                frame, self._reading = self._reading.result(), None
                if isinstance(frame, pb.ExchangeResponse):
                    self._note(frame)

    def _note(self, frame: pb.ExchangeResponse) -> None:
        if frame.HasField("batch"):
            self._seen += len(frame.batch.bodies)
        if frame.HasField("refused"):
            self._seen += len(frame.refused.refusals)
        if frame.HasField("accepted"):
            self._credit = frame.accepted.credit


async def empty(daemon: Daemon, channel: grpc.aio.Channel) -> None:
    """Let the kernels finish, receive whatever waits, and discard the dead letters."""
    stub: Any = pb_grpc.MessageServiceStub(channel)
    runtime = daemon._runtime
    for kernel in list(runtime.all_kernels()):
        if kernel.state is KernelState.DEACTIVATED:
            await kernel.reactivate()
    for kernel_id in TYPES:
        for client_id in CLIENT_IDS:
            with suppress(grpc.RpcError):
                while True:
                    await stub.Receive(
                        pb.ReceiveRequest(kernel_id=kernel_id, client_id=client_id, timeout=duration(0.01))
                    )
    daemon._discard_dead_letters(1 << 60)


@pytest.mark.parametrize("seed", range(examples(5)))
async def test_when_all_is_done_nothing_is_counted(seed: int) -> None:
    limits = Limits(
        memory_bytes=BUDGET,
        max_message_bytes=1_000 * KIB,
        unacknowledged_bytes=400 * KIB,
        mailbox_bytes=700 * KIB,
        session_timeout=0.3,
        stalled_reader=1.0,
        stalled_parts=0.2,
        grace=1.0,
    )
    async with asyncio.timeout(4 * PATIENCE), running(limits) as (daemon, channel):
        crowds = [Crowd(daemon, channel, TASKS * seed + number) for number in range(TASKS)]
        seen = [0]
        watching = asyncio.ensure_future(watch(daemon, seen))
        while max(seen) <= BUDGET // 4:  # Until there were refusals, which on a busy machine takes more than one try.
            async with asyncio.TaskGroup() as group:
                for crowd in crowds:
                    group.create_task(crowd.act())
        watching.cancel()
        assert max(seen) < 2 * BUDGET, "not much more than the budget"
        async with asyncio.timeout(PATIENCE):
            while daemon.memory.used:
                await empty(daemon, channel)
        await eventually(lambda: daemon.memory.report() == dict.fromkeys(daemon.memory.report(), 0))
        true_figures(daemon)


async def watch(daemon: Daemon, seen: list[int]) -> None:
    while True:
        seen.append(daemon.memory.used)
        await asyncio.sleep(0.001)
