"""TelemetryService reports the counters of kernels and the state of GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc

from pydotcompute.device.monitor import read_devices
from pydotcompute.ring_kernels.places import Places
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import telemetry_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2_grpc
from pydotcompute.wire.durations import seconds
from pydotcompute.wire.kernels import device_to_proto
from pydotcompute_server.bounds.memory import Memory, resident_bytes
from pydotcompute_server.bounds.shares import owner_of, shares_of
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import own_most
from pydotcompute_server.services.snapshots import Snapshots
from pydotcompute_server.visible import Visible

__all__ = ["TelemetryServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class TelemetryServicer(telemetry_service_pb2_grpc.TelemetryServiceServicer):
    """Converts each request, asks the runtime, and converts its answer back."""

    def __init__(self, runtime: RingKernelRuntime, visible: Visible, limits: Limits, memory: Memory) -> None:
        self._memory = memory
        self._watchers = Places("max_watchers", limits.max_watchers, *shares_of("max_watchers", limits))
        self._snapshots = Snapshots(runtime, visible, self._watchers, limits)

    def snapshot_handler(self) -> grpc.GenericRpcHandler:
        """Return the handlers of the methods whose responses are encoded already.

        The generated handlers would encode the same snapshot for each client.
        """
        service = pb.DESCRIPTOR.services_by_name["TelemetryService"].full_name
        get: Any = grpc.unary_unary_rpc_method_handler(self.GetTelemetry, pb.GetTelemetryRequest.FromString)
        watch: Any = grpc.unary_stream_rpc_method_handler(self.WatchTelemetry, pb.WatchTelemetryRequest.FromString)
        return grpc.method_handlers_generic_handler(service, {"GetTelemetry": get, "WatchTelemetry": watch})

    async def GetTelemetry(  # type: ignore[override]  # See `snapshot_handler`.
        self, request: pb.GetTelemetryRequest, context: Context
    ) -> bytes:
        return await self._snapshots.make(request.kernel_ids)

    async def WatchTelemetry(  # type: ignore[override]  # See `snapshot_handler`.
        self, request: pb.WatchTelemetryRequest, context: Context
    ) -> AsyncIterator[bytes]:
        interval = seconds(request.interval) if request.HasField("interval") else 1.0
        owner = owner_of(context)
        self._watchers.take(owner, own_most("max_watchers"))
        cast(Any, context).add_done_callback(lambda _: self._watchers.leave(owner))
        async for snapshot in self._snapshots.watch(request.kernel_ids, interval):
            yield snapshot

    async def GetDevices(self, request: pb.GetDevicesRequest, context: Context) -> pb.GetDevicesResponse:
        readings = await asyncio.to_thread(read_devices)
        return pb.GetDevicesResponse(devices=[device_to_proto(reading) for reading in readings])

    async def GetMemory(self, request: pb.GetMemoryRequest, context: Context) -> pb.GetMemoryResponse:
        held = self._memory.last_report()
        return pb.GetMemoryResponse(
            resident_bytes=resident_bytes(),
            budget_bytes=self._memory.budget,
            used_bytes=sum(held.values()),
            places=[pb.MemoryPlace(name=name, bytes=size) for name, size in held.items()],
        )
