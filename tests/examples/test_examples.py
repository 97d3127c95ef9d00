"""The examples as their readers run them: as processes, here and against a daemon, with a GPU and without one. The GPU
is `tests/fake_cupy.py`; `tests/gpu/` runs them on a real one.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute_client import connect
from tests.properties import cases

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT = 60.0

CALCULATIONS = """\
  10 add 5 = 15.0
  10 sub 5 = 5.0
  10 mul 5 = 50.0
  10 div 5 = 2.0
  10 div 0 = ERROR: Division by zero
Messages processed: 5
"""
VECTORS = """\
  float64[3] + float64[3] = [11. 22. 33.]
  int64[2, 1] + int64[2] = [[11 21] [12 22]]
  float32[1000000] + float32[1000000] = \
[0.000000e+00 3.000000e+00 6.000000e+00 ... 2.999991e+06 2.999994e+06 2.999997e+06]
  float64[3] + float64[4] = ERROR: """
REPORTS = """\
  cellar: -15.0 to -5.0 °C, FROST
  kitchen: -15.0 to -5.0 °C, FROST
  attic: -15.0 to -5.0 °C, FROST
  cellar: 10.0 to 20.0 °C, fine
  kitchen: 10.0 to 20.0 °C, fine
  attic: 10.0 to 20.0 °C, fine
  cellar: 20.3 to 30.0 °C, fine
  kitchen: 20.3 to 30.0 °C, fine
  attic: 20.3 to 30.0 °C, fine
  cellar: 30.0 to 40.0 °C, HEAT
  kitchen: 30.0 to 40.0 °C, HEAT
  attic: 30.0 to 40.0 °C, HEAT
  cellar: not a number
  kitchen: not a number
  attic: not a number
Items through parse: 15
Items through convert: 12
Items through judge: 12
"""


def run(script: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What a script prints, which must succeed without a word on stderr."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", str(script), *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        cwd=script.parent,
        env={**os.environ, **(env or {})},
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return ran.stdout


def without_the_actors(output: str) -> str:
    """What the program prints: in-process, its actors print beside it."""
    return re.sub(r"^\[calculator\] Calculator (started|stopped)\n", "", output, flags=re.MULTILINE)


def check_calculator(output: str) -> None:
    """Exactly these lines, and a throughput above zero."""
    found = re.fullmatch(re.escape(CALCULATIONS) + r"Throughput: (\d+\.\d\d) msg/s\n", output)
    assert found, output
    assert float(found[1]) > 0


def check_vector_add(output: str) -> None:
    assert output.startswith(VECTORS)
    error, computed_with = output.removeprefix(VECTORS).splitlines()
    assert error
    assert re.fullmatch("Computed with: (numpy|cupy)", computed_with)


def check_streaming_pipeline(output: str) -> None:
    assert output == REPORTS


def check_inference(output: str) -> None:
    batched, single, same = output.splitlines()
    assert re.fullmatch(r"  classify: [\d,]+ a second, batches of \d+", batched)
    assert re.fullmatch(r"  classify_one: [\d,]+ a second, one by one", single)
    assert same == "Same scores: True"


CHECKS: dict[str, Callable[[str], None]] = {
    "calculator.py": check_calculator,
    "vector_add.py": check_vector_add,
    "streaming_pipeline.py": check_streaming_pipeline,
    "inference.py": check_inference,
}


ISOLATED = {"inference.py"}
"""Those that have a switch for this."""


def timeless(output: str) -> str:
    """The output without what differs from run to run."""
    return re.sub(r"(Throughput: |classify(?:_one)?: |batches of )[\d.,]+", r"\1…", output)


@pytest.fixture(scope="module")
def gpu_target(start_daemon: Callable[..., Any], gpu: dict[str, str]) -> str:
    """Such a daemon."""
    address: str = start_daemon(str(EXAMPLES), env=gpu).target
    return address


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any]) -> str:
    """A daemon that has loaded the directory of the examples."""
    address: str = start_daemon(str(EXAMPLES)).target
    return address


def test_every_example_is_run_by_these_tests() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(CHECKS)


@pytest.mark.parametrize("name", cases(CHECKS, quick=["calculator.py"]))
def test_an_example_prints_the_same_here_and_at_a_daemon_however_often_it_is_run(name: str, target: str) -> None:
    here = without_the_actors(run(EXAMPLES / name))
    CHECKS[name](here)
    for _ in range(2):
        there = run(EXAMPLES / name, "--target", target)
        CHECKS[name](there)
        assert timeless(there) == timeless(here)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CHECKS)
def test_an_example_prints_the_same_with_a_gpu(name: str, gpu: dict[str, str], gpu_target: str) -> None:
    without = without_the_actors(run(EXAMPLES / name))
    for output in (run(EXAMPLES / name, env=gpu), run(EXAMPLES / name, "--target", gpu_target)):
        CHECKS[name](without_the_actors(output))
        assert timeless(without_the_actors(output)) == timeless(without).replace("numpy", "cupy")


@pytest.mark.parametrize("name", CHECKS)
def test_an_example_says_at_its_top_how_it_is_run(name: str) -> None:
    documentation = (EXAMPLES / name).read_text().split('"""')[1]
    commands = [line.strip() for line in documentation.splitlines() if line.strip().startswith("python")]
    here, there = f"python examples/{name}", f"python examples/{name} --target 127.0.0.1:50051"
    width = len(there)
    isolated = f"python examples/{name} --isolated"
    between = [f"{isolated:{width}}  each actor in a process of its own"] if name in ISOLATED else []
    assert commands == [f"{here:{width}}  in this process", *between, f"{there:{width}}  at a daemon"]


@pytest.mark.parametrize("name", sorted(ISOLATED))
def test_an_example_prints_the_same_with_actors_in_processes_of_their_own(name: str) -> None:
    output = run(EXAMPLES / name, "--isolated")
    CHECKS[name](output)


def test_in_process_the_actor_prints_beside_the_program() -> None:
    lines = run(EXAMPLES / "calculator.py").splitlines()
    assert (lines[0], lines[-1]) == ("[calculator] Calculator started", "[calculator] Calculator stopped")


# -- programs that have no part in the daemon's files ------------------------------------------------------------------

# Of the daemon's classes it has copies of its own, one with fewer defaults and both in `__main__`.
CLIENT = """
import asyncio, sys
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID, uuid4
from pydotcompute import message
from pydotcompute_client import connect
from tests.properties import cases

@message
@dataclass
class CalculationRequest:
    a: float
    b: float
    operation: Literal["add", "sub", "mul", "div"] = "add"

@message
@dataclass
class CalculationResponse:
    result: float = 0.0
    success: bool = True
    error: str | None = None
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None

    def __str__(self):
        return str(self.result) if self.success else self.error

async def main():
    async with connect(sys.argv[1], scoped=True) as runtime:
        async with runtime.kernel_scope("calculator"):
            await runtime.send("calculator", CalculationRequest(a=1, b=2))
            reply = await runtime.receive("calculator", timeout=5.0)
            print(type(reply).__module__, reply)
            print(await runtime.send_and_receive("calculator", CalculationRequest(1, 0, "div"), timeout=5.0))

asyncio.run(main())
"""


def test_a_script_with_its_own_copy_of_the_classes_works(target: str, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    for _ in range(2):
        assert run(script, target) == "__main__ 3.0\nDivision by zero\n"


# The program of the specification, word for word but for what it leaves out.
PROGRAM = """
import asyncio
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID, uuid4
from pydotcompute import RingKernelRuntime, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext

@message
@dataclass
class CalculationRequest:
    a: float = 0.0
    b: float = 0.0
    operation: Literal["add", "sub", "mul", "div"] = "add"
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None

@message
@dataclass
class CalculationResponse:
    result: float = 0.0
    success: bool = True
    error: str | None = None
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None

@ring_kernel(kernel_id="calculator", input_type=CalculationRequest, output_type=CalculationResponse, queue_size=1000)
async def calculator_actor(ctx: KernelContext[CalculationRequest, CalculationResponse]) -> None:
    print(f"[{ctx.kernel_id}] Calculator started")
    while not ctx.should_terminate:
        if not ctx.is_active:
            await ctx.wait_active()
            continue
        try:
            request = await ctx.receive(timeout=0.1)
            try:
                if request.operation == "add":
                    result = request.a + request.b
                elif request.operation == "sub":
                    result = request.a - request.b
                elif request.operation == "mul":
                    result = request.a * request.b
                elif request.operation == "div":
                    result = request.a / request.b
                else:
                    raise ValueError(f"Unknown operation: {request.operation}")
                response = CalculationResponse(result=result, correlation_id=request.message_id)
            except ZeroDivisionError:
                response = CalculationResponse(
                    success=False, error="Division by zero", correlation_id=request.message_id
                )
            except ValueError as e:
                response = CalculationResponse(success=False, error=str(e), correlation_id=request.message_id)
            await ctx.send(response)
        except Exception:
            continue
    print(f"[{ctx.kernel_id}] Calculator stopped")

async def main() -> None:
    async with RingKernelRuntime(enable_telemetry=True) as runtime:
        await runtime.launch("calculator")
        await runtime.activate("calculator")
        for a, b, op in [(10, 5, "add"), (10, 5, "sub"), (10, 5, "mul"), (10, 5, "div"), (10, 0, "div")]:
            await runtime.send("calculator", CalculationRequest(a=a, b=b, operation=op))
            response = await runtime.receive("calculator", timeout=1.0)
            if response.success:
                print(f"  {a} {op} {b} = {response.result}")
            else:
                print(f"  {a} {op} {b} = ERROR: {response.error}")
        telemetry = runtime.get_telemetry("calculator")
        if telemetry:
            print(f"Messages processed: {telemetry.messages_processed}")
            print(f"Throughput: {telemetry.throughput:.2f} msg/s")

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_the_program_of_the_specification_runs_in_both_worlds_with_one_edit(
    start_daemon: Callable[..., Any], tmp_path: Path
) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    check_calculator(without_the_actors(run(script)))

    daemon = start_daemon(str(script))
    remote = tmp_path / "remote.py"
    edited = PROGRAM.replace("RingKernelRuntime(enable_telemetry=True)", f'connect("{daemon.target}")')
    remote.write_text("from pydotcompute_client import connect\n" + edited)
    for _ in range(2):
        check_calculator(run(remote))
        async with connect(daemon.target) as runtime:
            # It is not scoped: the kernel outlives the program, which could not launch it a second time.
            assert await runtime.fetch_kernel_state("calculator") is KernelState.ACTIVE
            await runtime.terminate("calculator")
    log = daemon.log_text()
    for line in ("[calculator] Calculator started", "[calculator] Calculator stopped"):
        assert log.count(line) == 2
    daemon.stop()
