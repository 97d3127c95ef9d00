"""The methods Send, Receive, Acknowledge and Ask: the lane for people."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import grpc

from pydotcompute.exceptions import (
    MessageDeserializationError,
    MessageError,
    MessageTooLargeError,
    QueueFullError,
)
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.durations import seconds
from pydotcompute.wire.messages import MESSAGE, from_message, write_body
from pydotcompute_server.calls.answers import Answers, answer, seconds_left
from pydotcompute_server.calls.errors import ClientGoneError
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.clients import leave
from pydotcompute_server.limits import Limits
from pydotcompute_server.shares import SharedTable, owner_of
from pydotcompute_server.unary.clients import Client, Clients
from pydotcompute_server.unary.leases import Leases
from pydotcompute_server.unary.sends import Sends, digest_of

__all__ = ["UnaryLane"]

Context = grpc.aio.ServicerContext[Any, Any]
Kernel = RingKernel[Any, Any]
Answer = Callable[[Context, pb.ReceiveResponse], Awaitable[None]]

_ID_MOVED = "$.message_id", f"{MESSAGE}.message_id"
"""The path of a message's id in the message, and its path in a request."""

logger = logging.getLogger(__name__)


class _Desk:
    """The state that the daemon keeps between the unary calls to one kernel.

    A desk does not refer to its kernel, so both are freed together.
    """

    def __init__(self, kernel: Kernel, limits: Limits) -> None:
        self.clients = Clients(limits)
        self.sends = Sends(limits)
        self.leases = Leases(kernel.mail.outputs.capacity, limits)
        self.returned: SharedTable[int, bool] = SharedTable(limits.returned_messages)
        """The ids (`message_id.int`) of messages that were in a response and came back."""


class UnaryLane:
    """Converts each request, calls the kernel, and converts its answer back; keeps a `_Desk` for each kernel."""

    def __init__(self, runtime: RingKernelRuntime, catalog: Catalog, limits: Limits) -> None:
        self._runtime = runtime
        self._catalog = catalog
        self._answers = Answers(catalog, limits)
        self._limits = limits
        self._desks: WeakKeyDictionary[Kernel, _Desk] = WeakKeyDictionary()

    async def ask(self, request: pb.AskRequest, context: Context, wanted: type | None = None) -> pb.AskResponse:
        """Send a request to the kernel, and return its reply.

        Args:
            wanted: the class that the reply must be of; None for any.

        Raises:
            StatusError: the reply cannot be sent, or is not of the class `wanted`.
            PyDotComputeError: as `RingKernel.send_and_receive`.
        """
        kernel = self._runtime.kernel(request.kernel_id)
        message = self._message(request.message, kernel)
        try:
            reply = await kernel.send_and_receive(message, timeout=_patience(request, context, self._limits))
        except MessageError as error:
            raise error.moved(*_ID_MOVED) from None
        response = pb.AskResponse()
        codec, body = self._answers.encode(kernel, reply, wanted)
        write_body(response.message, reply, codec, body)
        return response

    # -- send ----------------------------------------------------------------------------------------------------------

    async def send(self, request: pb.SendRequest, context: Context) -> pb.SendResponse:
        """Put a message into the kernel's mailbox. A message with an id of the client's is put only once.

        Raises:
            MessageDeserializationError: another message was sent with this id.
            LimitExceededError: there are too many client_ids.
            PyDotComputeError: as `RingKernel.send`.
        """
        kernel = self._runtime.kernel(request.kernel_id)
        message = self._message(request.message, kernel)
        desk = self._desk(kernel)
        timeout, owner = _patience(request, context, self._limits), owner_of(context)
        try:
            if request.message.message_id:
                await self._send_once(kernel, desk, request, message, timeout, owner)
            else:
                await kernel.mail.send_as(self._client(kernel, desk, request.client_id, owner), message, timeout)
        except MessageError as error:
            raise error.moved(*_ID_MOVED) from None
        return pb.SendResponse(message_id=str(message.message_id))

    async def _send_once(
        self, kernel: Kernel, desk: _Desk, request: pb.SendRequest, message: Any, timeout: float | None, owner: str
    ) -> None:
        sends, key, digest = desk.sends, message.message_id.int, digest_of(request)
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
                await kernel.mail.send_as(self._client(kernel, desk, request.client_id, owner), message, remaining)
                taken = True
            finally:
                sends.end(key, owner, taken=taken)

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
            PyDotComputeError: as `RingKernel.receive`.
        """
        kernel = self._runtime.kernel(request.kernel_id)
        desk = self._desk(kernel)
        lease = _lease(request, self._limits.longest_lease)
        owner = owner_of(context)
        client = self._client(kernel, desk, request.client_id, owner)
        if lease is not None and not desk.leases.reserve(owner):
            raise QueueFullError(kernel.kernel_id, kernel.mail.outputs.capacity)
        delivery_id = ""
        try:
            message = await kernel.mail.receive_as(client, _patience(request, context, self._limits))
            # This must come before the next `await`: another call with this client_id changes `took`.
            receiver = client if client.took is message else None
            client.took = None
            put_back = partial(_put_back, kernel, desk, receiver, message, owner)
            response = pb.ReceiveResponse(redelivered=bool(desk.returned.pop(message.message_id.int)))
            codec, body = self._answers.encode(kernel, message, wanted)
            write_body(response.message, message, codec, body)
            if lease is not None:
                response.delivery_id = delivery_id = desk.leases.grant(owner, lease, put_back)
        finally:
            if lease is not None and not delivery_id:
                desk.leases.free(owner)
        try:
            await answer(context, response)
        except ClientGoneError:
            if lease is None:
                put_back()
            else:
                desk.leases.give_up(delivery_id)
            raise

    async def acknowledge(self, request: pb.AcknowledgeRequest, context: Context) -> pb.AcknowledgeResponse:
        """End leases because their messages are acknowledged. The response names the ids that are of no lease."""
        desk = self._desk(self._runtime.kernel(request.kernel_id))
        return pb.AcknowledgeResponse(unknown_delivery_ids=desk.leases.acknowledge(request.delivery_ids))

    def close(self) -> None:
        """End all leases, because the daemon ends."""
        for kernel, desk in self._desks.items():
            if unacknowledged := len(desk.leases):
                logger.warning(
                    "the daemon ends before what was received is acknowledged",
                    extra={"kernel_id": kernel.kernel_id, "messages": unacknowledged},
                )
            desk.leases.close()

    # -- conversions and desks -----------------------------------------------------------------------------------------

    def _desk(self, kernel: Kernel) -> _Desk:
        desk = self._desks.get(kernel)
        if desk is None:
            desk = self._desks[kernel] = _Desk(kernel, self._limits)
        return desk

    def _client(self, kernel: Kernel, desk: _Desk, client_id: str, owner: str) -> Client:
        """Return the caller that unary calls with this client_id send and receive as; see `Clients.find`."""
        return desk.clients.find(client_id, owner, partial(leave, kernel, why="its caller has not asked for it"))

    def _message(self, message: pb.Message, kernel: Kernel) -> Any:
        input_type = kernel.type.input_type
        codec = self._catalog.codecs(kernel.type)[0] if input_type is None else self._catalog.codec(input_type)
        if len(message.body.value) > self._limits.max_message_bytes:
            raise MessageTooLargeError(codec.schema.name, len(message.body.value), self._limits.max_message_bytes)
        return from_message(message, codec)


def _put_back(kernel: Kernel, desk: _Desk, receiver: Client | None, message: Any, owner: str) -> None:
    """Put a message that was in a response back to the front of its priority, to be received again."""
    desk.returned.put(message.message_id.int, True, owner)
    if receiver is None:
        kernel.mail.replies.give_back(message)
    elif receiver.gone:
        kernel.mail.bury(message, "its caller has not asked for it")
    else:
        # Not `give_back`: after some thousand other replies a kernel forgets whose reply this was.
        receiver.ready.push_front(message, message.priority)
        receiver.arrived.notify()


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
