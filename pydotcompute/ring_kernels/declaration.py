"""Kernel types, which a user declares with `@ring_kernel`."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args, overload

from pydotcompute.device.settings import bytes_of, check_device, devices_of
from pydotcompute.exceptions import InvalidConfigurationError, MessageTypeError
from pydotcompute.messages.message import is_message_class
from pydotcompute.ring_kernels.actor.blocking import BlockingContext
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.config import BackpressureStrategy, RingKernelConfig, check_id
from pydotcompute.ring_kernels.supervision import OnCrash, Restart, Supervision
from pydotcompute.ring_kernels.worker_limits import WorkerLimits
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.nodes import reachable

__all__ = [
    "Executor",
    "Isolation",
    "KernelFunction",
    "KernelType",
    "declared_during",
    "kernel_type_of",
    "registered_kernel_types",
    "ring_kernel",
]

KernelFunction = Callable[[KernelContext[Any, Any]], Awaitable[None]] | Callable[[BlockingContext[Any, Any]], None]
F = TypeVar("F", bound=Callable[..., Awaitable[None] | None])
Executor = Literal["loop", "thread"]
"""The place where an actor runs: on the event loop, or in a thread of its own."""
Isolation = Literal["none", "process"]
"""Whether an actor runs in the process of its runtime, or in a worker process of its own."""


SERVICE_NAME = r"([a-z][a-z0-9_]*\.)*[A-Za-z][A-Za-z0-9_]*"
"""The package and the name of a gRPC service, as a regular expression."""


@dataclass(frozen=True)
class KernelType:
    """A declared actor with its message types and settings. A kernel is a launched instance of a kernel type.

    Raises:
        InvalidConfigurationError: the function cannot be an actor, or the name, a setting or the name of the service is
            not valid.
        MessageTypeError: an input or output type is not a message class, or has a field that protobuf cannot hold.
    """

    name: str
    """The name of the type. A kernel that is launched without an id gets this name as its id."""
    func: KernelFunction
    config: RingKernelConfig
    """The settings of the kernels of this type, unless a launch gives others."""
    input_type: type | None = None
    output_type: type | None = None
    service: str = ""
    """The full name of the gRPC service that a daemon makes for the type, such as `calculator.v1.Calculator`.

    The name is empty if the type has no input type. A name without a package gets the package of the input type. If no
    name is given, the service is named like the type, in camel case. "Service" is appended if one of the messages of
    the type already has that name.
    """
    device: str = "cpu"
    """The device of the kernels of this type: cpu, cuda, cuda:1 and so on, or auto."""
    memory_limit: int | str | None = None
    """The most bytes of memory that one kernel of this type may hold. A text such as 2GiB becomes a number.

    It is memory of the GPU for a kernel on a GPU, and memory of the worker process for `device="cpu"`.
    """
    isolation: Isolation | None = None
    """Whether the actor runs in a worker process; None leaves it to the runtime."""
    supervision: Supervision = field(default_factory=Supervision)
    """What happens after the actor has ended, or its worker process has died."""
    instances: int = 1
    """The number of worker processes that share the mailbox. Each runs the actor."""
    devices: Sequence[str] = ()
    """The devices of the instances, which get them by turns: each sees its own device alone. It becomes a tuple."""
    worker_limits: WorkerLimits = field(default_factory=WorkerLimits)
    """What a worker process may use."""

    def __post_init__(self) -> None:
        check_id(self.name)
        if not inspect.iscoroutinefunction(self.func) and not _is_plain(self.func):
            name = getattr(self.func, "__qualname__", repr(self.func))
            problem = "an actor is a function that takes a context: an `async def`, or a `def` that runs in a thread"
            raise InvalidConfigurationError("kernel_func", name, problem)
        for role, cls in (("input_type", self.input_type), ("output_type", self.output_type)):
            if cls is None:
                continue
            if not is_message_class(cls):
                raise MessageTypeError(
                    f"a class decorated with @message as {role}", getattr(cls, "__name__", repr(cls))
                )
            introspect(cls)
        object.__setattr__(self, "service", self._full_service_name())
        check_device(self.device)
        object.__setattr__(self, "memory_limit", bytes_of(self.memory_limit))
        if self.isolation not in (None, *get_args(Isolation)):
            raise InvalidConfigurationError("isolation", self.isolation, "choose none or process")
        if not isinstance(self.instances, int) or isinstance(self.instances, bool) or self.instances < 1:
            raise InvalidConfigurationError("instances", self.instances, "must be a whole number of at least 1")
        object.__setattr__(self, "devices", devices_of(self.devices))
        if self.devices and self.device != "cpu":
            raise InvalidConfigurationError("devices", self.devices, f"there is device={self.device!r} too; choose one")

    def _full_service_name(self) -> str:
        if self.service and not re.fullmatch(SERVICE_NAME, self.service):
            problem = "neither a name such as Calculator, nor a full name such as calculator.v1.Calculator"
            raise InvalidConfigurationError("service", self.service, f"{problem}; choose another with service=")
        if self.input_type is None:
            if self.service:
                raise InvalidConfigurationError("service", self.service, "only a kernel with an input_type has one")
            return ""
        if "." in self.service:
            return self.service
        package = introspect(self.input_type).package
        return f"{package}.{self.service or self._default_service(package)}"

    def _default_service(self, package: str) -> str:
        name = _camel(self.name)
        schemas = [introspect(cls) for cls in (self.input_type, self.output_type) if cls is not None]
        messages = {message.full_name for schema in schemas for message in reachable(schema)}
        return f"{name}Service" if f"{package}.{name}" in messages else name

    @property
    def executor(self) -> Executor:
        """The place where the actor runs: the event loop for an `async def`, a thread for a plain function."""
        return "loop" if inspect.iscoroutinefunction(self.func) else "thread"

    @property
    def documentation(self) -> str:
        """The actor's docstring."""
        return inspect.getdoc(self.func) or ""


def _is_plain(func: object) -> bool:
    """Return True if `func` does its work when it is called: it is no generator function."""
    if isinstance(func, functools.partial):
        return _is_plain(func.func)
    return inspect.isroutine(func) and not (inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func))


def _camel(kernel_id: str) -> str:
    """Return `vector_add` as `VectorAdd`. The result is always a valid name, although a kernel's id can be any text."""
    words = re.findall("[A-Za-z0-9]+", kernel_id)
    name = "".join(word[0].upper() + word[1:] for word in words)
    return name if name[:1].isalpha() else f"Kernel{name}"


_registry: dict[str, KernelType] = {}
_listeners: list[list[KernelType]] = []


def registered_kernel_types() -> dict[str, KernelType]:
    """Return the kernel types declared in this process, by name, without those of `auto_register=False`."""
    return dict(_registry)


@contextmanager
def declared_during() -> Iterator[list[KernelType]]:
    """Collect the kernel types that are registered inside the `with`, also those that a later one of the name replaces.

    The list is filled while the `with` runs, in the order of declaration.
    """
    declared: list[KernelType] = []
    _listeners.append(declared)
    try:
        yield declared
    finally:
        _listeners[:] = [each for each in _listeners if each is not declared]


def kernel_type_of(func: Callable[..., object]) -> KernelType | None:
    """Return the kernel type that `@ring_kernel` made of this function; None if it made none."""
    return getattr(func, "__ring_kernel__", None)


@overload
def ring_kernel(func: F, /) -> F: ...
@overload
def ring_kernel(
    *,
    kernel_id: str | None = None,
    input_type: type | None = None,
    output_type: type | None = None,
    queue_size: int = 4096,
    input_queue_size: int | None = None,
    output_queue_size: int | None = None,
    grid_size: int = 1,
    block_size: int = 256,
    backpressure: BackpressureStrategy = "block",
    service: str = "",
    device: str = "cpu",
    memory_limit: int | str | None = None,
    executor: Executor | None = None,
    isolation: Isolation | None = None,
    restart: Restart = "never",
    max_restarts: int | None = None,
    restart_window: float | None = None,
    on_crash: OnCrash = "dead_letter",
    max_deliveries: int = 3,
    instances: int = 1,
    devices: Sequence[str] = (),
    time_limit: float | None = None,
    hang_timeout: float | None = None,
    cpus: Sequence[int] | None = None,
    nice: int | None = None,
    auto_register: bool = True,
) -> Callable[[F], F]: ...


def ring_kernel(
    func: F | None = None,
    /,
    *,
    kernel_id: str | None = None,
    input_type: type | None = None,
    output_type: type | None = None,
    queue_size: int = 4096,
    input_queue_size: int | None = None,
    output_queue_size: int | None = None,
    grid_size: int = 1,
    block_size: int = 256,
    backpressure: BackpressureStrategy = "block",
    service: str = "",
    device: str = "cpu",
    memory_limit: int | str | None = None,
    executor: Executor | None = None,
    isolation: Isolation | None = None,
    restart: Restart = "never",
    max_restarts: int | None = None,
    restart_window: float | None = None,
    on_crash: OnCrash = "dead_letter",
    max_deliveries: int = 3,
    instances: int = 1,
    devices: Sequence[str] = (),
    time_limit: float | None = None,
    hang_timeout: float | None = None,
    cpus: Sequence[int] | None = None,
    nice: int | None = None,
    auto_register: bool = True,
) -> F | Callable[[F], F]:
    """Declare a function as a kernel type.

    Args:
        kernel_id: the type's name; the function's name if absent.
        input_type: the message class that the kernel takes. A kernel without one cannot be reached over the wire.
        output_type: the message class that the kernel sends.
        queue_size: the most messages that each mailbox holds, unless `input_queue_size` or `output_queue_size` says
            otherwise.
        grid_size, block_size: the thread blocks of a resident kernel, and the threads in each block.
        backpressure: the rule for a message that finds the input mailbox full: `block`, `reject` or `drop_oldest`.
        service: the name of the type's gRPC service, `Calculator` or `calculator.v1.Calculator`; see
            `KernelType.service`.
        device: the device that `ctx.xp` computes on: "cpu", "cuda", "cuda:1" and so on, or "auto". "auto" is the first
            GPU if there is one, else the CPU. If a named GPU is missing, a launch fails with `BackendUnavailableError`.
        memory_limit: the most bytes of memory that a kernel may hold, as a number or as "512MiB" or "2GiB". It is
            memory of the GPU for a kernel on a GPU. For `device="cpu"` it is memory of the worker process, and needs
            one.
        executor: a statement of where the actor runs, to help the reader; the kind of function decides. An `async def`
            runs on the "loop". A plain function gets a `BlockingContext` and runs in a "thread" of its own.
        isolation: "process" to run the actor in a worker process of its own, so that it can compute, block, leak or
            crash without harm to others; "none" to run it in the process of the runtime; None leaves it to the runtime.
        restart: when the actor is started again: "never"; "on_failure", which is after it has raised or its worker
            process has died; or "always", which is also after it has returned.
        max_restarts, restart_window: the most restarts within this many seconds. One failure more, and the kernel
            becomes FAILED. None leaves them to the limits of the runtime: 10 within 60 seconds.
        on_crash: what becomes of the messages that the actor has in hand when it fails: "dead_letter", or "redeliver"
            to give them again, one by one, to the actor that is started again. Then the actor must be able to bear the
            same message twice; `ctx.redelivered` tells it. This needs a `restart`.
        max_deliveries: how often "redeliver" gives a message to the actor at most.
        instances: the number of worker processes that share the mailbox, each with the actor. Messages are handed out
            in order, and done in any order. More than one needs worker processes.
        devices: the devices of the instances, such as `("cuda:0", "cuda:1")`, instead of `device`. The instances get
            them by turns, and each sees its own alone, which is "cuda:0" there. This needs worker processes.
        time_limit: the most seconds that the actor may have a message in hand. Then its worker process is ended, and
            the caller gets `KernelFailedError` with the cause "TimeLimitExceeded".
        hang_timeout: the most seconds that a worker process may show no life, because it is stopped, or because C code
            holds Python's lock all the time. Then it is ended.
        cpus: the numbers of the CPUs that a worker process may run on.
        nice: the niceness of a worker process, from -20 to 19.
        auto_register: True to let `launch(kernel_id)`, and a daemon that loads the file, find the type by its name. A
            later declaration of the same name replaces the earlier one.

    Raises:
        InvalidConfigurationError, MessageTypeError: see `KernelType`.
    """

    def declare(func: F) -> F:
        name = func.__name__ if kernel_id is None else kernel_id
        config = RingKernelConfig(
            kernel_id=name,
            grid_size=grid_size,
            block_size=block_size,
            input_queue_size=queue_size if input_queue_size is None else input_queue_size,
            output_queue_size=queue_size if output_queue_size is None else output_queue_size,
            backpressure_strategy=backpressure,
        )
        kernel_type = KernelType(
            name,
            cast(KernelFunction, func),
            config,
            input_type,
            output_type,
            service,
            device,
            memory_limit,
            isolation,
            Supervision(restart, max_restarts, restart_window, on_crash, max_deliveries),
            instances,
            devices,
            WorkerLimits(time_limit, hang_timeout, cast(tuple[int, ...] | None, cpus), nice),
        )
        if executor not in (None, kernel_type.executor):
            needed = "a plain function" if executor == "thread" else "an `async def` function"
            problem = f"{func.__qualname__} is none; choose loop or thread, and for {executor!r} {needed}"
            raise InvalidConfigurationError("executor", executor, problem)
        func.__ring_kernel__ = kernel_type  # type: ignore[attr-defined]
        if auto_register:
            _registry[kernel_type.name] = kernel_type
            for declared in _listeners:
                declared.append(kernel_type)
        return func

    return declare if func is None else declare(func)
