"""The handlers of all services. Each is put together with its steps once, when its method is first called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import grpc

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.ring_kernels.places import Places
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.calls.errors import report, report_of_one, report_of_stream
from pydotcompute_server.calls.pipeline import UNKNOWN, Method, Step, chain
from pydotcompute_server.calls.requests import Requests, read_first
from pydotcompute_server.calls.unknown import unknown_method
from pydotcompute_server.limits import Limits

__all__ = ["Handler", "Handlers"]

Handler = Any  # grpc.RpcMethodHandler, whose fields the stubs do not declare as replaceable.
Context = grpc.aio.ServicerContext[Any, Any]


class Handlers(grpc.GenericRpcHandler):
    """The server's only handler; the services are added to it, and not to the server.

    A call passes the steps before it comes to its handler. Around both, errors become statuses. This chain is put
    together when a method is first called, where an interceptor would do it for each call. The answer to a call of an
    unknown method lists the methods in `types`.

    Args:
        services: returns the names of the services that the one who calls may know of.
        turned_away: is told of each call that comes to no step, because there are too many: its path, where it comes
            from, and its error.
    """

    def __init__(
        self,
        types: TypePool,
        limits: Limits,
        apart: Apart,
        steps: Sequence[Step] = (),
        services: Callable[[], Sequence[str]] | None = None,
        turned_away: Callable[[str, str, PyDotComputeError], None] | None = None,
    ) -> None:
        self._types = types
        self._services = services or types.services
        self._apart = apart
        self._requests = Requests(limits)
        self._limits = limits
        self._steps = tuple(steps)
        self._places = Places("max_calls", limits.max_calls)
        self._turned_away = turned_away
        self._added: list[grpc.GenericRpcHandler] = []
        self._found: dict[str, Handler] = {}
        self._refuse = chain(self._refuse_unknown, UNKNOWN, self._steps)[0]

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add the handlers of a service; `add_…Servicer_to_server` calls this."""
        self._added.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Do nothing; `add_…Servicer_to_server` calls this too, with the same handlers.

        A grpc.aio server waits for the next call of each registered method separately. Every registered method would
        make each call slower by a few microseconds.
        """

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Return the handler of a method. For an unknown method, that is one that refuses the call."""
        path = handler_call_details.method
        handler = self._found.get(path)
        if handler is None:
            found = (each.service(handler_call_details) for each in self._added)
            handler = next((each for each in found if each is not None), None)
            if handler is None:
                return self._unimplemented(path)  # This handler is not kept: clients can invent endless names.
            handler = self._found[path] = self._made_ready(handler, Method(path))
        return handler

    def forget(self, services: Collection[str]) -> None:
        """Find the handlers of these services anew when their methods are called next."""
        self._found = {path: each for path, each in self._found.items() if Method(path).service not in services}

    def _unimplemented(self, path: str) -> Handler:
        refuse_unknown = report(self._refuse, "", self._places, partial(self._full, path))

        async def refuse(_: object, context: Context) -> None:
            await refuse_unknown(path, context)

        return grpc.stream_stream_rpc_method_handler(refuse)  # `refuse` reads nothing, so it suits every kind of call.

    async def _refuse_unknown(self, path: str, context: Context) -> None:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, unknown_method(path, self._types, self._services(), self._limits)
        )

    def _full(self, path: str, context: Context) -> PyDotComputeError:
        error = self._places.full()
        if self._turned_away is not None:
            self._turned_away(path, str(context.peer()), error)
        return error

    def _made_ready(self, handler: Handler, method: Method) -> Handler:
        takes_one = handler.unary_unary or handler.unary_stream
        behavior = takes_one or handler.stream_stream
        answers = bool(handler.unary_unary) and not getattr(behavior, "answers_itself", False)
        chained, has_steps = chain(behavior, method, self._steps, answers=answers)
        name, full = f"{method.name}Request", partial(self._full, method.path)
        read, write = handler.request_deserializer, handler.response_serializer
        reads_apart = bool(handler.unary_unary) and getattr(behavior, "takes_messages", False) and read is not bytes
        call: Any
        if reads_apart:
            chained = read_first(chained, self._apart, hands_errors_on=has_steps)
        if has_steps:
            call = report(chained, name, self._places, full)
        elif inspect.isasyncgenfunction(behavior):
            call = report_of_stream(behavior, name, self._places, full)
        else:
            call = report_of_one(chained, name, self._places, full)
        if not takes_one:
            return grpc.stream_stream_rpc_method_handler(
                call, self._requests.deserializer_of_each(read, name, behavior), write
            )
        make = grpc.unary_unary_rpc_method_handler if answers else grpc.unary_stream_rpc_method_handler
        return make(call, self._requests.deserializer_of_one(read, name, behavior), write)
