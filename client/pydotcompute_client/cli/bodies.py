"""Messages as JSON: reads the bodies that people type, and prints the messages that arrive."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import grpc
from google.protobuf.struct_pb2 import Struct

from pydotcompute.exceptions import MessageDeserializationError, MessageError, MessageTypeError
from pydotcompute.printable import escaped_lines
from pydotcompute.protobuf.json.fields import field_lines
from pydotcompute.protobuf.json.read import load, read_json
from pydotcompute.protobuf.json.write import as_document, type_inside, unpacked
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.wire.messages import BODY
from pydotcompute_client.cli.connection import PROGRAM, Connection
from pydotcompute_client.cli.failures import BadBody, BadInput, Failure
from pydotcompute_client.cli.output import echo_json
from pydotcompute_client.cli.reflection import reflected

__all__ = ["make_message", "show_message", "telling_of_the_body", "types_of"]

_STRUCT = Struct.DESCRIPTOR.full_name


def show_message(
    daemon: Connection, response: message_pb.AskResponse | message_pb.ReceiveResponse, types: TypePool
) -> None:
    """Print the body of a message, in the form in which `ask` takes a body; with --json, print the whole message.

    The message was taken from the kernel and is nowhere else. So a body of an unknown type is printed too: the daemon
    is asked for the type, and if it has none, the body is printed in base64.
    """
    body = response.message.body
    inside = unpacked(body, types)
    if inside is None and body.type_url:
        with suppress(grpc.RpcError, MessageTypeError):
            types = reflected(daemon, type_inside(body))
        inside = unpacked(body, types)
    if daemon.as_json:
        echo_json(as_document(response, types))
    else:
        echo_json(as_document(body if inside is None else inside, types))


def types_of(described: kernel_pb.DescribeKernelResponse) -> TypePool:
    """Return the types of the messages that a kernel takes and sends."""
    pool = TypePool()
    for message_type in (described.input_type, described.output_type):
        pool.add_files(message_type.files.file)
    return pool


def make_message(
    kernel: str, described: kernel_pb.DescribeKernelResponse, types: TypePool, body: str | None, priority: int | None
) -> message_pb.Message:
    """Return the message that the command line describes.

    Raises:
        UsageError: there is no body; the text shows an example and the fields.
        BadInput: the body is not of the kernel's input type; the text says what is wrong, and where.
        Failure: the kernel takes no messages from other processes.
    """
    name = described.input_type.full_name
    if not name:
        raise Failure(f"kernel {kernel!r} is declared without an input_type: it can only be used in-process")
    if body is None:
        raise click.UsageError(_how_to(kernel, described, types))
    try:
        document = load(_read(body))
    except ValueError as error:
        raise BadInput(f"the body is no JSON: {error}; {_hint(kernel)}") from None
    place = "$"
    if isinstance(document, dict) and "@type" in document:
        stated = str(document.pop("@type")).rpartition("/")[2]
        if stated == _STRUCT:  # grpcurl takes such a body too, for users who do not know the type.
            document, place = document.get("value"), "$.value"
        elif stated != name:
            raise BadInput(f"the body is of type {stated}, and kernel {kernel!r} takes {name}, or {_STRUCT}")
    message = message_pb.Message(priority=priority)
    try:
        message.body.Pack(read_json(document, types.descriptor(name)))
    except MessageDeserializationError as error:
        raise _bad_body(kernel, name, error.moved("$", place)) from None
    return message


@contextmanager
def telling_of_the_body(kernel: str, described: kernel_pb.DescribeKernelResponse) -> Iterator[None]:
    """Turn the daemon's errors about a body into this program's BadBody."""
    try:
        yield
    except MessageError as error:
        if not error.path.startswith(BODY):
            raise
        raise _bad_body(kernel, described.input_type.full_name, error.moved(BODY, "$")) from None


def _bad_body(kernel: str, name: str, error: MessageError) -> BadBody:
    return BadBody(f"the body is no {name}; {_hint(kernel)}", error.violations)


def _hint(kernel: str) -> str:
    return f"`{PROGRAM} ask {shlex.quote(kernel)}` tells its fields"


def _how_to(kernel: str, described: kernel_pb.DescribeKernelResponse, types: TypePool) -> str:
    command = click.get_current_context().command_path
    name = described.input_type.full_name
    lines = [
        f"a body is missing, for example:\n\n  {command} {shlex.quote(kernel)} {shlex.quote(described.sample_json)}\n",
        f"or - for stdin, or @FILE. The fields of {name}:\n",
        *(f"  {line}" for line in field_lines(types.descriptor(name), described.input_type.files.file)),
    ]
    return escaped_lines("\n".join(lines))


def _read(body: str) -> str | bytes:
    """Return the text of an argument that is the body itself, `-` for stdin, or `@FILE`."""
    if body == "-":
        return sys.stdin.buffer.read()
    if not body.startswith("@"):
        return body
    try:
        return Path(body[1:]).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {body[1:]}: {error.strerror}") from None
