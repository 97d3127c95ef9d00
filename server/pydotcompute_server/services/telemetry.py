"""TelemetryService reports the counters of kernels and the state of GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from pydotcompute.device.monitor import read_devices
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import telemetry_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2_grpc
from pydotcompute.wire.durations import seconds
from pydotcompute.wire.kernels import device_to_proto, telemetry_to_proto
from pydotcompute_server.limits import Limits

__all__ = ["TelemetryServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class TelemetryServicer(telemetry_service_pb2_grpc.TelemetryServiceServicer):
    """Converts each request, asks the runtime, and converts its answer back."""

    def __init__(self, runtime: RingKernelRuntime, limits: Limits) -> None:
        self._runtime = runtime
        self._shortest_interval = limits.shortest_watch_interval

    async def GetTelemetry(self, request: pb.GetTelemetryRequest, context: Context) -> pb.GetTelemetryResponse:
        return pb.GetTelemetryResponse(kernels=self._snapshots(request.kernel_ids))

    async def WatchTelemetry(
        self, request: pb.WatchTelemetryRequest, context: Context
    ) -> AsyncIterator[pb.WatchTelemetryResponse]:
        interval = seconds(request.interval) if request.HasField("interval") else 1.0
        while True:
            yield pb.WatchTelemetryResponse(kernels=self._snapshots(request.kernel_ids))
            await asyncio.sleep(max(interval, self._shortest_interval))

    async def GetDevices(self, request: pb.GetDevicesRequest, context: Context) -> pb.GetDevicesResponse:
        readings = await asyncio.to_thread(read_devices)
        return pb.GetDevicesResponse(devices=[device_to_proto(reading) for reading in readings])

    def _snapshots(self, kernel_ids: Sequence[str]) -> list[pb.KernelTelemetry]:
        kernels = [
            self._runtime.kernel(kernel_id) for kernel_id in dict.fromkeys(kernel_ids) or self._runtime.kernel_ids
        ]
        return [telemetry_to_proto(kernel.get_telemetry()) for kernel in kernels]
