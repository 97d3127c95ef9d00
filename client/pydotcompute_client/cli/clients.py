"""The commands that show who uses a daemon, and end it."""

from __future__ import annotations

import click

from pydotcompute.protobuf.json.write import as_document
from pydotcompute.v1 import client_service_pb2 as pb
from pydotcompute.wire.durations import duration
from pydotcompute_client.cli import tables
from pydotcompute_client.cli.connection import CALL_SECONDS, Connection
from pydotcompute_client.cli.output import echo_json
from pydotcompute_client.cli.parameters import pass_daemon, seconds_option

__all__ = ["COMMANDS"]


@click.command()
@seconds_option("--interval", 1.0, "For how long to look how many messages come; 0 for not at all.")
@pass_daemon
def clients(daemon: Connection, interval: float) -> None:
    """List who sends and receives messages, and how much.

    A client is one principal at one address. It is listed for a minute after its last call.
    """
    request = pb.ListClientsRequest(interval=duration(interval) if interval else None)
    found: list[pb.Client] = []
    while True:
        page = daemon.call(daemon.clients.ListClients, request, interval + CALL_SECONDS)
        found += page.clients
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    if daemon.as_json:
        echo_json({"clients": [as_document(client) for client in found]})
    else:
        tables.show_clients(found)


@click.command()
@click.argument("principal", required=False, default="")
@click.option("--peer", default="", metavar="ADDRESS", help="Only the client at this address, as `clients` prints it.")
@click.option("--client-id", default="", metavar="TEXT", help="What is done with this client_id, not sessions.")
@click.option("--reason", default="", metavar="TEXT", help="Is told to those who are ended.")
@pass_daemon
def kick(daemon: Connection, principal: str, peer: str, client_id: str, reason: str) -> None:
    """End the sessions and calls of a PRINCIPAL now. Whoever is ended may come again.

    With --client-id, calls that receive with it end, and the replies that wait for it become dead letters.
    """
    if not (principal or peer or client_id):
        raise click.UsageError("name a PRINCIPAL, a --peer or a --client-id")
    request = pb.KickRequest(principal=principal, peer=peer, client_id=client_id, reason=reason)
    response = daemon.call(daemon.clients.Kick, request)
    if daemon.as_json:
        echo_json(as_document(response))
    elif client_id:
        click.echo(f"ended at {response.client_ids} kernels")
    else:
        click.echo(f"ended: {response.sessions} sessions, {response.calls} calls")


COMMANDS = (clients, kick)
