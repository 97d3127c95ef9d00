"""The health of the daemon, its services and its kernels, as `grpc.health.v1`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from pydotcompute.exceptions import KernelNotFoundError
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.ring_kernels.config import LONGEST_ID
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.ring_kernels.places import Places
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute_server.bounds.shares import owner_of, shares_of
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import own_most
from pydotcompute_server.visible import Visible

__all__ = ["HealthService"]

Context = grpc.aio.ServicerContext[Any, Any]

SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # It has no types.
    """Answers for the daemon under the name `""`, for each gRPC service under its name, and for each kernel.

    It keeps no statuses: each answer is read from the runtime, so a kernel that is forgotten there is unknown here too.
    Each `Watch` is a task of its own that holds nothing while it writes, so a client that does not read delays nobody.
    This class replaces the servicer of grpcio-health-checking, which does neither.

    If a kernel has the name of a service, the answer is that of the service. So nobody changes the health of a service
    by launching a kernel.
    """

    def __init__(self, runtime: RingKernelRuntime, types: TypePool, visible: Visible, limits: Limits) -> None:
        self._runtime = runtime
        self._visible = visible
        self._types = types
        self._watchers = Places("max_watchers", limits.max_watchers, *shares_of("max_watchers", limits))
        self._most_names = limits.unknown_names_told
        self._draining = False
        self._watched: dict[str, Signal] = {}  # Those for which a `Watch` waits, by name.

    # -- what the daemon tells it --------------------------------------------------------------------------------------

    def kernel_changed(self, kernel_id: str) -> None:
        """Tell those who watch this kernel that it has changed, or is forgotten."""
        if (changed := self._watched.get(kernel_id)) is not None:
            changed.notify_all()

    def drain(self) -> None:
        """Report NOT_SERVING for everything from now on."""
        self._draining = True
        for changed in self._watched.values():
            changed.notify_all()

    # -- what clients ask it -------------------------------------------------------------------------------------------

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        status = self._status(request.service)
        if status == SERVICE_UNKNOWN:
            raise self._not_found(request.service)
        return pb.HealthCheckResponse(status=status)

    async def List(self, request: pb.HealthListRequest, context: Context) -> pb.HealthListResponse:
        statuses = {name: pb.HealthCheckResponse(status=self._status(name)) for name in self._names()}
        return pb.HealthListResponse(statuses=statuses)

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> AsyncIterator[pb.HealthCheckResponse]:
        name = request.service
        if len(name) > LONGEST_ID and not self._is_service(name):
            raise self._not_found(name)  # There will never be such a kernel, so the name is not kept.
        owner = owner_of(context)
        self._watchers.take(owner, own_most("max_watchers"))
        try:
            told = None
            while True:
                if (status := self._status(name)) != told:
                    yield pb.HealthCheckResponse(status=status)
                    told = status
                else:
                    await self._change(name)
        finally:
            self._watchers.leave(owner)

    async def _change(self, name: str) -> None:
        """Wait until the status under this name may have changed."""
        changed = self._watched.setdefault(name, Signal())
        try:
            await changed.wait()
        finally:
            if not changed.waiters and self._watched.get(name) is changed:
                del self._watched[name]

    def _status(self, name: str) -> pb.HealthCheckResponse.ServingStatus.ValueType:
        if not name or self._is_service(name):
            return NOT_SERVING if self._draining else SERVING
        if not self._visible.kernel(name):
            return SERVICE_UNKNOWN
        try:
            kernel = self._runtime.kernel(name)
        except KernelNotFoundError:
            return SERVICE_UNKNOWN
        return SERVING if kernel.is_serving and not self._draining else NOT_SERVING

    def _is_service(self, name: str) -> bool:
        try:
            self._types.pool.FindServiceByName(name)
        except KeyError:
            return False
        return self._visible.service(name)

    def _names(self) -> Iterator[str]:
        """Yield every name that has a health, without those of terminated kernels."""
        yield ""
        services = self._visible.services()
        yield from services
        yield from (kernel_id for kernel_id in self._visible.kernel_ids() if kernel_id not in services)

    def _not_found(self, name: str) -> KernelNotFoundError:
        known = [each or '""' for each in islice(self._names(), self._most_names + 1)]
        if len(known) > self._most_names:
            known[-1] = "…"
        return KernelNotFoundError(name, known, name in self._runtime.kernel_types)
