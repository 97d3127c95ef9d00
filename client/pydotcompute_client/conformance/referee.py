"""A daemon that judges its clients: it cuts their streams, lets them wait, refuses, and gives little credit."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from pydotcompute.exceptions import (
    KernelNotFoundError,
    KernelStateError,
    MessageDeserializationError,
    PyDotComputeError,
    SessionLostError,
)
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.errors import to_status
from pydotcompute_client.conformance.judged import PART_BYTES, JudgedSession
from pydotcompute_client.conformance.kernels import Probe
from pydotcompute_client.conformance.results import BrokenError
from pydotcompute_client.conformance.rules import Record

__all__ = ["SCRIPTS", "Referee", "judge", "serve"]

SCRIPTS = {
    "calm": "nothing happens: each request is answered",
    "rough": "streams are cut in different places, answers are late, credit is withheld, one request in ten is refused",
    "ending": "after 10 requests the kernel ends: `closed`, and then `bye`",
    "lost": "after 10 requests the stream is cut, and the session is SESSION_LOST",
    "taken-over": "after 10 requests another stream has the session, and after 10 more again",
}
"""What happens to a client, by the id of the kernel that it opens."""

AFTER = 10
"""After how many requests it happens."""
FAULT_EVERY = 2
"""A fault comes with every so many batches."""
FAULTS = ("lost on the way", "before answers", "late", "between answers", "no credit", "before opened", "after opened")
"""The faults of `rough`, in turn."""
CUTS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)
"""How cut streams end, in turn: as a broken connection does, and as proxies end streams."""
TAKEN_OVER = status_pb2.Status(code=code_pb2.ABORTED, message="a later stream has the session; do not take it back")
LATE = 0.05
"""For how many seconds an answer is late, or credit withheld."""
MAX_MESSAGE_BYTES = 1 << 20
MESSAGES = pb.DESCRIPTOR.services_by_name["MessageService"].full_name
KERNELS = kernel_pb.DESCRIPTOR.services_by_name["KernelService"].full_name
SESSION_SECONDS = 60
FAREWELL_SECONDS = 1.0

Context = grpc.aio.ServicerContext[Any, Any]


class _Carried:
    """A session, and what happens to it."""

    def __init__(self, kernel_id: str, record: Record) -> None:
        self.script = kernel_id
        self.judged = JudgedSession(kernel_id, record, refuses=kernel_id == "rough")
        self.stream: Context | None = None
        """The stream that carries it."""
        self.wants_bye = False
        """True if the client wants errors in `bye` too."""
        self.batches = 0
        self.fault = ""
        """What happens at the next opportunity."""
        self.next_event = AFTER
        """The sequence with which the event of the script comes."""
        self.events = 0
        """How many of them there were."""
        self.said_bye = False
        """True once the daemon has said `bye`."""
        self.finished = False
        """True if the client need not come back."""
        self.given_up: asyncio.TimerHandle | None = None

    @property
    def loses_next(self) -> bool:
        """True if the next batch does not come, and the stream is cut."""
        return self.script == "rough" and self._next_fault() == FAULTS[0]

    def _next_fault(self) -> str:
        batches = self.batches + 1
        return FAULTS[batches // FAULT_EVERY % len(FAULTS)] if batches % FAULT_EVERY == 0 else ""

    def count_batch(self) -> None:
        """Count a batch that has come, and note what happens with it."""
        self.fault = self._next_fault()
        self.batches += 1


class Referee:
    """Serves Exchange. `record` has what it has seen.

    Args:
        patience: how many seconds a client has to come back.
        on_finished: called with the number of the sessions that are finished, after each.
    """

    def __init__(self, patience: float, on_finished: Callable[[int], None]) -> None:
        self.record = Record()
        self._patience = patience
        self._on_finished = on_finished
        self._sessions: dict[bytes, _Carried] = {}
        self._cuts = count()
        pool = TypePool()
        name = Codec(Probe, pool).descriptor.full_name
        self._type = pb.MessageType(full_name=name, files=pool.file_set(name))

    async def exchange(self, _: Any, context: Context) -> None:
        """Carry one stream."""
        try:
            first = await context.read()
            is_open = isinstance(first, pb.ExchangeRequest) and first.WhichOneof("frame") == "open"
            self.record.require("first-frame", is_open, "a stream begins with something else")
            carried = await self._find(first.open, context)
            carried.stream = context
            try:
                await self._carry(carried, first.open, context)
            except BrokenError:
                carried.finished = True
                raise
            finally:
                if carried.stream is context:
                    self._left(carried)
        except BrokenError as broken:
            await _end(context, MessageDeserializationError("ExchangeRequest", str(broken)))

    async def _find(self, opening: pb.Open, context: Context) -> _Carried:
        """Return the session that a stream asks for, or a new one."""
        if not opening.session_token:
            if opening.kernel_id not in SCRIPTS:
                await _end(context, KernelNotFoundError(opening.kernel_id, tuple(SCRIPTS)))
            carried = _Carried(opening.kernel_id, self.record)
            self._sessions[carried.judged.token] = carried
            return carried
        known = self._sessions.get(opening.session_token)
        if known is None:
            await _end(context, SessionLostError("", "there is no such session", opening.kernel_id))
        if known.given_up is not None:
            known.given_up.cancel()
        if known.script != opening.kernel_id:
            known.finished = True
            self._count_finished()
        self.record.require("returns", known.script == opening.kernel_id, f"`open` names {opening.kernel_id!r}")
        if known.script == "lost" and known.events:
            self.record.require("lost", known.events == 1, "a stream has opened with it again")
            known.events += 1
            known.finished = True
            self._count_finished()
            await _end(context, SessionLostError("", "this script has lost it", opening.kernel_id))
        if known.script == "taken-over" and known.events:
            self.record.require("taken-over", known.events == 1, "a stream has opened with its token again")
        return known

    def _left(self, carried: _Carried) -> None:
        """Note that a session has no stream."""
        carried.stream = None
        if carried.finished:
            self._count_finished()
        else:
            carried.given_up = asyncio.get_running_loop().call_later(self._patience, self._give_up, carried)

    def _give_up(self, carried: _Carried) -> None:
        if not (carried.events and carried.script == "taken-over"):  # That one need not come back.
            problem = f"a client of {carried.script!r} has not come back within {self._patience:g} s"
            self.record.note("returns", False, problem)
        carried.finished = True
        self._count_finished()

    def _count_finished(self) -> None:
        self._on_finished(sum(carried.finished for carried in self._sessions.values()))

    async def _carry(self, carried: _Carried, opening: pb.Open, context: Context) -> None:
        judged = carried.judged
        carried.wants_bye = opening.error_in_bye
        judged.open(opening)
        if carried.fault == "before opened":
            await self._cut(carried, context)
        opened = pb.Opened(
            session_token=judged.token,
            received_through=judged.received,
            acks_received=judged.acks_received,
            credit=judged.credit,
            types=[self._type],
            backpressure_strategy=pb.BACKPRESSURE_STRATEGY_BLOCK,
            input_queue_size=1_000,
            output_queue_size=1_000,
            max_message_bytes=MAX_MESSAGE_BYTES,
            session_timeout=Duration(seconds=SESSION_SECONDS),
            part_bytes=PART_BYTES,
            explains=True,
            daemon_epoch="conformance",
            closed=judged.closed,
        )
        await context.write(pb.ExchangeResponse(opened=opened))
        if carried.fault == "after opened":
            await self._cut(carried, context)
        await self._answer(carried, context)
        while isinstance(frame := await context.read(), pb.ExchangeRequest):
            if carried.stream is not context:
                await context.abort(grpc.StatusCode.ABORTED, TAKEN_OVER.message)
            if carried.loses_next and frame.HasField("batch"):
                judged.glance(frame.batch)
                await self._happen(carried, context)
            kind = judged.take(frame)
            if kind == "bye":
                await self._after_bye(carried, context)
                return
            if kind == "inquiry":
                await context.write(pb.ExchangeResponse(explanation=pb.Explanation()))
            if kind == "batch":
                await self._happen(carried, context)
            await self._answer(carried, context)
        if carried.said_bye:
            self.record.note("answers-bye", False, "the stream has ended without one")
            carried.finished = True

    async def _answer(self, carried: _Carried, context: Context) -> None:
        """Write what there is, but nothing after `bye`. If the stream is to be cut between answers, cut it then."""
        if carried.said_bye:
            return
        while (frame := carried.judged.next_frame()) is not None:
            await context.write(frame)
            if carried.fault == "between answers":
                await self._cut(carried, context)
        if carried.judged.closed is not None:
            carried.said_bye = True
            await context.write(pb.ExchangeResponse(bye=pb.Bye(status=carried.judged.closed)))

    async def _happen(self, carried: _Carried, context: Context) -> None:
        """Let what the script says happen."""
        if carried.script == "rough":
            carried.count_batch()
            await self._happen_roughly(carried, context)
        elif carried.script != "calm" and carried.judged.received >= carried.next_event:
            carried.next_event += AFTER if carried.script == "taken-over" else 1 << 60
            carried.events += 1
            await self._come_to_an_end(carried, context)

    async def _happen_roughly(self, carried: _Carried, context: Context) -> None:
        match carried.fault:
            case "lost on the way" | "before answers":
                await self._cut(carried, context)
            case "before opened" | "after opened":
                await self._cut(carried, context, carried.fault)
            case "late":
                await asyncio.sleep(LATE)
            case "no credit":
                carried.judged.withholds = True
                await self._answer(carried, context)
                await asyncio.sleep(LATE)
                carried.judged.withholds = False

    async def _come_to_an_end(self, carried: _Carried, context: Context) -> None:
        if carried.script == "lost":
            await self._cut(carried, context)
        if carried.script == "taken-over":
            carried.finished = carried.events > 1
            self.record.note("taken-over", True, "")
            await self._say_bye(carried, TAKEN_OVER, context)
            await context.abort(grpc.StatusCode.ABORTED, TAKEN_OVER.message)
        carried.judged.closed = to_status(KernelStateError(carried.script, "TERMINATED", "send to"))
        await context.write(pb.ExchangeResponse(closed=pb.Closed(status=carried.judged.closed)))

    async def _say_bye(self, carried: _Carried, status: status_pb2.Status, context: Context) -> None:
        """Say an error in `bye` if the client wants that, and wait until it has ended its side."""
        if carried.wants_bye:
            await context.write(pb.ExchangeResponse(bye=pb.Bye(status=status)))
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    while isinstance(await context.read(), pb.ExchangeRequest):
                        pass

    async def _cut(self, carried: _Carried, context: Context, fault: str = "") -> NoReturn:
        """End a stream as a broken connection does. `fault` is what happens next."""
        carried.fault = fault
        self.record.note("returns", True, "")
        await context.abort(CUTS[next(self._cuts) % len(CUTS)], "cut, as by a broken connection")

    async def _after_bye(self, carried: _Carried, context: Context) -> None:
        carried.finished = True
        if carried.said_bye:
            self.record.note("answers-bye", True, "")
        more = None
        with suppress(TimeoutError):  # The client need not end its side.
            async with asyncio.timeout(FAREWELL_SECONDS):
                more = await context.read()
        self.record.note("last-frame", not isinstance(more, pb.ExchangeRequest), "a frame comes after it")


async def _end(context: Context, error: PyDotComputeError) -> NoReturn:
    """End a call with an error of ours."""
    made: status_pb2.Status = to_status(error)
    status = rpc_status.to_status(made)
    await context.abort(status.code, status.details, status.trailing_metadata)


async def _list_no_types(_: bytes, context: Context) -> bytes:
    """Answer the call by which the Python client finds out that a daemon is there."""
    return kernel_pb.ListKernelTypesResponse().SerializeToString()


async def serve(referee: Referee, listen: str) -> tuple[grpc.aio.Server, str]:
    """Return a server with this referee, which has started, and its HOST:PORT.

    Args:
        listen: HOST:PORT; port 0 stands for any free one.

    Raises:
        RuntimeError: the address is taken.
    """
    server = grpc.aio.server()
    exchange = grpc.stream_stream_rpc_method_handler(
        referee.exchange, pb.ExchangeRequest.FromString, pb.ExchangeResponse.SerializeToString
    )
    list_types: Any = grpc.unary_unary_rpc_method_handler(_list_no_types, None, None)
    for service, methods in ((MESSAGES, {"Exchange": exchange}), (KERNELS, {"ListKernelTypes": list_types})):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port(listen)
    await server.start()
    return server, f"{listen.rpartition(':')[0]}:{port}"


async def judge(listen: str, sessions: int, patience: float, on_listening: Callable[[str], None]) -> Record:
    """Judge the clients that come, until so many sessions are finished, or the process is interrupted.

    Args:
        listen: HOST:PORT.
        sessions: how many sessions; 0 for any number.
        patience: how many seconds a client has to come back after its stream was cut.
        on_listening: called with HOST:PORT, when clients can come.

    Raises:
        RuntimeError: the address is taken.
    """
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)

    def on_finished(finished: int) -> None:
        if finished == sessions:
            done.set()

    referee = Referee(patience, on_finished)
    server, address = await serve(referee, listen)
    on_listening(address)
    await done.wait()
    await server.stop(1)
    return referee.record
