"""The method Exchange: the lane for programs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from time import monotonic
from typing import Any

import grpc
from google.rpc import status_pb2

from pydotcompute.exceptions import PyDotComputeError, SessionLostError
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute.wire.exchange.frames import PartFrame
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.bounds.progress import Progress
from pydotcompute_server.bounds.shares import owner_of
from pydotcompute_server.calls.errors import status_of
from pydotcompute_server.calls.pipeline import About
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.clients import ENDING, SHUTTING_DOWN
from pydotcompute_server.epoch import Epoch
from pydotcompute_server.exchange.conversation import Conversation, CutOffError
from pydotcompute_server.exchange.session import Session
from pydotcompute_server.exchange.sessions import Sessions
from pydotcompute_server.limits import Limits

__all__ = ["ExchangeLane"]

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

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
    ) -> None:
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

    async def exchange(self, context: Context, about: About) -> None:
        """Serve one stream, and await `about` with the id of its kernel.

        Raises:
            ProtocolError: the first frame is not `open`, or a later one breaks the rules.
            LimitExceededError: there are too many sessions.
            SessionLostError: the client asks for a session that does not exist or is over.
            ConnectionLostError: the daemon is about to end.
            PyDotComputeError: there is no such kernel, or it is not activated yet.
        """
        first = await context.read()
        if not isinstance(first, pb.ExchangeRequest) or first.WhichOneof("frame") != "open":
            raise ProtocolError("the first frame of a conversation is `open`")
        opening = first.open
        await about(opening.kernel_id)
        try:
            await self._serve(opening, context)
        except PyDotComputeError as error:
            if opening.error_in_bye:
                await self._say_error(error, context)
            raise

    async def _say_error(self, error: PyDotComputeError, context: Context) -> None:
        """Say `bye` with the error, and wait until the client has ended its side, but not for long."""
        bye = pb.Bye(status=status_of(error, pb.ExchangeRequest.DESCRIPTOR.name))
        with suppress(grpc.aio.InternalError, grpc.aio.UsageError, TimeoutError):  # The client is gone.
            async with asyncio.timeout(self._limits.farewell):
                await context.write(pb.ExchangeResponse(bye=bye))
                while isinstance(await context.read(), pb.ExchangeRequest | PartFrame):
                    pass

    async def _serve(self, opening: pb.Open, context: Context) -> None:
        """Find or begin the session that a stream asks for, and carry it."""
        if opening.session_token:
            session = self._sessions.find(opening.session_token, opening.kernel_id)
        elif self._draining is not None:
            raise ENDING.again()
        else:
            kernel = self._runtime.kernel(opening.kernel_id)
            session = self._sessions.open(
                lambda: Session(
                    kernel, self._catalog, opening, self._limits, self._apart, self._memory, self._sessions.epoch
                ),
                owner_of(context),
            )
        if (carrier := self._conversations.get(session.token)) is not None:
            carrier.replace()
        session.newest_stream = context
        try:
            async with session.lock:
                if session.newest_stream is context:  # Otherwise the client has opened yet another stream.
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
            if is_over:
                self._sessions.end(session)
            else:
                self._sessions.keep(session)
            if self._farewell is not None:
                self._sessions.end_delivered()

    def drain(self) -> None:
        """Take no more messages and no new sessions, and tell the clients."""
        self._draining = SHUTTING_DOWN
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
