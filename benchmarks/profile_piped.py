"""Shows where the time of the piped remote workload goes, in the client and in the daemon.

    python benchmarks/profile_piped.py [--seconds N] [--top N] [--uvloop] [--isolation process]

First the CPU time a message of each process, by thread: `main thread` runs the event loop and all of this project's
code, the others are gRPC's. Then the functions and lines on which the two main threads spend theirs; see sampler.py for
what counts where. The samples cost a few percent: rates are run.py's business.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter, sleep

from daemon import DAEMON
from in_process import FIRST_TRANSFER, transfer
from measure import loop_factory, serving
from processes import MAIN_THREAD, cpu_seconds_by_thread
from profiled_daemon import SAMPLES_FILE
from sampler import Sampler, Samples

from pydotcompute_client import connect

MESSAGES_A_TRANSFER = 20_000

Cpu = dict[str, tuple[float, float]]


async def profile(seconds: float, top: int, isolation: str) -> None:
    """Pipes messages for `seconds`, and prints the report."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.json"
        os.environ[SAMPLES_FILE] = str(file)
        command = [sys.executable, str(Path(__file__).with_name("profiled_daemon.py")), DAEMON[1], isolation]
        sampler = Sampler()
        with serving(command) as server:
            processes = {"client": os.getpid(), "daemon": server.process_id}
            async with connect(server.address) as runtime:
                await transfer(runtime, FIRST_TRANSFER)
                os.kill(server.process_id, signal.SIGUSR1)
                before = {name: cpu_seconds_by_thread(process) for name, process in processes.items()}
                sampler.start()
                start = perf_counter()
                messages = 0
                while perf_counter() < start + seconds:
                    await transfer(runtime, MESSAGES_A_TRANSFER)
                    messages += MESSAGES_A_TRANSFER
                elapsed = perf_counter() - start
                samples = {"client": sampler.stop()}
                after = {name: cpu_seconds_by_thread(process) for name, process in processes.items()}
                os.kill(server.process_id, signal.SIGUSR2)
            samples["daemon"] = Samples(**json.loads(wait_for(file)))

    print(f"{messages:,} messages in {elapsed:.1f} s, {messages / elapsed:,.0f} /s while sampled")
    for name in processes:
        print_cpu(name, before[name], after[name], messages)
    for name, samples_of_one in samples.items():
        print_samples(name, samples_of_one, top)


def wait_for(file: Path) -> str:
    """The content of a file, once it is there."""
    end = perf_counter() + 10
    while not file.exists():
        if perf_counter() > end:
            raise TimeoutError("the daemon wrote no samples")
        sleep(0.01)
    return file.read_text()


def print_cpu(name: str, before: Cpu, after: Cpu, messages: int) -> None:
    """The CPU time a message of one process."""
    used = {
        thread: tuple(
            (now - then) * 1e6 / messages for now, then in zip(times, before.get(thread, (0, 0)), strict=True)
        )
        for thread, times in after.items()
    }
    total = sum(map(sum, used.values()))
    print(f"\n{name}: {total:.2f} µs of CPU a message      user    sys")
    for thread, (user, system) in sorted(used.items(), key=lambda item: (item[0] != MAIN_THREAD, -sum(item[1]))):
        if user + system >= 0.005:
            print(f"  {thread:<16} {user + system:6.2f} µs {(user + system) / total:6.1%}  {user:6.2f} {system:6.2f}")


def print_samples(name: str, samples: Samples, top: int) -> None:
    """Where one main thread spends its time."""
    print(f"\n{name}'s main thread, {samples.total:.2f} s of CPU")
    print(f"  {'self':>6}  {'with callees':>12}  function")
    for place, seconds in largest(samples.self_seconds, top):
        print(f"  {seconds / samples.total:6.1%}  {samples.cumulative_seconds[place] / samples.total:12.1%}  {place}")
    print("  with callees, most first")
    for place, seconds in largest(samples.cumulative_seconds, top):
        print(f"  {seconds / samples.total:6.1%}  {place}")
    print("  by line")
    for place, seconds in largest(samples.line_seconds, top):
        print(f"  {seconds / samples.total:6.1%}  {place}")


def largest(seconds: Mapping[str, float], top: int) -> list[tuple[str, float]]:
    """The `top` largest, in order."""
    return sorted(seconds.items(), key=lambda item: -item[1])[:top]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Shows where the time of the piped remote workload goes.")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to pipe messages")
    parser.add_argument("--top", type=int, default=25, help="how many lines of each list")
    parser.add_argument("--uvloop", action="store_true", help="run the client on uvloop")
    parser.add_argument("--isolation", choices=["none", "process"], default="none", help="where the actor runs")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory(arguments.uvloop)) as runner:
        runner.run(profile(arguments.seconds, arguments.top, arguments.isolation))


if __name__ == "__main__":
    main()
