"""ClientService tells who uses the daemon, and ends what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.v1 import client_service_pb2 as pb
from pydotcompute.v1 import client_service_pb2_grpc
from pydotcompute.wire.durations import seconds
from pydotcompute_server.bounds.shares import Owner
from pydotcompute_server.connected import Connected, ConnectedClient
from pydotcompute_server.exchange.lane import ExchangeLane
from pydotcompute_server.limits import Limits
from pydotcompute_server.services.pages import number_in, take_page
from pydotcompute_server.unary.lane import UnaryLane

__all__ = ["ClientServicer"]

Context = grpc.aio.ServicerContext[Any, Any]

SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.01, 10.0
"""The fewest and the most seconds for which ListClients looks how many messages come. Clocks count in milliseconds."""
LONGEST_REASON = 500
"""The most characters of a reason that are told."""


class ClientServicer(client_service_pb2_grpc.ClientServiceServicer):
    """Converts each request, asks those who know the clients, and converts their answer back."""

    def __init__(self, connected: Connected, exchange: ExchangeLane, unary: UnaryLane, limits: Limits) -> None:
        self._connected = connected
        self._exchange = exchange
        self._unary = unary
        self._limits = limits

    async def ListClients(self, request: pb.ListClientsRequest, context: Context) -> pb.ListClientsResponse:
        after = number_in(request.page_token, "ListClientsRequest")  # The number of the last client on that page.
        interval = seconds(request.interval) if request.HasField("interval") else 0.0
        clients = self._connected.listed(after)[: self._limits.list_page + 1]
        before = {client: client.traffic for client in clients} if interval > 0 else {}
        began = asyncio.get_running_loop().time()
        if before:
            await asyncio.sleep(min(max(interval, SHORTEST_INTERVAL), LONGEST_INTERVAL))
        took = asyncio.get_running_loop().time() - began

        def converted() -> Iterator[pb.Client]:
            for client in clients:
                entry = _client(client)
                if client in before:
                    messages, size, *_ = before[client]
                    entry.messages_per_second = (entry.messages_received - messages) / took
                    entry.bytes_per_second = (entry.bytes_received - size) / took
                yield entry

        page, more = take_page(converted(), request.page_size, self._limits)
        token = str(clients[len(page) - 1].number) if more else ""
        return pb.ListClientsResponse(clients=page, next_page_token=token)

    async def Kick(self, request: pb.KickRequest, context: Context) -> pb.KickResponse:
        if not (request.principal or request.peer or request.client_id):
            raise InvalidConfigurationError("principal", "", "name a principal, a peer or a client_id")
        reason = request.reason[:LONGEST_REASON]
        if request.client_id:
            return pb.KickResponse(client_ids=self._unary.kick(request.principal, request.client_id, reason))

        def is_meant(owner: Owner) -> bool:
            return request.principal in ("", owner.principal) and request.peer in ("", owner.connection)

        sessions = self._exchange.kick(is_meant)
        calls = sum(client.kick(reason) for client in self._connected.listed(which=is_meant))
        return pb.KickResponse(sessions=sessions, calls=calls)


def _client(client: ConnectedClient) -> pb.Client:
    received, received_bytes, sent, sent_bytes = client.traffic
    messages, size = client.under_way
    entry = pb.Client(
        principal=client.owner.principal,
        peer=client.owner.connection,
        user_agent=client.user_agent,
        sessions=len(client.sessions),
        calls=len(client.calls),
        messages_under_way=messages,
        bytes_under_way=size,
        messages_received=received,
        bytes_received=received_bytes,
        messages_sent=sent,
        bytes_sent=sent_bytes,
    )
    entry.since.FromNanoseconds(int(client.since * 1e9))
    return entry
