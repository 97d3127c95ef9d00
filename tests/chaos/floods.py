"""What one principal may do to a daemon that others use too: as much as it can of one thing, over many connections.

Each flood is a process of its own, which ends after some seconds:

    python -m tests.chaos.floods messages 127.0.0.1:50051 5

It prints one line that says how the daemon answered.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from itertools import count
from time import monotonic
from typing import Any

import grpc

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute_client import connect
from tests.chaos import overload
from tests.chaos.attack_kernels import Number
from tests.principals import saying

__all__ = ["FLOODER", "FLOODS"]

FLOODER = "flooder"
CONNECTIONS = 8
AT_ONCE = 16
FLOODS: dict[str, Callable[[str, float], Awaitable[Counter[str]]]] = {}
"""The floods by name. Each takes the address of a daemon and its seconds, and counts how it was answered."""


def flood(function: Callable[[str, float], Awaitable[Counter[str]]]) -> None:
    """Add a flood to `FLOODS`."""
    FLOODS[function.__name__] = function


async def _stub(stack: AsyncExitStack, target: str) -> Any:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.insecure_channel(target, options=options, interceptors=saying(FLOODER))
    return MessageServiceStub(await stack.enter_async_context(channel))


async def _on_and_on(target: str, seconds: float, call: Callable[[Any, int], Awaitable[object]]) -> Counter[str]:
    """Make calls on many connections, several at once on each, until the time is over."""
    until, numbers, answers = monotonic() + seconds, count(), Counter[str]()

    async def calls(stub: Any) -> None:
        while monotonic() < until:
            try:
                await call(stub, next(numbers))
                answers["OK"] += 1
            except grpc.aio.AioRpcError as error:
                answers[f"{error.code().name}: {(error.details() or '').partition(',')[0][:60]}"] += 1

    async with AsyncExitStack() as stack:
        stubs = [await _stub(stack, target) for _ in range(CONNECTIONS)]
        await asyncio.gather(*(calls(stub) for stub in stubs for _ in range(AT_ONCE)))
    return answers


@flood
async def messages(target: str, seconds: float) -> Counter[str]:
    """Sessions that send as much as they may to the kernel that the other one asks, and receive the replies."""
    until, answers = monotonic() + seconds, Counter[str]()

    async def send_on(runtime: Any) -> None:
        under_way = 0
        while monotonic() < until:
            while under_way < 1_000 and monotonic() < until:
                await runtime.send("square", Number(1))
                answers["sent"] += 1
                under_way += 1
            while under_way > 500:
                await runtime.receive("square")
                under_way -= 1
                answers["replies"] += 1

    async with AsyncExitStack() as stack:
        ways = [connect(target, interceptors=saying(FLOODER)) for _ in range(CONNECTIONS)]
        runtimes = [await stack.enter_async_context(way) for way in ways]
        await asyncio.gather(*(send_on(runtime) for runtime in runtimes))
    return answers


@flood
async def asks(target: str, seconds: float) -> Counter[str]:
    """Unary asks of the same kernel."""
    request = overload.ask("square", "attack_kernels.v1.Number", b"\x09" + bytes(8))
    return await _on_and_on(target, seconds, lambda stub, _: stub.Ask(request))


@flood
async def client_ids(target: str, seconds: float) -> Counter[str]:
    """Ever new client_ids, with a reply for each."""

    async def send(stub: Any, number: int) -> None:
        request = pb.SendRequest(kernel_id="square", client_id=str(number))
        request.message.CopyFrom(overload.ask("square", "attack_kernels.v1.Number", b"\x09" + bytes(8)).message)
        await stub.Send(request)

    return await _on_and_on(target, seconds, send)


@flood
async def sessions(target: str, seconds: float) -> Counter[str]:
    """Ever new sessions, which are left alone."""

    async def open_one(stub: Any, _: int) -> None:
        call = stub.Exchange()
        opening = pb.Open(kernel_id="square", credit=pb.Credit(messages=1, bytes=1))
        answer: object = grpc.aio.EOF
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # The call may be refused before it is written.
            await call.write(pb.ExchangeRequest(open=opening))
            answer = await call.read()
        if answer is grpc.aio.EOF:
            code, nothing = await call.code(), grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(code, nothing, nothing, await call.details())
        call.cancel()

    return await _on_and_on(target, seconds, open_one)


if __name__ == "__main__":
    print(dict(asyncio.run(FLOODS[sys.argv[1]](sys.argv[2], float(sys.argv[3])))), flush=True)  # type: ignore[arg-type]
