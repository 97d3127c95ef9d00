"""The commands that show dead letters and put them back."""

from __future__ import annotations

from collections.abc import Iterator

import click

from pydotcompute.protobuf.json.write import as_document, whole_number
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import dead_letter_service_pb2 as pb
from pydotcompute_client.cli import tables
from pydotcompute_client.cli.connection import Connection
from pydotcompute_client.cli.failures import Failure
from pydotcompute_client.cli.output import echo_json
from pydotcompute_client.cli.parameters import kernel_argument, pass_daemon

__all__ = ["COMMANDS"]

PAGE = 1_000
"""The number of dead letters that one call asks for."""


@click.command("dead-letters")
@kernel_argument
@pass_daemon
def dead_letters(daemon: Connection, kernel: str) -> None:
    """List what a kernel could not deliver, oldest first."""
    documents = []
    discarded = 0
    for page in _pages(daemon, kernel):
        types = TypePool()
        for message_type in page.types:
            types.add_files(message_type.files.file)
        documents += [as_document(letter, types) for letter in page.dead_letters]
        discarded = page.discarded
    if daemon.as_json:
        echo_json({"deadLetters": documents, "discarded": whole_number(discarded)})
    else:
        tables.show_dead_letters(documents, discarded)


def _pages(daemon: Connection, kernel: str) -> Iterator[pb.ListDeadLettersResponse]:
    request = pb.ListDeadLettersRequest(kernel_id=kernel, page_size=PAGE)
    while True:
        page = daemon.call(daemon.dead_letters.ListDeadLetters, request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


@click.command()
@kernel_argument
@click.argument("ids", nargs=-1, metavar="[ID]...", type=click.IntRange(1, 2**64 - 1))
@click.option("--all", "everything", is_flag=True, help="Put all of them back.")
@pass_daemon
def requeue(daemon: Connection, kernel: str, ids: tuple[int, ...], everything: bool) -> None:
    """Put the named dead letters back into the kernel's mailboxes.

    The kernel handles requests again. Anyone can receive their replies, and the replies and outputs that are put back.
    A message that finds no room stays a dead letter.
    """
    if everything == bool(ids):
        raise click.UsageError("name dead letters by their IDs, or say --all")
    request = pb.RequeueDeadLettersRequest(kernel_id=kernel, ids=ids)
    response = daemon.call(daemon.dead_letters.RequeueDeadLetters, request)
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        click.echo(f"requeued: {' '.join(map(str, response.ids)) or 'none'}")
    left = [str(each) for each in dict.fromkeys(ids) if each not in response.ids]
    if left:
        why = "for want of room, as not of the kernel's types, or as there is no such dead letter"
        raise Failure(f"not requeued, {why}: {' '.join(left)}")
    if everything and response.remaining:
        raise Failure(f"{response.remaining} not requeued, for want of room or as not of the kernel's types")


COMMANDS = (dead_letters, requeue)
