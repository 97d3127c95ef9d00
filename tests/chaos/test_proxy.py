"""The proxy itself, between a client and an echo of the test's own."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.chaos.processes import Processes
from tests.chaos.proxy import FAULTS, Options, Proxy, options

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that sends back what it gets, and ends when the client does."""

    def __init__(self) -> None:
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        """How each connection has ended, as the server saw it."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            self.ends.put_nowait("end")
        except ConnectionError:
            self.ends.put_nowait("reset")
        finally:
            writer.close()


@asynccontextmanager
async def mistreated(seed: int = 0) -> AsyncIterator[tuple[Proxy, Echo, Callable[[], Awaitable[Streams]]]]:
    """A proxy before an echo, and how to connect to it."""
    echo = Echo()
    opened: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        to = server.sockets[0].getsockname()
        async with Proxy(Options(to, seed=seed)) as proxy:

            async def connect() -> Streams:
                host, _, port = proxy.address.rpartition(":")
                reader, writer = await asyncio.open_connection(host, int(port))
                opened.append(writer)
                assert await echoed((reader, writer), b"hello") == b"hello"
                return reader, writer

            yield proxy, echo, connect
            for writer in opened:
                writer.close()


async def echoed(streams: Streams, data: bytes) -> bytes:
    """What comes back for these bytes."""
    reader, writer = streams
    writer.write(data)
    async with asyncio.timeout(10):
        return await reader.readexactly(len(data))


async def test_bytes_pass_and_so_does_the_end() -> None:
    async with mistreated() as (proxy, echo, connect):
        reader, writer = await connect()
        data = random.Random(1).randbytes(500_000)
        assert await echoed((reader, writer), data) == data
        writer.write_eof()
        assert await reader.read() == b""
        assert await echo.ends.get() == "end"
        assert proxy.statistics()["bytes"] == 2 * (len(data) + len(b"hello"))


async def test_a_cut_closes_both_ends() -> None:
    async with mistreated() as (proxy, echo, connect):
        reader, _ = await connect()
        assert proxy.inflict_on_all("cut") == 1
        assert await reader.read() == b""
        assert await echo.ends.get() == "end"


async def test_a_reset_is_one_at_both_ends() -> None:
    async with mistreated() as (proxy, echo, connect):
        reader, _ = await connect()
        proxy.inflict_on_all("reset")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert await echo.ends.get() == "reset"


async def test_nothing_passes_a_half_open_link_not_even_its_end() -> None:
    async with mistreated() as (proxy, echo, connect):
        silent = await connect()
        assert proxy.inflict_on_all("half_open") == 1
        silent[1].write(b"into the void")
        reading = asyncio.ensure_future(silent[0].read(1))
        other = await connect()
        assert await echoed(other, b"x" * 100_000) == b"x" * 100_000
        assert not reading.done()
        assert proxy.inflict_on_all("cut") == 1, "the silent one is past all that"
        assert await echo.ends.get() == "end"
        reading.cancel()
        silent[1].close()
        assert echo.ends.empty()


@pytest.mark.parametrize("seed", range(4))
async def test_a_halved_link_goes_on_in_one_direction(seed: int) -> None:
    async with mistreated(seed) as (proxy, echo, connect):
        reader, _ = await connect()
        proxy.inflict_on_all("halve")
        # The echo ends when it hears of an end; the client here does not, so only it can tell which direction it was.
        assert await reader.read() == b""
        proxy.inflict_on_all("cut")
        assert await echo.ends.get() == "end"


@pytest.mark.parametrize("fault", ["stall", "trickle"])
async def test_what_is_only_slow_comes_whole(fault: str) -> None:
    async with mistreated() as (proxy, _, connect):
        streams = await connect()
        proxy.inflict_on_all(fault)
        data = random.Random(2).randbytes(20_000)
        assert await echoed(streams, data) == data


async def test_a_client_is_turned_away_if_there_is_no_daemon() -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        to = server.sockets[0].getsockname()
    async with Proxy(Options(to)) as proxy:
        host, _, port = proxy.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await reader.read() == b""
        assert proxy.statistics()["refused"] == 1
        writer.close()


async def test_faults_come_by_themselves_if_they_are_to() -> None:
    echo = Echo()
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        given = Options(server.sockets[0].getsockname(), every=(0.001, 0.002), faults=(("cut", 1),))
        async with Proxy(given) as proxy:
            host, _, port = proxy.address.rpartition(":")
            for _ in range(5):
                reader, writer = await asyncio.open_connection(host, int(port))
                assert await reader.read() == b""
                writer.close()
            faults = proxy.statistics()["faults"]  # One that was about to close may have been cut as well.
            assert set(faults) == {"cut"}
            assert faults["cut"] >= 5


@pytest.mark.parametrize("given", [{"stream_bytes": 100_000}, {"stream_seconds": 0.3}], ids=["bytes", "seconds"])
async def test_streams_end_at_a_limit_and_others_on_the_connection_go_on(given: dict[str, float]) -> None:
    async with grpc_echo() as to, Proxy(Options(to, **given)) as proxy:  # type: ignore[arg-type]
        async with grpc.aio.insecure_channel(proxy.address) as channel:
            echo: Any = channel.stream_stream("/test/Echo")
            for _ in range(20):  # So that what is dropped exhausts the connection's window, if that is not given back.
                call = echo()
                with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
                    await talk_on(call)
                assert await call.code() is grpc.StatusCode.INTERNAL
                short = echo()
                await short.write(b"short")
                assert await short.read() == b"short"
                await short.done_writing()
                assert await short.code() is grpc.StatusCode.OK
                if "stream_seconds" in given:
                    break
        statistics = proxy.statistics()
        assert statistics["connections"] == 1
        assert statistics["faults"] == {next(iter(given)): 1 if "stream_seconds" in given else 20}


async def talk_on(call: Any) -> None:
    """Talk with the echo for ever."""
    async with asyncio.timeout(10):
        while True:
            await call.write(b"x" * 10_000)
            assert await call.read() == b"x" * 10_000


@asynccontextmanager
async def grpc_echo() -> AsyncIterator[tuple[str, int]]:
    """The address of a gRPC server that sends back what it gets."""

    async def echo(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", {"Echo": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield "127.0.0.1", port
    await server.stop(None)


def test_the_command_line_says_what_and_how_often() -> None:
    assert options(["--to", "127.0.0.1:1", "--every", "50-300", "--faults", "cut=3,reset", "--seed", "7"]) == Options(
        ("127.0.0.1", 1), (0.05, 0.3), (("cut", 3.0), ("reset", 1.0)), 7
    )
    limits = ["--stream-bytes", "1000", "--stream-seconds", "0.5"]
    assert options(["--to", "127.0.0.1:1", *limits]) == Options(
        ("127.0.0.1", 1), stream_bytes=1_000.0, stream_seconds=0.5
    )
    with pytest.raises(SystemExit):
        options(["--to", "127.0.0.1:1", "--faults", "earthquake"])


def test_it_obeys_orders_and_ends_with_its_statistics() -> None:
    with Processes(seed=5) as processes:
        proxy, _ = processes.proxy("127.0.0.1:1")
        for fault in FAULTS:
            assert proxy.order(fault) == f"{fault} 0"
        assert proxy.statistics()["connections"] == 0
        proxy.signal(signal.SIGTERM)
        assert json.loads(proxy.line()) == {"seed": 5, "connections": 0, "refused": 0, "bytes": 0, "faults": {}}
        assert proxy.wait() == 0
