"""grpcio alone, without mailboxes, sessions or an actor: the limit of anything that is built on it.

A server process echoes protobuf messages with the calculator's fields. Each message is built, serialized, parsed by the
server, serialized again and parsed again, which no program can avoid; its id is a mere number, since making ids is not
gRPC's work.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from measure import Metrics, latency, main, rate_in_flight, rate_of, serving

SERVICE = "benchmark.Echo"
MESSAGES_A_FRAME = 256
FRAMES_IN_FLIGHT = 16


def declaration() -> descriptor_pb2.FileDescriptorProto:
    """One message, a frame of many, and the service."""
    field = descriptor_pb2.FieldDescriptorProto
    fields = {
        "message_id": field.TYPE_BYTES,
        "a": field.TYPE_DOUBLE,
        "b": field.TYPE_DOUBLE,
        "operation": field.TYPE_STRING,
    }
    file = descriptor_pb2.FileDescriptorProto(name="benchmark.proto", package="benchmark", syntax="proto3")
    message = file.message_type.add(name="Message")
    for number, (name, type_) in enumerate(fields.items(), start=1):
        message.field.add(name=name, number=number, type=type_, label=field.LABEL_OPTIONAL)
    frame = file.message_type.add(name="Frame")
    frame.field.add(
        name="messages", number=1, type=field.TYPE_MESSAGE, type_name=".benchmark.Message", label=field.LABEL_REPEATED
    )
    service = file.service.add(name="Echo")
    service.method.add(name="Unary", input_type=".benchmark.Message", output_type=".benchmark.Message")
    stream = service.method.add(name="Stream", input_type=".benchmark.Frame", output_type=".benchmark.Frame")
    stream.client_streaming = stream.server_streaming = True
    return file


def message_classes(file: descriptor_pb2.FileDescriptorProto) -> tuple[Any, Any]:
    """The classes of one message and of a frame."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    types = (pool.FindMessageTypeByName(f"benchmark.{name}") for name in ("Message", "Frame"))
    message_class, frame_class = (message_factory.GetMessageClass(type_) for type_ in types)
    return message_class, frame_class


DECLARATION = declaration()
Message, Frame = message_classes(DECLARATION)
ECHO = [sys.executable, __file__, "serve"]
"""The command that serves the echo."""


async def serve() -> None:
    """Echoes until the process is ended."""

    async def unary(request: Any, _context: object) -> Any:
        return request

    async def stream(frames: AsyncIterator[Any], _context: object) -> AsyncIterator[Any]:
        async for frame in frames:
            yield frame

    server = grpc.aio.server()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary, Message.FromString, Message.SerializeToString),
        "Stream": grpc.stream_stream_rpc_method_handler(stream, Frame.FromString, Frame.SerializeToString),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's where it is installed, as the daemon does it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def build(message: Any, number: int) -> None:
    """Fills one message in."""
    message.message_id = number.to_bytes(16, "big")
    message.a = number
    message.b = 1.0
    message.operation = "add"


async def measure_unary(seconds: float, in_flight: int = 1) -> Metrics:
    """Unary calls, alone (their latency) or several at once (their rate)."""
    with serving(ECHO) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            echo = channel.unary_unary(f"/{SERVICE}/Unary", Message.SerializeToString, Message.FromString)

            async def call(number: int) -> None:
                message = Message()
                build(message, number)
                if (await echo(message)).a != number:
                    raise RuntimeError("wrong reply")

            if in_flight == 1:
                return await latency(call, seconds)
            return await rate_in_flight(call, seconds, in_flight=in_flight)


async def measure_unary_64(seconds: float) -> Metrics:
    """Unary calls, 64 at once."""
    return await measure_unary(seconds, in_flight=64)


async def measure_stream(seconds: float) -> Metrics:
    """One stream, one message a frame, one frame there and back after the other."""
    with serving(ECHO) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            echo: Any = channel.stream_stream(f"/{SERVICE}/Stream", Frame.SerializeToString, Frame.FromString)()

            async def call(number: int) -> None:
                frame = Frame()
                build(frame.messages.add(), number)
                await echo.write(frame)
                if (await echo.read()).messages[0].a != number:
                    raise RuntimeError("wrong reply")

            return await latency(call, seconds)


async def measure_batched(seconds: float) -> Metrics:
    """One stream, 256 messages a frame, so many frames in flight that nobody waits."""
    with serving(ECHO) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            echo: Any = channel.stream_stream(f"/{SERVICE}/Stream", Frame.SerializeToString, Frame.FromString)()

            async def transfer(messages: int) -> None:
                frames = messages // MESSAGES_A_FRAME
                room = asyncio.Semaphore(FRAMES_IN_FLIGHT)

                async def produce() -> None:
                    for first in range(0, frames * MESSAGES_A_FRAME, MESSAGES_A_FRAME):
                        await room.acquire()
                        frame = Frame()
                        for number in range(first, first + MESSAGES_A_FRAME):
                            build(frame.messages.add(), number)
                        await echo.write(frame)

                async def consume() -> float:
                    total = 0.0
                    for _ in range(frames):
                        for message in (await echo.read()).messages:
                            total += message.a
                        room.release()
                    return total

                async with asyncio.TaskGroup() as both:
                    both.create_task(produce())
                    consumer = both.create_task(consume())
                sent = frames * MESSAGES_A_FRAME
                if consumer.result() != sent * (sent - 1) / 2:
                    raise RuntimeError("a message was lost, doubled or wrong")

            return await rate_of(transfer, seconds, first=100 * MESSAGES_A_FRAME)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            runner.run(serve())
    else:
        main(
            {
                "unary": measure_unary,
                "unary_64": measure_unary_64,
                "stream": measure_stream,
                "batched": measure_batched,
            }
        )
