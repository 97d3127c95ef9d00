"""The commands that exchange messages with kernels."""

from __future__ import annotations

import click

from pydotcompute.protobuf.json.write import as_document
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.wire.durations import duration
from pydotcompute_client.cli.bodies import make_message, show_message, telling_of_the_body, types_of
from pydotcompute_client.cli.connection import CALL_SECONDS, Connection
from pydotcompute_client.cli.failures import Failure
from pydotcompute_client.cli.output import echo_json, echo_text
from pydotcompute_client.cli.own_client_id import own_client_id
from pydotcompute_client.cli.parameters import kernel_argument, pass_daemon, seconds_option

_body = click.argument("body", required=False)
_priority = click.option(
    "--priority", type=click.IntRange(0, 255), help="A higher priority is handled sooner.  [default: 128]"
)
_client_id = click.option(
    "--client-id",
    metavar="TEXT",
    help="Replies to what is sent with this text are received with it.  [default: a random one, kept for you]",
)


_daemon_epoch = click.option(
    "--daemon-epoch",
    default="",
    metavar="TEXT",
    help="Fail if the daemon has restarted since its answer had this `daemon_epoch` (see --json).",
)


@click.command()
@kernel_argument
@_body
@_priority
@seconds_option("--timeout", 10.0, "How long to wait for the reply.")
@pass_daemon
def ask(daemon: Connection, kernel: str, body: str | None, priority: int | None, timeout: float) -> None:
    """Send a request and print its reply.

    BODY is JSON, such as '{"a": 10, "b": 5}', or - for stdin, or @FILE. Without one, an example and the fields are
    shown.
    """
    described = daemon.describe(kernel)
    types = types_of(described)
    message = make_message(kernel, described, types, body, priority)
    request = message_pb.AskRequest(kernel_id=kernel, message=message, timeout=duration(timeout))
    with telling_of_the_body(kernel, described):
        response = daemon.call(daemon.messages.Ask, request, timeout + CALL_SECONDS)
    show_message(daemon, response, types)


@click.command()
@kernel_argument
@_body
@_priority
@seconds_option("--timeout", 10.0, "How long to wait for room in the mailbox.")
@_client_id
@_daemon_epoch
@pass_daemon
def send(
    daemon: Connection,
    kernel: str,
    body: str | None,
    priority: int | None,
    timeout: float,
    client_id: str | None,
    daemon_epoch: str,
) -> None:
    """Put a message into a kernel's mailbox and print its id.

    BODY is JSON, such as '{"a": 10, "b": 5}', or - for stdin, or @FILE. Without one, an example and the fields are
    shown.
    """
    described = daemon.describe(kernel)
    message = make_message(kernel, described, types_of(described), body, priority)
    own, is_kept = (client_id, True) if client_id is not None else own_client_id()
    request = message_pb.SendRequest(
        kernel_id=kernel, message=message, timeout=duration(timeout), client_id=own, daemon_epoch=daemon_epoch
    )
    with telling_of_the_body(kernel, described):
        response = daemon.call(daemon.messages.Send, request, timeout + CALL_SECONDS)
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        echo_text(response.message_id)
    if not is_kept:
        click.echo(f"receive the reply with --client-id {own}: none can be kept for you", err=True)


@click.command()
@kernel_argument
@seconds_option("--timeout", 10.0, "How long to wait for each message.")
@_client_id
@click.option(
    "--count", type=click.IntRange(min=1), default=1, show_default=True, help="Messages to receive; each is one line."
)
@seconds_option("--lease", None, "Each message comes again unless it is acknowledged in this time.")
@_daemon_epoch
@pass_daemon
def receive(
    daemon: Connection,
    kernel: str,
    timeout: float,
    client_id: str | None,
    count: int,
    lease: float | None,
    daemon_epoch: str,
) -> None:
    """Take a message from a kernel and print it.

    It is a reply to what was sent with the same --client-id, or an output that nobody has received yet. With --lease,
    the line begins with the delivery id, for `acknowledge`.
    """
    types = types_of(daemon.describe(kernel))
    request = message_pb.ReceiveRequest(
        kernel_id=kernel,
        timeout=duration(timeout),
        client_id=own_client_id()[0] if client_id is None else client_id,
        daemon_epoch=daemon_epoch,
    )
    if lease is not None:
        request.lease.CopyFrom(duration(lease))
    for _ in range(count):
        response = daemon.call(daemon.messages.Receive, request, timeout + CALL_SECONDS)
        request.daemon_epoch = response.daemon_epoch  # If the daemon restarts now, the next call says so.
        if response.delivery_id and not daemon.as_json:
            echo_text(f"{response.delivery_id} ", nl=False)
        show_message(daemon, response, types)


@click.command()
@kernel_argument
@click.argument("delivery_ids", nargs=-1, required=True, metavar="DELIVERY_ID...")
@pass_daemon
def acknowledge(daemon: Connection, kernel: str, delivery_ids: tuple[str, ...]) -> None:
    """Acknowledge messages that `receive --lease` has printed, so that they do not come again."""
    request = message_pb.AcknowledgeRequest(kernel_id=kernel, delivery_ids=delivery_ids)
    response = daemon.call(daemon.messages.Acknowledge, request)
    if daemon.as_json:
        echo_json(as_document(response))
    if unknown := response.unknown_delivery_ids:
        raise Failure(f"kernel {kernel!r}: too late, or never received with a lease: {', '.join(unknown)}")
    if not daemon.as_json:
        click.echo(f"{len(set(delivery_ids))} acknowledged")


COMMANDS = (ask, send, receive, acknowledge)
