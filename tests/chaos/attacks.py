"""What one client may do to a daemon that others use too.

Each attack is a process of its own:

    python -m tests.chaos.attacks dimensions 127.0.0.1:50051

It prints one line that says how the daemon answered.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any

import grpc

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.message_service_pb2_grpc import MessageServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from tests.chaos import overload

__all__ = ["ATTACKS", "KERNELS"]

KERNELS = ("square", "echo", "blob", "points", "integers", "texts", "table", "array")
"""The kernels that must be launched, of `tests.chaos.attack_kernels`."""
TIMEOUT = 100.0
MIB = 1 << 20
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
ATTACKS: dict[str, Callable[[str], str]] = {}
"""The attacks by name. Each takes the address of a daemon, and returns how it was answered."""


def attack(function: Callable[[str], str]) -> Callable[[str], str]:
    """Add an attack to `ATTACKS`."""
    ATTACKS[function.__name__] = function
    return function


def ask(kernel_id: str, type_name: str, body: bytes) -> pb.AskRequest:
    """A request of `Ask` with a message of `tests.chaos.attack_kernels`."""
    return overload.ask(kernel_id, f"attack_kernels.v1.{type_name}", body)


def outcome(call: Callable[[], Any]) -> str:
    """How a call has ended: `OK`, or its status and the beginning of its text."""
    try:
        call()
    except grpc.RpcError as error:
        return status_of(error)
    return "OK"


def status_of(error: Any) -> str:
    """The status of a failed call, and the beginning of its text."""
    return f"{error.code().name}: {(error.details() or '')[:100]}"


def ask_once(address: str, request: pb.AskRequest) -> str:
    """Ask, and return how it went and how long the request was."""
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        stub: Any = MessageServiceStub(channel)
        return f"{request.ByteSize():,} bytes: {outcome(lambda: stub.Ask(request, timeout=TIMEOUT))}"


# -- work --------------------------------------------------------------------------------------------------------------


@attack
def dimensions(address: str) -> str:
    """An array of 20,000 dimensions."""
    return ask_once(address, ask("array", "Array", overload.array_of_dimensions()))


@attack
def empty_messages(address: str) -> str:
    """A list of four million messages, of two bytes each."""
    return ask_once(address, ask("points", "Points", overload.messages()))


@attack
def small_numbers(address: str) -> str:
    """A list of four million numbers, of two bytes each."""
    return ask_once(address, ask("integers", "Integers", overload.integers(4 << 20)))


@attack
def empty_texts(address: str) -> str:
    """A list of four million texts, of two bytes each."""
    return ask_once(address, ask("texts", "Texts", overload.texts(4 << 20)))


@attack
def map_entries(address: str) -> str:
    """A map of a million entries."""
    return ask_once(address, ask("table", "Table", overload.map_entries()))


@attack
def too_long_requests(address: str) -> str:
    """Sixteen clients that each ask with 60 MiB at once."""
    return _ask_at_once(address, 60 * MIB - 100)


@attack
def long_requests(address: str) -> str:
    """Sixteen clients that each ask with 8 MiB at once."""
    return _ask_at_once(address, 8 * MIB - 100)


def _ask_at_once(address: str, size: int) -> str:
    request = ask("echo", "Blob", overload.bytes_of(size))

    def one(_: int) -> str:
        with grpc.insecure_channel(address, options=UNLIMITED) as channel:
            stub: Any = MessageServiceStub(channel)
            return outcome(lambda: stub.Ask(request, timeout=TIMEOUT))

    with ThreadPoolExecutor(16) as threads:
        return str(dict(Counter(threads.map(one, range(16)))))


@attack
def long_controls(address: str) -> str:
    """Control calls of 6 MiB."""
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        messages: Any = MessageServiceStub(channel)
        kernels: Any = KernelServiceStub(channel)
        telemetry: Any = TelemetryServiceStub(channel)
        ids = ["x" * 10] * (MIB // 2)
        acknowledge = pb.AcknowledgeRequest(kernel_id="square", delivery_ids=ids)
        launch = kernel_pb.LaunchRequest(kernel_id="x" * 6 * MIB, kernel_type="square")
        get = telemetry_pb.GetTelemetryRequest(kernel_ids=ids)
        ends = [
            outcome(lambda: messages.Acknowledge(acknowledge, timeout=TIMEOUT)),
            outcome(lambda: kernels.Launch(launch, timeout=TIMEOUT)),
            outcome(lambda: telemetry.GetTelemetry(get, timeout=TIMEOUT)),
        ]
        return "; ".join(ends)


# -- memory ------------------------------------------------------------------------------------------------------------


@attack
def long_sends(address: str) -> str:
    """160 messages of 8 MiB to a paused kernel."""
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        kernels: Any = KernelServiceStub(channel)
        messages: Any = MessageServiceStub(channel)
        kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id="echo"))
        request = pb.SendRequest(kernel_id="echo")
        request.message.body.type_url = "type.googleapis.com/attack_kernels.v1.Blob"
        request.message.body.value = overload.bytes_of(8 * MIB - 100)
        ends = Counter(outcome(lambda: messages.Send(request, timeout=0.1)) for _ in range(160))
    return "; ".join(f"{count} times {end}" for end, count in ends.items())


@attack
def no_acknowledgements(address: str) -> str:
    """A session that sends 1,500 messages of 1 MiB to an echo, and acknowledges none of the replies."""
    seen: Counter[str] = Counter()

    def frames() -> Iterator[pb.ExchangeRequest]:
        first = pb.ExchangeRequest()
        first.open.kernel_id = "echo"
        first.open.credit.messages, first.open.credit.bytes = 1 << 40, 1 << 50
        yield first
        begin = monotonic()
        for number in range(1, 1_501):
            while credit[0] < number and monotonic() < begin + 40:
                sleep(0.01)
            if credit[0] < number:
                return
            frame = pb.ExchangeRequest()
            frame.batch.first_sequence = number
            frame.batch.message_ids = os.urandom(16)
            frame.batch.bodies.append(overload.bytes_of(MIB))
            yield frame
        sleep(5)

    credit = [0]
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        stub: Any = MessageServiceStub(channel)
        try:
            for answer in stub.Exchange(frames(), timeout=60.0):
                kind = answer.WhichOneof("frame") or "accepted"
                seen[kind] += len(answer.batch.bodies) if kind == "batch" else 1
                told = answer.opened.credit if kind == "opened" else answer.accepted.credit
                # Credit in bytes counts too: what a client may not send, it must not.
                credit[0] = max(credit[0], min(told.messages, told.bytes // (MIB + 100)))
        except grpc.RpcError as error:
            seen[status_of(error)] += 1
    return str(dict(seen))


@attack
def long_replies(address: str) -> str:
    """Sixteen sessions that each ask for 100 replies of 1 MiB with short requests, and receive none."""

    async def run() -> str:
        async with grpc.aio.insecure_channel(address, options=UNLIMITED) as channel:
            stub: Any = MessageServiceStub(channel)
            calls = []
            for _ in range(16):
                call = stub.Exchange()
                first, frame = pb.ExchangeRequest(), pb.ExchangeRequest()
                first.open.kernel_id = "blob"
                first.open.credit.messages, first.open.credit.bytes = 1 << 40, 1
                frame.batch.first_sequence = 1
                frame.batch.message_ids = os.urandom(16 * 100)
                frame.batch.bodies.extend([b"\x09" + struct.pack("<d", MIB)] * 100)
                await call.write(first)
                await call.read()
                await call.write(frame)
                calls.append(call)
            await asyncio.sleep(8.0)
            telemetry: Any = TelemetryServiceStub(channel)
            seen = await telemetry.GetTelemetry(telemetry_pb.GetTelemetryRequest(kernel_ids=["blob"]))
            for call in calls:
                call.cancel()
            return f"waited in send for {seen.kernels[0].stuck_in_send_seconds:.1f} s"

    return asyncio.run(run())


@attack
def idle_sessions(address: str) -> str:
    """8,000 sessions on one connection, in which nothing is said."""

    async def run() -> str:
        ends: Counter[str] = Counter()
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = MessageServiceStub(channel)
            calls = []
            for _ in range(8_000):
                call = stub.Exchange(timeout=60.0)
                first = pb.ExchangeRequest()
                first.open.kernel_id = "square"
                calls.append(call)
                try:
                    await call.write(first)
                    answer = await asyncio.wait_for(call.read(), 10.0)
                    ends["opened" if isinstance(answer, pb.ExchangeResponse) else (await call.code()).name] += 1
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
                    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
                    ends[code.name if code else type(error).__name__] += 1
                    if isinstance(error, TimeoutError):
                        break
            for call in calls:
                call.cancel()
        return str(dict(ends))

    return asyncio.run(run())


# -- counts ------------------------------------------------------------------------------------------------------------


async def _many(count: int, at_once: int, call: Callable[[int], Awaitable[Any]]) -> Counter[str]:
    """Make so many calls, and count how they end."""
    ends: Counter[str] = Counter()
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            try:
                await call(number)
                ends["OK"] += 1
            except grpc.aio.AioRpcError as error:
                ends[error.code().name] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return ends


@attack
def many_kernels(address: str) -> str:
    """20,000 kernels, a watcher of all of them every 10 ms, and the end of 2,000."""

    async def run() -> str:
        async with grpc.aio.insecure_channel(address, options=UNLIMITED) as channel:
            kernels: Any = KernelServiceStub(channel)
            telemetry: Any = TelemetryServiceStub(channel)
            begin = monotonic()
            launched = await _many(
                20_000, 32, lambda n: kernels.Launch(kernel_pb.LaunchRequest(kernel_id=f"k{n}", kernel_type="square"))
            )
            launching = monotonic() - begin
            request = telemetry_pb.WatchTelemetryRequest()
            request.interval.FromMilliseconds(10)
            snapshots = 0

            async def watch() -> None:
                nonlocal snapshots
                async for _ in telemetry.WatchTelemetry(request):
                    snapshots += 1

            try:
                await asyncio.wait_for(watch(), 6.0)
            except (TimeoutError, grpc.aio.AioRpcError):
                snapshots += 0
            begin = monotonic()
            ended = await _many(2_000, 32, lambda n: kernels.Terminate(kernel_pb.TerminateRequest(kernel_id=f"k{n}")))
            ending = monotonic() - begin
            return (
                f"launched {dict(launched)} in {launching:.1f} s; {snapshots} snapshots in 6 s; "
                f"terminated {dict(ended)} in {ending:.1f} s"
            )

    return asyncio.run(run())


@attack
def many_watchers(address: str) -> str:
    """1,000 watchers of telemetry, every 10 ms."""

    async def run() -> str:
        ends: Counter[str] = Counter()
        snapshots = 0
        async with grpc.aio.insecure_channel(address) as channel:
            telemetry: Any = TelemetryServiceStub(channel)
            request = telemetry_pb.WatchTelemetryRequest()
            request.interval.FromMilliseconds(10)

            async def watch() -> None:
                nonlocal snapshots
                try:
                    async for _ in telemetry.WatchTelemetry(request, timeout=6.0):
                        snapshots += 1
                except grpc.aio.AioRpcError as error:
                    ends[error.code().name] += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(1_000):
                    group.create_task(watch())
        return f"{dict(ends)}, {snapshots} snapshots in 6 s"

    return asyncio.run(run())


@attack
def many_client_ids(address: str) -> str:
    """1,001 client ids that ask for replies, while a client has not received its own yet."""

    async def run() -> str:
        async with (
            grpc.aio.insecure_channel(address) as victims,
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel,
        ):
            victim: Any = MessageServiceStub(victims)
            stub: Any = MessageServiceStub(channel)
            request = pb.SendRequest(kernel_id="square", client_id="victim")
            request.message.body.type_url = "type.googleapis.com/attack_kernels.v1.Number"
            request.message.body.value = b"\x09" + bytes(8)
            await victim.Send(request)
            # The kernel answers in order: after this, the reply to what was sent waits to be received.
            await victim.Ask(ask("square", "Number", b"\x09" + bytes(8)))

            def receive(by: Any, client_id: str, milliseconds: int) -> Awaitable[Any]:
                call = pb.ReceiveRequest(kernel_id="square", client_id=client_id)
                call.timeout.FromMilliseconds(milliseconds)
                answer: Awaitable[Any] = by.Receive(call)
                return answer

            ends = await _many(1_001, 50, lambda n: receive(stub, f"other-{n}", 1))
            mine = await _many(1, 1, lambda _: receive(victim, "victim", 1_000))
            return f"{dict(ends)}; the victim's reply: {dict(mine)}"

    return asyncio.run(run())


if __name__ == "__main__":
    print(ATTACKS[sys.argv[1]](sys.argv[2]), flush=True)
