"""The method Stream of the kernels' own services: many requests to one kernel, and its replies."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from time import monotonic
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2

from pydotcompute.exceptions import MessageTooLargeError, PyDotComputeError, QueueFullError, QueueTimeoutError
from pydotcompute.messages.header import DEFAULT_PRIORITY
from pydotcompute.messages.ids import new_message_id
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS
from pydotcompute.ring_kernels.mail.callers import Caller, Unanswered
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.wire.errors import to_status
from pydotcompute.wire.messages import type_url
from pydotcompute_server.calls.answers import Answers, seconds_left, send_header
from pydotcompute_server.calls.errors import ClientGoneError, StatusError
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.clients import (
    SHUTTING_DOWN,
    leave,
    may_put,
    pass_outputs_on,
    require_activated,
    terms_of,
)
from pydotcompute_server.limits import Limits

__all__ = ["Stream", "Streams"]

Context = grpc.aio.ServicerContext[Any, Any]
Kernel = RingKernel[Any, Any]


class Stream:
    """One call. The reader takes requests from the client, and waits where the kernel makes senders wait; the writer
    sends what the kernel answers, and decides when the stream is over.
    """

    def __init__(
        self,
        kernel: Kernel,
        catalog: Catalog,
        context: Context,
        limits: Limits,
        *,
        priority: int | None = None,
        outputs: bool = False,
    ) -> None:
        self._kernel = kernel
        self._answers = Answers(catalog, limits)
        self._context = context
        self._codec = catalog.codecs(kernel.type)[0]
        self._output_type = kernel.type.output_type
        self._limits = limits
        self._priority = DEFAULT_PRIORITY if priority is None else priority
        self._outputs = outputs
        self._caller: Caller[Any] = Caller(private=True, most=limits.stream_replies)
        self._read_count = 0
        self._numbers: dict[int, int] = {}
        """Of each request that was accepted and not answered, by the `message_id.int`: which message of the stream."""
        self._answered: deque[tuple[int, int]] = deque(maxlen=2 * DEFAULT_LIMITS.answers)
        """The same of those that were answered, as far as the kernel remembers whose they were."""
        self._closed = False
        """Whether nothing more is read."""
        self._all_read = False
        """Whether the client has ended its side."""
        self._error: status_pb2.Status | None = None
        self._failed: float = inf
        """Which message of the stream it is of."""
        self._draining = False
        self._client_gone = False
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Carry the messages until all is answered.

        Raises:
            KernelStateError: the kernel is not activated yet.
            StatusError: a request will not be answered; all that were accepted before and after it have been, or never
                will be.
            ClientGoneError: there is nobody left to answer.
        """
        if self._kernel.state in (KernelState.CREATED, KernelState.LAUNCHED):
            refusal = self._kernel.gate.refusal
            assert refusal is not None
            raise refusal.again()
        patience = seconds_left(self._context, self._limits)
        limits = self._limits
        require_activated(self._kernel)
        patience = seconds_left(self._context, limits)
        try:
            await send_header(self._context, ())  # The client learns that all is well so far.
            async with asyncio.TaskGroup() as group:
                self._writer = group.create_task(self._write())
                self._reader = group.create_task(self._read())
                done, _ = await asyncio.wait((self._writer,), timeout=patience)
                if not done:
                    assert patience is not None
                    oldest = min(self._numbers.values(), default=None)
                    self._fail(oldest, QueueTimeoutError(self._kernel.kernel_id, patience, "Stream"))
                    self._writer.cancel()
                self._reader.cancel()
        finally:
            self._leave()
        if self._client_gone:
            raise ClientGoneError
        if (status := self._status()) is not None:
            raise StatusError(status)

    def drain(self) -> None:
        """The daemon is about to end: read no more; what was accepted is answered."""
        self._draining = self._error is None
        self._close()

    def give_up(self) -> None:
        """Answer nothing more either."""
        if self._writer is not None:
            self._writer.cancel()

    def _close(self) -> None:
        self._closed = True
        if self._reader is not None:
            self._reader.cancel()
        self._caller.arrived.notify()

    def _fail(self, number: int | None, error: PyDotComputeError | StatusError) -> None:
        """A message of the stream, or (None) something else, has met an error. The stream ends with that of the first
        message that met one: the reader can learn that the kernel has failed before the writer learns on which message.
        """
        if self._error is None or (number is not None and number < self._failed):
            self._error = error.status if isinstance(error, StatusError) else to_status(error)
            if number is not None:
                self._failed = number
                self._error.message = f"message {number} of the stream: {self._error.message}"
        self._close()

    def _status(self) -> status_pb2.Status | None:
        """How the stream ends; None if all is well."""
        if not self._draining:
            return self._error
        if self._error is not None:
            detail = f": {self._error.message}"
        elif self._numbers:
            detail = f": message {min(self._numbers.values())} of the stream is not answered"
        elif self._all_read and not self._outputs:
            return None
        else:
            detail = ""
        return status_pb2.Status(code=SHUTTING_DOWN.code, message=f"{SHUTTING_DOWN.message}{detail}")

    # -- from the client -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._closed:
            body = await self._context.read()
            if body is grpc.aio.EOF:
                self._all_read = True
                self._close()
                return
            self._read_count += 1
            try:
                await self._put(body, self._read_count)
            except PyDotComputeError as error:
                self._fail(self._read_count, error)

    async def _put(self, body: bytes, number: int) -> None:
        """Put a request into the mailbox."""
        kernel, caller, limits = self._kernel, self._caller, self._limits
        if len(body) > limits.max_message_bytes:
            raise MessageTooLargeError(self._codec.schema.name, len(body), limits.max_message_bytes)
        message_id = new_message_id()
        message = self._codec.decode(body, message_id=message_id, priority=self._priority, correlation_id=None)
        while len(self._numbers) + caller.ready.size >= limits.stream_requests or not may_put(kernel, caller, limits):
            await wait_any((caller.room, kernel.mail.inbox.taken, kernel.gate.closing))
        self._numbers[message_id.int] = number
        try:
            await kernel.mail.send_as(caller, message, terms=terms_of(len(body), limits))
        except BaseException:
            if not kernel.mail.replies.is_from(message_id, caller):  # It is, if it was put and only then was cancelled.
                self._numbers.pop(message_id.int, None)
            raise

    # -- to the client -------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        kernel, caller = self._kernel, self._caller
        signals = [caller.arrived, kernel.gate.closing]
        if self._outputs:
            signals.append(kernel.mail.replies.wanted)
        while True:
            if caller.cut_off is not None and self._error is None:
                self._fail_cut_off(caller.cut_off)
            item, is_output = caller.take(), False
            if item is None and self._outputs:
                item = kernel.mail.outputs.get_nowait()
                is_output = item is not None
            if item is None:
                if self._is_over():
                    return
                await wait_any(signals)
            elif item.__class__ is Unanswered:
                self._fail(self._numbers.pop(item.message_id.int, None), item.error)
            elif not await self._send(item, is_output):
                self._client_gone = True
                return

    def _fail_cut_off(self, key: int) -> None:
        """Not all replies to a request have found room: the stream must not end as if they had."""
        self._fail(
            self._numbers.get(key) or dict(self._answered).get(key),
            QueueFullError(self._kernel.kernel_id, self._limits.stream_replies),
        )
        assert self._error is not None
        self._error.message += "; further replies to this request are dead letters"

    def _is_over(self) -> bool:
        """Whether there is nothing to send, and nothing more to come."""
        kernel = self._kernel
        if (ended := kernel.mail.replies.ended) is not None:
            if self._numbers or self._outputs or not self._closed:
                self._fail(min(self._numbers.values(), default=None), ended)
            return True
        if self._numbers and not self._caller.unanswered:
            # So many requests wait for this kernel's replies that it has forgotten whose these were.
            self._fail(min(self._numbers.values()), QueueFullError(kernel.kernel_id, DEFAULT_LIMITS.requests))
            return True
        ends_by_itself = not self._outputs or self._error is not None or self._draining
        return self._closed and not self._numbers and ends_by_itself

    async def _send(self, message: Any, is_output: bool) -> bool:
        """Write what the kernel sent, or make it a dead letter; False if the client is gone."""
        kernel = self._kernel
        number = None if is_output else self._number_of(message)
        try:
            codec, body = self._answers.encode(kernel, message, self._output_type)
        except StatusError as error:
            self._fail(number, error)
            return True
        if self._output_type is None:
            body = AnyMessage(type_url=type_url(codec), value=body).SerializeToString()
        pass_outputs_on(kernel)  # While this is being written, another can take what there is.
        try:
            await self._context.write(body)
        except BaseException as error:
            if is_output:
                kernel.mail.replies.give_back(message)
            else:
                kernel.mail.bury(message, "its caller is gone")
            if isinstance(error, grpc.aio.InternalError | grpc.aio.UsageError):
                return False
            raise
        return True

    def _number_of(self, reply: Any) -> int | None:
        """Of the request that is answered with this; None if it was before."""
        key = (reply.correlation_id or reply.message_id).int
        number = self._numbers.pop(key, None)
        if number is not None:
            self._answered.append((key, number))
        return number

    # -- the end -------------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """Withdraw what the kernel has not taken; what it sends from now on is a dead letter."""
        self._kernel.mail.withdraw_all(self._caller)
        leave(self._kernel, self._caller)
        pass_outputs_on(self._kernel)


class Streams:
    """The streams of a daemon."""

    def __init__(self) -> None:
        self._streams: set[Stream] = set()
        self._ended = Signal()
        self._draining = False

    async def run(self, stream: Stream) -> None:
        """Let a stream run to its end. Raises as `Stream.run`; StatusError if the daemon is about to end."""
        if self._draining:
            raise StatusError(SHUTTING_DOWN)
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
            self._ended.notify_all()

    def drain(self) -> None:
        """Take no more messages."""
        self._draining = True
        for stream in self._streams:
            stream.drain()

    async def farewell(self, timeout: float) -> None:
        """The kernels have ended: let every stream end, within `timeout` seconds, and then whatever its client does."""
        deadline = monotonic() + timeout
        while self._streams and (left := deadline - monotonic()) > 0:
            await self._ended.wait(left)
        for stream in self._streams:
            stream.give_up()
