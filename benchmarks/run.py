"""Measures this project beside its peers and beside its limit, in one run, and prints the ratios.

    python benchmarks/run.py [--rounds N] [--quick] [--uvloop] [--only NAME ...] [--json FILE]

Run it with the Python that has this project; the peers' environments it makes itself, if they are to be measured.

Each figure is measured by a process of its own, and the figures take turns (A B C, A B C, …), so that whatever else the
machine does meets them alike; the median of the rounds counts. It never judges: the exit code says whether all the
workloads ran, not whether they were fast.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from peers import PEERS
from programs import ProgramError, output_of
from table import WORKLOADS, print_table, table_lines

HERE = Path(__file__).resolve().parent
SCRIPTS = {
    "peer": "in_process.py",
    "ray": "ray_actor.py",
    "xoscar": "xoscar_actor.py",
    "local": "in_process.py",
    "remote": "remote.py",
    "arrays": "arrays.py",
    "raw": "raw_echo.py",
    "ghz": "ghz_load.py",
    "inference": "inference_load.py",
    "worker": "workers.py",
    "isolated": "isolated.py",
}
"""What measures the workloads, by the first part of their names."""


def measure(workload: str, seconds: float, uvloop: bool) -> dict[str, float]:
    """Measures one workload once, in a process of its own."""
    group, _, figure = workload.partition(".")
    peer = PEERS.get(group)
    python = sys.executable if peer is None else peer.python
    command = [python, str(HERE / SCRIPTS[group]), figure, f"--seconds={seconds}"] + ["--uvloop"] * uvloop
    # PYTHONPATH may hold this project, whose package has the name of a peer's.
    output = output_of(command, timeout=60 + 20 * seconds, python_path=peer is None)
    metrics: dict[str, float] = json.loads(output.splitlines()[-1])
    return metrics


def install_peers(workloads: Iterable[str]) -> dict[str, str]:
    """Installs the peers that these workloads need; gives, by workload, what went wrong."""
    broken: dict[str, str] = {}
    for group, peer in PEERS.items():
        if needing := [workload for workload in workloads if workload.startswith(f"{group}.")]:
            try:
                peer.install()
            except ProgramError as problem:
                print(f"{peer.requirements[0]} cannot be installed, and is left out.", flush=True)
                broken |= dict.fromkeys(needing, f"not installed: {problem}")
    return broken


def run(
    workloads: Iterable[str], broken: dict[str, str], rounds: int, seconds: float, uvloop: bool
) -> dict[str, list[dict[str, float]]]:
    """Measures all workloads but the broken ones, in turns.

    What breaks is added to `broken`, and not tried again.
    """
    measured: dict[str, list[dict[str, float]]] = {workload: [] for workload in workloads}
    for number in range(1, rounds + 1):
        for workload in measured:
            if workload in broken:
                continue
            if sys.stderr.isatty():
                print(f"\r\x1b[Kround {number} of {rounds}: {workload}", end="", file=sys.stderr, flush=True)
            try:
                measured[workload].append(measure(workload, seconds, uvloop))
            except ProgramError as problem:
                broken[workload] = str(problem)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return measured


def machine() -> dict[str, str]:
    """What the figures depend on."""
    packages = {}
    for package in ("grpcio", "protobuf", "uvloop"):
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            packages[package] = "not installed"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": f"{os.getloadavg()[0]:.2f}",
        "cpus": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        **packages,
    }


def main() -> int:
    """Runs the command line; 0 if every workload ran."""
    parser = argparse.ArgumentParser(description="Measures this project beside its peers and beside raw gRPC.")
    parser.add_argument("--rounds", type=int, help="how often each workload is measured (default 5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="short measurements: to see that all works, not to quote")
    parser.add_argument("--uvloop", action="store_true", help="run everything, the peers too, on uvloop")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=[], help=f"any of {', '.join([*SCRIPTS, *WORKLOADS])}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - {*SCRIPTS, *WORKLOADS}:
        parser.error(f"no workload is called {', '.join(sorted(unknown))}")
    only = set(arguments.only)
    workloads = [name for name in WORKLOADS if not only or {name, name.partition(".")[0]} & only]
    rounds = arguments.rounds if arguments.rounds is not None else 2 if arguments.quick else 5
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    seconds = 0.3 if arguments.quick else 1.0

    broken = install_peers(workloads)
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    clients = "uvloop" if arguments.uvloop else "asyncio's own event loop"
    print(f"Peers, in-process runtime and clients run on {clients}, the servers on uvloop where it is installed.")
    print(f"Rounds: {rounds}, of {seconds} s a workload. A message that is answered counts once.\n")

    measured = run(workloads, broken, rounds, seconds, arguments.uvloop)
    print_table(table_lines(measured, broken))
    for name, output in broken.items():
        print(f"\n{name} broke: {output}", file=sys.stderr)
    if arguments.json:
        result = {"machine": facts, "clients_run_on": clients, "seconds": seconds, "rounds": measured, "broken": broken}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
