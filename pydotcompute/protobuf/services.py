"""Makes the descriptor of the gRPC service of a kernel type."""

from __future__ import annotations

from google.protobuf import any_pb2, empty_pb2
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from pydotcompute.protobuf.descriptors import comment
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema.names import snake

__all__ = ["add_service"]

_ANY, _EMPTY = any_pb2.Any.DESCRIPTOR, empty_pb2.Empty.DESCRIPTOR

_ASK = """\
Sends one request and returns its reply.

Metadata of the request: pydotcompute-kernel-id, -priority, -message-id, -correlation-id.
Of the answer: pydotcompute-message-id, -priority, -correlation-id.
The kernel is that of the type's name, unless pydotcompute-kernel-id names another. A reply that comes after the
deadline of the call becomes a dead letter.
Errors: KERNEL_NOT_FOUND, KERNEL_STATE_INVALID, KERNEL_FAILED, QUEUE_FULL, QUEUE_TIMEOUT, MESSAGE_INVALID,
CONFIGURATION_INVALID (the metadata)."""
_SEND = """\
Puts one message into the kernel's mailbox, and does not wait for it to be handled. Its reply is for Receive with the
same pydotcompute-client-id.

Metadata of the request: as of Ask, and pydotcompute-client-id. Of the answer: pydotcompute-message-id.
Idempotent if pydotcompute-message-id is given, as pydotcompute.v1.MessageService.Send is.
Errors: as of Ask."""
_RECEIVE = """\
Takes one message from the kernel, a reply to a message of Send or an output, and waits if there is none.

Metadata of the request: pydotcompute-kernel-id, -client-id, -lease ("30s").
Of the answer: as of Ask; with a lease also pydotcompute-delivery-id, for pydotcompute.v1.MessageService.Acknowledge,
and -redelivered. Without a lease, an answer that is lost on its way to the client is lost.
Errors: as of Ask."""
_STREAM = """\
Sends each message of the stream to the kernel, and returns its replies in the order in which the kernel sends them.

When the client has ended its side, the stream ends as soon as all requests are answered. Once a request will not be
answered nothing more is read, what was accepted is still answered, and the stream ends with the error of the first
request that was not, whose text says which message of the stream it was, counting from 1. A stream that the client
cancels withdraws what the kernel has not taken yet. A client that does not read is not read from.

Only the first reply to a request is guaranteed. Further ones come as far as the client keeps up and the stream is open:
when some 32,000 replies wait for it, the next further one and all after it become dead letters, and the stream ends
with QUEUE_FULL, whose text says to which message that one was. What comes after the end of the stream is a dead letter.

Metadata of the request: pydotcompute-kernel-id, -priority; with "pydotcompute-outputs: true" the kernel's outputs come
too, until the client cancels the stream or the kernel ends.
Errors: as of Ask."""


def add_service(
    types: TypePool, full_name: str, takes: Descriptor, gives: Descriptor | None, documentation: str = ""
) -> ServiceDescriptor:
    """Adds a service with the methods Ask, Send, Receive and Stream to the pool, if missing. Returns the service.

    The service has a file of its own, such as `calculator/v1/calculator_service.proto`.

    Args:
        types: the pool, which already has the types of the messages.
        full_name: the name of the service, with its package.
        takes: the type of the requests.
        gives: the type of the replies and outputs. None means any type, sent as a google.protobuf.Any.
        documentation: the comment of the service.

    Raises:
        MessageTypeError: the pool has something else with this name.
    """
    package, _, name = full_name.rpartition(".")
    gives = gives or _ANY
    file = FileDescriptorProto(
        name=f"{package.replace('.', '/')}/{snake(name)}_service.proto", package=package, syntax="proto3"
    )
    file.dependency.extend(sorted({takes.file.name, gives.file.name, _EMPTY.file.name}))
    service = file.service.add(name=name)
    comment(file.source_code_info, [6, 0], documentation)
    for index, (method, request, response, streams, text) in enumerate(
        (
            ("Ask", takes, gives, False, _ASK),
            ("Send", takes, _EMPTY, False, _SEND),
            ("Receive", _EMPTY, gives, False, _RECEIVE),
            ("Stream", takes, gives, True, _STREAM),
        )
    ):
        service.method.add(
            name=method,
            input_type=f".{request.full_name}",
            output_type=f".{response.full_name}",
            client_streaming=streams,
            server_streaming=streams,
        )
        comment(file.source_code_info, [6, 0, 2, index], text)
    for needed in (_ANY, _EMPTY):
        proto = FileDescriptorProto()
        needed.file.CopyToProto(proto)
        types.add_files([proto])
    types.add_files([file])
    found: ServiceDescriptor = types.pool.FindServiceByName(full_name)
    return found
