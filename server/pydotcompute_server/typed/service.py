"""The services of the kernels themselves, with their own messages in place of `Any`, and the header in the metadata.

Only the envelope differs from that of `MessageService`. Both pass their calls to `UnaryLane`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc

from pydotcompute.exceptions import InvalidConfigurationError, MessageError
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.durations import duration
from pydotcompute.wire.messages import BODY, type_url
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.calls.answers import answer, answers_itself, send_header
from pydotcompute_server.calls.errors import Behavior, ClientGoneError
from pydotcompute_server.calls.handlers import Handler
from pydotcompute_server.calls.pipeline import with_kernel
from pydotcompute_server.calls.requests import long_request, takes_messages
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.connected import Connected
from pydotcompute_server.limits import Limits
from pydotcompute_server.typed.metadata import PREFIX, CallMetadata, header_of, kernel_id_in, read_metadata
from pydotcompute_server.typed.streams import Stream, Streams
from pydotcompute_server.unary.lane import UnaryLane

__all__ = ["TypedServices"]

Context = grpc.aio.ServicerContext[Any, Any]
Kernel = RingKernel[Any, Any]


class TypedServices(grpc.GenericRpcHandler):
    """Finds the handler of a method in the catalog when the method is first called."""

    def __init__(
        self,
        runtime: RingKernelRuntime,
        catalog: Catalog,
        unary: UnaryLane,
        limits: Limits,
        apart: Apart,
        memory: Memory,
        connected: Connected,
    ) -> None:
        self._connected = connected
        self._apart = apart
        self._runtime = runtime
        self._catalog = catalog
        self._unary = unary
        self._limits = limits
        self._memory = memory
        self.streams = Streams(limits)
        """The running calls of Stream."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a method of a kernel type's service, or None if there is no such method."""
        name, _, method = handler_call_details.method[1:].rpartition("/")
        kernel_type = self._catalog.services.get(name)
        if kernel_type is None:
            return None
        lane = _TypedLane(
            kernel_type,
            self._runtime,
            self._catalog,
            self._unary,
            self._limits,
            self._apart,
            self._memory,
            self._connected,
        )

        def named(behavior: Behavior) -> Behavior:
            marked = with_kernel(behavior, lambda metadata: kernel_id_in(metadata) or kernel_type.name)
            return marked if method == "Receive" else takes_messages(marked)

        # gRPC hands over the bodies as bytes; the lanes decode them.
        match method:
            case "Ask":
                return grpc.unary_unary_rpc_method_handler(named(lane.ask), bytes, bytes)
            case "Send":
                return grpc.unary_unary_rpc_method_handler(named(lane.send), bytes, bytes)
            case "Receive":
                return grpc.unary_unary_rpc_method_handler(named(lane.receive), bytes, bytes)
            case "Stream":

                async def stream(_: object, context: Context) -> None:
                    await self.streams.run(lane.stream(context))

                return grpc.stream_stream_rpc_method_handler(named(stream), bytes, bytes)
            case _:
                return None


class _TypedLane:
    """The methods of one kernel type's service."""

    def __init__(
        self,
        kernel_type: KernelType,
        runtime: RingKernelRuntime,
        catalog: Catalog,
        unary: UnaryLane,
        limits: Limits,
        apart: Apart,
        memory: Memory,
        connected: Connected,
    ) -> None:
        self._connected = connected
        self._apart = apart
        assert kernel_type.input_type is not None
        self._kernel_type = kernel_type
        self._output_type = kernel_type.output_type
        self._runtime = runtime
        self._catalog = catalog
        self._unary = unary
        self._limits = limits
        self._memory = memory
        self._type_url = type_url(catalog.codec(kernel_type.input_type))

    async def ask(self, body: bytes, context: Context) -> bytes:
        """Send a request to the kernel, and return the body of its reply."""
        said, _ = self._read("Ask", context)
        request = pb.AskRequest(kernel_id=said.kernel_id)
        self._fill(request.message, body, said)
        with _as_the_whole_request():
            response = await self._unary.ask(request, context, self._output_type)
        with suppress(ClientGoneError):  # gRPC wants an answer even for a client that is gone.
            await send_header(context, header_of(response.message))
        return self._body(response.message)

    async def send(self, body: bytes, context: Context) -> bytes:
        """Put a message into the kernel's mailbox, and return an empty body."""
        said, _ = self._read("Send", context)
        request = pb.SendRequest(kernel_id=said.kernel_id, client_id=said.client_id, daemon_epoch=said.daemon_epoch)
        self._fill(request.message, body, said)
        with _as_the_whole_request():
            response = await self._unary.send(request, context)
        with suppress(ClientGoneError):
            header = [(f"{PREFIX}message-id", response.message_id), (f"{PREFIX}daemon-epoch", response.daemon_epoch)]
            await send_header(context, header)
        return b""

    @answers_itself
    async def receive(self, empty: bytes, context: Context) -> None:
        """Answer with a reply or an output."""
        said, _ = self._read("Receive", context)
        request = pb.ReceiveRequest(kernel_id=said.kernel_id, client_id=said.client_id, daemon_epoch=said.daemon_epoch)
        if said.lease is not None:
            request.lease.CopyFrom(duration(said.lease))
        await self._unary.receive(request, context, self._output_type, self._answer)

    async def _answer(self, context: Context, response: pb.ReceiveResponse) -> None:
        header = [*header_of(response.message), (f"{PREFIX}daemon-epoch", response.daemon_epoch)]
        if response.delivery_id:
            header.append((f"{PREFIX}delivery-id", response.delivery_id))
            header.append((f"{PREFIX}redelivered", "true" if response.redelivered else "false"))
        await send_header(context, header)
        await answer(context, self._body(response.message))

    def stream(self, context: Context) -> Stream:
        """Return the stream that this call is to run: many requests, and their replies."""
        said, kernel = self._read("Stream", context)
        return Stream(
            kernel,
            self._catalog,
            context,
            self._limits,
            self._apart,
            self._memory,
            self._connected.client(context),
            priority=said.priority,
            outputs=said.outputs,
        )

    # -- envelopes -----------------------------------------------------------------------------------------------------

    def _read(self, method: str, context: Context) -> tuple[CallMetadata, Kernel]:
        """Return the metadata of the call, and the kernel that the metadata name.

        Raises:
            InvalidConfigurationError: the metadata are not valid, or the kernel is of another type.
            KernelNotFoundError: there is no such kernel.
        """
        said = read_metadata(method, context.invocation_metadata() or (), self._limits)
        kernel_type = self._kernel_type
        said.kernel_id = said.kernel_id or kernel_type.name
        kernel = self._runtime.kernel(said.kernel_id)
        if kernel.type.name != kernel_type.name:
            other = kernel.type.service
            problem = (
                f"its type is {kernel.type.name!r}, which has {f'the service {other}' if other else 'no service'}; "
                f"{kernel_type.service} is for kernels of the type {kernel_type.name!r}"
            )
            raise InvalidConfigurationError(f"{PREFIX}kernel-id", said.kernel_id, problem)
        return said, kernel

    def _fill(self, message: pb.Message, body: bytes, said: CallMetadata) -> None:
        if len(body) >= self._limits.decode_apart_bytes:
            long_request.set(True)
        message.body.type_url = self._type_url
        message.body.value = body
        message.message_id = said.message_id
        message.correlation_id = said.correlation_id
        if said.priority is not None:
            message.priority = said.priority

    def _body(self, message: pb.Message) -> bytes:
        """Return the bytes of the answer: a message of the kernel's output type, or an Any if it declares none."""
        return message.body.value if self._output_type is not None else message.body.SerializeToString()


@contextmanager
def _as_the_whole_request() -> Iterator[None]:
    """Make the paths of errors begin at the body, because the body is the whole request here."""
    try:
        yield
    except MessageError as error:
        raise error.moved(BODY, "$") from error.__cause__
