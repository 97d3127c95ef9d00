"""The clients of a daemon, for those who run it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pydotcompute.v1 import client_service_pb2 as pb
from pydotcompute.wire.durations import duration
from pydotcompute_client.channels import Call, Question

__all__ = ["ConnectedClient", "Kicked", "clients", "kick"]


@dataclass(frozen=True)
class ConnectedClient:
    """One principal at one address, and what it does."""

    principal: str
    """Who it is. `anonymous` for those who have not said."""
    peer: str
    """Where it calls from, as `ipv4:127.0.0.1:50000`."""
    user_agent: str
    """The program and its version."""
    since: datetime
    """When its first call came."""
    sessions: int
    """Its sessions, with and without a stream."""
    calls: int
    """Its calls that run now. The stream of a session is one."""
    messages_under_way: int
    """The messages of its sessions and streams that wait in a mailbox, or for room in one."""
    bytes_under_way: int
    """The bytes that the daemon keeps for its sessions and streams, in part estimated."""
    messages_received: int
    """The messages that have come from it."""
    bytes_received: int
    messages_sent: int
    """The messages that were sent to it."""
    bytes_sent: int
    messages_per_second: float | None
    """Messages from it in a second, over the interval that was asked for; None if none was."""
    bytes_per_second: float | None


@dataclass(frozen=True)
class Kicked:
    """What a `kick` has ended."""

    sessions: int
    calls: int
    """The streams of sessions are among them."""
    client_ids: int
    """At how many kernels the client_id was forgotten."""


def clients(interval: float) -> Question[list[ConnectedClient]]:
    """Who uses the daemon? The answer has all pages."""
    request = pb.ListClientsRequest(interval=duration(interval) if interval else None)
    found: list[ConnectedClient] = []
    while True:
        page: pb.ListClientsResponse = yield Call(lambda daemon: daemon.clients.ListClients, request)
        found += _read(page)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def kick(principal: str, peer: str, client_id: str, reason: str) -> Question[Kicked]:
    """End what these clients do. What was ended?"""
    request = pb.KickRequest(principal=principal, peer=peer, client_id=client_id, reason=reason)
    response: pb.KickResponse = yield Call(lambda daemon: daemon.clients.Kick, request)
    return Kicked(response.sessions, response.calls, response.client_ids)


def _read(page: pb.ListClientsResponse) -> Iterator[ConnectedClient]:
    for client in page.clients:
        yield ConnectedClient(
            principal=client.principal,
            peer=client.peer,
            user_agent=client.user_agent,
            since=client.since.ToDatetime(UTC),
            sessions=client.sessions,
            calls=client.calls,
            messages_under_way=client.messages_under_way,
            bytes_under_way=client.bytes_under_way,
            messages_received=client.messages_received,
            bytes_received=client.bytes_received,
            messages_sent=client.messages_sent,
            bytes_sent=client.bytes_sent,
            messages_per_second=client.messages_per_second if client.HasField("messages_per_second") else None,
            bytes_per_second=client.bytes_per_second if client.HasField("bytes_per_second") else None,
        )
