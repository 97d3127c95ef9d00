"""The calculator in a daemon of its own process, used through the Python client and through a generated stub."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
from calculator_kernel import CalculationRequest
from daemon import DAEMON
from google.protobuf import descriptor_pool, message_factory
from idle import measure_idle
from in_process import FIRST_TRANSFER, KERNEL, transfer
from measure import Metrics, latency, main, rate_in_flight, rate_of, serving
from over_tls import measure_tls_ask, measure_tls_piped
from under_load import measure_alone_under_load
from with_access import measure_access_ask, measure_access_piped, measure_access_unary

from pydotcompute.v1 import kernel_service_pb2, kernel_service_pb2_grpc, message_service_pb2, message_service_pb2_grpc
from pydotcompute_client import connect


async def measure_ask(seconds: float) -> Metrics:
    """Latency of the Python client's `send_and_receive`."""
    with serving(DAEMON) as server:
        async with connect(server.address) as runtime:

            async def call(number: int) -> None:
                response = await runtime.send_and_receive(KERNEL, CalculationRequest(a=float(number), b=1.0))
                if response.result != number + 1:
                    raise RuntimeError(f"wrong reply: {response}")

            return await latency(call, seconds)


async def measure_unary(seconds: float, in_flight: int = 1) -> Metrics:
    """MessageService.Ask as any language would call it, alone (its latency) or several at once (their rate)."""
    with serving(DAEMON) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            kernels = kernel_service_pb2_grpc.KernelServiceStub(channel)
            messages = message_service_pb2_grpc.MessageServiceStub(channel)
            described = await kernels.DescribeKernel(kernel_service_pb2.DescribeKernelRequest(kernel_id=KERNEL))
            pool = descriptor_pool.DescriptorPool()
            types = (described.input_type, described.output_type)
            for file in {file.name: file for type_ in types for file in type_.files.file}.values():
                pool.Add(file)
            request_class, response_class = (
                message_factory.GetMessageClass(pool.FindMessageTypeByName(type_.full_name)) for type_ in types
            )

            async def call(number: int) -> None:
                request = message_service_pb2.AskRequest(kernel_id=KERNEL)
                request.message.body.Pack(request_class(a=number, b=1.0, operation="add"))
                reply = await messages.Ask(request)
                response: Any = response_class()
                if not reply.message.body.Unpack(response) or response.result != number + 1:
                    raise RuntimeError(f"wrong reply: {reply}")

            if in_flight == 1:
                return await latency(call, seconds)
            return await rate_in_flight(call, seconds, in_flight=in_flight)


async def measure_unary_64(seconds: float) -> Metrics:
    """MessageService.Ask, 64 calls at once."""
    return await measure_unary(seconds, in_flight=64)


async def measure_piped(seconds: float, clients: int = 1) -> Metrics:
    """Messages a second, there and back counted once, all clients together; dataclasses at both ends."""
    with serving(DAEMON) as server:
        async with AsyncExitStack() as connections:
            runtimes = [await connections.enter_async_context(connect(server.address)) for _ in range(clients)]

            async def transfers(messages: int) -> None:
                async with asyncio.TaskGroup() as together:
                    for runtime in runtimes:
                        together.create_task(transfer(runtime, messages // clients))

            await transfers(100 * clients)  # opens the conversations, whose time would make the first transfer slow
            return await rate_of(transfers, seconds, first=FIRST_TRANSFER)


async def measure_piped_8(seconds: float) -> Metrics:
    """Eight clients, each with a connection of its own, in one process."""
    return await measure_piped(seconds, clients=8)


async def measure_piped_64(seconds: float) -> Metrics:
    """Sixty-four likewise."""
    return await measure_piped(seconds, clients=64)


if __name__ == "__main__":
    main(
        {
            "ask": measure_ask,
            "unary": measure_unary,
            "unary_64": measure_unary_64,
            "piped": measure_piped,
            "piped_8": measure_piped_8,
            "piped_64": measure_piped_64,
            "idle": measure_idle,
            "tls_piped": measure_tls_piped,
            "tls_ask": measure_tls_ask,
            "access_piped": measure_access_piped,
            "access_ask": measure_access_ask,
            "access_unary": measure_access_unary,
            "alone_under_load": measure_alone_under_load,
        }
    )
