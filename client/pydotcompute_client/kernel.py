"""The class `RemoteKernel`, which stands for a kernel at a daemon."""

from __future__ import annotations

from typing import Any, Protocol

from pydotcompute import KernelRuntime
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry

__all__ = ["RemoteKernel"]


class RuntimeAtTarget(KernelRuntime, Protocol):
    """The part of `RemoteRuntime` that its kernels need."""

    target: str


class RemoteKernel:
    """A kernel at a daemon: the methods of the runtime with the kernel's id filled in."""

    def __init__(self, runtime: RuntimeAtTarget, kernel_id: str) -> None:
        self._runtime = runtime
        self.kernel_id = kernel_id

    def __repr__(self) -> str:
        return f"<RemoteKernel {self.kernel_id!r} at {self._runtime.target}>"

    @property
    def state(self) -> KernelState:
        """The kernel's state. Asks the daemon, and blocks meanwhile."""
        return self._runtime.get_kernel_state(self.kernel_id)

    async def activate(self) -> None:
        """See `RemoteRuntime.activate`."""
        await self._runtime.activate(self.kernel_id)

    async def deactivate(self) -> None:
        """See `RemoteRuntime.deactivate`."""
        await self._runtime.deactivate(self.kernel_id)

    async def reactivate(self) -> None:
        """See `RemoteRuntime.reactivate`."""
        await self._runtime.reactivate(self.kernel_id)

    async def terminate(self, timeout: float = 5.0) -> None:
        """See `RemoteRuntime.terminate`."""
        await self._runtime.terminate(self.kernel_id, timeout)

    async def scale(self, instances: int) -> None:
        """See `RemoteRuntime.scale`."""
        await self._runtime.scale(self.kernel_id, instances)

    async def restart(self, timeout: float = 5.0) -> None:
        """See `RemoteRuntime.restart`."""
        await self._runtime.restart(self.kernel_id, timeout)

    async def send(self, message: Any, *, timeout: float | None = None) -> None:
        """See `RemoteRuntime.send`."""
        await self._runtime.send(self.kernel_id, message, timeout=timeout)

    async def receive(self, *, timeout: float | None = None) -> Any:
        """See `RemoteRuntime.receive`."""
        return await self._runtime.receive(self.kernel_id, timeout=timeout)

    async def send_and_receive(self, message: Any, *, timeout: float | None = None) -> Any:
        """See `RemoteRuntime.send_and_receive`."""
        return await self._runtime.send_and_receive(self.kernel_id, message, timeout=timeout)

    def get_telemetry(self) -> RingKernelTelemetry | None:
        """See `RemoteRuntime.get_telemetry`."""
        return self._runtime.get_telemetry(self.kernel_id)
