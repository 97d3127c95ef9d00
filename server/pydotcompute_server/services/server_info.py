"""ServerService tells what a daemon is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from pydotcompute import __version__
from pydotcompute.v1 import server_service_pb2 as pb
from pydotcompute.v1 import server_service_pb2_grpc
from pydotcompute_server.epoch import Epoch
from pydotcompute_server.limits import Limits

__all__ = ["ServerServicer"]

Context = grpc.aio.ServicerContext[Any, Any]

FEATURES = ("error_in_bye", "launch_request_id", "new_types", "reflection")
"""What every daemon of this version can do. See the comment of `features` in the proto."""


class ServerServicer(server_service_pb2_grpc.ServerServiceServicer):
    """Answers with what the daemon knew when it started.

    Args:
        epoch: the run of the daemon.
        limits: the limits.
        in_force: the limits that are others than those asked for, by name.
    """

    def __init__(self, epoch: Epoch, limits: Limits, in_force: Mapping[str, float]) -> None:
        features = [*FEATURES, *(["shared_memory"] if limits.shared_memory_bytes else [])]
        self._info = pb.GetServerInfoResponse(
            version=__version__,
            daemon_epoch=epoch.name,
            limits={**vars(limits), **in_force},
            features=sorted(features),
        )
        self._info.start_time.FromMicroseconds(round(1e6 * epoch.began))

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        return self._info
