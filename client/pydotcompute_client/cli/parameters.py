"""Parameters of several commands: kernels and times, and how the shell completes them."""

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
"""Seconds that a person who presses TAB waits at most."""
LONGEST_SECONDS = 1e9
"""The largest --timeout: more than anybody waits, and less than a deadline can be."""

pass_daemon = click.make_pass_decorator(Connection, ensure=True)


def complete_kernels(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The ids of the daemon's kernels; none if there is no daemon."""
    return _complete(ctx, incomplete, kernels=True, types=ctx.command.name in ("describe", "launch", "export", "check"))


def complete_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
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
        return []  # There is no place to say so: the shell would take it for a completion.
    # The scripts read lines, so a name with a line break in it is beyond them.
    usable = [name for name in found if name.startswith(incomplete) and name.isprintable()]
    return [CompletionItem(name, help=found[name]) for name in usable]


class _Seconds(click.types.FloatParamType):
    """A number, with or without its unit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number: Any = value.removesuffix("s") if isinstance(value, str) else value
        return super().convert(number, param, ctx)


def _checked_seconds(ctx: click.Context, param: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and not 0 <= seconds <= LONGEST_SECONDS:
        raise click.BadParameter(f"{seconds} is not from 0 to {LONGEST_SECONDS:g}.", ctx, param)
    return seconds


def seconds_option(name: str, default: float | None, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option that is a time, such as `30` or `30s`."""
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
