"""The method Stream of the kernels' own services, for many requests to one kernel and their replies."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from math import inf
from time import monotonic
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, status_pb2

from pydotcompute.exceptions import (
    MessageDeserializationError,
    MessageTooLargeError,
    PyDotComputeError,
    QueueFullError,
    QueueTimeoutError,
)
from pydotcompute.messages.header import DEFAULT_PRIORITY
from pydotcompute.messages.ids import new_message_id
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.callers import Caller, Unanswered
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.ring_kernels.mail.sizes import estimated_sum
from pydotcompute.wire.messages import every_problem, type_url
from pydotcompute_server.bounds.accounts import Account
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.bounds.progress import Progress
from pydotcompute_server.calls.answers import Answers, seconds_left, send_header
from pydotcompute_server.calls.errors import ClientGoneError, StatusError, told_status
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.clients import (
    SHUTTING_DOWN,
    leave,
    may_put,
    pass_outputs_on,
    require_activated,
    terms_of,
)
from pydotcompute_server.connected import ConnectedClient
from pydotcompute_server.limits import Limits

__all__ = ["Stream", "Streams"]

Context = grpc.aio.ServicerContext[Any, Any]
Kernel = RingKernel[Any, Any]


class Stream:
    """One call of Stream.

    The reader takes requests from the client, and waits where the kernel makes senders wait. The writer sends the
    kernel's replies, and decides when the stream is over. Messages are numbered from 1 in the order of their arrival.
    """

    is_session = False

    def __init__(
        self,
        kernel: Kernel,
        catalog: Catalog,
        context: Context,
        limits: Limits,
        apart: Apart,
        memory: Memory,
        client: ConnectedClient,
        *,
        priority: int | None = None,
        outputs: bool = False,
    ) -> None:
        self._kernel = kernel
        self._apart = apart
        self._answers = Answers(catalog, limits, apart)
        self._context = context
        self._codec = catalog.lane_codecs(kernel)[0]
        self._output_type = kernel.type.output_type
        self._limits = limits
        self._memory = memory
        self.client = client
        self._account = account = client.account
        if account is not None:
            account.add(self)
        self._read_bytes = 0  # The bytes of the request that was read and is not in the mailbox yet.
        self._written_bytes = 0  # The bytes of the reply that is being written.
        self._writing_since: float | None = None
        self._priority = DEFAULT_PRIORITY if priority is None else priority
        self._outputs = outputs
        self._caller: Caller[Any] = Caller(private=True, most=limits.stream_replies, principal=client.owner.principal)
        self._read_count = self._sent_count = 0
        self._all_read_bytes = self._all_sent_bytes = 0
        self._numbers: dict[int, int] = {}
        """The accepted requests without a reply: `message_id.int` → number in the stream."""
        self._answered: deque[tuple[int, int]] = deque(maxlen=2 * limits.answers)
        """The same pairs for answered requests, as many as the kernel remembers the senders of."""
        self._closed = False
        """True if no more requests are read."""
        self._all_read = False
        """True if the client has ended its side."""
        self._error: status_pb2.Status | None = None
        """The status with which the stream ends, if it fails."""
        self._failed: float = inf
        """The number of the message that `_error` is about; infinite if it is about none."""
        self._draining = False
        """True if the daemon is about to end, and the stream had not failed before."""
        self._client_gone = False
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Carry requests and replies until every request is answered.

        Raises:
            KernelStateError: the kernel is not activated yet.
            StatusError: a request will not be answered. Every other accepted one has been, or never will be.
            ClientGoneError: the client is gone.
        """
        require_activated(self._kernel)
        patience = seconds_left(self._context, self._limits)
        try:
            await send_header(self._context, ())  # It tells the client that the stream has begun.
            async with asyncio.TaskGroup() as group:
                self._writer = group.create_task(self._write())
                self._reader = group.create_task(self._read())
                done, _ = await asyncio.wait((self._writer,), timeout=patience)
                if not done:
                    assert patience is not None
                    self._fail(*self._time_out(patience))
                    self._writer.cancel()
                self._reader.cancel()
        finally:
            self._leave()
        if self._client_gone:
            raise ClientGoneError
        if (status := self._status()) is not None:
            raise StatusError(status)

    def drain(self) -> None:
        """Read no more requests, because the daemon is about to end. Requests that were accepted are still answered."""
        self._draining = self._error is None
        self._close()

    def give_up(self) -> None:
        """Send no more replies either."""
        if self._writer is not None:
            self._writer.cancel()

    def check_progress(self, now: float) -> None:
        """End the stream if the client has read nothing for too long. `now` is of `time.monotonic()`."""
        longest = self._limits.stalled_reader
        if self._writing_since is not None and now - self._writing_since > longest:
            text = f"the client has read nothing for {longest:g} s, and {self._caller.ready.size} replies wait for it"
            self._fail(None, StatusError(status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message=text)))
            self.give_up()

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages that the stream has in its hands, in part estimated."""
        return self._read_bytes + self._written_bytes + self._ready_bytes

    def add_waiting(self, to: Counter[str]) -> None:
        """Add the bytes of the kernel's messages that are not sent yet, by the kernel's id."""
        to[self._kernel.kernel_id] += self._written_bytes + self._ready_bytes

    @property
    def messages_under_way(self) -> int:
        """The messages of the client that wait in the mailbox or for room in it."""
        in_mailbox = min(self._caller.unanswered, len(self._kernel.mail.inbox))
        return in_mailbox + bool(self._read_bytes)

    @property
    def under_way(self) -> tuple[int, int]:
        """The messages of the client that wait in the mailbox or for room in it, and the bytes of `held_bytes`."""
        return self.messages_under_way, self.held_bytes

    @property
    def traffic(self) -> tuple[int, int, int, int]:
        """The messages received from the client and their bytes, and the messages sent to it and theirs."""
        return self._read_count, self._all_read_bytes, self._sent_count, self._all_sent_bytes

    @property
    def _ready_bytes(self) -> int:
        ready = self._caller.ready
        return estimated_sum(ready, ready.size)

    def _close(self) -> None:
        self._closed = True
        if self._reader is not None:
            self._reader.cancel()
        self._caller.arrived.notify()

    def _fail(self, number: int | None, error: PyDotComputeError | StatusError) -> None:
        """End the stream with an error that message `number` has met, or (None) that is about no message.

        The stream ends with the error of the first message that met one. The order of the calls does not matter: the
        reader can learn that the kernel has failed before the writer learns on which message it failed.
        """
        if self._error is None or (number is not None and number < self._failed):
            self._error = error.status if isinstance(error, StatusError) else told_status(error)
            if number is not None:
                self._failed = number
                self._error.message = f"message {number} of the stream: {self._error.message}"
        self._close()

    def _time_out(self, patience: float) -> tuple[int | None, QueueTimeoutError]:
        """Return the number of the oldest request without a reply, None if there is none, and why it has none."""
        kernel = self._kernel
        key = min(self._numbers, key=self._numbers.__getitem__, default=None)
        if key is None:
            return None, QueueTimeoutError(kernel.kernel_id, patience, "Stream", *kernel.mail.delays.of_receive())
        delay = kernel.mail.delays.of_all({key})[key]
        return self._numbers[key], QueueTimeoutError(kernel.kernel_id, patience, "Stream", *delay)

    def _status(self) -> status_pb2.Status | None:
        """Return the status with which the stream ends, or None for OK."""
        if not self._draining:
            return self._error
        if self._error is not None and self._error.code == SHUTTING_DOWN.code:
            detail = f": message {self._failed:g} of the stream: not handled" if self._failed < inf else ""
        elif self._error is not None:
            detail = f": {self._error.message}"
        elif self._numbers:
            detail = f": message {min(self._numbers.values())} of the stream is not answered"
        elif self._all_read and not self._outputs:
            return None
        else:
            detail = ""
        message = f"{SHUTTING_DOWN.message}{detail}"
        return status_pb2.Status(code=SHUTTING_DOWN.code, message=message, details=SHUTTING_DOWN.details)

    # -- from the client -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._closed:
            body = await self._context.read()
            if body is grpc.aio.EOF:
                self._all_read = True
                self._close()
                return
            self._read_count += 1
            self._read_bytes = len(body)
            self._all_read_bytes += len(body)
            try:
                await self._put(body, self._read_count)
            except MessageDeserializationError as error:
                self._fail(self._read_count, await self._apart.run(every_problem, error, body, self._codec))
            except PyDotComputeError as error:
                self._fail(self._read_count, error)
            finally:
                self._read_bytes = 0

    async def _put(self, body: bytes, number: int) -> None:
        """Put a request into the mailbox."""
        kernel, caller, limits = self._kernel, self._caller, self._limits
        if len(body) > limits.max_message_bytes:
            raise MessageTooLargeError(self._codec.schema.name, len(body), limits.max_message_bytes)
        if self._account is not None:
            await self._wait_for_account(self._account, len(body))
        await self._wait_for_memory(len(body))
        message_id = new_message_id()
        header = message_id, self._priority, None
        is_heavy = self._apart.is_heavy(self._codec, body)
        if is_heavy:
            message = (await self._apart.read(self._codec, self._codec.decode_checked, body, header)).result()
        else:
            message = self._codec.decode(body, *header)
        while len(self._numbers) + caller.ready.size >= limits.stream_requests or not may_put(kernel, caller, limits):
            await wait_any((caller.room, kernel.mail.inbox.taken, kernel.gate.closing))
        self._numbers[message_id.int] = number
        try:
            await kernel.mail.send_as(caller, message, terms=terms_of(len(body), limits), checked=is_heavy)
        except BaseException:
            # A request that was put before its sender was cancelled is in the mailbox, and keeps its number.
            if not kernel.mail.replies.is_from(message_id, caller):
                self._numbers.pop(message_id.int, None)
            raise

    async def _wait_for_account(self, account: Account, size: int) -> None:
        """Wait while the client's principal has too much under way, or sends too fast."""
        while not all(account.credit()):
            await self._kernel.mail.inbox.taken.wait(account.seconds_to_credit)
        account.came(1, size)

    async def _wait_for_memory(self, size: int) -> None:
        """Wait until there is memory for a request of `size` bytes, and its client has not too many replies waiting.

        Raises:
            MemoryExhaustedError: there is none for too long.
        """
        limits, caller, memory = self._limits, self._caller, self._memory
        while caller.ready.size and self._ready_bytes >= limits.unacknowledged_bytes:
            await caller.room.wait()
        deadline = None
        self._read_bytes = 0  # `memory` is asked for these bytes, and must not count them twice.
        while not memory.has_room_for(size, self.client.owner.principal):
            self._read_bytes = size
            deadline = deadline or monotonic() + limits.stalled_reader
            if size > memory.budget or not await memory.freed().wait(deadline - monotonic()):
                raise memory.error(size, self.client.owner.principal)
            self._read_bytes = 0
        self._read_bytes = size

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
        """End the stream with QUEUE_FULL, because some replies to the request of this key have found no room."""
        self._fail(
            self._numbers.get(key) or dict(self._answered).get(key),
            QueueFullError(self._kernel.kernel_id, self._limits.stream_replies),
        )
        assert self._error is not None
        self._error.message += "; further replies to this request are dead letters"

    def _is_over(self) -> bool:
        """Return True if the stream is over: no reply waits to be sent, and none will come."""
        kernel = self._kernel
        if (ended := kernel.mail.replies.ended) is not None:
            if self._numbers or self._outputs or not self._closed:
                self._fail(min(self._numbers.values(), default=None), ended)
            return True
        if self._numbers and not self._caller.unanswered:
            # So many requests wait for this kernel's replies that it has forgotten who sent these.
            self._fail(min(self._numbers.values()), QueueFullError(kernel.kernel_id, self._limits.requests))
            return True
        ends_by_itself = not self._outputs or self._error is not None or self._draining
        return self._closed and not self._numbers and ends_by_itself

    async def _send(self, message: Any, is_output: bool) -> bool:
        """Write a message of the kernel to the client, or make it a dead letter. Return False if the client is gone."""
        kernel = self._kernel
        number = None if is_output else self._number_of(message)
        pass_outputs_on(kernel)  # While this message is being written, another client can take the next output.
        try:
            codec, body = await self._answers.encode(kernel, message, self._output_type)
            if self._output_type is None:
                body = AnyMessage(type_url=type_url(codec), value=body).SerializeToString()
            self._writing_since, self._written_bytes = monotonic(), len(body)
            await self._context.write(body)
            self._sent_count += 1
            self._all_sent_bytes += len(body)
        except StatusError as error:
            self._fail(number, error)
        except BaseException as error:
            if is_output:
                kernel.mail.replies.give_back(message)
            else:
                kernel.mail.bury(message, "its caller is gone")
            if isinstance(error, grpc.aio.InternalError | grpc.aio.UsageError):
                return False
            raise
        finally:
            self._writing_since, self._written_bytes = None, 0
        return True

    def _number_of(self, reply: Any) -> int | None:
        """Return the number of the request that this reply answers, or None if it was answered before."""
        key = (reply.correlation_id or reply.message_id).int
        number = self._numbers.pop(key, None)
        if number is not None:
            self._answered.append((key, number))
        return number

    # -- the end -------------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """Withdraw the requests that the kernel has not taken. Replies that it sends later become dead letters."""
        if self._account is not None:
            self._account.discard(self)
        self._kernel.mail.withdraw_all(self._caller)
        leave(self._kernel, self._caller)
        pass_outputs_on(self._kernel)


class Streams:
    """The streams of a daemon."""

    def __init__(self, limits: Limits) -> None:
        self._streams: set[Stream] = set()
        self._progress = Progress(self._streams, limits)
        self._ended = Signal()
        self._draining = False

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages that the streams have in their hands, in part estimated."""
        return sum(stream.held_bytes for stream in self._streams)

    def add_waiting(self, to: Counter[str]) -> None:
        """Add the bytes of the messages of each kernel that are not sent yet, by the kernel's id."""
        for stream in self._streams:
            stream.add_waiting(to)

    def held_by(self, principal: str) -> int:
        """Return the bytes of `held_bytes` that are this principal's."""
        return sum(stream.held_bytes for stream in self._streams if stream.client.owner.principal == principal)

    async def run(self, stream: Stream) -> None:
        """Run a stream to its end.

        Raises:
            StatusError: as `Stream.run`, or because the daemon is about to end.
            KernelStateError, ClientGoneError: as `Stream.run`.
            SessionLostError: an operator has ended the stream.
        """
        if self._draining:
            raise StatusError(SHUTTING_DOWN)
        client = stream.client
        self._streams.add(stream)
        client.talks.add(stream)
        self._progress.watch()
        try:
            with client.calling():
                await stream.run()
        finally:
            client.leave(stream)
            self._streams.discard(stream)
            self._ended.notify_all()

    def drain(self) -> None:
        """Read no more requests from any stream, and begin no new stream."""
        self._draining = True
        for stream in self._streams:
            stream.drain()

    async def farewell(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the streams to end, and then end those that are left.

        The kernels have ended when this is called.
        """
        deadline = monotonic() + timeout
        while self._streams and (left := deadline - monotonic()) > 0:
            await self._ended.wait(left)
        for stream in self._streams:
            stream.give_up()
