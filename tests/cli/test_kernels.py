"""The commands that launch kernels, change their states and tell of them and of their types."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pydotcompute import __version__
from pydotcompute_client.cli.main import main
from tests.cli.command import EXAMPLES


def test_a_kernel_goes_through_its_states(ok: Callable[..., str], fail: Callable[..., str]) -> None:
    def state() -> str:
        rows = [line.split() for line in ok("ps").splitlines()]
        assert rows[0] == ["KERNEL", "TYPE", "STATE", "QUEUE", "OUTPUTS"]
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
            *("kernelId", "kernelType", "state", "queueDepth", "failure", "outputDepth", "outputQueueSize"),
            *("restarts", "restarting", "lastCrash"),
            "device",
            "deviceName",
            *("instances", "restarts", "restarting", "lastCrash"),
        }
        assert (kernel["kernelId"], kernel["kernelType"]) == ("runner", "calculator")
        return str(kernel["state"])

    assert state("launch", "runner", "--type", "calculator", "--activate") == "KERNEL_STATE_ACTIVE"
    kernels = {kernel["kernelId"]: kernel for kernel in json.loads(ok("ps", "--json"))["kernels"]}
    assert kernels["runner"]["queueDepth"] == 0
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
    assert json.loads(ok("describe", kernel, "--json"))["kernelType"]["config"] == {
        "inputQueueSize": 5,
        "outputQueueSize": 6,
        "backpressureStrategy": "BACKPRESSURE_STRATEGY_REJECT",
        "gridSize": 1,
        "blockSize": 256,
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
    names = [kernel_type["name"] for kernel_type in json.loads(ok("types", "--json"))["kernelTypes"]]
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
    assert described["inputType"]["fullName"] == "calculator.v1.CalculationRequest"
    fields = described["inputType"]["files"]["file"][0]["messageType"][0]["field"]
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
        ["KERNEL", "TYPE", "STATE", "QUEUE", "OUTPUTS", "DEVICE"],
        *(
            [name, name, "ACTIVE", "0", "0/4096", device]
            for name, device in [("doubler", "cuda:0"), ("echo", "cuda:0")]
        ),
        ["on_the_host", "on_the_host", "ACTIVE", "0", "0/4096", "cpu"],
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
    kernel, kernel_type = json.loads(text)["kernel"], json.loads(text)["kernelType"]
    assert (kernel["device"], kernel["deviceName"]) == ("cuda:0", "Fake 0")
    assert (kernel_type["device"], kernel_type["memoryLimitBytes"]) == ("auto", 3 << 29)
    assert kernel_type["executor"] == "EXECUTOR_THREAD"
    daemon.stop()


def test_a_long_list_says_how_many_more_there_are(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(EXAMPLES / "calculator.py"), "--limit", "list_page=2")

    def run(*arguments: str) -> tuple[list[str], str]:
        result = CliRunner().invoke(main, ["--target", daemon.target, *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines(), result.stderr

    for number in range(5):
        run("launch", f"k{number}", "--type", "calculator")
    rows, hint = run("ps")
    assert [row.split()[0] for row in rows] == ["KERNEL", "k0", "k1"]
    assert hint == "3 more; --all lists them\n"
    rows, hint = run("ps", "--all")
    assert [row.split()[0] for row in rows] == ["KERNEL", *(f"k{number}" for number in range(5))]
    assert hint == ""
    lines, _ = run("ps", "--all", "--json")
    listed = json.loads("".join(lines))
    assert [kernel["kernelId"] for kernel in listed["kernels"]] == [f"k{number}" for number in range(5)]
    assert not listed.get("nextPageToken")


def test_info_shows_what_the_daemon_is(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(EXAMPLES / "calculator.py"), "--limit", "farewell=0.25", "--limit", "list_page=7")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["--target", daemon.target, "info", *arguments])
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    document = json.loads(run("--json"))
    rows = dict(line.split(None, 1) for line in run().splitlines() if line)
    assert rows["VERSION"] == document["version"] == __version__
    assert rows["EPOCH"] == document["daemonEpoch"]
    assert datetime.fromisoformat(rows["STARTED"]) <= datetime.now(UTC)
    assert rows["FEATURES"].split(", ") == document["features"]
    assert (rows["farewell"], rows["list_page"]) == ("0.25", "7")
    assert set(document["limits"]) <= set(rows)
