"""The command that checks a daemon, or a client, against docs/wire.md."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import click

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.wire.addresses import split_address
from pydotcompute_client.cli.connection import Connection
from pydotcompute_client.cli.failures import BadInput, Failure
from pydotcompute_client.cli.output import echo_json, echo_text
from pydotcompute_client.cli.parameters import pass_daemon, seconds_option
from pydotcompute_client.conformance.cases import CASES
from pydotcompute_client.conformance.daemon import KERNEL_TYPE, Case, check
from pydotcompute_client.conformance.referee import judge
from pydotcompute_client.conformance.results import Result

__all__ = ["COMMANDS"]

KERNELS = "pydotcompute_client.conformance.kernels"
"""The module whose kernel type a daemon needs."""


@click.command()
@click.argument("names", nargs=-1, metavar="[CASE]...")
@click.option("--listen", metavar="HOST:PORT", help="Check a client: be a daemon that it can use there.")
@click.option(
    "--sessions",
    type=click.IntRange(min=0),
    default=0,
    help="With --listen: end after so many sessions.  [default: end with Ctrl-C]",
)
@seconds_option("--patience", 30.0, "With --listen: how long a client has to come back after its stream was cut.")
@pass_daemon
def conformance(daemon: Connection, names: tuple[str, ...], listen: str | None, sessions: int, patience: float) -> None:
    """Check that a daemon, or a client of Exchange, keeps to docs/wire.md.

    A daemon has to have the kernel type of the cases: pydotcompute-server pydotcompute_client.conformance.kernels.
    With names, only these CASEs are tried.

    A client sends requests to the kernel rough, calm, ending, lost or taken-over, all at --listen, and says bye. The
    kernel's id says what happens to it meanwhile.
    """
    if listen is not None:
        _judge(daemon, listen, sessions, patience)
        return
    cases = _named(names)
    types = daemon.call_all(daemon.kernels.ListKernelTypes, kernel_pb.ListKernelTypesRequest()).kernel_types
    if KERNEL_TYPE not in [each.name for each in types]:
        raise Failure(f"the daemon has no kernel type {KERNEL_TYPE!r}; start it with: pydotcompute-server {KERNELS}")
    results = []
    for case in cases:
        results.append(check(case, daemon.channel))
        if not daemon.as_json:
            echo_text(_line(results[-1]))
    _end(daemon, results)


def _judge(daemon: Connection, listen: str, sessions: int, patience: float) -> None:
    """Judge clients, and print what they have done."""
    try:
        split_address(listen)
    except ValueError as error:
        raise BadInput(f"--listen {listen}: {error}") from None

    def on_listening(address: str) -> None:
        echo_text(f"listening on {address}")

    try:
        record = asyncio.run(judge(listen, sessions, patience, on_listening))
    except RuntimeError as error:
        raise BadInput(f"--listen {listen}: {error}") from None
    results = record.results()
    if not daemon.as_json:
        for result in results:
            echo_text(_line(result))
    _end(daemon, results)


def _named(names: Iterable[str]) -> list[Case]:
    known = {case.name: case for case in CASES}
    for name in names:
        if name not in known:
            raise BadInput(f"there is no case {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names] or [*CASES]


def _line(result: Result) -> str:
    problem = "" if result.problem is None else f" But: {result.problem}"
    return f"{result.outcome:<9} {result.name:<22} {result.rule}{problem}"


def _end(daemon: Connection, results: list[Result]) -> None:
    """Print the sum, and end with exit code 1 if a rule was broken."""
    failed = sum(result.problem is not None for result in results)
    tried = sum(result.tried for result in results)
    if daemon.as_json:
        echo_json(
            [
                {"name": each.name, "rule": each.rule, "outcome": each.outcome, "problem": each.problem}
                for each in results
            ]
        )
    else:
        echo_text(f"{tried - failed} of {tried} ok")
    if failed:
        raise click.exceptions.Exit(1)


COMMANDS = (conformance,)
