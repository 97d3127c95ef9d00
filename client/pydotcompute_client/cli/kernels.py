"""The commands that launch kernels, change their state and watch them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pydotcompute.protobuf.json.write import as_document
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.v1 import server_service_pb2 as server_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.wire.durations import duration
from pydotcompute.wire.kernels import strategy_to_proto
from pydotcompute_client.cli import tables
from pydotcompute_client.cli.connection import CALL_SECONDS, PROGRAM, Connection
from pydotcompute_client.cli.failures import Failure
from pydotcompute_client.cli.output import echo_json, echo_text
from pydotcompute_client.cli.parameters import (
    complete_kernels,
    complete_types,
    kernel_argument,
    pass_daemon,
    seconds_option,
)

LAUNCH_SECONDS = 120.0
"""Seconds for a launch, or a start of workers: a kernel may compile for its GPU, or load a model."""
HEALTH_SECONDS = 3.0
"""Seconds for a health check: fewer than orchestrators allow for one."""

Changed = (
    kernel_pb.LaunchResponse
    | kernel_pb.ActivateResponse
    | kernel_pb.DeactivateResponse
    | kernel_pb.ReactivateResponse
    | kernel_pb.TerminateResponse
    | kernel_pb.RestartResponse
)


def _show_change(daemon: Connection, response: Changed) -> None:
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        echo_text(f"{response.kernel.kernel_id} is {tables.state_name(response.kernel.state)}")


_all_option = click.option("--all", "everything", is_flag=True, help="List all, also if there are very many.")


def _say_how_many_more(response: kernel_pb.ListKernelsResponse | kernel_pb.ListKernelTypesResponse, shown: int) -> None:
    if response.next_page_token:
        click.echo(f"{response.total_size - shown} more; --all lists them", err=True)


@click.command()
@_all_option
@pass_daemon
def ps(daemon: Connection, everything: bool) -> None:
    """List the kernels that are launched."""
    call = daemon.call_all if everything else daemon.call
    response = call(daemon.kernels.ListKernels, kernel_pb.ListKernelsRequest())
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        tables.show_kernels(response.kernels)
    _say_how_many_more(response, len(response.kernels))


@click.command()
@_all_option
@pass_daemon
def types(daemon: Connection, everything: bool) -> None:
    """List the kernel types that can be launched."""
    call = daemon.call_all if everything else daemon.call
    response = call(daemon.kernels.ListKernelTypes, kernel_pb.ListKernelTypesRequest())
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        tables.show_types(response.kernel_types)
    _say_how_many_more(response, len(response.kernel_types))


@click.command()
@kernel_argument
@pass_daemon
def describe(daemon: Connection, kernel: str) -> None:
    """Show everything about a kernel or a kernel type."""
    response = daemon.describe(kernel)
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        tables.show_description(kernel, response)


@click.command()
@kernel_argument
@click.option(
    "--type",
    "kernel_type",
    default="",
    metavar="TYPE",
    shell_complete=complete_types,
    help="The kernel type to launch.  [default: the type named KERNEL]",
)
@click.option(
    "--input-queue-size",
    type=click.IntRange(1, 2**32 - 1),
    help="Messages that the input mailbox holds.  [default: as declared]",
)
@click.option(
    "--output-queue-size",
    type=click.IntRange(1, 2**32 - 1),
    help="Messages that the output mailbox holds.  [default: as declared]",
)
@click.option(
    "--backpressure",
    type=click.Choice(["block", "reject", "drop_oldest"]),
    help="What happens when the input mailbox is full.  [default: as declared]",
)
@click.option("--activate", is_flag=True, help="Activate the kernel as well.")
@pass_daemon
def launch(
    daemon: Connection,
    kernel: str,
    kernel_type: str,
    input_queue_size: int | None,
    output_queue_size: int | None,
    backpressure: Any,
    activate: bool,
) -> None:
    """Set up a kernel whose id is KERNEL.

    The kernel takes messages from now on, and handles them once it is activated.
    """
    config = kernel_pb.KernelConfig(
        input_queue_size=input_queue_size or 0,
        output_queue_size=output_queue_size or 0,
        backpressure_strategy=message_pb.BACKPRESSURE_STRATEGY_UNSPECIFIED
        if backpressure is None
        else strategy_to_proto(backpressure),
    )
    request = kernel_pb.LaunchRequest(kernel_id=kernel, kernel_type=kernel_type, config=config)
    response: Changed = daemon.call(daemon.kernels.Launch, request, LAUNCH_SECONDS)
    if activate:
        response = daemon.call(daemon.kernels.Activate, kernel_pb.ActivateRequest(kernel_id=kernel))
    _show_change(daemon, response)


@click.command()
@kernel_argument
@pass_daemon
def activate(daemon: Connection, kernel: str) -> None:
    """Begin to hand messages to a launched kernel."""
    _show_change(daemon, daemon.call(daemon.kernels.Activate, kernel_pb.ActivateRequest(kernel_id=kernel)))


@click.command()
@kernel_argument
@pass_daemon
def deactivate(daemon: Connection, kernel: str) -> None:
    """Pause a kernel: messages queue up."""
    _show_change(daemon, daemon.call(daemon.kernels.Deactivate, kernel_pb.DeactivateRequest(kernel_id=kernel)))


@click.command()
@kernel_argument
@pass_daemon
def reactivate(daemon: Connection, kernel: str) -> None:
    """End a kernel's pause."""
    _show_change(daemon, daemon.call(daemon.kernels.Reactivate, kernel_pb.ReactivateRequest(kernel_id=kernel)))


@click.command()
@kernel_argument
@seconds_option("--timeout", 5.0, "How long the kernel may take to end by itself.")
@pass_daemon
def terminate(daemon: Connection, kernel: str, timeout: float) -> None:
    """End a kernel."""
    request = kernel_pb.TerminateRequest(kernel_id=kernel, timeout=duration(timeout))
    _show_change(daemon, daemon.call(daemon.kernels.Terminate, request, timeout + CALL_SECONDS))


@click.command()
@kernel_argument
@click.argument("instances", type=click.IntRange(1, 2**32 - 1))
@pass_daemon
def scale(daemon: Connection, kernel: str, instances: int) -> None:
    """Let INSTANCES worker processes share the mailbox of a kernel.

    One that is too many finishes what it has in hand, and then ends.
    """
    request = kernel_pb.ScaleRequest(kernel_id=kernel, instances=instances)
    response = daemon.call(daemon.kernels.Scale, request, LAUNCH_SECONDS)
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        echo_text(f"{kernel} has {instances} instance{'' if instances == 1 else 's'}")


@click.command()
@kernel_argument
@seconds_option("--timeout", 5.0, "How long an actor may take to finish what it has in hand.")
@pass_daemon
def restart(daemon: Connection, kernel: str, timeout: float) -> None:
    """Start the actor of a kernel anew, also of one that has failed.

    Messages that wait go on waiting.
    """
    request = kernel_pb.RestartRequest(kernel_id=kernel, timeout=duration(timeout))
    _show_change(daemon, daemon.call(daemon.kernels.Restart, request, timeout + LAUNCH_SECONDS))


@click.command()
@click.argument("file", default="", type=click.Path())
@pass_daemon
def reload(daemon: Connection, file: str) -> None:
    """Load FILE of the daemon's kernels again, or all its files.

    New workers take over message by message, and old ones finish what they have in hand. A change that breaks programs
    is refused, and then nothing changes. The daemon must run with --isolation process.
    """
    response = daemon.call(daemon.kernels.Reload, kernel_pb.ReloadRequest(file=file), LAUNCH_SECONDS)
    if daemon.as_json:
        echo_json(as_document(response))
        return
    tables.show_reload(response)


@click.command()
@click.argument("kernels", nargs=-1, metavar="[KERNEL]...", shell_complete=complete_kernels)
@click.option("--watch", is_flag=True, help="Go on until interrupted; with --json, each snapshot is one line.")
@seconds_option("--interval", 1.0, "The time between snapshots, with --watch.")
@pass_daemon
def telemetry(daemon: Connection, kernels: tuple[str, ...], watch: bool, interval: float) -> None:
    """Show the telemetry of the named kernels, or of all."""
    if watch:
        snapshots = _snapshots(daemon, kernels, interval)
        if daemon.as_json:
            for snapshot in snapshots:
                echo_json(as_document(snapshot))
        else:
            tables.watch_telemetry(snapshot.kernels for snapshot in snapshots)
        return
    request = telemetry_pb.GetTelemetryRequest(kernel_ids=kernels)
    response = daemon.call(daemon.telemetry.GetTelemetry, request)
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        tables.show_telemetry(response.kernels)


def _snapshots(
    daemon: Connection, kernels: tuple[str, ...], interval: float
) -> Iterator[telemetry_pb.WatchTelemetryResponse]:
    request = telemetry_pb.WatchTelemetryRequest(kernel_ids=kernels, interval=duration(interval))
    try:
        yield from daemon.telemetry.WatchTelemetry(request)
    except grpc.RpcError as error:
        daemon.fail(error, interval)


@click.command()
@pass_daemon
def devices(daemon: Connection) -> None:
    """Show the GPUs of the daemon's machine."""
    response = daemon.call(daemon.telemetry.GetDevices, telemetry_pb.GetDevicesRequest())
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        tables.show_devices(response.devices)


@click.command()
@pass_daemon
def memory(daemon: Connection) -> None:
    """Show how much memory the daemon takes, and how much of its budget the messages take that wait in it."""
    response = daemon.call(daemon.telemetry.GetMemory, telemetry_pb.GetMemoryRequest())
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        tables.show_memory(response)


@click.command()
@click.argument("kernel", default="", shell_complete=complete_kernels)
@pass_daemon
def health(daemon: Connection, kernel: str) -> None:
    """Check that the daemon, or KERNEL, is serving.

    A kernel is serving from its activation until it ends or fails, also while it is paused.
    """
    what = f"kernel {kernel!r}" if kernel else "the daemon"
    check = health_pb2_grpc.HealthStub(daemon.channel).Check
    try:
        response = check(health_pb2.HealthCheckRequest(service=kernel), timeout=HEALTH_SECONDS)
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            hint = f"`{PROGRAM} ps` lists those that are"
            raise Failure(f"{what} is not launched at {daemon.target}; {hint}") from None
        daemon.fail(error, HEALTH_SECONDS)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    if daemon.as_json:
        echo_json(as_document(response))
    elif response.status == health_pb2.HealthCheckResponse.SERVING:
        click.echo(status)
    if response.status != health_pb2.HealthCheckResponse.SERVING:
        raise Failure(f"{what} at {daemon.target} is {status}")


@click.command()
@pass_daemon
def info(daemon: Connection) -> None:
    """Show the daemon's version, its limits and what it can do."""
    response = daemon.call(daemon.server.GetServerInfo, server_pb.GetServerInfoRequest())
    if daemon.as_json:
        echo_json(as_document(response))
    else:
        tables.show_server_info(response)


_LIFECYCLE = (launch, activate, deactivate, reactivate, scale, restart, reload, terminate)
COMMANDS = (ps, types, describe, *_LIFECYCLE, telemetry, devices, memory, health, info)
