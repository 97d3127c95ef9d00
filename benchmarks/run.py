"""Measures this project beside its peer and beside its limit, in one run, and prints the ratios.

    python benchmarks/run.py [--rounds N] [--quick] [--uvloop] [--only NAME ...] [--json FILE]

Run it with the Python that has this project; the peer's environment it makes itself.

Each figure is measured by a process of its own, and the figures take turns (A B C, A B C, …), so that whatever else the
machine does meets them alike; the median of the rounds counts. It never judges: the exit code says whether all the
workloads ran, not whether they were fast.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
PEER_ENVIRONMENT = HERE.parent / ".venv-peer"
PEER_PYTHON = PEER_ENVIRONMENT / "bin" / "python"
PEER_VERSION = "0.2.0"

Rounds = dict[str, list[dict[str, float]]]
"""For each figure the metrics of each round, as far as it ran."""


@dataclass(frozen=True)
class Figure:
    """One line of the table: a metric, maybe against another figure's."""

    label: str
    name: str
    """Which workload measures it, and which of its figures it is: `local.piped`."""
    metric: str
    reference: str | None = None
    """The figure to divide by; its metric is the same."""
    at_least: float | None = None
    at_most: float | None = None


SCRIPTS = {"peer": "in_process.py", "local": "in_process.py", "remote": "remote.py", "raw": "raw_echo.py"}

TABLE = {
    f"peer: PyDotCompute {PEER_VERSION}, in-process": [
        Figure("ping-pong, p50", "peer.ping_pong", "p50_us"),
        Figure("ping-pong, p99", "peer.ping_pong", "p99_us"),
        Figure("piped", "peer.piped", "rate"),
    ],
    "local: this project, in-process": [
        Figure("ping-pong, p50", "local.ping_pong", "p50_us", "peer.ping_pong", at_most=0.5),
        Figure("ping-pong, p99", "local.ping_pong", "p99_us", "peer.ping_pong"),
        Figure("piped", "local.piped", "rate", "peer.piped", at_least=2.0),
    ],
    "remote: this project, client and daemon": [
        Figure("piped", "remote.piped", "rate", "peer.piped", at_least=1.0),
        Figure("piped, against the limit", "remote.piped", "rate", "raw.batched"),
        Figure("piped, 8 clients", "remote.piped_8", "rate", "remote.piped"),
        Figure("ask, p50", "remote.ask", "p50_us", "raw.stream"),
        Figure("ask, p99", "remote.ask", "p99_us", "raw.stream"),
        Figure("unary Ask, p50", "remote.unary", "p50_us", "raw.unary"),
        Figure("unary Ask, p99", "remote.unary", "p99_us", "raw.unary"),
        Figure("unary Ask, 64 in flight", "remote.unary_64", "rate", "raw.unary_64"),
    ],
    "raw: grpcio's echo, the limit": [
        Figure("stream, 256 messages a frame", "raw.batched", "rate"),
        Figure("stream, one by one, p50", "raw.stream", "p50_us"),
        Figure("stream, one by one, p99", "raw.stream", "p99_us"),
        Figure("unary, p50", "raw.unary", "p50_us"),
        Figure("unary, p99", "raw.unary", "p99_us"),
        Figure("unary, 64 in flight", "raw.unary_64", "rate"),
    ],
}

NAMES = list(dict.fromkeys(figure.name for figures in TABLE.values() for figure in figures))


class WorkloadError(Exception):
    """A workload could not be run; the text is what it printed last."""


def prepare_peer(uvloop: bool) -> None:
    """Makes the peer's environment, unless it is there and complete."""
    packages = [f"pydotcompute=={PEER_VERSION}"] + (["uvloop"] if uvloop else [])
    installed = f"import {'uvloop, ' if uvloop else ''}importlib.metadata as m; print(m.version('pydotcompute'))"
    if PEER_PYTHON.exists() and run_quietly([str(PEER_PYTHON), "-Ic", installed], check=False).strip() == PEER_VERSION:
        return
    print(f"Installing PyDotCompute {PEER_VERSION} into {PEER_ENVIRONMENT} ...", flush=True)
    run_quietly([sys.executable, "-m", "venv", "--clear", str(PEER_ENVIRONMENT)])
    run_quietly([str(PEER_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])


def run_quietly(command: Sequence[str], *, check: bool = True, timeout: float = 600, own_path: bool = False) -> str:
    """Runs a command and gives its output; WorkloadError, with the end of the output, if it fails.

    With `own_path` it does not see PYTHONPATH, which may hold this project: both packages have one name.
    """
    environment = {name: value for name, value in os.environ.items() if not (own_path and name == "PYTHONPATH")}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except BaseException as interruption:
        os.killpg(process.pid, signal.SIGKILL)  # with the server it may have started
        _, errors = process.communicate()
        if not isinstance(interruption, subprocess.TimeoutExpired):
            raise
        raise WorkloadError(f"no result after {timeout:.0f} s\n{errors[-2000:]}") from None
    if check and process.returncode != 0:
        raise WorkloadError(f"exit code {process.returncode}\n{(output + errors)[-2000:]}")
    return output


def measure(name: str, seconds: float, uvloop: bool) -> dict[str, float]:
    """Measures one figure once, in a process of its own."""
    workload, figure = name.split(".")
    is_peer = workload == "peer"
    python = str(PEER_PYTHON) if is_peer else sys.executable
    command = [python, str(HERE / SCRIPTS[workload]), figure, f"--seconds={seconds}"] + ["--uvloop"] * uvloop
    output = run_quietly(command, timeout=60 + 20 * seconds, own_path=is_peer)
    metrics: dict[str, float] = json.loads(output.splitlines()[-1])
    return metrics


def run(names: Iterable[str], rounds: int, seconds: float, uvloop: bool) -> tuple[Rounds, dict[str, str]]:
    """Measures all figures, in turns; gives what was measured, and what went wrong.

    A figure that broke is not tried again.
    """
    measured: Rounds = {name: [] for name in names}
    broken: dict[str, str] = {}
    for number in range(1, rounds + 1):
        for name in measured:
            if name in broken:
                continue
            if sys.stderr.isatty():
                print(f"\r\x1b[Kround {number} of {rounds}: {name}", end="", file=sys.stderr, flush=True)
            try:
                measured[name].append(measure(name, seconds, uvloop))
            except WorkloadError as problem:
                broken[name] = str(problem)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return measured, broken


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
        "cpus": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        **packages,
    }


def table_lines(measured: Rounds, broken: dict[str, str]) -> list[tuple[str, ...]]:
    """The cells of the table, a section's title being a line of one cell."""
    lines: list[tuple[str, ...]] = [("", "median", "min .. max", "ratio", "to", "target", "met")]
    for title, figures in TABLE.items():
        shown = [figure for figure in figures if figure.name in measured]
        if shown:
            lines.append((title,))
        for figure in shown:
            values = [metrics[figure.metric] for metrics in measured[figure.name]]
            if figure.name in broken or not values:
                lines.append((f"  {figure.label}", "BROKEN", "", "", "", "", ""))
                continue
            form = "{:,.0f} /s" if figure.metric == "rate" else "{:,.1f} µs"
            spread = f"{form.format(min(values)).split()[0]} .. {form.format(max(values)).split()[0]}"
            lines.append((f"  {figure.label}", form.format(median(values)), spread, *comparison(figure, measured)))
    return lines


def comparison(figure: Figure, measured: Rounds) -> tuple[str, str, str, str]:
    """A figure's ratio to its reference, the reference, the target, whether it is met; each empty if there is none."""
    references = [metrics[figure.metric] for metrics in measured.get(figure.reference or "", [])]
    if figure.reference is None or not references:
        return "", "", "", ""
    ratio = median(metrics[figure.metric] for metrics in measured[figure.name]) / median(references)
    target, met = "", ""
    if figure.at_least is not None:
        target, met = f">= {figure.at_least}", "yes" if ratio >= figure.at_least else "NO"
    if figure.at_most is not None:
        target, met = f"<= {figure.at_most}", "yes" if ratio <= figure.at_most else "NO"
    return f"{ratio:.2f}", figure.reference, target, met


def print_table(lines: Sequence[tuple[str, ...]]) -> None:
    """Prints the cells in columns: the first and the names to the left, numbers to the right."""
    widths = [max(len(line[column]) for line in lines if len(line) > 1) for column in range(len(lines[0]))]
    for line in lines:
        if len(line) == 1:
            print(f"\n{line[0]}")
            continue
        cells = [
            cell.ljust(width) if column in (0, 4) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def main() -> int:
    """Runs the command line; 0 if every workload ran."""
    parser = argparse.ArgumentParser(description="Measures this project beside its peer and beside raw gRPC.")
    parser.add_argument("--rounds", type=int, help="how often each figure is measured (default 5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="short measurements: to see that all works, not to quote")
    parser.add_argument("--uvloop", action="store_true", help="run everything, the peer too, on uvloop")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help=f"any of {', '.join([*SCRIPTS, *NAMES])}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - {*SCRIPTS, *NAMES}:
        parser.error(f"no workload or figure is called {', '.join(sorted(unknown))}")
    names = [name for name in NAMES if not arguments.only or {name, name.split(".")[0]} & set(arguments.only)]
    rounds = arguments.rounds if arguments.rounds is not None else 2 if arguments.quick else 5
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    seconds = 0.3 if arguments.quick else 1.0

    if any(name.startswith("peer.") for name in names):
        try:
            prepare_peer(arguments.uvloop)
        except WorkloadError as problem:
            print(f"The peer cannot be installed: {problem}", file=sys.stderr)
            return 1
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    clients = "uvloop" if arguments.uvloop else "asyncio's own event loop"
    print(f"Peer, in-process runtime and clients run on {clients}, the servers on uvloop where it is installed.")
    print(f"Rounds: {rounds}, of {seconds} s a figure. A message that is answered counts once.\n")

    measured, broken = run(names, rounds, seconds, arguments.uvloop)
    print_table(table_lines(measured, broken))
    for name, output in broken.items():
        print(f"\n{name} broke: {output}", file=sys.stderr)
    if arguments.json:
        result = {"machine": facts, "clients_run_on": clients, "seconds": seconds, "rounds": measured, "broken": broken}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
