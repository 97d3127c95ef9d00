"""The runtime in this process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, Self

from pydotcompute.device.lease import HOST
from pydotcompute.exceptions import (
    KernelAlreadyExistsError,
    KernelNotFoundError,
    LimitExceededError,
    PyDotComputeError,
)
from pydotcompute.ring_kernels.actor.isolation import prepare_workers
from pydotcompute.ring_kernels.actor.room import ENDLESS, Room
from pydotcompute.ring_kernels.config import LONGEST_ID, RingKernelConfig
from pydotcompute.ring_kernels.declaration import (
    Isolation,
    KernelFunction,
    KernelType,
    kernel_type_of,
    registered_kernel_types,
)
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetter
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry, RuntimeSummary, summarize
from pydotcompute.ring_kernels.places import COME_AGAIN, Places

__all__ = ["RingKernelRuntime"]


class RingKernelRuntime:
    """A runtime for kernels in this process, on the running event loop.

    Use it as `async with RingKernelRuntime() as runtime:`. On exit every kernel is terminated.

    Args:
        enable_telemetry: False to make `get_telemetry` return None, and `get_all_telemetry` an empty dict.
        kernel_types: the kernel types that can be launched by name; None means those declared in this process.
        sends_to_host: True if arrays that kernels send are copied from the GPU to the host. A daemon needs this,
            because its messages leave this process.
        limits: the limits on what the runtime takes and keeps, and for how long.
        isolation: whether kernels run in worker processes, "none" or "process", where their types leave that open.
    """

    def __init__(
        self,
        *,
        enable_telemetry: bool = True,
        kernel_types: Mapping[str, KernelType] | None = None,
        sends_to_host: bool = False,
        limits: RuntimeLimits = DEFAULT_LIMITS,
        isolation: Isolation = "none",
    ) -> None:
        self._isolation = isolation
        self._enable_telemetry = enable_telemetry
        self._kernel_types = kernel_types
        self._sends_to_host = sends_to_host
        self._limits = limits
        self.room: Room = ENDLESS
        """The room for what the kernels send that are launched from now on."""
        self._kernels: dict[str, RingKernel[Any, Any]] = {}  # In the order of their launch.
        self._terminated: OrderedDict[str, RingKernel[Any, Any]] = OrderedDict()  # The last of them.
        self._threads = Places("max_threads", limits.max_threads)
        self._launches = 0
        self._active = False
        self._ending: PyDotComputeError | None = None
        self._on_state: list[Callable[[RingKernel[Any, Any]], None]] = []
        self._on_actor: list[Callable[[str], None]] = []
        self._on_forget: list[Callable[[str], None]] = []

    def __repr__(self) -> str:
        return f"<RingKernelRuntime {'active' if self._active else 'not started'}, {len(self.kernel_ids)} kernels>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.shutdown()

    async def start(self) -> None:
        """Make the runtime active. Kernels start when they are launched."""
        self._active = True
        self._ending = None
        declared = () if self._kernel_types is None else self._kernel_types.values()
        if self._isolation == "process" or any(kernel_type.isolation == "process" for kernel_type in declared):
            prepare_workers()

    def drain(self, error: PyDotComputeError) -> None:
        """Refuse launches with this error from now on, because the runtime is about to shut down.

        Callers also get the error wherever a kernel ends with the runtime and they would get KernelStateError, or
        KernelNotFoundError once the kernel is gone. The kernels go on until `shutdown`.
        """
        self._ending = error
        for kernel in self.all_kernels():
            kernel.gate.ending = error

    async def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until all kernels are idle at the same time. Return False if `timeout` seconds pass first.

        One look at each kernel is not enough, because a kernel may forward to another.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while busy := [kernel for kernel in self._kernels.values() if not kernel.is_idle]:
            left = None if deadline is None else deadline - monotonic()
            if not all(await asyncio.gather(*(kernel.wait_idle(left) for kernel in busy))):
                return False
        return True

    async def shutdown(self, timeout: float = 10.0) -> None:
        """Terminate all kernels together. Each has `timeout` seconds to end by itself. A second call does nothing."""
        try:
            # Repeat for kernels that are launched meanwhile.
            while living := [k for k in self._kernels.values() if k.state is not KernelState.TERMINATED]:
                deadline = monotonic() + timeout
                ending: list[asyncio.Task[None]] = []
                for kernel in living:
                    ending.append(kernel.begin_termination(deadline - monotonic()))
                    if len(ending) % self._limits.ended_at_once == 0:
                        await asyncio.sleep(0)
                await asyncio.wait(ending)
                for task in ending:
                    task.result()
        finally:
            self._kernels.clear()
            self._terminated.clear()
            self._active = False

    @property
    def is_active(self) -> bool:
        """True if the runtime was started and not shut down."""
        return self._active

    @property
    def kernel_ids(self) -> list[str]:
        """The ids of the kernels that are not terminated, in the order of their launch. Failed kernels are included."""
        return [kernel_id for kernel_id, kernel in self._kernels.items() if kernel.state is not KernelState.TERMINATED]

    @property
    def kernel_types(self) -> Mapping[str, KernelType]:
        """The kernel types that can be launched by name."""
        return registered_kernel_types() if self._kernel_types is None else self._kernel_types

    def all_kernels(self) -> list[RingKernel[Any, Any]]:
        """Return all kernels that the runtime keeps, also those that are terminated."""
        return [*self._kernels.values(), *self._terminated.values()]

    def kernel(self, kernel_id: str) -> RingKernel[Any, Any]:
        """Return the kernel of this id, even if it is terminated. Raises KernelNotFoundError if there is none."""
        kernel = self._kernels.get(kernel_id) or self._terminated.get(kernel_id)
        if kernel is None:
            raise self._no_kernel(kernel_id)
        return kernel

    def kernels_after(self, number: int) -> Iterator[RingKernel[Any, Any]]:
        """Yield the kernels of `kernel_ids` whose `number` is larger, in the order of their launch."""
        return (kernel for kernel in self._kernels.values() if kernel.number > number)

    @property
    def kernel_count(self) -> int:
        """The number of kernels that are not terminated."""
        return len(self._kernels)

    def known_here(self, *, types: bool = False) -> list[str]:
        """Return ids of kernels, and with `types` names of kernel types too: as many as an error lists."""
        most = self._limits.names_told
        known = [*islice(self._kernels, most), *(["…"] if len(self._kernels) > most else [])]
        if types:
            names = sorted(self.kernel_types)
            known += [*names[:most], *(["…"] if len(names) > most else [])]
        return list(dict.fromkeys(known))

    def _no_kernel(self, kernel_id: str) -> PyDotComputeError:
        if self._ending is not None:
            return self._ending.again()
        return KernelNotFoundError(kernel_id[: LONGEST_ID + 1], self.known_here(), kernel_id in self.kernel_types)

    def on_state(self, callback: Callable[[RingKernel[Any, Any]], None]) -> None:
        """Call `callback(kernel)` after each launch and each later change of a kernel's state."""
        self._on_state.append(callback)

    def on_actor(self, callback: Callable[[str], None]) -> None:
        """Call `callback(kernel_id)` when the actor of a kernel is gone and is started again, and when it is there."""
        self._on_actor.append(callback)

    def _actor_changed(self, kernel_id: str) -> None:
        for callback in self._on_actor:
            callback(kernel_id)

    def _state_changed(self, kernel: RingKernel[Any, Any]) -> None:
        kernel_id = kernel.kernel_id
        if kernel.state is KernelState.TERMINATED and self._kernels.get(kernel_id) is kernel:
            self._terminated[kernel_id] = self._kernels.pop(kernel_id)
            if len(self._terminated) > self._limits.terminated_kernels:
                forgotten, _ = self._terminated.popitem(last=False)
                self._tell_forgotten(forgotten)
        for callback in self._on_state:
            callback(kernel)

    def on_forget(self, callback: Callable[[str], None]) -> None:
        """Call `callback(kernel_id)` after the runtime has forgotten a kernel. From then on there is no such kernel."""
        self._on_forget.append(callback)

    def _tell_forgotten(self, kernel_id: str) -> None:
        for callback in self._on_forget:
            callback(kernel_id)

    async def launch(
        self,
        kernel_id: str,
        kernel_func: KernelFunction | KernelType | str | None = None,
        *,
        config: RingKernelConfig | None = None,
        input_type: type | None = None,
        output_type: type | None = None,
    ) -> RingKernel[Any, Any]:
        """Make a kernel: set up its mailboxes, and run its actor until it first waits.

        Args:
            kernel_id: the new kernel's id.
            kernel_func: the actor, or a kernel type, or the name of a kernel type. None means the kernel type named
                `kernel_id`.
            config: settings that replace those of the kernel type.
            input_type, output_type: message classes that replace those of the kernel type.

        Raises:
            KernelAlreadyExistsError: a kernel of this id is running, or has failed and was not terminated.
            KernelNotFoundError: there is no kernel type of this name.
            KernelFailedError: the actor raised before it first waited; nothing is launched.
            BackendUnavailableError: the kernel type needs a GPU that is not available.
            InvalidConfigurationError, MessageTypeError: see `KernelType`.
            LimitExceededError: there are as many kernels, or threads of actors, as the limits allow, or a mailbox would
                be too long.
        """
        self._refuse_if_ending()
        existing = self._kernels.get(kernel_id)
        if existing is not None and existing.state is not KernelState.TERMINATED:
            raise KernelAlreadyExistsError(kernel_id)
        if len(self._kernels) >= self._limits.max_kernels:
            raise LimitExceededError("max_kernels", self._limits.max_kernels, len(self._kernels) + 1, COME_AGAIN)
        kernel_type = self._kernel_type(kernel_id, kernel_func)
        if input_type is not None or output_type is not None:
            kernel_type = replace(
                kernel_type,
                input_type=input_type or kernel_type.input_type,
                output_type=output_type or kernel_type.output_type,
            )
        return await self._launch(kernel_id, kernel_type, config)

    def _refuse_if_ending(self) -> None:
        if self._ending is not None:
            raise self._ending.again()

    async def _launch(
        self, kernel_id: str, kernel_type: KernelType, config: RingKernelConfig | None
    ) -> RingKernel[Any, Any]:
        """Launch a kernel in the place of the one of this id that has ended, if there is one."""
        earlier = self._kernels.get(kernel_id) or self._terminated.get(kernel_id)
        kernel: RingKernel[Any, Any] = RingKernel(
            kernel_id,
            kernel_type,
            config=config,
            find=self.kernel,
            sends_to=HOST if self._sends_to_host else None,
            dead_letters=None if earlier is None else earlier.dead_letters,
            limits=self._limits,
            threads=self._threads,
            isolation=self._isolation,
        )
        self._launches += 1
        kernel.number = self._launches
        kernel.room = self.room
        self._kernels.pop(kernel_id, None)
        self._kernels[kernel_id] = kernel
        self._terminated.pop(kernel_id, None)
        try:
            await kernel.launch()
        except BaseException:
            if self._kernels.get(kernel_id) is kernel:
                del self._kernels[kernel_id]
                if earlier is None:
                    self._tell_forgotten(kernel_id)
                elif earlier.state is KernelState.TERMINATED:
                    self._terminated[kernel_id] = earlier
                else:
                    self._kernels[kernel_id] = earlier
                    self._kernels = dict(sorted(self._kernels.items(), key=lambda item: item[1].number))
            raise
        kernel.gate.on_state = partial(self._state_changed, kernel)
        kernel.gate.on_actor = partial(self._actor_changed, kernel_id)
        self._state_changed(kernel)
        return kernel

    def _kernel_type(self, kernel_id: str, kernel_func: KernelFunction | KernelType | str | None) -> KernelType:
        if kernel_func is None or isinstance(kernel_func, str):
            name = kernel_id if kernel_func is None else kernel_func
            found = self.kernel_types.get(name)
            if found is None:
                raise KernelNotFoundError(name, sorted(self.kernel_types))
            return found
        if isinstance(kernel_func, KernelType):
            return kernel_func
        return kernel_type_of(kernel_func) or KernelType(kernel_id, kernel_func, RingKernelConfig(kernel_id))

    async def activate(self, kernel_id: str) -> None:
        """Begin to hand messages to a LAUNCHED kernel.

        Raises:
            KernelNotFoundError: there is no such kernel.
            KernelStateError: the state of the kernel does not allow this call.
        """
        await self.kernel(kernel_id).activate()

    async def deactivate(self, kernel_id: str) -> None:
        """Pause an ACTIVE kernel: after this call its actor is handed no message. Raises as `activate`."""
        await self.kernel(kernel_id).deactivate()

    async def reactivate(self, kernel_id: str) -> None:
        """End the pause of a DEACTIVATED kernel. Raises as `activate`."""
        await self.kernel(kernel_id).reactivate()

    async def terminate(self, kernel_id: str, timeout: float = 5.0) -> None:
        """End a kernel; see `RingKernel.terminate`.

        Messages that the kernel has sent can still be received, until its id is launched again.

        Raises:
            KernelNotFoundError: there is no such kernel.
        """
        await self.kernel(kernel_id).terminate(timeout)

    async def scale(self, kernel_id: str, instances: int) -> None:
        """Change how many worker processes share a kernel's mailbox; see `RingKernel.scale`.

        Raises:
            KernelNotFoundError: there is no such kernel.
        """
        await self.kernel(kernel_id).scale(instances)

    async def restart(self, kernel_id: str, timeout: float = 5.0) -> None:
        """Start the actor of a kernel anew; see `RingKernel.restart`.

        A FAILED kernel is launched again, with the settings that it had, and activated. Its dead letters are kept. If
        that fails, it stays FAILED.

        Raises:
            KernelNotFoundError: there is no such kernel.
            KernelStateError: the kernel is being terminated, or is terminated. `launch` launches it again.
        """
        kernel = self.kernel(kernel_id)
        if kernel.state is not KernelState.FAILED:
            await kernel.restart(timeout)
            return
        self._refuse_if_ending()
        another = await self._launch(kernel_id, kernel.type, kernel.config)
        await kernel.terminate()
        await another.activate()

    def send(self, kernel_id: str, message: Any, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Put a message into a kernel's mailbox; see `RingKernel.send`.

        Raises:
            KernelNotFoundError: there is no such kernel.
        """
        kernel = self._kernels.get(kernel_id) or self._terminated.get(kernel_id)
        return self._not_found(kernel_id) if kernel is None else kernel.send(message, timeout=timeout)

    def receive(self, kernel_id: str, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """Return the next reply to the current task, or the next output; see `RingKernel.receive`.

        Raises:
            KernelNotFoundError: there is no such kernel.
        """
        kernel = self._kernels.get(kernel_id) or self._terminated.get(kernel_id)
        return self._not_found(kernel_id) if kernel is None else kernel.receive(timeout=timeout)

    def send_and_receive(
        self, kernel_id: str, message: Any, *, timeout: float | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Send one request and wait for its own reply; see `RingKernel.send_and_receive`.

        Raises:
            KernelNotFoundError: there is no such kernel.
        """
        kernel = self._kernels.get(kernel_id) or self._terminated.get(kernel_id)
        return self._not_found(kernel_id) if kernel is None else kernel.send_and_receive(message, timeout=timeout)

    async def _not_found(self, kernel_id: str) -> Any:
        """Raise KernelNotFoundError when the coroutine is awaited, not when it is made."""
        raise self._no_kernel(kernel_id)

    @asynccontextmanager
    async def kernel_scope(
        self,
        kernel_id: str,
        kernel_func: KernelFunction | KernelType | str | None = None,
        *,
        config: RingKernelConfig | None = None,
        input_type: type | None = None,
        output_type: type | None = None,
    ) -> AsyncIterator[RingKernel[Any, Any]]:
        """Launch and activate a kernel for an `async with` block, and terminate it after the block.

        The arguments and the errors are those of `launch`.
        """
        kernel = await self.launch(
            kernel_id, kernel_func, config=config, input_type=input_type, output_type=output_type
        )
        try:
            await kernel.activate()
            yield kernel
        finally:
            await kernel.terminate()

    def get_kernel_state(self, kernel_id: str) -> KernelState:
        """Return the state of a kernel. Raises KernelNotFoundError if there is no such kernel."""
        return self.kernel(kernel_id).state

    def get_telemetry(self, kernel_id: str) -> RingKernelTelemetry | None:
        """Return the counters of a kernel; None if telemetry is off. Raises KernelNotFoundError."""
        kernel = self.kernel(kernel_id)
        return kernel.get_telemetry() if self._enable_telemetry else None

    def get_all_telemetry(self) -> dict[str, RingKernelTelemetry]:
        """Return the counters of each kernel of `kernel_ids`; an empty dict if telemetry is off."""
        if not self._enable_telemetry:
            return {}
        return {kernel_id: self._kernels[kernel_id].get_telemetry() for kernel_id in self.kernel_ids}

    def get_summary(self) -> RuntimeSummary:
        """Return the sums over `get_all_telemetry()`."""
        return summarize(self.get_all_telemetry().values())

    def get_dead_letters(self, kernel_id: str) -> list[DeadLetter]:
        """Return the dead letters of a kernel, oldest first.

        A kernel that is launched again under the same id keeps them.

        Raises:
            KernelNotFoundError: there is no such kernel.
        """
        return list(self.kernel(kernel_id).dead_letters)

    async def requeue_dead_letters(self, kernel_id: str, ids: Iterable[int] | None = None) -> list[int]:
        """Put dead letters back into a kernel's mailboxes; see `RingKernel.requeue_dead_letters`.

        Args:
            ids: the ids of the dead letters to put back; None means all.

        Returns:
            The ids of the dead letters that were put back.

        Raises:
            KernelNotFoundError: there is no such kernel.
            KernelStateError: the kernel is neither ACTIVE nor DEACTIVATED.
        """
        return await self.kernel(kernel_id).requeue_dead_letters(ids)
