"""Parameters that several commands have: kernels and times, with their completion in the shell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute_client.cli import tables
from pydotcompute_client.cli.connection import Connection
from pydotcompute_client.cli.failures import Failure

__all__ = ["complete_kernels", "complete_types", "kernel_argument", "pass_daemon", "seconds_option"]

COMPLETION_SECONDS = 1.0
"""The longest time, in seconds, that a person waits after pressing TAB."""
LONGEST_SECONDS = 1e9
"""The largest --timeout, in seconds: more than anybody waits, and within gRPC's limit for a deadline."""

pass_daemon = click.make_pass_decorator(Connection, ensure=True)


def complete_kernels(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the ids of the daemon's kernels that begin with `incomplete`; none if there is no daemon."""
    return _complete(ctx, incomplete, kernels=True, types=ctx.command.name in ("describe", "launch", "export", "check"))


def complete_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the names of the daemon's kernel types that begin with `incomplete`; none if there is no daemon."""
    return _complete(ctx, incomplete, kernels=False, types=True)


def _complete(ctx: click.Context, incomplete: str, *, kernels: bool, types: bool) -> list[CompletionItem[str]]:
    daemon = ctx.ensure_object(Connection)
    found: dict[str, str] = {}
    try:
        if types:
            listed = daemon.call(daemon.kernels.ListKernelTypes, kernel_pb.ListKernelTypesRequest(), COMPLETION_SECONDS)
            found.update((kernel_type.name, "kernel type") for kernel_type in listed.kernel_types)
        if kernels:
            running = daemon.call(daemon.kernels.ListKernels, kernel_pb.ListKernelsRequest(), COMPLETION_SECONDS)
            found.update((kernel.kernel_id, tables.state_name(kernel.state)) for kernel in running.kernels)
    except (PyDotComputeError, Failure):
        return []  # An error cannot be printed here: the shell would take it for a completion.
    # The shell scripts read lines, so they cannot complete a name with a line break.
    usable = [name for name in found if name.startswith(incomplete) and name.isprintable()]
    return [CompletionItem(name, help=found[name]) for name in usable]


class _Seconds(click.types.FloatParamType):
    """A number of seconds, with or without the unit `s`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number of seconds. Fails as Click's FLOAT if the value is no number."""
        number: Any = value.removesuffix("s") if isinstance(value, str) else value
        return super().convert(number, param, ctx)


def _checked_seconds(ctx: click.Context, param: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and not 0 <= seconds <= LONGEST_SECONDS:
        raise click.BadParameter(f"{seconds} is not from 0 to {LONGEST_SECONDS:g}.", ctx, param)
    return seconds


def seconds_option(name: str, default: float | None, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the decorator for an option whose value is a time, such as `30` or `30s`."""
    return click.option(
        name,
        type=_Seconds(),
        default=default,
        callback=_checked_seconds,
        metavar="SECONDS",
        show_default=True,
        help=text,
    )


kernel_argument = click.argument("kernel", shell_complete=complete_kernels)
