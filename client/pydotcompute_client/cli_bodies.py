"""Messages as JSON: what people type, and what is printed."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.message import Message

from pydotcompute.schema.descriptors import TypePool
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute_client.cli_daemon import PROGRAM, BadInput, Daemon, Failure

__all__ = ["as_document", "echo_json", "make_message", "show_message", "types_of"]


def as_document(message: Message, types: TypePool | None = None) -> dict[str, Any]:
    """A message in protobuf's JSON form, with the names and the fields of its `.proto`."""
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        descriptor_pool=None if types is None else types.pool,
    )


def echo_json(document: Any) -> None:
    """Print it as one line."""
    click.echo(json.dumps(document, ensure_ascii=False))


def show_message(
    daemon: Daemon, response: message_pb.AskResponse | message_pb.ReceiveResponse, types: TypePool
) -> None:
    """With --json the whole message; else its body alone, in the form in which `ask` takes one."""
    document = as_document(response, types)
    if not daemon.as_json:
        document = document["message"]["body"]
        document.pop("@type", None)
    echo_json(document)


def types_of(described: kernel_pb.DescribeKernelResponse) -> TypePool:
    """The types of what a kernel takes and sends."""
    pool = TypePool()
    for message_type in (described.input_type, described.output_type):
        pool.add_files(message_type.files.file)
    return pool


def make_message(
    kernel: str, described: kernel_pb.DescribeKernelResponse, types: TypePool, body: str | None, priority: int | None
) -> message_pb.Message:
    """The message that the command line spells.

    Raises:
        UsageError: it spells none; shows one.
        BadInput: it is not of the kernel's input type; says what is wrong where.
        Failure: the kernel takes no messages from elsewhere.
    """
    name = described.input_type.full_name
    if not name:
        raise Failure(f"kernel {kernel!r} is declared without an input_type: it can only be used in-process")
    if body is None:
        command = click.get_current_context().command_path
        sample = f"{command} {shlex.quote(kernel)} {shlex.quote(described.sample_json)}"
        raise click.UsageError(f"a body is missing, for example:\n\n  {sample}\n\nor - for stdin, or @FILE")
    hint = f"`{PROGRAM} describe {shlex.quote(kernel)}` tells its fields"
    try:
        document = json.loads(_read(body))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is no JSON: {error}; {hint}") from None
    if not isinstance(document, dict):
        raise BadInput(f"the body is no JSON object with the fields of {name}; {hint}")
    stated = str(document.pop("@type", name)).rpartition("/")[2]
    if stated != name:
        raise BadInput(f"the body is of type {stated}, and kernel {kernel!r} takes {name}")
    value = types.message_class(name)()
    try:
        # Not ParseDict: only Parse turns whatever goes wrong into a ParseError.
        json_format.Parse(json.dumps(document), value, descriptor_pool=types.pool)
    except json_format.ParseError as error:
        problem = " ".join(str(error).split()).removesuffix(".")
        raise BadInput(f"the body is no {name}: {problem}; {hint}") from None
    message = message_pb.Message(priority=priority)
    message.body.Pack(value)
    return message


def _read(body: str) -> str | bytes:
    """The text of an argument that is the body itself, `-` for stdin or `@FILE`."""
    if body == "-":
        return sys.stdin.buffer.read()
    if not body.startswith("@"):
        return body
    try:
        return Path(body[1:]).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {body[1:]}: {error.strerror}") from None
