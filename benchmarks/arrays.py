"""A large array there and back: asked of a kernel over `Exchange`, beside as many bytes through grpcio alone.

    python benchmarks/arrays.py echo [--seconds N] [--uvloop]

The raw echo is one gRPC message of bytes in each direction, which nobody looks at: no protobuf, no array, no mailbox.
The array is also asked of the same daemon through shared memory. One process measures all three, by turns, so that
whatever else the machine does meets them alike.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import grpc.aio
import numpy
from array_kernel import Samples
from daemon import LAUNCH_NOTHING
from measure import Metrics, main, serving
from raw_echo import fastest_loop

from pydotcompute_client import RemoteRuntime, connect

ARRAY_BYTES = 64 << 20
LIMIT = 2 * ARRAY_BYTES
"""Of a message: an array of 64 MiB with what is around it is just over the usual limit."""
TURNS = 10
SERVICE, METHOD = "benchmark.Bytes", "Echo"
ANY_LENGTH = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
DAEMON = [
    LAUNCH_NOTHING[0],
    str(Path(__file__).with_name("array_kernel.py")),
    "--listen=127.0.0.1:0",
    "--launch=echo",
    f"--max-message-bytes={LIMIT}",
    f"--shared-memory-bytes={4 * ARRAY_BYTES}",
]


async def serve() -> None:
    """Sends back the bytes of each message until the process is ended."""

    async def echo(messages: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
        async for message in messages:
            yield message

    server = grpc.aio.server(options=ANY_LENGTH)
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {METHOD: grpc.stream_stream_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def measure_echo(seconds: float) -> Metrics:
    """MiB a second, there and back counted once, and ratios: of arrays to bytes, and of shared memory to Exchange."""
    with serving(DAEMON) as daemon, serving([sys.executable, __file__, "serve"]) as echo:
        async with (
            connect(daemon.address, max_message_bytes=LIMIT) as runtime,
            connect(daemon.address, max_message_bytes=LIMIT, shared_memory=True) as neighbour,
            grpc.aio.insecure_channel(echo.address, options=ANY_LENGTH) as channel,
        ):
            stream: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
            array = numpy.random.default_rng(1).random(ARRAY_BYTES // 4, numpy.float32)
            raw = array.tobytes()

            async def ask(runtime: RemoteRuntime) -> None:
                reply = await runtime.send_and_receive("echo", Samples(array))
                if reply.values[-1] != array[-1] or reply.values.nbytes != ARRAY_BYTES:
                    raise RuntimeError("wrong reply")

            async def echo_bytes() -> None:
                await stream.write(raw)
                if len(await stream.read()) != ARRAY_BYTES:
                    raise RuntimeError("wrong reply")

            calls = (partial(ask, runtime), echo_bytes, partial(ask, neighbour))
            times = await by_turns(*calls, turns=max(3, round(TURNS * seconds)))
    rate, raw_rate, shared_rate = (ARRAY_BYTES / (1 << 20) / median(each) for each in times)
    return {
        "mib_rate": rate,
        "raw_mib_rate": raw_rate,
        "ratio": rate / raw_rate,
        "shared_mib_rate": shared_rate,
        "shared_ratio": shared_rate / rate,
    }


async def by_turns(*calls: Callable[[], Awaitable[None]], turns: int) -> list[list[float]]:
    """The seconds that each takes, turn by turn; the first two turns only warm up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(turns + 2):
        for call, taken in zip(calls, times, strict=True):
            start = perf_counter()
            await call()
            taken.append(perf_counter() - start)
    return [taken[2:] for taken in times]


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            runner.run(serve())
    else:
        main({"echo": measure_echo})
