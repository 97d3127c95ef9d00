"""The steps that every call passes on its way to its handler.

A step is a function. It is called once for each method, when that method is called for the first time, and before that
once for all methods that do not exist. The step gets the method and `proceed`, the rest of the way to the handler. It
returns the function that every call of the method passes in place of `proceed`:

    def timed(method: Method, proceed: Proceed) -> Proceed:
        async def call_timed(call: Call) -> None:
            started = monotonic()
            try:
                await proceed(call)
            finally:
                print(method.path, monotonic() - started)

        return call_timed

A step that has nothing to do with a method returns `proceed` itself. If all steps do that, the calls of the method cost
nothing more: no `Call` is made, and nothing more is awaited.

The calls of all methods of all services pass the steps:

- Reflection too, because it tells a stranger which services there are.
- Health checks too. A step can let them through by `method.service`.
- Calls of unknown methods too, because the answer to them lists the methods that exist.

Errors become statuses outside of all steps (see `errors`). So a step refuses a call by raising an error. Errors of the
handler and of later steps come to a step as exceptions.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute_server.calls.errors import Behavior, ClientGoneError, status_of

__all__ = ["UNKNOWN", "About", "Call", "Method", "Proceed", "Step", "chain", "says_its_kernel", "with_kernel"]

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service."""

    path: str
    """`/package.Service/Method`. Empty for unknown methods: all of them are one `Method`, so that a step can keep
    something for each method without an unbounded number of them."""

    @property
    def service(self) -> str:
        """The full name of the service."""
        return self.path[1:].rpartition("/")[0]

    @property
    def name(self) -> str:
        """The name of the method."""
        return self.path.rpartition("/")[2]


UNKNOWN = Method("")
"""Stands for all methods that do not exist."""


class Call:
    """One call of a method."""

    __slots__ = (
        "_hooks",
        "_incoming",
        "context",
        "kernel_comes_later",
        "kernel_ids",
        "metadata",
        "method",
        "path",
        "peer",
        "response",
        "values",
    )

    def __init__(
        self,
        method: Method,
        path: str,
        incoming: Any,
        context: Context,
        kernel_of: KernelOf | None = None,
        *,
        kernel_comes_later: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        """The path that the client has called, which for `UNKNOWN` is one that does not exist."""
        self.context = context
        """gRPC's context: deadline, certificate, metadata to answer with. Do not use it after the end of the call."""
        self.peer = str(context.peer())
        """Where the call comes from, as `ipv4:127.0.0.1:50000`."""
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        """The client's metadata, in order. The values of keys that end in `-bin` are bytes."""
        self.kernel_ids = _named_in(incoming) if kernel_of is None else (kernel_of(self.metadata),)
        """The kernels that the call names. Empty if the call is about no kernel, or about all. For Exchange, empty
        until the first frame has come; see `on_kernel`."""
        self.kernel_comes_later = kernel_comes_later
        """True for Exchange: its kernel is known later, and then the functions of `on_kernel` hear of it."""
        self.response: Any = None
        """The answer of a unary method, once the handler has returned."""
        self.values: dict[Any, Any] = {}
        """Values that a step leaves for later steps. Each step chooses its own keys."""
        self._incoming = incoming
        self._hooks: tuple[About, ...] = ()

    @property
    def request(self) -> Any:
        """The request of a method that takes one; for a kernel's own service it is bytes.

        None for a stream of requests. None also for a request that cannot be read, which is refused after the steps.
        """
        return self._incoming if isinstance(self._incoming, Message | bytes) else None

    def handed_on(self) -> Any:
        """Return what gRPC hands to the handler, when the call has passed all steps.

        Raises:
            PyDotComputeError: the request cannot be read, or is too long.
        """
        incoming = self._incoming
        if isinstance(incoming, PyDotComputeError):
            raise incoming
        return incoming

    async def on_kernel(self, hook: About) -> None:
        """Await `hook` with the id of every kernel that the call is about.

        It is awaited at once for the kernels that the call names. If the call names a kernel later, it is awaited then,
        before anything is done with that kernel. If `hook` raises, the call ends with that error.
        """
        for kernel_id in self.kernel_ids:
            await hook(kernel_id)
        self._hooks += (hook,)

    async def about(self, kernel_id: str) -> None:
        """Tell the hooks of `on_kernel` which kernel the call is about. The handler calls this when it knows."""
        self.kernel_ids += (kernel_id,)
        for hook in self._hooks:
            await hook(kernel_id)

    def status_of(self, error: BaseException) -> status_pb2.Status:
        """Return the status (code, text and details) that the client sees if this exception leaves the steps."""
        if isinstance(error, grpc.aio.AbortError):
            code: Any = self.context.code()
            number = code.value[0] if isinstance(code, grpc.StatusCode) else code
            return status_pb2.Status(code=number, message=str(self.context.details() or ""))
        return status_of(error, f"{self.method.name}Request")


Proceed = Callable[[Call], Awaitable[None]]
"""The rest of the way to the handler. It returns when the handler has returned, and raises what the handler raises."""
About = Callable[[str], Awaitable[None]]
"""A function that is awaited with the id of a kernel."""
KernelOf = Callable[[Metadata], str]
"""Returns the id of the kernel that a call's metadata name."""


class Step(Protocol):
    """A function that adds something to every call, such as a check or a measurement."""

    def __call__(self, method: Method, proceed: Proceed, /) -> Proceed:
        """Return the function that calls of the method pass, or `proceed` itself to add nothing.

        This is called once for each method.
        """


def says_its_kernel(behavior: Behavior) -> Behavior:
    """Mark the handler of a stream whose first frame names the kernel.

    The handler is given an `About` in place of the requests. It must await the `About` with the kernel's id before it
    does anything with the kernel.
    """
    behavior.says_its_kernel = True  # type: ignore[attr-defined]
    return behavior


def with_kernel(behavior: Behavior, kernel_of: KernelOf) -> Behavior:
    """Return the handler of a method whose metadata name the kernel, marked with `kernel_of`, which reads them."""
    marked: Any = partial(behavior)
    update_wrapper(marked, behavior)
    marked.kernel_of = kernel_of
    return marked  # type: ignore[no-any-return]


async def _nobody_asks(kernel_id: str) -> None:
    """The `About` of a handler without steps."""


def chain(behavior: Behavior, method: Method, steps: Sequence[Step], *, answers: bool = False) -> tuple[Behavior, bool]:
    """Return the handler of a method behind its steps, and True if any step remains.

    Args:
        answers: True if the handler returns a response.
    """
    says_kernel, kernel_of = getattr(behavior, "says_its_kernel", False), getattr(behavior, "kernel_of", None)

    async def handle(call: Call) -> None:
        incoming = call.handed_on()
        call.response = await behavior(call.about if says_kernel else incoming, call.context)

    generator: Any = behavior

    async def handle_stream(call: Call) -> None:
        incoming, context = call.handed_on(), call.context
        async with aclosing(generator(incoming, context)) as responses:
            async for response in responses:
                try:
                    await context.write(response)
                except (grpc.aio.InternalError, grpc.aio.UsageError) as error:
                    raise ClientGoneError from error

    end = handle_stream if inspect.isasyncgenfunction(behavior) else handle
    proceed: Proceed = end
    for step in reversed(steps):
        proceed = step(method, proceed)
    if proceed is end:
        return (lambda _, context: behavior(_nobody_asks, context)) if says_kernel else behavior, False

    async def pass_steps(incoming: Any, context: Context) -> Any:
        path = incoming if method is UNKNOWN else method.path
        call = Call(method, path, incoming, context, kernel_of, kernel_comes_later=says_kernel)
        await proceed(call)
        if answers and call.response is None:
            raise RuntimeError(f"a step has ended a call of {method.path} without an answer")
        return call.response

    return pass_steps, True


def _named_in(request: Any) -> tuple[str, ...]:
    """Return the ids of kernels in a request of one of the daemon's own services."""
    if kernel_id := getattr(request, "kernel_id", ""):
        return (kernel_id,)
    return tuple(getattr(request, "kernel_ids", ()))
