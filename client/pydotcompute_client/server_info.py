"""The class `ServerInfo`, and the function that makes one from a daemon's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from pydotcompute.v1 import server_service_pb2 as pb

__all__ = ["ServerInfo", "read_server_info"]


@dataclass(frozen=True)
class ServerInfo:
    """What a daemon is."""

    version: str
    """The version of the daemon's program."""
    daemon_epoch: str
    """Names this run of the daemon. Another one means that the daemon has restarted, or that it is another daemon."""
    start_time: datetime
    """When this run began, in UTC."""
    limits: Mapping[str, float]
    """The daemon's limits by name, such as `max_message_bytes`. Times are in seconds."""
    features: frozenset[str]
    """What the daemon can do that others cannot; `ServerService` in the protos explains each."""


def read_server_info(response: pb.GetServerInfoResponse) -> ServerInfo:
    """Return what a daemon's response says."""
    limits = {name: int(limit) if limit.is_integer() else limit for name, limit in sorted(response.limits.items())}
    return ServerInfo(
        version=response.version,
        daemon_epoch=response.daemon_epoch,
        start_time=response.start_time.ToDatetime(tzinfo=UTC),
        limits=MappingProxyType(limits),
        features=frozenset(response.features),
    )
