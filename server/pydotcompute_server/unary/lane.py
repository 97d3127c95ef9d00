"""The methods Send, Receive, Acknowledge and Ask: the lane for people."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any

import grpc

from pydotcompute.exceptions import (
    MessageDeserializationError,
    MessageError,
    MessageTooLargeError,
    QueueFullError,
    SessionLostError,
)
from pydotcompute.ring_kernels.config import LONGEST_ID
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.signals import wait_any
from pydotcompute.ring_kernels.mail.sizes import estimated_size, estimated_sum
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.durations import seconds
from pydotcompute.wire.messages import BODY, MESSAGE, from_message, write_body
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.calls.answers import Answers, answer, seconds_left
from pydotcompute_server.calls.errors import ClientGoneError
from pydotcompute_server.calls.requests import long_request
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.clients import ENDING, terms_of
from pydotcompute_server.connected import Connected, ConnectedClient
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import current
from pydotcompute_server.unary.clients import Client
from pydotcompute_server.unary.desks import Desk, Desks
from pydotcompute_server.unary.running import RunningCalls
from pydotcompute_server.unary.sends import digest_of

__all__ = ["UnaryLane"]

Context = grpc.aio.ServicerContext[Any, Any]
Kernel = RingKernel[Any, Any]
Answer = Callable[[Context, pb.ReceiveResponse], Awaitable[None]]

_ID_MOVED = "$.message_id", f"{MESSAGE}.message_id"
"""The path of a message's id in the message, and its path in a request."""


class UnaryLane:
    """Converts each request, calls the kernel, and converts its answer back."""

    def __init__(
        self,
        runtime: RingKernelRuntime,
        catalog: Catalog,
        limits: Limits,
        apart: Apart,
        memory: Memory,
        epoch: str,
        connected: Connected,
    ) -> None:
        self._connected = connected
        self._runtime = runtime
        self._catalog = catalog
        self._apart = apart
        self._answers = Answers(catalog, limits, apart)
        self._limits = limits
        self._epoch = epoch
        self._draining = False
        self._large, self._most_bytes = limits.large_message_bytes, limits.max_message_bytes
        self._running = RunningCalls(memory, connected)
        self._desks = Desks(limits)

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages that the lane has: in calls, leased, or waiting for a client_id."""
        return self._running.held_bytes + self._desks.held_bytes

    def held_by(self, principal: str) -> int:
        """Return the bytes of `held_bytes` that are this principal's."""
        return self._running.held_by(principal) + self._desks.held_by(principal)

    def add_waiting(self, to: Counter[str]) -> None:
        """Add the bytes of the messages of each kernel that clients have not received, by the kernel's id."""
        self._desks.add_waiting(to)
        self._running.add_answering(to)

    async def ask(self, request: pb.AskRequest, context: Context, wanted: type | None = None) -> pb.AskResponse:
        """Send a request to the kernel, and return its reply.

        Args:
            wanted: the class that the reply must be of; None for any.

        Raises:
            StatusError: the reply cannot be sent, or is not of the class `wanted`.
            ConnectionLostError: the daemon is about to end.
            PyDotComputeError: as `RingKernel.send_and_receive`.
        """
        if self._draining:
            raise ENDING.again()
        kernel = self._runtime.kernel(request.kernel_id)
        body = request.message.body.value
        size = len(body)
        with self._running.taking(size, context) as client:
            message = self._read_now(kernel, request.message, body)
            del body
            if checked := message is None:
                message = await self._read_apart(kernel, request.message)
            timeout = _patience(request, context, self._limits)
            large = size if size >= self._large else 0
            if large:
                timeout = await self._wait_for_room(kernel, timeout)
            try:
                reply = await kernel.mail.ask(
                    message, timeout, large, checked=checked, principal=client.owner.principal
                )
            except MessageError as error:
                found_by_worker = isinstance(error, MessageDeserializationError)  # In the body.
                raise error.moved(*(("$", BODY) if found_by_worker else _ID_MOVED)) from None
        response = pb.AskResponse(daemon_epoch=self._epoch)
        encoded = self._answers.encode_now(kernel, reply, wanted)
        size = estimated_size(reply) if encoded is None else len(encoded[1])
        if size >= self._large:
            self._running.hold_reply(kernel.kernel_id, size, context)
        if encoded is not None and size < self._limits.decode_apart_bytes:
            write_body(response.message, reply, *encoded)
        else:
            try:
                size = await self._answers.write(response.message, kernel, reply, wanted, encoded)
            except asyncio.CancelledError:
                kernel.mail.bury(reply, "its caller is gone")
                raise
        client.sent_messages += 1
        client.sent_bytes += size
        return response

    # -- send ----------------------------------------------------------------------------------------------------------

    async def send(self, request: pb.SendRequest, context: Context) -> pb.SendResponse:
        """Put a message into the kernel's mailbox. A message with an id of the client's is put only once.

        Raises:
            MessageDeserializationError: another message was sent with this id.
            SessionLostError: the client has sent to an earlier run of the daemon.
            ConnectionLostError: the daemon is about to end.
            LimitExceededError: there are too many client_ids.
            PyDotComputeError: as `RingKernel.send`.
        """
        self._require_epoch(request)
        if self._draining:
            raise ENDING.again()
        kernel = self._runtime.kernel(request.kernel_id)
        body = request.message.body.value
        size = len(body)
        with self._running.taking(size, context) as client:
            message = self._read_now(kernel, request.message, body)
            del body
            if checked := message is None:
                message = await self._read_apart(kernel, request.message)
            desk = self._desks.of(kernel)
            timeout = _patience(request, context, self._limits)
            try:
                if request.message.message_id:
                    await self._send_once(kernel, desk, request, message, size, timeout, checked, client)
                else:
                    await self._put(kernel, desk, request, message, size, timeout, checked, client)
            except MessageError as error:
                raise error.moved(*_ID_MOVED) from None
        return pb.SendResponse(message_id=str(message.message_id), daemon_epoch=self._epoch)

    async def _put(
        self,
        kernel: Kernel,
        desk: Desk,
        request: pb.SendRequest,
        message: Any,
        size: int,
        timeout: float | None,
        checked: bool,
        sender: ConnectedClient,
    ) -> None:
        client = desk.client(kernel, request.client_id, sender)
        if client.ready.size:
            timeout = await self._wait_until_received(kernel, client, timeout)
        if size >= self._large:
            timeout = await self._wait_for_room(kernel, timeout)
        await kernel.mail.send_as(client, message, timeout, terms_of(size, self._limits), checked=checked)

    async def _wait_until_received(self, kernel: Kernel, client: Client, timeout: float | None) -> float | None:
        """Wait while replies of too many bytes wait for this client. Return the seconds of `timeout` that are left.

        Raises:
            QueueFullError: the client did not receive enough of them in time.
            PyDotComputeError: the kernel takes no messages any more.
        """
        ready, most = client.ready, self._limits.unacknowledged_bytes
        if estimated_sum(ready, ready.size) < most:
            return timeout
        deadline = None if timeout is None else monotonic() + timeout
        while estimated_sum(ready, ready.size) >= most:
            left = None if deadline is None else deadline - monotonic()
            kernel.gate.require_open()
            if not await wait_any((client.room, kernel.gate.closing), left):
                raise QueueFullError(kernel.kernel_id, kernel.mail.outputs.capacity)
        return None if deadline is None else deadline - monotonic()

    async def _wait_for_room(self, kernel: Kernel, timeout: float | None) -> float | None:
        """Wait until a mailbox that has too many bytes of large messages has fewer. Call this for a large message.

        After this, put the message before anything else is awaited. Return the seconds of `timeout` that are left.

        Raises:
            QueueFullError: the mailbox had no room in time, or does not make senders wait.
            PyDotComputeError: the kernel takes no messages any more.
        """
        inbox = kernel.mail.inbox
        if inbox.bytes < self._limits.mailbox_bytes:
            return timeout
        deadline = None if timeout is None else monotonic() + timeout
        while inbox.bytes >= self._limits.mailbox_bytes:
            left = None if deadline is None else deadline - monotonic()
            kernel.gate.require_open()
            if not (inbox.backpressure.waits and await wait_any((inbox.taken, kernel.gate.closing), left)):
                raise QueueFullError(kernel.kernel_id, inbox.capacity)
        return None if deadline is None else deadline - monotonic()

    async def _send_once(
        self,
        kernel: Kernel,
        desk: Desk,
        request: pb.SendRequest,
        message: Any,
        size: int,
        timeout: float | None,
        checked: bool,
        sender: ConnectedClient,
    ) -> None:
        sends, key = desk.sends, (sender.owner.principal, message.message_id.int)
        digest = await self._apart.run(digest_of, request) if long_request.get() else digest_of(request)
        deadline = None if timeout is None else monotonic() + timeout
        while not sends.was_taken(key, digest, type(message).__name__):
            remaining = None if deadline is None else deadline - monotonic()
            if (settled := sends.is_waiting(key)) is not None:
                if not await settled.wait(remaining):
                    raise QueueFullError(kernel.kernel_id, kernel.mail.inbox.capacity)
                continue
            sends.begin(key, digest)
            taken = False
            try:
                await self._put(kernel, desk, request, message, size, remaining, checked, sender)
                taken = True
            finally:
                sends.end(key, sender.owner, taken=taken)

    # -- receive -------------------------------------------------------------------------------------------------------

    async def receive(
        self, request: pb.ReceiveRequest, context: Context, wanted: type | None = None, answer: Answer = answer
    ) -> None:
        """Take a reply or an output from the kernel, and send it with `answer`.

        Args:
            wanted: the class that the message must be of; None for any.
            answer: sends the response. If it raises ClientGoneError, the message goes back to the kernel.

        Raises:
            QueueFullError: as many leases are open as the output mailbox holds messages.
            LimitExceededError: there are too many leases or client_ids.
            StatusError: the message cannot be sent, or is not of the class `wanted`.
            ClientGoneError: the client is gone.
            SessionLostError: the client has sent to an earlier run of the daemon.
            PyDotComputeError: as `RingKernel.receive`.
        """
        self._require_epoch(request)
        kernel = self._runtime.kernel(request.kernel_id)
        desk = self._desks.of(kernel)
        lease = _lease(request, self._limits.longest_lease)
        connected = self._connected.client(context)
        owner = connected.owner
        client = desk.client(kernel, request.client_id, connected)
        if lease is not None and not desk.leases.reserve(owner):
            raise QueueFullError(kernel.kernel_id, kernel.mail.outputs.capacity)
        delivery_id = ""
        try:
            with connected.calling(), client.receiving():
                message = await kernel.mail.receive_as(client, _patience(request, context, self._limits))
            # This must come before the next `await`: another call with this client_id changes `took`.
            receiver = client if client.took is message else None
            client.took = None
            put_back = partial(desk.put_back, kernel, receiver, message, owner)
            redelivered = bool(desk.returned.pop(message.message_id.int))
            response = pb.ReceiveResponse(redelivered=redelivered, daemon_epoch=self._epoch)
            try:
                size = await self._answers.write(response.message, kernel, message, wanted)
            except asyncio.CancelledError:
                put_back()
                raise
            if lease is not None:
                response.delivery_id = delivery_id = desk.leases.grant(owner, lease, put_back, size)
        finally:
            if lease is not None and not delivery_id:
                desk.leases.free(owner)
        try:
            with self._running.holding(size):
                await answer(context, response)
            connected.sent(1, size)
        except ClientGoneError:
            if lease is None:
                put_back()
            else:
                desk.leases.give_up(delivery_id)
            raise

    async def acknowledge(self, request: pb.AcknowledgeRequest, context: Context) -> pb.AcknowledgeResponse:
        """End leases because their messages are acknowledged. The response names the ids that are of no lease."""
        desk = self._desks.of(self._runtime.kernel(request.kernel_id))
        unknown = desk.leases.acknowledge(request.delivery_ids, current().name)
        return pb.AcknowledgeResponse(unknown_delivery_ids=unknown)

    def kick(self, principal: str, client_id: str, reason: str) -> int:
        """Forget a client_id of this principal, or of all if that is empty, at every kernel. Return at how many.

        Calls that receive with it end. Replies that wait for it become dead letters.
        """
        return self._desks.kick(principal, client_id, reason)

    def drain(self) -> None:
        """Take no more messages, because the daemon is about to end. What waits can still be received."""
        self._draining = True

    def forget_predecessor(self, kernel: Kernel) -> None:
        """Make the replies of an earlier kernel of this id dead letters: nobody can ask for them any more."""
        self._desks.forget_predecessor(kernel)

    def close(self) -> None:
        """End all leases, because the daemon ends."""
        self._desks.close()

    def _require_epoch(self, request: pb.SendRequest | pb.ReceiveRequest) -> None:
        """Raise SessionLostError if the client counts on another run of the daemon."""
        if request.daemon_epoch and request.daemon_epoch != self._epoch:
            problem = (
                f"the daemon has restarted since (its epoch was {request.daemon_epoch[:LONGEST_ID]} and is "
                f"{self._epoch}); what was sent before and not answered is lost"
            )
            raise SessionLostError("", problem, request.kernel_id)

    def _read_now(self, kernel: Kernel, message: pb.Message, body: bytes) -> Any:
        """Return the message in a request, whose body is this one. None if it should be read apart.

        The message is not checked yet.
        """
        input_type = kernel.type.input_type
        if input_type is None or kernel.mail.takes_raw:
            codec = self._catalog.lane_codecs(kernel)[0]
        else:
            codec = self._catalog.codec(input_type)
        size = len(body)
        if size > self._apart.least_bytes and (
            long_request.get() or self._apart.reads_apart(codec, message.body.type_url, size)
        ):
            return None
        if size > self._most_bytes:
            raise MessageTooLargeError(codec.schema.name, size, self._most_bytes)
        return from_message(message, codec, body)

    async def _read_apart(self, kernel: Kernel, message: pb.Message) -> Any:
        """Return the message in a request. It is checked already."""
        codec, most_elements = self._catalog.lane_codecs(kernel)[0], self._limits.max_message_elements

        def read_and_check() -> Any:
            body = message.body.value
            if len(body) > self._most_bytes:
                raise MessageTooLargeError(codec.schema.name, len(body), self._most_bytes)
            made = from_message(message, codec, body, most_elements)
            kernel.mail.check_in(made)
            return made

        return await self._apart.run(read_and_check)


def _patience(
    request: pb.SendRequest | pb.ReceiveRequest | pb.AskRequest, context: Context, limits: Limits
) -> float | None:
    """Return the seconds that the call may wait, or None for ever.

    They are the request's time-out or the time that the call's deadline allows, whichever is less.
    """
    left = seconds_left(context, limits)
    if not request.HasField("timeout"):
        return left
    timeout = seconds(request.timeout)
    return timeout if left is None else min(timeout, left)


def _lease(request: pb.ReceiveRequest, longest: float) -> float | None:
    """Return the lease that the request asks for, in seconds, or None if it asks for none.

    Raises:
        MessageDeserializationError: the lease is 0 or less, or more than `longest`.
    """
    if not request.HasField("lease"):
        return None
    lease = seconds(request.lease)
    if not 0 < lease <= longest:
        problem = f"{lease:g} s, but a lease is more than 0 and at most {longest:g} s"
        raise MessageDeserializationError("ReceiveRequest", problem, "$.lease")
    return lease
