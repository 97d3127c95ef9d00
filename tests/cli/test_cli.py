"""The command `pydotcompute`, against a daemon."""

import importlib.util
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from click.testing import CliRunner, Result

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute_client.cli import kernels as cli_kernels
from pydotcompute_client.cli import reflection as cli_reflection
from pydotcompute_client.cli import tables
from pydotcompute_client.cli.main import main
from tests.tools import tool

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = os.path.join(sysconfig.get_path("scripts"), "pydotcompute")
WAIT = 20.0

KERNELS = '''
import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID
import numpy as np
from pydotcompute import message, ring_kernel

@message
@dataclass
class Note:
    text: str
    count: int = 0
    tags: list[str] | None = None

@ring_kernel(kernel_id="crasher", input_type=Note, output_type=Note)
async def crasher(ctx):
    async for note in ctx:
        raise ValueError("no such word\\nsee the dictionary")

@ring_kernel(kernel_id="silent", input_type=Note, output_type=Note, backpressure="reject", queue_size=7)
async def silent(ctx):
    """Takes notes, and keeps them."""
    async for note in ctx:
        pass

@ring_kernel(kernel_id="repeater", input_type=Note, output_type=Note)
async def repeater(ctx):
    async for note in ctx:
        for index in range(note.count):
            await ctx.send(Note(text=note.text, count=index))

@dataclass
class Inner:
    since: datetime

@message
class Kept:
    id: UUID
    inner: Inner
    big: int = field(default=0, metadata={"doc": "More than a double holds."})
    scale: float = 1.0

@ring_kernel(kernel_id="keeper", input_type=Kept, output_type=Kept)
async def keeper(ctx):
    async for kept in ctx:
        await ctx.send(kept)

class Unit(enum.Enum):
    METRE = 1
    INCH = 2

@dataclass
class Circle:
    radius: float

@dataclass
class Square:
    side: float

@message
class Mixed:
    text: str
    zero: int
    whole: float
    half: float
    large: float
    huge: float
    odd: float
    unset: str
    flag: bool
    raw: bytes
    unit: Unit
    when: datetime
    takes: timedelta
    id: UUID
    array: np.ndarray
    numbers: dict[int, float]
    flags: dict[bool, str]
    labels: dict[str, int]
    shapes: list[Circle | Square]
    grid: list[list[int]]
    pair: tuple[float, float]
    maybe: list[str] | None
    none: int | None = None
    scale: float = 1.0

@ring_kernel(kernel_id="mixer", input_type=Mixed, output_type=Mixed)
async def mixer(ctx):
    async for mixed in ctx:
        await ctx.send(mixed)

@message
class Secret:
    text: str

@ring_kernel(kernel_id="vague", input_type=Note)
async def vague(ctx):
    since = datetime.fromisoformat("2000-01-01T00:00:00Z")
    async for note in ctx:
        if note.text == "secret":
            await ctx.send(Secret("x", correlation_id=note.message_id))
        else:
            await ctx.send(Kept(UUID(int=note.count), Inner(since), correlation_id=note.message_id))

@ring_kernel(kernel_id="private")
async def private(ctx):
    async for note in ctx:
        pass
'''


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    kernels = tmp_path_factory.mktemp("kernels") / "cli_kernels.py"
    kernels.write_text(KERNELS)
    address: str = start_daemon(str(EXAMPLES / "calculator.py"), str(kernels), "--launch", "calculator").target
    return address


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def run(target: str) -> Callable[..., Result]:
    """Runs the command in this process."""

    def run(*arguments: str, stdin: str | bytes = "", env: Mapping[str, str | None] | None = None) -> Result:
        env = {"PYDOTCOMPUTE_TARGET": target, **(env or {})}
        return CliRunner().invoke(main, arguments, input=stdin, env=env, prog_name="pydotcompute")

    return run


@pytest.fixture
def ok(run: Callable[..., Result]) -> Callable[..., str]:
    """Runs a command that succeeds and says nothing on stderr; gives its stdout."""

    def ok(*arguments: str, stdin: str = "", env: Mapping[str, str | None] | None = None) -> str:
        result = run(*arguments, stdin=stdin, env=env)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    return ok


@pytest.fixture
def fail(run: Callable[..., Result]) -> Callable[..., str]:
    """Runs a command that ends with an exit code and one line on stderr, and one more for each thing that is wrong with
    a body; gives them."""

    def fail(exit_code: int, *arguments: str, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> str:
        result = run(*arguments, stdin=stdin, env=env)
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert result.stderr.startswith("error: ")
        line, *violations = result.stderr.splitlines()
        assert all(violation.startswith("  $") for violation in violations)
        assert "the body is no " in line or not violations
        return result.stderr

    return fail


@pytest.fixture
def launched(ok: Callable[..., str]) -> Iterator[Callable[..., str]]:
    """Launches and activates a kernel of a type under an id of its own."""
    kernel_ids = []

    def launch(kernel_type: str, *options: str) -> str:
        kernel_id = f"{kernel_type}-{uuid4().hex[:8]}"
        ok("launch", kernel_id, "--type", kernel_type, "--activate", *options)
        kernel_ids.append(kernel_id)
        return kernel_id

    yield launch
    for kernel_id in kernel_ids:
        ok("terminate", kernel_id)


@contextmanager
def start(target: str, *arguments: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the command as a process, to the end of the block at most."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    command = [COMMAND, *arguments]
    with subprocess.Popen(command, env={**os.environ, "PYDOTCOMPUTE_TARGET": target}, **settings) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module", autouse=True)
def interruptible() -> Iterator[None]:
    """Processes inherit that SIGINT is ignored, as it is where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# -- messages ----------------------------------------------------------------------------------------------------------


def test_the_installed_command_asks_the_calculator(target: str) -> None:
    with start(target, "ask", "calculator", '{"a":10,"b":5}') as process:
        stdout, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stderr) == (0, b"")
    assert json.loads(stdout) == {"result": 15.0, "success": True}


def test_a_body_comes_from_stdin_or_from_a_file(ok: Callable[..., str], tmp_path: Path) -> None:
    body = '{"a": 6, "b": 7, "operation": "mul"}'
    (tmp_path / "body.json").write_text(body)
    assert json.loads(ok("ask", "calculator", "-", stdin=body))["result"] == 42.0
    assert json.loads(ok("ask", "calculator", f"@{tmp_path / 'body.json'}"))["result"] == 42.0


def test_ask_prints_the_whole_message_as_json(ok: Callable[..., str]) -> None:
    message = json.loads(ok("ask", "calculator", '{"a": 1, "b": 0, "operation": "div"}', "--json"))["message"]
    assert UUID(message["message_id"]) != UUID(message["correlation_id"])
    assert message["priority"] == 128
    assert message["body"] == {
        "@type": "type.googleapis.com/calculator.v1.CalculationResponse",
        "result": 0.0,
        "success": False,
        "error": "Division by zero",
    }


def test_a_body_may_state_its_type_as_printed_messages_do(ok: Callable[..., str], fail: Callable[..., str]) -> None:
    body = {"@type": "type.googleapis.com/calculator.v1.CalculationRequest", "a": 2}
    assert json.loads(ok("ask", "calculator", json.dumps(body)))["result"] == 2.0
    body["@type"] = "type.googleapis.com/calculator.v1.CalculationResponse"
    error = fail(2, "ask", "calculator", json.dumps(body))
    assert "is of type calculator.v1.CalculationResponse" in error
    assert "takes calculator.v1.CalculationRequest" in error


def test_what_was_sent_is_answered_to_the_same_client_id(
    ok: Callable[..., str], fail: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("calculator")
    first = ok("send", kernel, '{"a": 1}', "--client-id", "one").strip()
    second = json.loads(ok("send", kernel, '{"a": 2}', "--client-id", "two", "--json"))["message_id"]
    reply = json.loads(ok("receive", kernel, "--client-id", "two", "--json"))["message"]
    assert (reply["correlation_id"], reply["body"]["result"]) == (second, 2.0)
    reply = json.loads(ok("receive", kernel, "--client-id", "one", "--json"))["message"]
    assert (reply["correlation_id"], reply["body"]["result"]) == (first, 1.0)
    assert "timed out after 0.01 s" in fail(4, "receive", kernel, "--client-id", "one", "--timeout", "0.01")


def test_receive_takes_as_many_messages_as_it_is_told(ok: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("repeater")
    ok("send", kernel, '{"text": "again and again", "count": 3}')
    bodies = [json.loads(line) for line in ok("receive", kernel, "--count", "3").splitlines()]
    assert bodies == [{"text": "again and again", "count": str(index)} for index in range(3)]


def test_what_was_received_with_a_lease_is_acknowledged_by_its_delivery_id(
    ok: Callable[..., str], fail: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("calculator")
    for a in range(2):
        ok("send", kernel, json.dumps({"a": a}))
    delivery_id, _, body = ok("receive", kernel, "--lease", "60s").partition(" ")
    assert (UUID(delivery_id).version, json.loads(body)) == (4, {"result": 0.0, "success": True})
    received = json.loads(ok("receive", kernel, "--lease", "60", "--json"))
    assert (received["message"]["body"]["result"], received["redelivered"]) == (1.0, False)
    assert ok("acknowledge", kernel, delivery_id, received["delivery_id"]) == "2 acknowledged\n"
    assert json.loads(ok("acknowledge", kernel, delivery_id, "--json")) == {"unknown_delivery_ids": []}
    assert "or never received with a lease: 7f3a, 7f3b" in fail(1, "acknowledge", kernel, "7f3a", delivery_id, "7f3b")
    assert "at most 600 s" in fail(1, "receive", kernel, "--lease", "601")


def test_a_higher_priority_is_handled_sooner(ok: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("calculator")
    ok("deactivate", kernel)
    for a, options in enumerate([["--priority", "1"], [], ["--priority", "255"]]):
        ok("send", kernel, json.dumps({"a": a}), *options)
    ok("reactivate", kernel)
    assert [json.loads(line)["result"] for line in ok("receive", kernel, "--count", "3").splitlines()] == [2, 1, 0]


def test_without_a_body_the_fields_are_told_with_what_they_take(run: Callable[..., Result]) -> None:
    calculator = run("ask", "calculator").stderr.partition("The fields of calculator.v1.CalculationRequest:\n\n")[2]
    assert calculator.splitlines() == [
        "  a          a number",
        "  b          a number",
        "  operation  a text    One of: 'add', 'sub', 'mul', 'div'. If absent: \"add\".",
    ]
    keeper = [line.split("  ") for line in run("send", "keeper").stderr.splitlines()]
    rows = [[part.strip() for part in row if part] for row in keeper if row[0] == "" and len(row) > 1]
    assert [row for row in rows if row[0] in ("inner", "inner.since", "big")] == [
        ["inner", "an object"],
        ["inner.since", 'a time such as "2000-01-01T00:00:00Z"'],
        ["big", "an integer", "More than a double holds."],
    ]


def test_without_a_body_an_example_is_shown_that_works(run: Callable[..., Result], ok: Callable[..., str]) -> None:
    for command in ("ask", "send"):
        result = run(command, "calculator")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"Usage: pydotcompute {command} ")
        assert f"pydotcompute {command} calculator '{{" in result.stderr
    sample = result.stderr.partition("'{")[2].partition("}'")[0]
    assert json.loads(ok("ask", "calculator", "{" + sample + "}"))["success"] is True


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"text"', ["is no JSON", "line 1 column 8"]),
        (b"\xff", ["is no JSON", "byte 0xff"]),
        ("[" * 100_000, ["is no JSON", "nested too deep"]),
        (b"\xff\xfe{", ["is no JSON: it is not UTF-8: byte 0xff at 0"]),
        ('{"count": ' + "1" * 5001 + "}", ["is no JSON: an integer of 5001 characters is too long"]),
        ("[1]", ["is no cli_kernels.v1.Note", "  $: expected an object, got a list"]),
        ('{"text": 1}', ["  $.text: expected a text, got 1"]),
        (
            '{"count": "many", "tags": {"value": "red"}}',
            ["  $.count: expected an int", "  $.tags.value: expected a list"],
        ),
        ('{"count": 9223372036854775808}', ["  $.count: 9223372036854775808 is outside"]),
        ('{"txt": "x"}', ['  $.txt: no such field: did you mean "text"?; Note has "text", "count", "tags"']),
        ('{"text": "a", "text": "b"}', ["  $.text: the name is there more than once"]),
        ('{"@type": "google.protobuf.Struct", "value": {"count": ""}}', ["  $.value.count: expected an integer"]),
    ],
    ids=[
        *(
            "unfinished",
            "not UTF-8",
            "too deep",
            "UTF-16",
            "too long",
            "a list",
            "no string",
            "two things",
            "too large",
            "unknown",
            "twice",
        ),
        "a Struct",
    ],
)
def test_all_that_is_wrong_with_a_body_is_told_with_its_place(
    fail: Callable[..., str], body: str | bytes, told: list[str]
) -> None:
    for command in ("ask", "send"):
        error = fail(2, command, "silent", "-", stdin=body)
        assert [text for text in told if text not in error] == []
        assert "`pydotcompute ask silent`" in error


def test_what_only_the_daemon_knows_of_a_body_is_told_alike(
    fail: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("keeper")
    for command in ("ask", "send"):
        error = fail(2, command, kernel, '{"inner": {}, "id": "x"}')
        assert error.splitlines()[1:] == [
            '  $.id: expected a UUID such as "00000000-0000-4000-8000-000000000000", got "x"',
            "  $.inner.since: a value is required, and there is none",
        ]


def test_a_body_may_be_a_struct_as_for_grpcurl(ok: Callable[..., str]) -> None:
    body = {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": 10, "b": 5}}
    assert json.loads(ok("ask", "calculator", json.dumps(body)))["result"] == 15.0


def test_grpcurl_and_the_command_take_and_print_the_same(
    ok: Callable[..., str], launched: Callable[..., str], target: str
) -> None:
    kernel = launched("keeper")
    fields = {"id": str(UUID(int=1)), "inner": {"since": "2000-01-01T00:00:00Z"}, "big": str(2**63 - 1)}
    body = {"@type": "type.googleapis.com/cli_kernels.v1.Kept", **fields}
    data = json.dumps({"kernel_id": kernel, "message": {"body": body}})
    command = [
        tool("grpcurl"),
        "-plaintext",
        "-emit-defaults",
        "-d",
        data,
        target,
        "pydotcompute.v1.MessageService/Ask",
    ]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=WAIT).stdout)
    ours = json.loads(ok("ask", kernel, json.dumps(body), "--json"))
    assert ours["message"]["body"] == theirs["message"]["body"] == body | {"scale": 1.0}
    assert ours["message"].keys() == theirs["message"].keys()
    printed = ok("ask", kernel, json.dumps(fields))
    assert ok("ask", kernel, printed) == printed, "what is printed can be sent again"
    assert {"@type": body["@type"], **json.loads(printed)} == theirs["message"]["body"]


MIXED = {
    "text": 'tä"xt',
    "whole": 3,
    "half": 0.5,
    "large": 1e16,
    "huge": 1e30,
    "odd": "-Infinity",
    "raw": "AAE=",
    "unit": "UNIT_INCH",
    "when": "2000-01-01T00:00:00.5Z",
    "takes": "1.5s",
    "id": "00000000-0000-4000-8000-000000000000",
    "array": {"dtype": "|u1", "shape": [2], "data": "AAE="},
    "numbers": {"10": 1, "9": 2.5, "-1": 0, "2": 1e-5},
    "flags": {"true": "a", "false": ""},
    "labels": {"b": 1, "a": 0, "B": 2},
    "shapes": [{"circle": {"radius": 0}}, {"square": {"side": 2}}],
    "grid": [{"value": [1, 2]}, {}],
    "pair": [-1, 1e-7],
    "maybe": {"value": []},
}


def test_the_text_of_a_message_is_that_of_grpcurl(
    ok: Callable[..., str], launched: Callable[..., str], target: str
) -> None:
    kernel = launched("mixer")
    data = json.dumps(MIXED)
    method = "cli_kernels.v1.Mixer/Ask"
    header = f"pydotcompute-kernel-id: {kernel}"
    command = [tool("grpcurl"), "-plaintext", "-emit-defaults", "-H", header, "-d", data, target, method]
    theirs = subprocess.run(command, check=True, capture_output=True, timeout=WAIT).stdout.decode()
    ours = ok("ask", kernel, data)
    assert json.loads(ours) == json.loads(theirs)
    assert "".join(ours.split()) == "".join(theirs.split())
    assert list(json.loads(ours))[:4] == ["text", "zero", "whole", "half"], "zeros are in their place"
    assert ok("ask", kernel, ours) == ours


def test_a_message_of_a_type_that_the_kernel_does_not_declare_is_shown(
    ok: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("vague")
    expected = {"id": str(UUID(int=3)), "inner": {"since": "2000-01-01T00:00:00Z"}, "big": "0", "scale": 1}
    assert json.loads(ok("ask", kernel, '{"count": 3}')) == expected
    ok("send", kernel, '{"count": 3}', "--client-id", "me")
    received = json.loads(ok("receive", kernel, "--client-id", "me", "--json"))
    assert received["message"]["body"] == {"@type": "type.googleapis.com/cli_kernels.v1.Kept", **expected}


def test_a_message_of_a_type_that_nobody_knows_is_shown_in_base64(
    ok: Callable[..., str], launched: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As from a daemon without reflection.
    monkeypatch.setattr(cli_reflection, "ServerReflectionStub", Unserved)
    kernel = launched("vague")
    expected = {"@type": "type.googleapis.com/cli_kernels.v1.Secret", "value": "CgF4"}
    assert json.loads(ok("ask", kernel, '{"text": "secret"}')) == expected
    ok("send", kernel, '{"text": "secret"}', "--client-id", "me")
    received = json.loads(ok("receive", kernel, "--client-id", "me", "--json"))
    assert received["message"]["body"] == expected


class Unserved:
    """The stub of a service that the daemon does not have."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.ServerReflectionInfo = channel.stream_stream(
            "/no.such.Service/ServerReflectionInfo",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=bytes,
        )


def test_dead_letters_have_their_bodies_in_the_same_form(ok: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("repeater", "--input-queue-size", "1", "--backpressure", "drop_oldest")
    ok("deactivate", kernel)
    for text in ("first", "second"):
        ok("send", kernel, json.dumps({"text": text}))
    (letter,) = json.loads(ok("dead-letters", kernel, "--json"))["dead_letters"]
    body = {"text": "first", "count": "0"}
    assert letter["message"]["body"] == {"@type": "type.googleapis.com/cli_kernels.v1.Note", **body}
    assert json.dumps(body) in ok("dead-letters", kernel)
    assert ok("send", kernel, json.dumps(letter["message"]["body"]))


def test_a_file_that_is_not_there_is_named(fail: Callable[..., str]) -> None:
    assert "cannot read /no/such/body.json" in fail(2, "ask", "calculator", "@/no/such/body.json")


def test_a_kernel_without_message_types_takes_no_messages(fail: Callable[..., str], ok: Callable[..., str]) -> None:
    assert "declared without an input_type" in fail(1, "ask", "private", "{}")
    assert "INPUT         -" in ok("describe", "private")


def test_no_reply_in_time_has_its_exit_code(fail: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("silent")
    error = fail(4, "ask", kernel, '{"text": "hello"}', "--timeout", "0.05")
    assert kernel in error
    assert "timed out after 0.05 s" in error


# -- kernels -----------------------------------------------------------------------------------------------------------


def test_a_kernel_goes_through_its_states(ok: Callable[..., str], fail: Callable[..., str]) -> None:
    def state() -> str:
        rows = [line.split() for line in ok("ps").splitlines()]
        assert rows[0] == ["KERNEL", "TYPE", "STATE", "QUEUE"]
        return next((row[2] for row in rows if row[:2] == ["walker", "calculator"]), "none")

    assert ok("launch", "walker", "--type", "calculator") == "walker is LAUNCHED\n"
    assert state() == "LAUNCHED"
    assert "cannot receive" in fail(1, "receive", "walker")
    for command, reached in [("activate", "ACTIVE"), ("deactivate", "DEACTIVATED"), ("reactivate", "ACTIVE")]:
        assert ok(command, "walker") == f"walker is {reached}\n"
        assert state() == reached
    error = fail(1, "reactivate", "walker")
    assert "is ACTIVE: cannot reactivate; it needs DEACTIVATED" in error
    assert ok("terminate", "walker", "--timeout", "3") == "walker is TERMINATED\n"
    assert state() == "none"


def test_the_same_as_json(ok: Callable[..., str]) -> None:
    def state(*arguments: str) -> str:
        kernel = json.loads(ok(*arguments, "--json"))["kernel"]
        assert set(kernel) == {
            *("kernel_id", "kernel_type", "state", "queue_depth", "failure"),
            "device",
            "device_name",
        }
        assert (kernel["kernel_id"], kernel["kernel_type"]) == ("runner", "calculator")
        return str(kernel["state"])

    assert state("launch", "runner", "--type", "calculator", "--activate") == "KERNEL_STATE_ACTIVE"
    kernels = {kernel["kernel_id"]: kernel for kernel in json.loads(ok("ps", "--json"))["kernels"]}
    assert kernels["runner"]["queue_depth"] == 0
    assert state("deactivate", "runner") == "KERNEL_STATE_DEACTIVATED"
    assert state("reactivate", "runner") == "KERNEL_STATE_ACTIVE"
    assert state("terminate", "runner") == "KERNEL_STATE_TERMINATED"
    assert state("launch", "runner", "--type", "calculator") == "KERNEL_STATE_LAUNCHED"
    assert state("activate", "runner") == "KERNEL_STATE_ACTIVE"
    assert state("terminate", "runner") == "KERNEL_STATE_TERMINATED"


def test_a_kernel_is_launched_with_other_settings_than_declared(
    ok: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("calculator", "--input-queue-size", "5", "--output-queue-size", "6", "--backpressure", "reject")
    assert json.loads(ok("describe", kernel, "--json"))["kernel_type"]["config"] == {
        "input_queue_size": 5,
        "output_queue_size": 6,
        "backpressure_strategy": "BACKPRESSURE_STRATEGY_REJECT",
        "grid_size": 1,
        "block_size": 256,
    }


def test_types_are_listed_with_what_they_take(ok: Callable[..., str]) -> None:
    lines = ok("types").splitlines()
    assert lines[0].split() == [
        *("TYPE", "SERVICE", "INPUT", "OUTPUT", "QUEUE", "BACKPRESSURE", "EXECUTOR", "DEVICE", "DESCRIPTION")
    ]
    silent = next(line for line in lines if line.startswith("silent "))
    assert silent.split(maxsplit=8) == [
        *(
            "silent",
            "cli_kernels.v1.Silent",
            "cli_kernels.v1.Note",
            "cli_kernels.v1.Note",
            "7",
            "reject",
            "loop",
            "cpu",
        ),
        "Takes notes, and keeps them.",
    ]
    names = [kernel_type["name"] for kernel_type in json.loads(ok("types", "--json"))["kernel_types"]]
    assert names == ["calculator", "crasher", "keeper", "mixer", "private", "repeater", "silent", "vague"]
    private = next(line for line in lines if line.startswith("private "))
    assert private.split()[1:4] == ["-", "-", "-"]


def test_describe_tells_all_of_a_kernel(ok: Callable[..., str]) -> None:
    text = ok("describe", "calculator")
    for line in (
        *(
            "STATE         ACTIVE",
            "QUEUE         0 of 1000",
            "BACKPRESSURE  block",
            "EXECUTOR      loop",
            "DEVICE        cpu",
            "SERVICE       calculator.v1.Calculator",
            "Adds, subtracts, multiplies and divides.",
        ),
        *("message CalculationRequest {", "  double a = 1;", "  // One of: 'add', 'sub', 'mul', 'div'."),
        *("message CalculationResponse {", "  optional string error = 3;"),
        """  pydotcompute ask calculator '{"a": 0, "b": 0, "operation": "add"}'""",
    ):
        assert line in text.splitlines()
    described = json.loads(ok("describe", "calculator", "--json"))
    assert described["kernel"]["state"] == "KERNEL_STATE_ACTIVE"
    assert described["input_type"]["full_name"] == "calculator.v1.CalculationRequest"
    fields = described["input_type"]["files"]["file"][0]["message_type"][0]["field"]
    assert [(field["name"], field["type"]) for field in fields] == [
        *(("a", "TYPE_DOUBLE"), ("b", "TYPE_DOUBLE"), ("operation", "TYPE_STRING")),
    ]


def test_describe_knows_types_that_are_not_launched(ok: Callable[..., str]) -> None:
    text = ok("describe", "silent")
    assert "STATE         not launched" in text.splitlines()
    assert "QUEUE         7" in text.splitlines()
    assert "kernel" not in json.loads(ok("describe", "silent", "--json"))


GPU_KERNELS = """
import numpy as np
from pydotcompute import message, ring_kernel

@message
class Vector:
    values: np.ndarray

@ring_kernel(input_type=Vector, output_type=Vector, device="auto", memory_limit="1.5GiB")
def doubler(ctx):
    for vector in ctx:
        ctx.send(Vector(ctx.to_host(ctx.to_device(vector.values) * 2), correlation_id=vector.message_id))

@ring_kernel(input_type=Vector, output_type=Vector, device="cuda:0")
async def echo(ctx):
    async for vector in ctx:
        await ctx.send(vector)

@ring_kernel(input_type=Vector, output_type=Vector)
async def on_the_host(ctx):
    async for vector in ctx:
        await ctx.send(vector)
"""


def test_what_a_kernel_computes_on_and_where_its_actor_runs_is_told(
    start_daemon: Callable[..., Any], gpu: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "gpu_kernels.py").write_text(GPU_KERNELS)
    daemon = start_daemon(str(tmp_path / "gpu_kernels.py"), env=gpu)

    def lines(*arguments: str) -> list[str]:
        result = CliRunner().invoke(main, [*arguments, "--target", daemon.target])
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout.splitlines()

    def last(line: str) -> list[str]:
        return [cell.strip() for cell in line.split("block", 1)[1].split("  ") if cell]

    header, *types = lines("types")
    assert last(header.replace("BACKPRESSURE", "block")) == ["EXECUTOR", "DEVICE", "MEMORY LIMIT", "DESCRIPTION"]
    assert [last(line) for line in types] == [["thread", "auto", "1.5 GiB"], ["loop", "cuda:0"], ["loop", "cpu"]]
    assert "DEVICE        auto" in lines("describe", "doubler")
    for name in ("doubler", "echo", "on_the_host"):
        lines("launch", name, "--activate")
    assert [line.split() for line in lines("ps")] == [
        ["KERNEL", "TYPE", "STATE", "QUEUE", "DEVICE"],
        *([name, name, "ACTIVE", "0", device] for name, device in [("doubler", "cuda:0"), ("echo", "cuda:0")]),
        ["on_the_host", "on_the_host", "ACTIVE", "0", "cpu"],
    ]
    described = lines("describe", "doubler")
    for line in (
        "EXECUTOR      thread",
        "DEVICE        cuda:0 Fake 0 (declared: auto)",
        "MEMORY LIMIT  1.5 GiB",
    ):
        assert line in described
    assert "DEVICE        cuda:0 Fake 0" in lines("describe", "echo")
    (text,) = lines("describe", "doubler", "--json")
    kernel, kernel_type = json.loads(text)["kernel"], json.loads(text)["kernel_type"]
    assert (kernel["device"], kernel["device_name"]) == ("cuda:0", "Fake 0")
    assert (kernel_type["device"], kernel_type["memory_limit_bytes"]) == ("auto", str(3 << 29))
    assert kernel_type["executor"] == "EXECUTOR_THREAD"
    daemon.stop()


def test_a_failure_is_one_line_and_one_row(
    ok: Callable[..., str], fail: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("crasher")
    failure = "ValueError: no such word see the dictionary"
    assert f"kernel '{kernel}' failed: {failure}" in fail(1, "ask", kernel, '{"text": "x"}')
    header, *rows = ok("ps").splitlines()
    assert header.endswith("FAILURE")
    row = next(row for row in rows if row.startswith(kernel))
    assert row.split(maxsplit=4) == [kernel, "crasher", "FAILED", "0", failure]
    header, *rows = ok("telemetry", kernel).splitlines()
    assert header.endswith("LAST ERROR")
    assert [row.endswith(failure) for row in rows] == [True]
    assert f"kernel '{kernel}' at " in fail(1, "health", kernel)


def test_tables_are_not_cut_where_there_is_no_terminal(ok: Callable[..., str]) -> None:
    for line in ok("types", env={"COLUMNS": "30", "FORCE_COLOR": "1"}).splitlines():
        assert line.isprintable()
        assert len(line) > 80
        assert len(line) == len(line.rstrip())


# -- telemetry and health ----------------------------------------------------------------------------------------------


def test_devices_says_why_it_cannot_tell(run: Callable[..., Result]) -> None:
    if importlib.util.find_spec("pynvml") is not None:
        pytest.skip("what it says is the driver's")
    result = run("devices")
    assert result.exit_code != 0
    assert "nvidia-ml-py is not installed; pip install 'pydotcompute-grpc[cuda12]'" in result.stderr


def test_devices_are_shown_in_rows(capsys: pytest.CaptureFixture[str]) -> None:
    told = telemetry_pb.DeviceTelemetry(
        index=1,
        name="H100",
        memory_total_bytes=80 << 30,
        memory_used_bytes=3 << 29,
        utilization_percent=37,
        temperature_celsius=0,
        power_watts=123.4,
    )
    tables.show_devices([told, telemetry_pb.DeviceTelemetry(index=2, name="Silent")])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["INDEX", "DEVICE", "MEMORY", "BUSY", "TEMPERATURE", "POWER"]
    assert first.split() == ["1", "H100", *["1.5", "GiB", "of", "80", "GiB", "37%", "0", "C", "123", "W"]]
    assert second.split() == ["2", "Silent", "-", "-", "-", "-"]


def test_device_memory_is_shown_where_there_is_some(capsys: pytest.CaptureFixture[str]) -> None:
    state = kernel_pb.KERNEL_STATE_ACTIVE
    tables.show_telemetry([telemetry_pb.KernelTelemetry(kernel_id="a", state=state)])
    assert "DEVICE MEMORY" not in capsys.readouterr().out
    on_gpu = telemetry_pb.KernelTelemetry(kernel_id="a", state=state, device_memory_bytes=0)
    tables.show_telemetry([on_gpu])
    assert "0 bytes" in capsys.readouterr().out


def test_telemetry_counts_messages(ok: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("calculator")
    ok("ask", kernel, "{}")
    header, row = (line.split() for line in ok("telemetry", kernel).splitlines())
    shown = dict(zip(header, row, strict=True))
    assert (shown["KERNEL"], shown["STATE"], shown["PROCESSED"], shown["DROPPED"]) == (kernel, "ACTIVE", "1", "0")
    assert shown["P50"].endswith("s")
    snapshot = json.loads(ok("telemetry", kernel, "--json"))["kernels"][0]
    assert (snapshot["kernel_id"], snapshot["messages_processed"]) == (kernel, "1")
    assert snapshot["uptime_seconds"] > 0
    everything = json.loads(ok("telemetry", "--json"))["kernels"]
    assert {"calculator", kernel} <= {snapshot["kernel_id"] for snapshot in everything}


def test_watching_prints_a_line_of_json_a_snapshot_until_interrupted(target: str) -> None:
    with start(target, "--json", "telemetry", "calculator", "--watch", "--interval", "0.02") as process:
        assert process.stdout is not None
        snapshots = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stderr) == (130, b"")
    assert [snapshot["kernels"][0]["kernel_id"] for snapshot in snapshots] == ["calculator"] * 3
    uptimes = [snapshot["kernels"][0]["uptime_seconds"] for snapshot in snapshots]
    assert uptimes == sorted(set(uptimes))


def test_a_reader_that_leaves_ends_the_command_quietly(target: str) -> None:
    with start(target, "telemetry", "calculator", "--watch", "--interval", "0.02") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"KERNEL ")
        process.stdout.close()
        assert process.wait(WAIT) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_terminal_gets_colours_and_a_table_in_its_place(target: str) -> None:
    ours, theirs = pty.openpty()
    with start(target, "telemetry", "calculator", "--watch", "--interval", "0.02", stdout=theirs) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"calculator") < 3:
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # What Linux says at the end of a terminal is EIO.
            while chunk := os.read(ours, 65536):
                seen += chunk
        assert process.wait(WAIT) == 130
    os.close(ours)
    assert b"\x1b[32mACTIVE\x1b[0m" in seen
    assert b"\x1b[1A" in seen, "the cursor goes back up"
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l"), "the cursor is visible again"


def test_a_watch_ends_with_its_kernel_and_with_its_daemon(
    fail: Callable[..., str], start_daemon: Callable[..., Any]
) -> None:
    assert "'nobody' not found" in fail(1, "telemetry", "nobody", "--watch")
    daemon = start_daemon(str(EXAMPLES / "calculator.py"), "--launch", "all", "--grace", "0.1")
    with start(daemon.target, "telemetry", "--watch", "--interval", "0.02") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"KERNEL ")
        daemon.stop()
        _, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stderr[:32]) == (3, b"error: cannot reach the daemon a")


def test_health_is_that_of_the_daemon_or_of_a_kernel(ok: Callable[..., str], fail: Callable[..., str]) -> None:
    assert ok("health") == "SERVING\n"
    assert ok("health", "calculator") == "SERVING\n"
    assert json.loads(ok("health", "--json")) == {"status": "SERVING"}
    assert "'silent' is not launched" in fail(1, "health", "silent")


def test_a_kernel_that_does_not_serve_is_not_healthy(run: Callable[..., Result], ok: Callable[..., str]) -> None:
    ok("launch", "idle", "--type", "silent")
    result = run("health", "idle", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"status": "NOT_SERVING"})
    assert result.stderr.startswith("error: kernel 'idle' at ")
    ok("terminate", "idle")


def test_health_does_without_rich(target: str) -> None:
    program = (
        "import sys; from pydotcompute_client.cli.main import main; "
        "main(['health'], standalone_mode=False); print(*sys.modules)"
    )
    modules = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYDOTCOMPUTE_TARGET": target},
        check=True,
        capture_output=True,
        text=True,
        timeout=WAIT,
    ).stdout.split()
    assert modules[0] == "SERVING"
    assert "grpc" in modules
    assert [name for name in modules if name.split(".")[0] == "rich"] == []


def test_a_daemon_that_does_not_answer_is_a_timeout(fail: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_kernels, "HEALTH_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        target = f"127.0.0.1:{deaf.getsockname()[1]}"
        assert f"no answer from {target} within 0.1 s" in fail(4, "health", "--target", target)


# -- the command as a whole --------------------------------------------------------------------------------------------

EVERY_CALL = {
    **{name: [name] for name in ("ps", "types", "health", "telemetry", "devices")},
    **{name: [name, "nobody"] for name in ("describe", "activate", "deactivate", "reactivate", "terminate")},
    **{name: [name, "nobody"] for name in ("launch", "receive", "dead-letters")},
    "acknowledge": ["acknowledge", "nobody", "x"],
    **{name: [name, "nobody", "{}"] for name in ("ask", "send")},
    "requeue": ["requeue", "nobody", "--all"],
    "proto export": ["proto", "export", "nobody", "--out", "nowhere"],
    "proto check": ["proto", "check", "nobody", "--against", "nowhere"],
    "telemetry --watch": ["telemetry", "--watch"],
}


def test_every_command_is_in_the_tables_of_these_tests() -> None:
    assert {*main.commands} == {arguments[0] for arguments in EVERY_CALL.values()} | {"completion"}


@pytest.mark.parametrize("arguments", EVERY_CALL.values(), ids=EVERY_CALL.keys())
def test_without_a_daemon_every_command_says_where_it_looked(
    fail: Callable[..., str], nowhere: str, arguments: list[str]
) -> None:
    error = fail(3, *arguments, "--target", nowhere)
    assert f"cannot reach the daemon at {nowhere}" in error
    assert "PYDOTCOMPUTE_TARGET" in error


@pytest.mark.parametrize(
    "arguments", [call for call in EVERY_CALL.values() if "nobody" in call], ids=lambda call: call[0]
)
def test_every_command_names_a_kernel_that_is_not_there(
    fail: Callable[..., str], target: str, arguments: list[str]
) -> None:
    error = fail(1, *arguments)
    assert "kernel 'nobody' not found; known here: " in error
    assert "calculator" in error
    assert f"(at {target})" in error


def test_who_asks_a_type_of_which_no_kernel_is_launched_hears_how_to_launch_one(fail: Callable[..., str]) -> None:
    assert "`pydotcompute launch repeater --activate`" in fail(1, "ask", "repeater", "{}")


def test_the_target_is_taken_before_and_after_the_command_and_from_the_environment(
    run: Callable[..., Result], target: str, nowhere: str
) -> None:
    lost, found = {"PYDOTCOMPUTE_TARGET": nowhere}, {"PYDOTCOMPUTE_TARGET": target}
    assert run("ps", env=lost).exit_code == 3
    assert run("--target", target, "ps", env=lost).exit_code == 0
    assert run("ps", "--target", target, env=lost).exit_code == 0
    assert run("--target", nowhere, "ps", "--target", target, env=lost).exit_code == 0
    assert run("--target", nowhere, "ps", env=found).exit_code == 3
    assert run("--target", "", "ps", env=found).exit_code == 2


def test_json_can_be_asked_for_before_and_after_the_command(ok: Callable[..., str]) -> None:
    assert json.loads(ok("--json", "health")) == json.loads(ok("health", "--json"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fly"], "No such command 'fly'"),
        (["ask"], "Missing argument 'KERNEL'"),
        (["receive", "calculator", "--timeout", "nan"], "--timeout"),
        (["receive", "calculator", "--timeout", "-1"], "--timeout"),
        (["send", "calculator", "{}", "--priority", "256"], "--priority"),
        (["launch", "calculator", "--backpressure", "pray"], "drop_oldest"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_has_its_exit_code(run: Callable[..., Result], arguments: list[str], told: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_an_interrupted_wait_ends_without_a_traceback(
    ok: Callable[..., str], launched: Callable[..., str], target: str
) -> None:
    kernel = launched("calculator")
    with start(target, "receive", kernel, "--count", "2", "--timeout", "60") as process:
        ok("send", kernel, '{"a": 1}')
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["result"] == 1.0
        process.send_signal(signal.SIGINT)  # It waits for the second now, or is about to.
        _, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stderr) == (130, b"")


def test_help_tells_the_exit_codes(ok: Callable[..., str]) -> None:
    lines = [line.strip() for line in ok("--help").splitlines()]
    exit_codes = lines[lines.index("Exit codes:") + 1 :]
    assert [line.split()[0] for line in exit_codes] == ["0", "1", "2", "3", "4", "130"]


# -- completion --------------------------------------------------------------------------------------------------------


def complete(run: Callable[..., Result], line: str, **env: str) -> list[str]:
    """What bash offers at the end of a line."""
    result = run(env={"_PYDOTCOMPUTE_COMPLETE": "bash_complete", "COMP_WORDS": line, **env})
    assert (result.exit_code, result.stderr) == (0, "")
    return [line.removeprefix("plain,") for line in result.stdout.split()]


def test_commands_options_kernels_and_types_are_completed(
    run: Callable[..., Result], nowhere: str, target: str
) -> None:
    assert complete(run, "pydotcompute de") == ["deactivate", "dead-letters", "describe", "devices"]
    assert "calculator" in complete(run, "pydotcompute ask ")
    assert "silent" not in complete(run, "pydotcompute ask ")
    assert complete(run, "pydotcompute describe sil") == ["silent"]
    assert complete(run, "pydotcompute launch mine --type c") == ["calculator", "crasher"]
    assert complete(run, "pydotcompute telemetry calculator --w") == ["--watch"]
    assert complete(run, f"pydotcompute --target {nowhere} ask ") == []
    assert "calculator" in complete(run, f"pydotcompute ask --target {target} ", PYDOTCOMPUTE_TARGET=nowhere)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(ok: Callable[..., str], shell: str) -> None:
    script = ok("completion", shell)
    assert script.strip() == ok(env={"_PYDOTCOMPUTE_COMPLETE": f"{shell}_source"}).strip()
    assert f"_PYDOTCOMPUTE_COMPLETE={shell}_complete" in script
