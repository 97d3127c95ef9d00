"""KernelService launches, pauses, ends and describes kernels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

import grpc

from pydotcompute.access.roles import Role
from pydotcompute.exceptions import (
    KernelNotFoundError,
    MessageDeserializationError,
    NotPermittedError,
    PyDotComputeError,
)
from pydotcompute.protobuf.json.sample import sample_json
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.places import Places, Share
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute.v1 import kernel_service_pb2_grpc
from pydotcompute.wire.durations import seconds
from pydotcompute.wire.kernels import (
    config_from_proto,
    config_to_proto,
    executor_to_proto,
    state_to_proto,
    supervision_to_proto,
    worker_limits_to_proto,
)
from pydotcompute_server.bounds.shares import owner_of
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.limits import Limits
from pydotcompute_server.principals import crash_as_told, current, failure_as_told, own_most
from pydotcompute_server.reloading import Reloader, cannot_reload
from pydotcompute_server.services.launches import Launches
from pydotcompute_server.services.pages import number_in, take_page
from pydotcompute_server.visible import Visible

__all__ = ["KernelServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class KernelServicer(kernel_service_pb2_grpc.KernelServiceServicer):
    """Converts each request, calls the runtime, and converts its answer back."""

    def __init__(
        self,
        runtime: RingKernelRuntime,
        catalog: Catalog,
        visible: Visible,
        limits: Limits,
        epoch: str,
        reloader: Reloader | None = None,
    ) -> None:
        self._runtime = runtime
        self._reloader = reloader
        self._visible = visible
        self._catalog = catalog
        self._limits = limits
        self._epoch = epoch
        share = Share("max_kernels_per_principal", limits.per_principal("max_kernels"))
        self._places = Places("max_kernels", limits.max_kernels, share)
        self._launched_by: WeakKeyDictionary[RingKernel[Any, Any], str] = WeakKeyDictionary()
        self._launches = Launches(limits)

    async def ListKernelTypes(self, request: pb.ListKernelTypesRequest, context: Context) -> pb.ListKernelTypesResponse:
        types = self._visible.types()
        after = request.page_token  # The name of the last type on the previous page.
        if after and after not in types:
            raise MessageDeserializationError("ListKernelTypesRequest", "not a token of ours", "$.page_token")
        left = (self._type(types[name]) for name in sorted(types) if name > after)
        page, more = take_page(left, request.page_size, self._limits)
        token = page[-1].name if more else ""
        return pb.ListKernelTypesResponse(kernel_types=page, next_page_token=token, total_size=len(types))

    async def ListKernels(self, request: pb.ListKernelsRequest, context: Context) -> pb.ListKernelsResponse:
        after = number_in(request.page_token, "ListKernelsRequest")  # The number of the last kernel on that page.
        listed: list[int] = []

        def kernels() -> Iterator[pb.Kernel]:
            for kernel in self._visible.kernels_after(after):
                listed.append(kernel.number)
                yield _kernel(kernel)

        page, more = take_page(kernels(), request.page_size, self._limits)
        token = str(listed[len(page) - 1]) if more else ""
        count = self._visible.kernel_count()
        return pb.ListKernelsResponse(kernels=page, next_page_token=token, total_size=count, daemon_epoch=self._epoch)

    async def DescribeKernel(self, request: pb.DescribeKernelRequest, context: Context) -> pb.DescribeKernelResponse:
        kernel, kernel_type = self._find(request.kernel_id)
        input_type, output_type = kernel_type.input_type, kernel_type.output_type
        return pb.DescribeKernelResponse(
            kernel_type=self._type(kernel_type, None if kernel is None else kernel.config),
            kernel=None if kernel is None else _kernel(kernel),
            input_type=None if input_type is None else self._catalog.message_type(input_type),
            output_type=None if output_type is None else self._catalog.message_type(output_type),
            service_files=self._catalog.service_files(kernel_type.service),
            sample_json="" if input_type is None else json.dumps(sample_json(self._catalog.codec(input_type).schema)),
        )

    async def Launch(self, request: pb.LaunchRequest, context: Context) -> pb.LaunchResponse:
        async def launch() -> pb.LaunchResponse:
            name = request.kernel_type or request.kernel_id
            types = self._visible.types()
            kernel_type = types.get(name)
            if kernel_type is None:
                raise KernelNotFoundError(name, sorted(types))
            config = config_from_proto(request.config, kernel_type.config)
            return pb.LaunchResponse(kernel=_kernel(await self._launch(request.kernel_id, kernel_type, config)))

        return await self._launches.once(request, owner_of(context), launch)

    async def _launch(self, kernel_id: str, kernel_type: KernelType, config: RingKernelConfig) -> RingKernel[Any, Any]:
        """Launch a kernel in one of the places of the principal that calls."""
        principal = current().name
        self._places.take((principal,), own_most("max_kernels"))
        try:
            kernel = await self._runtime.launch(kernel_id, kernel_type, config=config)
        except BaseException:
            self._places.leave((principal,))
            raise
        if kernel.state is KernelState.TERMINATED:
            self._places.leave((principal,))
        else:
            self._launched_by[kernel] = principal
        return kernel

    def kernel_changed(self, kernel: RingKernel[Any, Any]) -> None:
        """Note that a kernel has another state: once it is terminated, its principal may launch another."""
        if kernel.state is KernelState.TERMINATED:
            principal = self._launched_by.pop(kernel, None)
            if principal is not None:
                self._places.leave((principal,))

    async def Activate(self, request: pb.ActivateRequest, context: Context) -> pb.ActivateResponse:
        await self._runtime.activate(request.kernel_id)
        return pb.ActivateResponse(kernel=_kernel(self._runtime.kernel(request.kernel_id)))

    async def Deactivate(self, request: pb.DeactivateRequest, context: Context) -> pb.DeactivateResponse:
        await self._runtime.deactivate(request.kernel_id)
        return pb.DeactivateResponse(kernel=_kernel(self._runtime.kernel(request.kernel_id)))

    async def Reactivate(self, request: pb.ReactivateRequest, context: Context) -> pb.ReactivateResponse:
        await self._runtime.reactivate(request.kernel_id)
        return pb.ReactivateResponse(kernel=_kernel(self._runtime.kernel(request.kernel_id)))

    async def Terminate(self, request: pb.TerminateRequest, context: Context) -> pb.TerminateResponse:
        kernel = self._runtime.kernel(request.kernel_id)
        timeout = seconds(request.timeout) if request.HasField("timeout") else 5.0
        await self._runtime.terminate(request.kernel_id, timeout)
        return pb.TerminateResponse(kernel=_kernel(kernel))

    async def Scale(self, request: pb.ScaleRequest, context: Context) -> pb.ScaleResponse:
        kernel = self._runtime.kernel(request.kernel_id)
        await self._runtime.scale(request.kernel_id, request.instances)
        return pb.ScaleResponse(kernel=_kernel(kernel))

    async def Restart(self, request: pb.RestartRequest, context: Context) -> pb.RestartResponse:
        kernel = self._runtime.kernel(request.kernel_id)
        principal = self._launched_by.pop(kernel, None)  # If another kernel takes its place, it is theirs too.
        try:
            timeout = seconds(request.timeout) if request.HasField("timeout") else 5.0
            await self._runtime.restart(request.kernel_id, timeout)
        finally:
            if principal is not None:
                self._keep_place(request.kernel_id, principal)
        now = self._runtime.kernel(request.kernel_id)
        return pb.RestartResponse(kernel=_kernel(now), launched_again=now is not kernel)

    async def Reload(self, request: pb.ReloadRequest, context: Context) -> pb.ReloadResponse:
        if self._reloader is None:
            raise cannot_reload()
        done = await self._reloader.reload(request.file, _require_operator)
        return pb.ReloadResponse(
            kernel_ids=done.kernel_ids, new_kernel_types=done.new_kernel_types, changed_types=done.changed_types
        )

    def _keep_place(self, kernel_id: str, principal: str) -> None:
        """Let the kernel of this id have the place of a principal; nobody has it if the kernel is terminated."""
        with suppress(PyDotComputeError):
            kernel = self._runtime.kernel(kernel_id)
            if kernel.state is not KernelState.TERMINATED and kernel not in self._launched_by:
                self._launched_by[kernel] = principal
                return
        self._places.leave((principal,))

    def _find(self, kernel_id: str) -> tuple[RingKernel[Any, Any] | None, KernelType]:
        """Return the kernel of this id and its type, or (None, type) for a type of this name.

        Raises:
            KernelNotFoundError: there is neither a kernel nor a kernel type of this name.
        """
        try:
            kernel = self._runtime.kernel(kernel_id)
        except KernelNotFoundError as unknown:
            kernel_type = self._runtime.kernel_types.get(kernel_id)
            if kernel_type is None:
                raise KernelNotFoundError(unknown.kernel_id, self._runtime.known_here(types=True)) from None
            return None, kernel_type
        return kernel, kernel.type

    def _type(self, kernel_type: KernelType, config: RingKernelConfig | None = None) -> pb.KernelType:
        def name(cls: type | None) -> str:
            return "" if cls is None else self._catalog.codec(cls).descriptor.full_name

        return pb.KernelType(
            name=kernel_type.name,
            documentation=kernel_type.documentation,
            input_type=name(kernel_type.input_type),
            output_type=name(kernel_type.output_type),
            config=config_to_proto(config or kernel_type.config),
            service=kernel_type.service,
            device=kernel_type.device,
            memory_limit_bytes=cast(int | None, kernel_type.memory_limit),
            executor=executor_to_proto(kernel_type.executor),
            supervision=supervision_to_proto(kernel_type.supervision, self._limits),
            worker_limits=worker_limits_to_proto(kernel_type.worker_limits),
        )


def _require_operator(kernel_id: str) -> None:
    principal = current()
    if not principal.rights.have(Role.OPERATOR, kernel_id):
        raise NotPermittedError(principal.name, "KernelService/Reload", Role.OPERATOR.word, kernel_id)


def _kernel(kernel: RingKernel[Any, Any]) -> pb.Kernel:
    failure = kernel.failure
    device = None if kernel.state is KernelState.CREATED else kernel.lease.device
    ask = kernel.mail.delays.asks.oldest
    return pb.Kernel(
        kernel_id=kernel.kernel_id,
        kernel_type=kernel.type.name,
        state=state_to_proto(kernel.state),
        queue_depth=kernel.queue_depth,
        failure="" if failure is None else f"{failure.cause_type}: {failure_as_told(failure).cause_message}",
        device="" if device is None else str(device),
        device_name="" if device is None else device.name,
        output_depth=len(kernel.mail.outputs),
        output_queue_size=kernel.mail.outputs.capacity,
        stuck_in_send_seconds=kernel.stuck_in_send_seconds,
        instances=kernel.instances,
        restarts=kernel.mail.counters.restarts,
        restarting=kernel.gate.is_open and not kernel.is_serving,
        last_crash=crash_as_told(kernel.kernel_id, kernel.mail.counters.last_crash or ""),
        asking=None if ask is None else ask.asked.kernel_id,
        asking_seconds=None if ask is None else ask.seconds,
    )
