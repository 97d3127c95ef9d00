"""The health of the daemon and its kernels, as `grpc.health.v1`."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

__all__ = ["HealthService"]


class HealthService(health.aio.HealthServicer):  # type: ignore[misc]  # It has no types.
    """grpcio's health service with `List` added, which the service defines and grpcio does not implement."""

    async def List(
        self, request: health_pb2.HealthListRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthListResponse:
        statuses = self._server_status.items()
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=status) for name, status in statuses}
        )
