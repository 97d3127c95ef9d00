"""The command's output for people: aligned tables, with colours on a terminal."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from pydotcompute.access.tokens import Token
from pydotcompute.device.settings import text_of_bytes
from pydotcompute.printable import escaped, escaped_json
from pydotcompute.protobuf.export.render import render
from pydotcompute.protobuf.packages import by_package, is_reserved
from pydotcompute.v1 import client_service_pb2 as client_pb
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import server_service_pb2 as server_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.wire.kernels import executor_from_proto, state_from_proto, strategy_from_proto
from pydotcompute_client.cli.output import echo_text
from pydotcompute_client.cli.supervision import SUPERVISION_FACTS, supervision_facts, worker_columns

# Rich is imported where it is used, because the commands that programs run (`health`, `ask`, `--json`) do not need it.

__all__ = [
    "show_clients",
    "show_contexts",
    "show_dead_letters",
    "show_description",
    "show_devices",
    "show_kernels",
    "show_memory",
    "show_reload",
    "show_server_info",
    "show_telemetry",
    "show_tokens",
    "show_types",
    "state_name",
    "watch_telemetry",
]

_NUMBERS = {"ID", "QUEUE", "OUTPUTS", "PROCESSED", "DROPPED", "ERRORS", "RATE", "P50", "P95", "P99", "MAX", "UPTIME"}
_NUMBERS |= {"VALUE", "INDEX", "MEMORY", "BUSY", "TEMPERATURE", "POWER", "DEVICE MEMORY"}
_NUMBERS |= {"SESSIONS", "CALLS", "UNDER WAY", "BYTES UNDER WAY", "RECEIVED", "BYTES RECEIVED", "SENT"}
_NUMBERS |= {"INSTANCES", "RESTARTS", "PID", "WORKER MEMORY", "CPU"}
_IF_ANY = {"INSTANCES", "STUCK", "DEVICE", "FAILURE", "LAST ERROR", "DEVICE MEMORY", "MEMORY LIMIT"}
_IF_ANY |= {"RESTARTS", "PID", "WORKER MEMORY", "CPU", "LAST CRASH", *SUPERVISION_FACTS}
"""The columns that are left out if they would be empty."""
_STATE_STYLES = {"ACTIVE": "green", "LAUNCHED": "cyan", "DEACTIVATED": "yellow", "FAILED": "bold red"}
_WIDTH = 1 << 16
"""The width of a table, in characters: more than any table has, so that Rich wraps nothing."""


def state_name(state: kernel_pb.KernelState) -> str:
    """Return the name of a state as people write it, such as `ACTIVE`."""
    return state_from_proto(state).name


def show_contexts(current: str, contexts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one row for each context."""
    rows = [
        (
            "*" if name == current else "",
            name,
            str(each["target"]),
            "yes" if any(key.startswith("tls") for key in each) else "no",
            str(each.get("token_file", "")),
        )
        for name, each in contexts.items()
    ]
    _show(("", "NAME", "TARGET", "TLS", "TOKEN FILE"), rows)


def show_tokens(tokens: Iterable[Token], now: datetime) -> None:
    """Print one row for each token."""

    def time(value: datetime) -> str:
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")

    rows = [
        (
            token.id,
            token.name,
            "by the file of roles" if token.grant is None else token.grant.role.word,
            "" if token.grant is None else " ".join(token.grant.kernels),
            time(token.created),
            "never" if token.expires is None else time(token.expires) + (" (over)" if token.expires <= now else ""),
        )
        for token in tokens
    ]
    _show(("TOKEN", "NAME", "ROLE", "KERNELS", "CREATED", "EXPIRES"), rows)


def show_kernels(kernels: Iterable[kernel_pb.Kernel]) -> None:
    """Print one row for each kernel."""
    columns = ("KERNEL", "TYPE", "STATE", "INSTANCES", "QUEUE", "OUTPUTS", "STUCK", "RESTARTS", "DEVICE", "FAILURE")
    listed = list(kernels)
    any_on_gpu = any(kernel.device_name for kernel in listed)
    rows = [
        (
            kernel.kernel_id,
            kernel.kernel_type,
            _state(kernel),
            str(kernel.instances or ""),
            str(kernel.queue_depth),
            _outputs(kernel),
            _stuck(kernel),
            str(kernel.restarts or ""),
            kernel.device if any_on_gpu else "",
            kernel.failure,
        )
        for kernel in listed
    ]
    _show(columns, rows)


def show_reload(response: kernel_pb.ReloadResponse) -> None:
    """Print what is new after a reload, on a line for each kernel, kernel type and message type."""
    for kernel_id in response.kernel_ids:
        echo_text(f"{kernel_id} has new workers")
    for name in response.new_kernel_types:
        echo_text(f"{name} is a new kernel type")
    for name in response.changed_types:
        echo_text(f"{name} has changed")


def _outputs(kernel: kernel_pb.Kernel | telemetry_pb.KernelTelemetry) -> str:
    """Return how many outputs wait, and how many can wait. A daemon that tells neither is an older one."""
    return f"{kernel.output_depth}/{kernel.output_queue_size}" if kernel.output_queue_size else "-"


def _stuck(kernel: kernel_pb.Kernel | telemetry_pb.KernelTelemetry) -> str:
    """Return for how long the actor has waited in `ctx.send` or in `ctx.ask`; empty if it does not."""
    if kernel.HasField("stuck_in_send_seconds"):
        return f"in send for {_uptime(kernel.stuck_in_send_seconds)}"
    return f"asks {kernel.asking} for {_uptime(kernel.asking_seconds)}" if kernel.HasField("asking") else ""


def show_types(types: Iterable[kernel_pb.KernelType]) -> None:
    """Print one row for each kernel type, with the first line of its documentation."""
    columns = ["TYPE", "SERVICE", "INPUT", "OUTPUT", "QUEUE", "BACKPRESSURE"]
    columns += ["EXECUTOR", "DEVICE", "MEMORY LIMIT", "DESCRIPTION"]
    rows = [
        (
            kernel_type.name,
            kernel_type.service or "-",
            kernel_type.input_type or "-",
            kernel_type.output_type or "-",
            str(kernel_type.config.input_queue_size),
            strategy_from_proto(kernel_type.config.backpressure_strategy),
            executor_from_proto(kernel_type.executor) or "-",
            kernel_type.device or "-",
            _memory_limit(kernel_type),
            kernel_type.documentation.partition("\n")[0],
        )
        for kernel_type in types
    ]
    _show(columns, rows)


def show_description(kernel_id: str, described: kernel_pb.DescribeKernelResponse) -> None:
    """Print everything about one kernel, or about one kernel type."""
    kernel, kernel_type = described.kernel, described.kernel_type
    config = kernel_type.config
    launched = described.HasField("kernel")
    facts = {
        "KERNEL": kernel_id,
        "TYPE": kernel_type.name,
        "STATE": _state(kernel) if launched else "not launched",
        "FAILURE": kernel.failure,
        "INSTANCES": str(kernel.instances or ""),
        "RESTARTS": str(kernel.restarts or ""),
        "LAST CRASH": kernel.last_crash,
        "QUEUE": f"{kernel.queue_depth} of {config.input_queue_size}" if launched else str(config.input_queue_size),
        "BACKPRESSURE": strategy_from_proto(config.backpressure_strategy),
        "OUTPUT QUEUE": f"{kernel.output_depth} of {config.output_queue_size}"
        if launched
        else str(config.output_queue_size),
        "STUCK": _stuck(kernel),
        "GRID": f"{config.grid_size} x {config.block_size}",
        "EXECUTOR": executor_from_proto(kernel_type.executor) or "-",
        "DEVICE": _device(kernel, kernel_type),
        "MEMORY LIMIT": _memory_limit(kernel_type),
        **supervision_facts(kernel_type),
        "SERVICE": kernel_type.service or "-",
        "INPUT": kernel_type.input_type or "-",
        "OUTPUT": kernel_type.output_type or "-",
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        if value or name not in _IF_ANY:
            echo_text(f"{name:{width}}  {escaped(value)}")
    if kernel_type.documentation:
        echo_text(f"\n{kernel_type.documentation}")
    for source in _sources([*described.input_type.files.file, *described.output_type.files.file]):
        echo_text(f"\n{source}", nl=False)
    if described.sample_json:
        echo_text(f"\nTry:\n  pydotcompute ask {shlex.quote(kernel_id)} {shlex.quote(described.sample_json)}")


def _state(kernel: kernel_pb.Kernel) -> str:
    return f"{state_name(kernel.state)}, restarting" if kernel.restarting else state_name(kernel.state)


def _device(kernel: kernel_pb.Kernel, kernel_type: kernel_pb.KernelType) -> str:
    """Return the device of a kernel, and the device that its type declares if that is another."""
    text = " ".join(filter(None, (kernel.device or kernel_type.device, kernel.device_name)))
    return text if kernel.device in ("", kernel_type.device) else f"{text} (declared: {kernel_type.device})"


def _memory_limit(kernel_type: kernel_pb.KernelType) -> str:
    return text_of_bytes(kernel_type.memory_limit_bytes) if kernel_type.HasField("memory_limit_bytes") else ""


def _sources(files: Iterable[FileDescriptorProto]) -> Iterator[str]:
    """Yield the message types as `.proto` source, one text for each package. The daemon's own types are left out."""
    for file in by_package(files):
        if not is_reserved(file.package):
            yield render(file)


def show_telemetry(kernels: Iterable[telemetry_pb.KernelTelemetry]) -> None:
    """Print one row for each kernel."""
    _show(_TELEMETRY, _telemetry_rows(kernels))


def watch_telemetry(snapshots: Iterable[Sequence[telemetry_pb.KernelTelemetry]]) -> None:
    """Print a table that is updated in place. Without a terminal, print one table after another, with blank lines."""
    if not sys.stdout.isatty():
        for kernels in snapshots:
            show_telemetry(kernels)
            click.echo()
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        for kernels in snapshots:
            # Text beyond the right edge is cut, because wrapped lines would move the rows out of their places.
            table = Text.from_ansi(_table(_TELEMETRY, _telemetry_rows(kernels)), no_wrap=True, overflow="ellipsis")
            live.update(table, refresh=True)


_TELEMETRY = (
    *("KERNEL", "STATE", "PROCESSED", "RATE", "QUEUE", "OUTPUTS", "DROPPED", "ERRORS"),
    *("P50", "P95", "P99", "MAX", "UPTIME", "STUCK", "DEVICE MEMORY"),
    *("RESTARTS", "PID", "WORKER MEMORY", "CPU", "LAST CRASH", "LAST ERROR"),
)


def _telemetry_rows(kernels: Iterable[telemetry_pb.KernelTelemetry]) -> list[tuple[str, ...]]:
    return [
        (
            kernel.kernel_id,
            state_name(kernel.state),
            str(kernel.messages_processed),
            f"{kernel.rate:.1f}/s",
            str(kernel.queue_depth),
            _outputs(kernel),
            str(kernel.messages_dropped),
            str(kernel.error_count),
            _latency(kernel.p50_latency_ns),
            _latency(kernel.p95_latency_ns),
            _latency(kernel.p99_latency_ns),
            _latency(kernel.max_latency_ns),
            _uptime(kernel.uptime_seconds),
            _stuck(kernel),
            text_of_bytes(kernel.device_memory_bytes) if kernel.HasField("device_memory_bytes") else "",
            str(kernel.restarts or ""),
            *worker_columns(kernel.workers),
            kernel.last_crash if kernel.last_crash != kernel.last_error else "",
            kernel.last_error,
        )
        for kernel in kernels
    ]


def show_devices(devices: Iterable[telemetry_pb.DeviceTelemetry]) -> None:
    """Print one row for each GPU."""

    def told(device: telemetry_pb.DeviceTelemetry, name: Any, text: str) -> str:
        return text.format(getattr(device, name)) if device.HasField(name) else "-"

    rows = [
        (
            str(device.index),
            device.name,
            _used(device),
            told(device, "utilization_percent", "{}%"),
            told(device, "temperature_celsius", "{} C"),
            told(device, "power_watts", "{:.0f} W"),
        )
        for device in devices
    ]
    _show(("INDEX", "DEVICE", "MEMORY", "BUSY", "TEMPERATURE", "POWER"), rows)


def show_memory(response: telemetry_pb.GetMemoryResponse) -> None:
    """Print one row for each place where messages wait, and rows for their sum and for the daemon's process."""
    rows = [(place.name, text_of_bytes(place.bytes)) for place in response.places]
    rows.append(("all messages", f"{text_of_bytes(response.used_bytes)} of {text_of_bytes(response.budget_bytes)}"))
    rows.append(("the daemon's process", text_of_bytes(response.resident_bytes)))
    _show(("WHERE", "MEMORY"), rows)


def show_server_info(info: server_pb.GetServerInfoResponse) -> None:
    """Print what a daemon is: the facts, and then its limits."""
    facts = {
        "VERSION": info.version,
        "EPOCH": info.daemon_epoch,
        "STARTED": info.start_time.ToDatetime(UTC).astimezone().isoformat(" ", "seconds"),
        "FEATURES": ", ".join(info.features) or "-",
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        echo_text(f"{name:{width}}  {escaped(value)}")
    click.echo()
    limits = {name: int(limit) if limit.is_integer() else limit for name, limit in sorted(info.limits.items())}
    _show(("LIMIT", "VALUE"), [(name, str(limit)) for name, limit in limits.items()])


def _used(device: telemetry_pb.DeviceTelemetry) -> str:
    if not (device.HasField("memory_used_bytes") and device.HasField("memory_total_bytes")):
        return "-"
    return f"{text_of_bytes(device.memory_used_bytes)} of {text_of_bytes(device.memory_total_bytes)}"


def _latency(nanoseconds: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.1f}{unit}"
    return f"{nanoseconds}ns" if nanoseconds else "-"


def _uptime(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"


def show_clients(clients: Iterable[client_pb.Client]) -> None:
    """Print one row for each client."""
    rows = [
        (
            client.principal,
            client.peer,
            client.user_agent,
            client.since.ToDatetime(UTC).astimezone().isoformat(" ", "seconds"),
            str(client.sessions),
            str(client.calls),
            str(client.messages_under_way),
            text_of_bytes(client.bytes_under_way),
            str(client.messages_received),
            text_of_bytes(client.bytes_received),
            str(client.messages_sent),
            f"{client.messages_per_second:.1f}/s" if client.HasField("messages_per_second") else "-",
        )
        for client in clients
    ]
    columns = ("PRINCIPAL", "PEER", "VERSION", "SINCE", "SESSIONS", "CALLS", "UNDER WAY", "BYTES UNDER WAY")
    _show((*columns, "RECEIVED", "BYTES RECEIVED", "SENT", "RATE"), rows)


_LONGEST_BODY = 60
"""The most characters of a dead letter's body in a table; --json prints the whole body."""


def show_dead_letters(letters: Iterable[dict[str, Any]], discarded: int) -> None:
    """Print one row for each dead letter, from its JSON document."""
    rows = [
        (
            str(letter["id"]),
            datetime.fromisoformat(letter["time"]).astimezone().isoformat(" ", "seconds"),
            letter["direction"].removeprefix("DEAD_LETTER_DIRECTION_"),
            letter["reason"].removeprefix("DEAD_LETTER_REASON_"),
            _short_body(letter["message"].get("body")),
            letter["detail"],
        )
        for letter in letters
    ]
    _show(("ID", "TIME", "DIRECTION", "REASON", "BODY", "DETAIL"), rows)
    if discarded:
        click.echo(f"\n{discarded} older ones are gone")


def _short_body(body: dict[str, Any] | None) -> str:
    if body is None:
        return "-"
    shown = {name: value for name, value in body.items() if name != "@type"}
    text = escaped_json(json.dumps(shown, ensure_ascii=False))
    return text if len(text) <= _LONGEST_BODY else f"{text[: _LONGEST_BODY - 1]}…"


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    click.echo(_table(columns, rows))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text, with one line for each row, however long. It has colours if stdout is a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    kept = [index for index, name in enumerate(columns) if name not in _IF_ANY or any(row[index] for row in rows)]
    for index in kept:
        table.add_column(columns[index], justify="right" if columns[index] in _NUMBERS else "left")
    for row in rows:
        # An error's text can have several lines; a row has one. Rich passes most control characters on to the terminal.
        table.add_row(*(Text(escaped(" ".join(row[i].split())), _STATE_STYLES.get(row[i], "")) for i in kept))
    console = Console(force_terminal=sys.stdout.isatty(), width=_WIDTH)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())  # Rich pads the last column too.
