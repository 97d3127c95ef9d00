"""The load that ghz makes, a program in Go: on the calculator's own service, and, called the same way, on the raw echo.

What it tells is what a client in another language can get from the daemon, and that the figures of this project's own
client are no artefact of it.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon import DAEMON
from google.protobuf import descriptor_pb2
from measure import Metrics, main, serving
from programs import output_of
from raw_echo import DECLARATION, ECHO, SERVICE

CALLS_AT_ONCE = 64
STREAMS_AT_ONCE = 4
MESSAGES_A_STREAM = 1000
CALCULATOR = "calculator_kernel.v1.Calculator"
REQUEST = {"a": 1.0, "b": 1.0, "operation": "add"}
ECHOED = {"message_id": "AAAAAAAAAAAAAAAAAAAAAA==", **REQUEST}


def ghz() -> str:
    """The program. RuntimeError without it."""
    installed = Path(__file__).resolve().parents[1] / ".tools" / "bin" / "ghz"
    found = str(installed) if installed.exists() else shutil.which("ghz")
    if found is None:
        raise RuntimeError("ghz is not installed; .ci/install-tools installs it")
    return found


async def load(
    address: str, method: str, data: object, options: Sequence[str], seconds: float, first: int
) -> dict[str, Any]:
    """What ghz reports: of `first` calls, and then of as many as that speed allows in `seconds`; all must succeed."""
    # Not ghz's own --duration: with it ghz broke off once, with exit code 2, and bojand/ghz#268 is a crash at its end.
    report: dict[str, Any] = {}
    calls = first
    for _ in range(2):
        command = [ghz(), "--insecure", f"--call={method}", f"--data={json.dumps(data)}", "--format=json", *options]
        report = json.loads(await asyncio.to_thread(output_of, [*command, f"--total={calls}", address], timeout=60))
        if report["errorDistribution"]:
            raise RuntimeError(f"{method}: {report['errorDistribution']}")
        calls = max(first, int(report["rps"] * seconds))
    return report


async def unary(address: str, method: str, data: object, options: Sequence[str], seconds: float) -> Metrics:
    """Calls, 64 at once."""
    at_once = f"--concurrency={CALLS_AT_ONCE}"
    report = await load(address, method, data, [at_once, *options], seconds, first=10 * CALLS_AT_ONCE)
    percentiles = {each["percentage"]: each["latency"] / 1e3 for each in report["latencyDistribution"]}
    return {"rate": report["rps"], "p50_us": percentiles[50], "p99_us": percentiles[99]}


async def stream(address: str, method: str, data: object, options: Sequence[str], seconds: float) -> Metrics:
    """Messages, a thousand a stream, there and back counted once, four streams at once."""
    streams = [f"--concurrency={STREAMS_AT_ONCE}", f"--stream-call-count={MESSAGES_A_STREAM}"]
    report = await load(address, method, data, [*streams, *options], seconds, first=STREAMS_AT_ONCE)
    return {"rate": report["rps"] * MESSAGES_A_STREAM}


async def measure_ask(seconds: float) -> Metrics:
    """Ask of the calculator's own service."""
    with serving(DAEMON) as server:
        return await unary(server.address, f"{CALCULATOR}/Ask", REQUEST, (), seconds)


async def measure_stream(seconds: float) -> Metrics:
    """Stream of the calculator's own service."""
    with serving(DAEMON) as server:
        return await stream(server.address, f"{CALCULATOR}/Stream", REQUEST, (), seconds)


def echo_options(folder: str) -> list[str]:
    """Tells ghz of the echo's types, which its server does not."""
    file = Path(folder) / "echo.binpb"
    file.write_bytes(descriptor_pb2.FileDescriptorSet(file=[DECLARATION]).SerializeToString())
    return [f"--protoset={file}"]


async def measure_raw_unary(seconds: float) -> Metrics:
    """The same calls on the raw echo."""
    with serving(ECHO) as server, tempfile.TemporaryDirectory() as folder:
        return await unary(server.address, f"{SERVICE}/Unary", ECHOED, echo_options(folder), seconds)


async def measure_raw_stream(seconds: float) -> Metrics:
    """The same streams on the raw echo, one message a frame."""
    with serving(ECHO) as server, tempfile.TemporaryDirectory() as folder:
        return await stream(server.address, f"{SERVICE}/Stream", {"messages": [ECHOED]}, echo_options(folder), seconds)


if __name__ == "__main__":
    main(
        {
            "ask": measure_ask,
            "stream": measure_stream,
            "raw_unary": measure_raw_unary,
            "raw_stream": measure_raw_stream,
        }
    )
