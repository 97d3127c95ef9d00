"""The steps that every call passes on its way to its handler.

A step is a function. When a method is called for the first time, the step is given the method and what comes next, and
returns what is to be called in its place, for this call and all that follow:

    def timed(method: Method, proceed: Proceed) -> Proceed:
        async def call_timed(call: Call) -> None:
            started = monotonic()
            try:
                await proceed(call)
            finally:
                print(method.path, monotonic() - started)

        return call_timed

A step that has nothing to do with a method returns `proceed` itself. Where no step is left, a call pays nothing: there
is no `Call` then, and nothing more to await.

The calls of all methods pass the steps, whichever service they are for:

- reflection too, which tells a stranger what there is;
- health too, which a step may let through by `method.service`;
- methods that do not exist too, for the answer to them names those that do.

Outside of all steps errors become statuses (see `errors`). So a step refuses a call by raising an error, and errors of
the handler, and of the steps after this one, come to it as exceptions.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Any, Protocol

import grpc
from google.rpc import status_pb2

from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute_server.calls.errors import Behavior, ClientGoneError, status_of

__all__ = ["UNKNOWN", "About", "Call", "Method", "Proceed", "Step", "chain", "says_its_kernel", "with_kernel"]

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service."""

    path: str
    """`/package.Service/Method`. Empty for all methods together that do not exist, so that what a step keeps for each
    method has an end."""

    @property
    def service(self) -> str:
        """The full name of the service."""
        return self.path[1:].rpartition("/")[0]

    @property
    def name(self) -> str:
        """The name of the method."""
        return self.path.rpartition("/")[2]


UNKNOWN = Method("")
"""The methods that do not exist."""


class Call:
    """One call of a method."""

    __slots__ = (
        "_hooks",
        "_incoming",
        "context",
        "kernel_ids",
        "metadata",
        "method",
        "path",
        "peer",
        "response",
        "values",
    )

    def __init__(self, method: Method, path: str, incoming: Any, context: Context, kernel_of: KernelOf | None) -> None:
        self.method = method
        self.path = path
        """As the client has it: the path of the method, or that of a method which does not exist."""
        self.context = context
        """gRPC's own: deadline, certificate, metadata to answer with. Not to be used any more when the call is over."""
        self.peer = str(context.peer())
        """Where the call comes from, as `ipv4:127.0.0.1:50000`."""
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        """What the client has sent beside the request, in order; the values of keys in `-bin` are bytes."""
        self.kernel_ids = _named_in(incoming) if kernel_of is None else (kernel_of(self.metadata),)
        """The kernels that the call names. Empty if it is about none, or all; and for Exchange until the first frame
        has come, see `on_kernel`."""
        self.response: Any = None
        """The answer of a unary method, once the handler has returned."""
        self.values: dict[Any, Any] = {}
        """What steps tell those after them, by keys of their own."""
        self._incoming = incoming
        self._hooks: list[About] = []

    @property
    def request(self) -> Any:
        """The request of a method that takes one, which is bytes for a kernel's own service. None for a stream of
        requests, and if the request cannot be read, which is an error once all steps are passed.
        """
        incoming = self._incoming
        return None if incoming is None or isinstance(incoming, MessageDeserializationError) else incoming

    async def on_kernel(self, hook: About) -> None:
        """Have `hook` awaited with the id of every kernel that the call is about: with those that it names at once, and
        with one that comes to be known later before anything is done with it. What `hook` raises ends the call.
        """
        for kernel_id in self.kernel_ids:
            await hook(kernel_id)
        self._hooks.append(hook)

    async def about(self, kernel_id: str) -> None:
        """The handler has learned which kernel the call is about."""
        self.kernel_ids += (kernel_id,)
        for hook in self._hooks:
            await hook(kernel_id)

    def status_of(self, error: BaseException) -> status_pb2.Status:
        """The status that the client sees if this exception leaves the steps: code, text and details."""
        if isinstance(error, grpc.aio.AbortError):
            code: Any = self.context.code()
            number = code.value[0] if isinstance(code, grpc.StatusCode) else code
            return status_pb2.Status(code=number, message=str(self.context.details() or ""))
        return status_of(error, f"{self.method.name}Request")


Proceed = Callable[[Call], Awaitable[None]]
"""The rest of the way. It returns when the handler has, and raises what the handler raises."""
About = Callable[[str], Awaitable[None]]
"""Is awaited with the id of a kernel."""
KernelOf = Callable[[Metadata], str]


class Step(Protocol):
    """Something that is done with every call."""

    def __call__(self, method: Method, proceed: Proceed, /) -> Proceed:
        """What calls of the method pass; `proceed` itself if that is nothing. Called once for each method."""


def says_its_kernel(behavior: Behavior) -> Behavior:
    """Marks the handler of a stream whose first frame names the kernel: in the place of the requests it is given an
    `About`, to be awaited before anything is done with the kernel.
    """
    behavior.says_its_kernel = True  # type: ignore[attr-defined]
    return behavior


def with_kernel(behavior: Behavior, kernel_of: KernelOf) -> Behavior:
    """Marks the handler of a method whose metadata name the kernel, with how they do."""
    marked: Any = partial(behavior)
    update_wrapper(marked, behavior)
    marked.kernel_of = kernel_of
    return marked  # type: ignore[no-any-return]


async def _nobody_asks(kernel_id: str) -> None:
    """An `About` where there are no steps."""


def chain(behavior: Behavior, method: Method, steps: Sequence[Step], *, answers: bool = False) -> tuple[Behavior, bool]:
    """The handler of a method with the steps before it, and whether there are any.

    Args:
        answers: whether the handler returns a response.
    """
    says_kernel, kernel_of = getattr(behavior, "says_its_kernel", False), getattr(behavior, "kernel_of", None)

    async def handle(call: Call) -> None:
        incoming, context = call._incoming, call.context
        if incoming.__class__ is MessageDeserializationError:
            raise incoming
        call.response = await behavior(call.about if says_kernel else incoming, context)

    generator: Any = behavior

    async def handle_stream(call: Call) -> None:
        incoming, context = call._incoming, call.context
        if incoming.__class__ is MessageDeserializationError:
            raise incoming
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
        call = Call(method, path, incoming, context, kernel_of)
        await proceed(call)
        if answers and call.response is None:
            raise RuntimeError(f"a step has ended a call of {method.path} without an answer")
        return call.response

    return pass_steps, True


def _named_in(request: Any) -> tuple[str, ...]:
    """The ids of kernels in a request of ours."""
    if kernel_id := getattr(request, "kernel_id", ""):
        return (kernel_id,)
    return tuple(getattr(request, "kernel_ids", ()))
