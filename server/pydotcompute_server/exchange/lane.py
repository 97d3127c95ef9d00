"""The method Exchange: the lane for programs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2

from pydotcompute.exceptions import PyDotComputeError, SessionLostError
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute.wire.exchange.frames import PartFrame
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.bounds.progress import Progress
from pydotcompute_server.bounds.shares import Owner
from pydotcompute_server.calls.errors import status_of
from pydotcompute_server.calls.pipeline import About
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.clients import ENDING, SHUTTING_DOWN
from pydotcompute_server.connected import Connected, ConnectedClient
from pydotcompute_server.epoch import Epoch
from pydotcompute_server.exchange.conversation import Conversation, CutOffError, TakenOverError
from pydotcompute_server.exchange.openings import Openings
from pydotcompute_server.exchange.session import Session
from pydotcompute_server.exchange.sessions import Sessions
from pydotcompute_server.limits import Limits

__all__ = ["ExchangeLane"]

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

TAKEN_OVER = status_pb2.Status(
    code=code_pb2.ABORTED,
    message="a later stream, opened with the same token, has taken the session over; do not take it back",
)
"""How a stream ends whose session goes on with another stream."""
LAST_WORD_SHARE = 0.2
"""The share of the farewell's time that is kept for the last `bye`.

It goes to clients that gave no credit for everything that was to be sent to them."""


class ExchangeLane:
    """Finds the session of each stream, and lets a conversation carry it."""

    def __init__(
        self,
        runtime: RingKernelRuntime,
        catalog: Catalog,
        limits: Limits,
        apart: Apart,
        memory: Memory,
        epoch: Epoch,
        connected: Connected,
        openings: Openings,
    ) -> None:
        self._connected = connected
        self._openings = openings
        self._runtime = runtime
        self._apart = apart
        self._catalog = catalog
        self._limits = limits
        self._memory = memory
        self._sessions = Sessions(limits, epoch)
        self._conversations: dict[bytes, Conversation] = {}  # By the token of the session that each carries.
        self._progress = Progress(self._conversations.values(), limits)
        self._draining: status_pb2.Status | None = None
        self._farewell: status_pb2.Status | None = None

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages of all sessions that are not in a mailbox."""
        return self._sessions.held_bytes

    def add_waiting(self, to: Counter[str]) -> None:
        """Add the bytes of the messages of each kernel that clients have not acknowledged, by the kernel's id."""
        self._sessions.add_waiting(to)

    def held_by(self, principal: str) -> int:
        """Return the bytes of `held_bytes` that are this principal's."""
        return self._sessions.held_by(principal)

    async def exchange(self, context: Context, about: About) -> None:
        """Serve one stream, and await `about` with the id of its kernel.

        Raises:
            ProtocolError: the first frame is not `open`, or a later one breaks the rules.
            LimitExceededError: there are too many sessions.
            SessionLostError: the client asks for a session that does not exist or is over.
                It is also raised when an operator ends the session.
            ConnectionLostError: the daemon is about to end.
            PyDotComputeError: there is no such kernel, or it is not activated yet.
        """
        first = await context.read()
        if not isinstance(first, pb.ExchangeRequest) or first.WhichOneof("frame") != "open":
            raise ProtocolError("the first frame of a conversation is `open`")
        opening = first.open
        await about(opening.kernel_id)
        try:
            client = self._connected.client(context)
            with client.calling():
                await self._serve(opening, context, client)
        except PyDotComputeError as error:
            if opening.error_in_bye:
                await self._say_bye(status_of(error, pb.ExchangeRequest.DESCRIPTOR.name), context)
            raise
        except TakenOverError:
            if opening.error_in_bye:
                await self._say_bye(TAKEN_OVER, context, can_read=False)
            await context.abort(grpc.StatusCode.ABORTED, TAKEN_OVER.message)

    async def _say_bye(self, status: status_pb2.Status, context: Context, *, can_read: bool = True) -> None:
        """Say `bye` with this error, and wait until the client has ended its side, but not for long.

        Args:
            can_read: False if a read is still under way, that of a task which was cancelled. Then nobody can hear the
                client end its side, only that it ends the call.
        """
        gone = asyncio.Event()
        context.add_done_callback(lambda _: gone.set())  # type: ignore[arg-type]
        with suppress(grpc.aio.InternalError, grpc.aio.UsageError, TimeoutError):  # The client is gone.
            async with asyncio.timeout(self._limits.farewell):
                await context.write(pb.ExchangeResponse(bye=pb.Bye(status=status)))
                if not can_read:
                    await gone.wait()
                while isinstance(await context.read(), pb.ExchangeRequest | PartFrame):
                    pass

    async def _serve(self, opening: pb.Open, context: Context, client: ConnectedClient) -> None:
        """Find or begin the session that a stream asks for, and carry it."""
        if opening.session_token:
            session = self._sessions.find(opening.session_token, opening.kernel_id, client.owner.principal)
        else:
            await self._openings.turn(client.owner.principal)
            if self._draining is not None:
                raise ENDING.again()
            kernel = self._runtime.kernel(opening.kernel_id)
            session = self._sessions.open(
                lambda: Session(
                    kernel,
                    self._catalog,
                    opening,
                    self._limits,
                    self._apart,
                    self._memory,
                    self._sessions.epoch,
                    client,
                ),
                client.owner,
            )
        if (carrier := self._conversations.get(session.token)) is not None:
            carrier.replace()
        session.newest_stream = context
        session.carried_by(client)
        try:
            async with session.lock:
                if session.newest_stream is not context:  # There is yet another stream.
                    raise TakenOverError
                try:
                    await self._carry(session, opening, context)
                finally:
                    if session.newest_stream is context:
                        session.newest_stream = None  # The session lives on; the call and what it holds do not.
        except CutOffError as why:  # Here, without the lock: if the client does not read, it takes long to tell it.
            logger.warning("a client is cut off", extra={"kernel_id": opening.kernel_id, "reason": str(why)})
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(why))

    async def _carry(self, session: Session, opening: pb.Open, context: Context) -> None:
        """Carry a session on this stream until the session or the stream ends."""
        if session.over:
            raise SessionLostError("", "the session has ended meanwhile", opening.kernel_id)
        self._sessions.attach(session)
        conversation = self._conversations[session.token] = Conversation(session, context, self._limits, self._memory)
        self._progress.watch()
        session.inbound.draining = self._draining
        if self._farewell is not None:
            conversation.farewell(self._farewell)
        is_over = False
        try:
            is_over = await conversation.run(opening, self._catalog)
        except PyDotComputeError:
            is_over = True
            raise
        finally:
            del self._conversations[session.token]
            if is_over or session.is_kicked:
                self._sessions.end(session)
            else:
                self._sessions.keep(session)
            if self._farewell is not None:
                self._sessions.end_delivered()

    def kick(self, which: Callable[[Owner], bool]) -> int:
        """End the sessions of these clients, once their calls are ended too. Return how many there are."""
        return self._sessions.kick(which)

    def drain(self) -> None:
        """Take no more messages and no new sessions, and tell the clients."""
        self._draining = SHUTTING_DOWN
        self._openings.close()
        for conversation in self._conversations.values():
            conversation.drain(SHUTTING_DOWN)

    async def farewell(self, timeout: float) -> None:
        """End every session within `timeout` seconds, each after everything that waits to be sent.

        A session whose stream has broken is ended in the same way if its client comes back in time.
        """
        self._farewell = SHUTTING_DOWN
        for conversation in self._conversations.values():
            conversation.farewell(SHUTTING_DOWN)
        self._sessions.end_delivered()
        now = monotonic()
        await self._wait_for_sessions(now + (1 - LAST_WORD_SHARE) * timeout)
        for conversation in self._conversations.values():
            conversation.hurry()
        await self._wait_for_sessions(now + timeout)
        self._sessions.end_all()

    async def _wait_for_sessions(self, deadline: float) -> None:
        while self._sessions and (left := deadline - monotonic()) > 0:
            await self._sessions.ended.wait(left)
