"""What the real client says on Exchange, frame by frame: the valid conversations that the fuzzer spoils."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import numpy as np

from pydotcompute_client import connect
from tests.chaos.kernels import Colour, Entry, Everything, Leaf, Twig

__all__ = ["EXCHANGE", "Conversation", "everything", "record"]

EXCHANGE = "/pydotcompute.v1.MessageService/Exchange"


@dataclass
class Conversation:
    """The frames of a client, each with how many frames of the daemon had come before it."""

    frames: list[tuple[int, bytes]] = field(default_factory=list)


class _Relay(grpc.GenericRpcHandler):
    """Passes the calls of a client on as bytes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.conversations: list[Conversation] = []

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method == EXCHANGE:
            return grpc.stream_stream_rpc_method_handler(self._exchange)

        async def call(request: bytes, context: Any) -> bytes:
            passed_on: Any = self._channel.unary_unary(method)
            answer: bytes = await passed_on(request)
            return answer

        return grpc.unary_unary_rpc_method_handler(call)

    async def _exchange(self, request_iterator: AsyncIterator[bytes], context: Any) -> None:
        conversation = Conversation()
        self.conversations.append(conversation)
        call: Any = self._channel.stream_stream(EXCHANGE)()
        heard = 0

        async def forth() -> None:
            async for frame in request_iterator:
                conversation.frames.append((heard, frame))
                await call.write(frame)
            await call.done_writing()

        speaking = asyncio.create_task(forth())
        while (frame := await call.read()) is not grpc.aio.EOF:
            heard += 1
            await context.write(frame)
        await speaking


@asynccontextmanager
async def _relay(target: str) -> AsyncIterator[tuple[_Relay, str]]:
    async with grpc.aio.insecure_channel(target) as channel:
        relay = _Relay(channel)
        server = grpc.aio.server(handlers=[relay])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield relay, f"127.0.0.1:{port}"
        finally:
            await server.stop(1.0)


def everything() -> Everything:
    """A message with a value in every field."""
    return Everything(
        number=-5,
        ratio=2.5,
        flag=True,
        text="word",
        raw=b"\0\1\2",
        id=UUID(int=7),
        colour=Colour.BLUE,
        mode="slow",
        note="note",
        series=[1, -2, 3],
        table={"a": 1.0, "b": -0.5},
        by_number={1: Leaf(0.5, ["x"])},
        leaf=Leaf(1.0, ["one", "two"]),
        either=Twig([Leaf(2.0)]),
        made=datetime.fromtimestamp(1_700_000_000.5, UTC),
        span=timedelta(seconds=-3, microseconds=7),
        grid=np.arange(6, dtype=np.float32).reshape(2, 3),
    )


async def record(target: str) -> list[Conversation]:
    """Hold a conversation with each kernel of the suite at this daemon."""
    async with _relay(target) as (relay, address), connect(address) as runtime:
        for number in range(1, 6):
            await runtime.send("ledger", Entry(0, number, bytes(number)))
        for _ in range(5):
            await runtime.receive("ledger", timeout=5.0)
        for _ in range(3):
            await runtime.send_and_receive("everything", everything(), timeout=5.0)
        await runtime.send_and_receive("everything", Everything(), timeout=5.0)
        await runtime.send("narrow", Entry(0, 1), timeout=5.0)
        await runtime.receive("narrow", timeout=5.0)
        await runtime.send("forgetful", Entry(0, 3))
        for _ in range(3):
            await runtime.receive("forgetful", timeout=5.0)
    return relay.conversations
