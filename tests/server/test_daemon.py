"""The daemon as a process: how it is told what to do, what it says, and how it ends."""

import asyncio
import json
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pydotcompute.exceptions import ConnectionLostError
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute_client import connect
from pydotcompute_server.cli import main
from tests.contract.kernels import Job
from tests.properties import cases
from tests.server.process.processes import run, serving, started, until_exists, wired, write
from tests.stubs import KERNELS, PATIENCE, Letter, Talk, Wire, job_bytes, read_error

EXAMPLES = Path(__file__).parents[2] / "examples"
CALCULATOR = str(EXAMPLES / "calculator.py")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

TALKATIVE = """
import logging, sys
from pydotcompute import message, ring_kernel

print("loading", __name__)

@message
class Line:
    text: str = ""

@ring_kernel(kernel_id="talkative", input_type=Line, output_type=Line)
async def talkative(ctx):
    async for line in ctx:
        print("printed", line.text)
        print("in ", end="")
        print("pieces")
        logging.getLogger("my.kernel").warning("logged %s", line.text)
        await ctx.send(Line(text="done", correlation_id=line.message_id))

@ring_kernel(kernel_id="crashing", input_type=Line, output_type=Line)
async def crashing(ctx):
    async for line in ctx:
        raise ValueError("a\\nb")
"""

STUBBORN = """
import asyncio, pathlib
from pydotcompute import message, ring_kernel

@message
class Word:
    text: str = ""

@ring_kernel(input_type=Word, output_type=Word)
async def endless(ctx):
    "Never done with its first message, and heeds nothing but its cancellation."
    word = await ctx.receive()
    pathlib.Path(word.text).touch()
    await asyncio.Event().wait()

@ring_kernel(input_type=Word, output_type=Word)
async def deaf(ctx):
    "Heeds not even that."
    word = await ctx.receive()
    pathlib.Path(word.text).touch()
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""


async def states(target: str) -> dict[str, KernelState]:
    """The kernels of the daemon at this address."""
    async with connect(target) as runtime:
        return {
            kernel_id: await runtime.fetch_kernel_state(kernel_id) for kernel_id in await runtime.fetch_kernel_ids()
        }


# -- flags and environment ---------------------------------------------------------------------------------------------


async def test_settings_come_from_the_environment_too(tmp_path: Path) -> None:
    certainly_not = write(tmp_path / "other.py", "raise AssertionError('the command line wins')")
    variables = {
        "PYDOTCOMPUTE_KERNELS": f"{CALCULATOR} {KERNELS}",
        "PYDOTCOMPUTE_LISTEN": "127.0.0.1:0",
        "PYDOTCOMPUTE_LAUNCH": "calculator square",
        "PYDOTCOMPUTE_MAX_MESSAGE_BYTES": "1234",
        "PYDOTCOMPUTE_LOG_FORMAT": "json",
        "PYDOTCOMPUTE_LOG_LEVEL": "info",
        "PYDOTCOMPUTE_GRACE": "7",
    }
    with started(**variables) as daemon:
        target = daemon.address()
        assert await states(target) == {"calculator": KernelState.ACTIVE, "square": KernelState.ACTIVE}
        async with wired(target) as wire:
            assert (await Talk(wire).open("square")).max_message_bytes == 1234
        daemon.ask_to_end()
        assert daemon.ended() == 0
        assert json.loads(daemon.log_line("draining"))["grace_seconds"] == 7.0
    variables |= {"PYDOTCOMPUTE_KERNELS": certainly_not, "PYDOTCOMPUTE_LAUNCH": "nobody"}
    with started(CALCULATOR, "--launch", "calculator", **variables) as daemon:
        assert await states(daemon.address()) == {"calculator": KernelState.ACTIVE}


async def test_kernels_are_launched_only_if_asked_for() -> None:
    with serving(str(EXAMPLES)) as (_, target):
        assert await states(target) == {}
        async with connect(target, scoped=True) as runtime:
            await runtime.launch("calculator")


async def test_launch_all_launches_and_activates_every_type() -> None:
    with serving(str(EXAMPLES), "--launch", "all") as (_, target):
        expected = ["calculator", "classify", "classify_one", "convert", "judge", "parse", "vector_add"]
        assert dict(sorted((await states(target)).items())) == dict.fromkeys(expected, KernelState.ACTIVE)


async def test_a_socket_file_is_listened_on_and_left_free(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/daemon.sock"
    for _ in range(2):
        with started(CALCULATOR, "--launch", "calculator", "--listen", listen) as daemon:
            assert daemon.address() == listen
            assert await states(listen) == {"calculator": KernelState.ACTIVE}
            second = run(CALCULATOR, "--listen", listen)
            assert second.stderr == f"pydotcompute-server: cannot listen on {listen}: Address already in use\n"
            assert await states(listen) == {"calculator": KernelState.ACTIVE}, "still its own"
            daemon.ask_to_end()
            assert daemon.ended() == 0


def test_the_first_line_is_the_address_with_the_port_chosen_and_there_is_no_second(tmp_path: Path) -> None:
    talkative = write(tmp_path / "talkative.py", TALKATIVE)
    with started(CALCULATOR, talkative, "--launch", "all", "--listen", "127.0.0.1:0") as daemon:
        line = daemon.line()
        assert line is not None
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        assert found is not None
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=PATIENCE):
            pass
        daemon.ask_to_end()
        assert daemon.line() is None
        assert daemon.ended() == 0
        assert daemon.log_line("loading talkative")


@pytest.mark.parametrize("source", cases(["shop", "shop/prices.py", "shop.prices"], quick=["shop"]))
def test_a_package_in_a_plain_checkout_is_served(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    write(tmp_path / "shop" / "__init__.py", "")
    write(tmp_path / "shop" / "words.py", TALKATIVE.partition("@ring_kernel")[0])
    kernel = TALKATIVE.partition("@ring_kernel")[2].partition("@ring_kernel")[0]
    write(
        tmp_path / "shop" / "prices.py",
        f"import logging\nfrom pydotcompute import ring_kernel\nfrom .words import Line\n@ring_kernel{kernel}",
    )
    monkeypatch.chdir(tmp_path)
    with started(source, "--launch", "talkative", "--listen", "127.0.0.1:0") as daemon:
        assert daemon.line()
        assert daemon.log_line("loading shop.words")


def test_help_names_every_setting_with_its_variable() -> None:
    shown = run("--help", COLUMNS="200")
    assert (shown.returncode, shown.stderr) == (0, "")
    for setting in (
        "LISTEN",
        "LAUNCH",
        "GRACE",
        "MAX_MESSAGE_BYTES",
        "TLS_CERTIFICATE",
        "TLS_KEY",
        "LOG_LEVEL",
        "KERNELS",
    ):
        assert f"PYDOTCOMPUTE_{setting}" in shown.stdout


# -- what cannot work: one clear line ----------------------------------------------------------------------------------


NO_ADDRESSES = {
    "127.0.0.1:99999": "; the highest port is 65535",
    "nonsense": "",
    "": "",
    "unix:": "",
    "*:0": "; 0.0.0.0 and [::] stand for all addresses of this machine",
    "::1:0": "; an IPv6 address stands in brackets, as in [::1]:50051",
    "[::1:0": "; an IPv6 address stands in brackets, as in [::1]:50051",
    "http://localhost:0": "; write localhost:0 without http://",
}
"""An address that is none, and what the refusal says more of it."""


def refused(*arguments: str) -> tuple[int, str]:
    """The exit code and the one line of a daemon that does not start."""
    ended = run(*arguments)
    assert ended.stdout == ""
    assert ended.stderr.startswith("pydotcompute-server: ")
    assert ended.stderr.endswith("\n")
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.returncode, ended.stderr.removeprefix("pydotcompute-server: ").rstrip("\n")


GOOD = TALKATIVE.replace('print("loading", __name__)', "")
FILES = {
    "raises.py": ("raise ValueError('no such\\n  thing')", "line 1: ValueError: no such thing"),
    "typo.py": ("def f(:", "line 1: SyntaxError: "),
    "empty.py": ("", "declares no ring kernel"),
}


@pytest.mark.parametrize("name", cases(FILES, quick=["typo.py"]))
def test_a_file_that_cannot_be_loaded_is_named_with_the_reason(name: str, tmp_path: Path) -> None:
    text, reason = FILES[name]
    path = write(tmp_path / name, text)
    code, line = refused(path, "--listen", "127.0.0.1:0")
    assert code == 1
    assert line.startswith(f"{path}: ")
    assert reason in line


def test_a_file_that_does_not_exist_is_named() -> None:
    assert refused("gone.py") == (1, "gone.py: no such file")


def test_a_type_that_two_files_declare_is_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, GOOD) for name in ("one.py", "two.py")]
    assert refused(*paths) == (1, f"{paths[1]}: kernel type 'talkative' is already declared in {paths[0]}")


def test_types_of_one_name_and_different_fields_are_refused(tmp_path: Path) -> None:
    package = "__proto_package__ = 'shared.v1'"
    paths = []
    for name, field in (("one", "text: str = ''"), ("two", "number: int = 0")):
        source = GOOD.replace('"talkative"', f'"talkative_{name}"').replace('"crashing"', f'"crashing_{name}"')
        source = source.replace('text: str = ""', field).replace('text="done", ', "")
        source = source.replace("class Line:", f"class Line:\n    {package}")
        paths.append(write(tmp_path / f"{name}.py", source))
    code, line = refused(*paths)
    assert code == 1
    assert "shared.v1.Line" in line


@pytest.mark.parametrize("listen", cases(NO_ADDRESSES, quick=["nonsense", "*:0"]))
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    code, line = refused(CALCULATOR, "--listen", listen)
    assert (code, line) == (1, f"cannot listen on {listen}: not HOST:PORT, nor unix:PATH{NO_ADDRESSES[listen]}")


def test_a_file_that_is_no_socket_is_refused_and_stays(tmp_path: Path) -> None:
    file = write(tmp_path / "plain", "text")
    code, line = refused(CALCULATOR, "--listen", f"unix:{file}")
    assert (code, line) == (1, f"cannot listen on unix:{file}: a file is there that is no socket")
    assert Path(file).read_text() == "text"


def test_an_address_of_another_machine_is_refused() -> None:
    code, line = refused(CALCULATOR, "--listen", "192.0.2.1:50051", "--insecure")
    assert (code, line) == (1, "cannot listen on 192.0.2.1:50051: Cannot assign requested address")


def test_a_socket_file_in_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/gone/daemon.sock"
    assert refused(CALCULATOR, "--listen", listen) == (1, f"cannot listen on {listen}: No such file or directory")


def test_a_taken_port_is_named_and_its_owner_goes_on() -> None:
    with serving(CALCULATOR, "--launch", "calculator") as (_, target):
        assert refused(CALCULATOR, "--listen", target) == (1, f"cannot listen on {target}: Address already in use")
        assert asyncio.run(states(target)) == {"calculator": KernelState.ACTIVE}


def test_a_kernel_type_to_launch_that_nobody_declares_is_refused_with_those_declared() -> None:
    expected = "--launch nobody: no such kernel type; declared are calculator"
    assert refused(CALCULATOR, "--launch", "nobody") == (1, expected)


def test_shared_memory_that_is_of_no_use_is_wrong_usage() -> None:
    code, line = refused(CALCULATOR, "--shared-memory-bytes", "1000")
    assert (code, line) == (2, "--shared-memory-bytes 1000: at least 1048576 are of use")


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")
def test_it_may_open_as_many_files_as_the_system_allows(start_daemon: Callable[..., Any]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        daemon = start_daemon(CALCULATOR)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    assert re.search(rf"Max open files +{hard} +{hard}", limits)
    daemon.stop()


@pytest.mark.parametrize("size", cases([1 << 60, 1 << 70], quick=[1 << 60]))
def test_memory_that_there_is_not_cannot_be_shared(size: int) -> None:
    code, line = refused(CALCULATOR, "--listen", "127.0.0.1:0", "--shared-memory-bytes", str(size))
    assert code == 1
    assert re.fullmatch("backend 'shared memory' is unavailable: a segment of [0-9]+ bytes cannot be made .*", line)


WRONG_USAGE = {
    "an unknown flag": ([CALCULATOR, "--lisen", "x"], "--lisen"),
    "a flag without a value": ([CALCULATOR, "--listen"], "--listen"),
    "a grace that is no number": ([CALCULATOR, "--grace", "long"], "'long' is not a valid float"),
    "a negative grace": ([CALCULATOR, "--grace", "-1"], "--grace"),
    "no such limit": ([CALCULATOR, "--limit", "client_id=1"], "did you mean client_ids?"),
    "a limit that is no number": ([CALCULATOR, "--limit", "client_ids=1.5"], "'client_ids=1.5': the value is not"),
    "a limit that cannot work": ([CALCULATOR, "--limit", "client-ids=0"], "--limit client_ids=0: it is more than 0"),
    "an unknown level": ([CALCULATOR, "--log-level", "loud"], "'loud' is not one of"),
    "a limit of nothing": ([CALCULATOR, "--max-message-bytes", "0"], "--max-message-bytes"),
    "no kernels": ([], "KERNELS"),
}


@pytest.mark.parametrize("mistake", WRONG_USAGE)
def test_wrong_usage_is_one_line_and_the_exit_code_two(mistake: str) -> None:
    arguments, named = WRONG_USAGE[mistake]
    # In this process, for it ends before it does anything.
    ended = CliRunner().invoke(main, arguments, env={"PYDOTCOMPUTE_KERNELS": None})
    assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("pydotcompute-server: ")
    assert named in ended.stderr


def test_a_wrong_flag_is_one_line_of_the_process_too() -> None:
    code, line = refused(CALCULATOR, "--lisen", "x")
    assert code == 2
    assert "--lisen" in line


def test_a_variable_that_is_wrong_is_named() -> None:
    ended = run(CALCULATOR, PYDOTCOMPUTE_GRACE="long")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "PYDOTCOMPUTE_GRACE" in ended.stderr or "--grace" in ended.stderr


def test_a_kernel_that_fails_as_it_is_launched_ends_the_start_with_its_error() -> None:
    ended = run(str(KERNELS), "--launch", "stillborn", "--listen", "127.0.0.1:0")
    assert (ended.returncode, ended.stdout) == (1, "")
    last = ended.stderr.splitlines()[-1]
    why = "kernel 'stillborn' failed: LookupError: nothing to start from"
    assert last == f"pydotcompute-server: cannot launch kernel type 'stillborn': {why}"


def test_the_kernel_that_cannot_be_launched_is_named_and_no_other(tmp_path: Path) -> None:
    no_gpu = write(
        tmp_path / "no_gpu.py",
        """
        from pydotcompute import ring_kernel

        @ring_kernel(device="cuda:7")
        async def on_gpu(ctx): ...
        """.replace("\n        ", "\n"),
    )
    ended = run(CALCULATOR, no_gpu, "--launch", "calculator", "--launch", "on_gpu", "--listen", "127.0.0.1:0")
    assert (ended.returncode, ended.stdout) == (1, "")
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("pydotcompute-server: cannot launch kernel type 'on_gpu': backend 'cuda")
    assert "calculator" not in last


# -- the log -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["text", "json"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """The format, and the log of a daemon whose kernels have printed, logged and crashed."""
    talkative = write(tmp_path_factory.mktemp("log") / "talkative.py", TALKATIVE)
    with serving(talkative, "--log-format", request.param) as (daemon, target):

        async def talk() -> None:
            async with connect(target, scoped=True) as runtime:
                for kernel_id, kernel_type in (("first", "talkative"), ("second", "talkative"), ("third", "crashing")):
                    async with wired(target) as wire:
                        request = kernel_pb.LaunchRequest(kernel_id=kernel_id, kernel_type=kernel_type)
                        await wire.kernels.Launch(request)
                    await runtime.activate(kernel_id)
                    line_type = (await runtime.describe(kernel_id)).input_type
                    assert line_type is not None
                    if kernel_type == "talkative":
                        await runtime.send_and_receive(kernel_id, line_type(text=kernel_id), timeout=PATIENCE)
                    else:
                        await runtime.send(kernel_id, line_type(text=""))
                        while await runtime.fetch_kernel_state(kernel_id) is not KernelState.FAILED:
                            pass

        asyncio.run(talk())
        daemon.ask_to_end()
        assert daemon.ended() == 0
        return request.param, daemon.logged


def test_what_a_kernel_prints_and_logs_carries_its_id(log: tuple[str, list[str]]) -> None:
    log_format, lines = log
    for kernel_id in ("first", "second"):
        for text, level in ((f"printed {kernel_id}", "info"), (f"logged {kernel_id}", "warning")):
            (line,) = [line for line in lines if text in line]
            if log_format == "json":
                event = json.loads(line)
                assert (event["event"], event["kernel_id"], event["level"]) == (text, kernel_id, level)
                assert event["timestamp"]
            else:
                assert f"kernel_id={kernel_id}" in line
                assert level in line


def test_what_a_kernel_prints_in_pieces_is_one_line(log: tuple[str, list[str]]) -> None:
    assert len([line for line in log[1] if "in pieces" in line]) == 2


def test_a_crash_is_logged_with_the_kernel_and_the_place(log: tuple[str, list[str]]) -> None:
    log_format, lines = log
    if log_format == "json":
        events = [json.loads(line) for line in lines]
        (crash,) = [event for event in events if event["event"] == "the actor failed"]
        assert (crash["kernel_id"], crash["level"]) == ("third", "error")
        assert "ValueError: a\nb" in crash["exception"]
    else:
        (at,) = [number for number, line in enumerate(lines) if "the actor failed" in line]
        assert "kernel_id=third" in lines[at]
        assert lines[at + 1] == "    Traceback (most recent call last):\n"


@pytest.mark.parametrize("log", ["json"], indirect=True, scope="module")
def test_every_line_of_a_json_log_is_an_event_with_its_time_and_level(log: tuple[str, list[str]]) -> None:
    for line in log[1]:
        assert {"event", "timestamp", "level", "logger"} <= json.loads(line).keys()


def test_changes_of_state_are_logged(log: tuple[str, list[str]]) -> None:
    told = [line for line in log[1] if "second" in line]
    for state in ("LAUNCHED", "ACTIVE", "TERMINATED"):
        assert any(state in line for line in told), state


def test_what_is_below_the_level_is_not_logged() -> None:
    with serving(CALCULATOR, "--launch", "all", "--log-level", "warning") as (daemon, _):
        daemon.ask_to_end()
        assert daemon.ended() == 0
        assert daemon.logged == []


# -- health ------------------------------------------------------------------------------------------------------------


async def test_the_daemon_and_its_kernels_serve_until_the_daemon_drains() -> None:
    with serving(CALCULATOR, "--launch", "calculator") as (daemon, target):
        async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(PATIENCE):
            health: Any = health_pb2_grpc.HealthStub(channel)
            watches = []
            for service in ("", "calculator"):
                request = health_pb2.HealthCheckRequest(service=service)
                watches.append(health.Watch(request))
                while (await watches[-1].read()).status != SERVING:
                    pass
                assert (await health.Check(request)).status == SERVING
            daemon.ask_to_end()
            for watch in watches:
                assert (await watch.read()).status == NOT_SERVING
                watch.cancel()
        assert await asyncio.to_thread(daemon.ended) == 0


async def test_a_watch_of_a_kernel_that_is_not_launched_yet_sees_it_come() -> None:
    with serving(CALCULATOR) as (_, target):
        async with wired(target) as wire, asyncio.timeout(PATIENCE):
            health: Any = health_pb2_grpc.HealthStub(wire.channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="calculator"))
            assert (await watch.read()).status == SERVICE_UNKNOWN
            await wire.kernels.Launch(kernel_pb.LaunchRequest(kernel_id="calculator"))
            await wire.kernels.Activate(kernel_pb.ActivateRequest(kernel_id="calculator"))
            seen = [NOT_SERVING]
            while seen[-1] != SERVING:
                seen.append((await watch.read()).status)
            watch.cancel()


# -- the end -----------------------------------------------------------------------------------------------------------

NO_HURRY = ("--grace", "3600")
"""Of a daemon that has nothing to wait for: it ends long before, or the test fails."""


@pytest.mark.parametrize(
    "number", cases([signal.SIGTERM, signal.SIGINT], quick=[signal.SIGTERM]), ids=lambda each: each.name
)
def test_a_signal_drains_and_the_exit_code_is_zero(number: signal.Signals) -> None:
    with serving(CALCULATOR, "--launch", "calculator", *NO_HURRY) as (daemon, target):
        daemon.ask_to_end(number)
        assert daemon.ended() == 0
        order = [daemon.logged.index(daemon.log_line(text)) for text in ("draining", "TERMINATED", "stopped   ")]
        assert order == sorted(order)
        assert daemon.log_line("[calculator] Calculator stopped"), "the actor came to its own end"
        host, _, port = target.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=PATIENCE)


@asynccontextmanager
async def paused(wire: Wire, kernel_id: str, messages: int) -> AsyncIterator[None]:
    """Hold a kernel until it has so many messages before it, all of which the block has sent."""
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    yield
    await wire.until(kernel_id, queue_depth=messages)
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))


async def test_a_request_in_progress_gets_its_reply_and_what_waits_behind_it_too() -> None:
    with serving(str(KERNELS), "--launch", "sleeper", *NO_HURRY) as (daemon, target):
        async with connect(target) as runtime, wired(target) as wire:
            async with paused(wire, "sleeper", messages=12):
                numbers = [300, *range(10)]
                asking = [asyncio.create_task(runtime.send_and_receive("sleeper", Job(n))) for n in numbers]
                unary = asyncio.ensure_future(wire.ask("sleeper", number=11))
            daemon.ask_to_end()
            assert [reply.number for reply in await asyncio.gather(*asking)] == [n**2 for n in numbers]
            assert (await unary)["number"] == "121"
            assert await asyncio.to_thread(daemon.ended) == 0
            with pytest.raises(ConnectionLostError):
                await runtime.send_and_receive("sleeper", Job(1), timeout=PATIENCE)


async def test_clients_that_are_connected_and_idle_delay_nothing() -> None:
    with serving(str(KERNELS), "--launch", "square", *NO_HURRY) as (daemon, target):
        async with wired(target) as wire, connect(target) as runtime, connect(target) as waiting:
            for client in (runtime, waiting):
                await client.send_and_receive("square", Job(1))
            raw = Talk(wire)
            await raw.open("square")
            watch: Any = wire.telemetry.WatchTelemetry(telemetry_pb.WatchTelemetryRequest())
            await watch.read()
            health: Any = health_pb2_grpc.HealthStub(wire.channel)
            alive = health.Watch(health_pb2.HealthCheckRequest())
            await alive.read()
            receiving = asyncio.create_task(waiting.receive("square"))
            unary = asyncio.ensure_future(wire.messages.Receive(pb.ReceiveRequest(kernel_id="square")))
            await wire.counters("square")
            daemon.ask_to_end()
            assert await asyncio.to_thread(daemon.ended) == 0
            with pytest.raises(ConnectionLostError):
                await receiving
            with pytest.raises(grpc.aio.AioRpcError) as unanswered:
                await unary
            assert unanswered.value.code() is grpc.StatusCode.UNAVAILABLE
            for call in (watch, alive, raw.call):
                call.cancel()


async def test_a_conversation_is_ended_in_good_order_also_if_there_are_outputs_that_nobody_wants() -> None:
    with serving(str(KERNELS), "--launch", "emitter") as (daemon, target):
        async with wired(target) as wire:
            raw = Talk(wire)
            await raw.open("emitter")
            await raw.send(Letter(job_bytes(3)))
            await raw.until_accepted(1)
            await wire.until("emitter", messages_processed=1)
            daemon.ask_to_end()
            bye = await raw.hear("bye", besides=("closed",))
            assert (bye.status.code, bye.status.message) == (code_pb2.UNAVAILABLE, "the daemon is shutting down")
            await raw.say(bye=pb.Bye())
            assert await raw.ended() is grpc.StatusCode.OK
        assert await asyncio.to_thread(daemon.ended) == 0


@pytest.mark.parametrize("kernel_type", ["endless", "deaf"])
async def test_the_grace_period_is_all_that_a_kernel_gets(kernel_type: str, tmp_path: Path) -> None:
    stubborn = write(tmp_path / "stubborn.py", STUBBORN)
    with serving(stubborn, "--launch", kernel_type, "--grace", "1") as (daemon, target):
        async with wired(target) as wire:
            asking = asyncio.ensure_future(wire.ask(kernel_type, text=str(tmp_path / "begun")))
            async with asyncio.timeout(PATIENCE):
                while not (tmp_path / "begun").exists():
                    await wire.counters(kernel_type)
            asked = time.monotonic()
            daemon.ask_to_end()
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await asking
            # Nobody knows what has become of what the actor had taken, so a client must not just try again.
            failure = read_error(told.value)
            assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_LOST")
            assert failure.detail["problem"] == "the daemon is shutting down, and the actor had not answered yet"
            assert len(failure.detail["message_ids"]) == 1
            assert await asyncio.to_thread(daemon.ended) == 0
            assert time.monotonic() - asked > 0.5, "most of it is the kernel's"
            assert f"kernel_id={kernel_type}" in daemon.log_line("cancelled")


async def test_a_client_that_does_not_read_delays_the_end_no_longer_than_the_grace_period() -> None:
    with serving(str(KERNELS), "--launch", "echo_job", "--grace", "1") as (daemon, target):
        async with wired(target) as wire:
            raw = Talk(wire)
            await raw.open("echo_job", credit=4_000)
            body = job_bytes() + b"\x1a\xa0\x8d\x06" + b"x" * 100_000
            await raw.send(*[Letter(body) for _ in range(100)])  # More than the connection holds.
            await wire.until("echo_job", messages_processed=100)
            daemon.ask_to_end()
            assert await asyncio.to_thread(daemon.ended) == 0  # It would read no sooner in an hour.
            raw.call.cancel()


async def test_a_second_sigterm_changes_nothing() -> None:
    with serving(str(KERNELS), "--launch", "sleeper") as (daemon, target):
        async with connect(target) as runtime, wired(target) as wire:
            async with paused(wire, "sleeper", messages=2):
                asking = [asyncio.create_task(runtime.send_and_receive("sleeper", Job(n))) for n in (400, 0)]
            for _ in range(3):
                daemon.ask_to_end()
            assert [(await reply).number for reply in asking] == [160_000, 0]
        assert await asyncio.to_thread(daemon.ended) == 0


@pytest.mark.parametrize(
    "number", cases([signal.SIGTERM, signal.SIGINT], quick=[signal.SIGTERM]), ids=lambda each: each.name
)
def test_a_signal_while_a_file_is_loaded_ends_the_daemon_at_once(number: signal.Signals, tmp_path: Path) -> None:
    slow = f"import pathlib, threading\npathlib.Path({str(tmp_path / 'loading')!r}).touch()\nthreading.Event().wait()\n"
    with started(write(tmp_path / "slow.py", slow)) as daemon:
        until_exists(tmp_path / "loading")
        daemon.ask_to_end(number)
        assert daemon.ended() == 0
        assert daemon.line() is None
        assert daemon.logged == []


def test_a_signal_while_kernels_are_launched_ends_the_daemon_in_good_order(tmp_path: Path) -> None:
    slow = GOOD + (
        "\nimport pathlib, time\n"
        "@ring_kernel(kernel_id='slow', input_type=Line)\n"
        "async def slow(ctx):\n"
        f"    pathlib.Path({str(tmp_path / 'launching')!r}).touch()\n"
        "    time.sleep(0.5)\n"
        "    async for line in ctx:\n"
        "        pass\n"
        "@ring_kernel(kernel_id='zombie', input_type=Line)\n"
        "async def zombie(ctx):\n"
        "    raise AssertionError('launched after the daemon was told to end')\n"
    )
    with started(write(tmp_path / "slow.py", slow), "--launch", "slow", "--launch", "zombie") as daemon:
        until_exists(tmp_path / "launching")
        daemon.ask_to_end()
        assert daemon.ended() == 0
        assert "TERMINATED" in daemon.log_line("TERMINATED")
        assert daemon.log_line("stopped   ")
        assert not any("zombie" in line for line in daemon.logged)
