"""The table that is printed: which figures, beside which references, with which targets."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Rounds = Mapping[str, Sequence[Mapping[str, float]]]
"""For each workload, as `remote.piped`, the metrics of each round, as far as it ran."""

UNITS = {
    "rate": (",.0f", "/s"),
    "flood_rate": (",.0f", "/s"),
    "p50_us": (",.1f", "µs"),
    "p99_us": (",.1f", "µs"),
    "quiet_p50_us": (",.1f", "µs"),
    "p50_ms": (",.1f", "ms"),
    "cold_p50_ms": (",.1f", "ms"),
    "cpu_share": (".3f", "cores"),
    "kib_per_kernel": (".1f", "KiB"),
    "mib_each": (".1f", "MiB"),
    "mib_rate": (",.0f", "MiB/s"),
    "raw_mib_rate": (",.0f", "MiB/s"),
    "shared_mib_rate": (",.0f", "MiB/s"),
    "ratio": (".2f", ""),
    "shared_ratio": (".1f", ""),
}
"""How the values of each metric are written."""


@dataclass(frozen=True)
class Figure:
    """One line of the table: a metric, maybe against another one, maybe with a target.

    The target is the ratio's if there is a reference, else the value's.
    """

    label: str
    metric: str
    """A workload, the figure of it, and the metric: `local.piped.rate`."""
    reference: str | None = None
    """The metric to divide by."""
    inverse: bool = False
    """Divide the reference by this one instead: how many times as fast, of two times."""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def workload(self) -> str:
        """What measures it: `local.piped`."""
        return self.metric.rpartition(".")[0]


TABLE = {
    "peer: PyDotCompute 0.2.0, in-process": [
        Figure("ping-pong, p50", "peer.ping_pong.p50_us"),
        Figure("ping-pong, p99", "peer.ping_pong.p99_us"),
        Figure("piped", "peer.piped.rate"),
    ],
    "ray, xoscar: their actors in another process, one call a message": [
        Figure("Ray, piped", "ray.piped.rate"),
        Figure("xoscar, piped", "xoscar.piped.rate"),
    ],
    "local: this project, in-process": [
        Figure("ping-pong, p50", "local.ping_pong.p50_us", "peer.ping_pong.p50_us", inverse=True, at_least=3),
        Figure("ping-pong, p99", "local.ping_pong.p99_us", "peer.ping_pong.p99_us", inverse=True),
        Figure("piped", "local.piped.rate", "peer.piped.rate", at_least=3),
    ],
    "remote: this project, client and daemon": [
        Figure("piped", "remote.piped.rate", "peer.piped.rate", at_least=2.5),
        Figure("piped, against the limit", "remote.piped.rate", "raw.batched.rate", at_least=0.3),
        Figure("piped, against Ray", "remote.piped.rate", "ray.piped.rate", at_least=50),
        Figure("piped, against xoscar", "remote.piped.rate", "xoscar.piped.rate", at_least=8),
        Figure("piped, 8 clients", "remote.piped_8.rate", "remote.piped.rate"),
        Figure("piped, 64 clients", "remote.piped_64.rate", "remote.piped.rate", at_least=0.85),
        Figure("ask, p50", "remote.ask.p50_us", "raw.stream.p50_us", at_most=1.3),
        Figure("ask, p99", "remote.ask.p99_us", "raw.stream.p99_us"),
        Figure("piped, over TLS", "remote.tls_piped.rate"),
        Figure("piped, over TLS / plain", "remote.tls_piped.ratio", at_least=0.8),
        Figure("ask, over TLS, p50", "remote.tls_ask.p50_us"),
        Figure("ask, over TLS / plain, p50", "remote.tls_ask.ratio", at_most=1.15),
        Figure("piped, with access", "remote.access_piped.rate"),
        Figure("piped, with access / without", "remote.access_piped.ratio", at_least=0.97),
        Figure("ask, with access, p50", "remote.access_ask.p50_us"),
        Figure("ask, with access / without, p50", "remote.access_ask.ratio", at_most=1.03),
        Figure("unary Ask, 64 in flight, with access", "remote.access_unary.rate"),
        Figure("unary Ask, 64 in flight, with access / without", "remote.access_unary.ratio", at_least=0.97),
        Figure("ask, quiet, p50", "remote.alone_under_load.quiet_p50_us"),
        Figure("ask, beside a flood, p50", "remote.alone_under_load.p50_us"),
        Figure("the flood meanwhile", "remote.alone_under_load.flood_rate"),
        Figure("ask, beside the flood / quiet", "remote.alone_under_load.ratio", at_most=5),
        Figure("unary Ask, p50", "remote.unary.p50_us", "raw.unary.p50_us"),
        Figure("unary Ask, p99", "remote.unary.p99_us", "raw.unary.p99_us"),
        Figure("unary Ask, 64 in flight", "remote.unary_64.rate", "raw.unary_64.rate", at_least=0.8),
        Figure("1,000 idle kernels, CPU", "remote.idle.cpu_share", at_most=0.15),
        Figure("1,000 idle kernels, memory of each", "remote.idle.kib_per_kernel", at_most=20),
    ],
    "arrays: 64 MiB of float32 there and back, beside as many bytes through grpcio": [
        Figure("array over Exchange", "arrays.echo.mib_rate"),
        Figure("bytes in one message", "arrays.echo.raw_mib_rate"),
        Figure("array / bytes", "arrays.echo.ratio", at_least=0.8),
        Figure("array through shared memory", "arrays.echo.shared_mib_rate"),
        Figure("shared memory / Exchange", "arrays.echo.shared_ratio", at_least=4),
    ],
    "ghz: a load generator in Go, on the calculator's own service and on grpcio's echo": [
        Figure("Ask, 64 in flight", "ghz.ask.rate", "ghz.raw_unary.rate"),
        Figure("Ask, p50", "ghz.ask.p50_us", "ghz.raw_unary.p50_us"),
        Figure("Ask, p99", "ghz.ask.p99_us", "ghz.raw_unary.p99_us"),
        Figure("Stream, 4 of 1,000 messages", "ghz.stream.rate", "ghz.raw_stream.rate"),
        Figure("the echo, 64 in flight", "ghz.raw_unary.rate"),
        Figure("the echo, p50", "ghz.raw_unary.p50_us"),
        Figure("the echo, p99", "ghz.raw_unary.p99_us"),
        Figure("the echo, 4 streams of 1,000", "ghz.raw_stream.rate"),
    ],
    "inference: examples/inference.py, 256 clients in flight": [
        Figure("by the batch", "inference.batched.rate", "inference.one_by_one.rate", at_least=5),
        Figure("one by one", "inference.one_by_one.rate"),
        Figure("by the batch, at a daemon", "inference.remote_batched.rate", "inference.remote_one_by_one.rate"),
        Figure("one by one, at a daemon", "inference.remote_one_by_one.rate"),
    ],
    "worker: kernels in processes of their own": [
        Figure("SIGKILL to the next answer, p50", "worker.restart.p50_ms", at_most=60),
        Figure("the same without a template, p50", "worker.restart.cold_p50_ms", at_most=400),
        Figure("100 idle workers, memory of each", "worker.idle.mib_each", at_most=18),
        Figure("100 idle workers, CPU", "worker.idle.cpu_share", at_most=0.05),
        Figure("piped, at a daemon", "isolated.piped.rate"),
        Figure("piped / without workers", "isolated.piped.ratio", at_least=0.75),
        Figure("ask, at a daemon, p50", "isolated.ask.p50_us"),
        Figure("ask / without workers, p50", "isolated.ask.ratio", at_most=1.3),
        Figure("array of 64 MiB there and back", "isolated.array.mib_rate"),
        Figure("array / without workers", "isolated.array.ratio", at_least=0.8),
        Figure("computing 2 ms, two instances", "isolated.cores.rate"),
        Figure("two instances / one", "isolated.cores.ratio", at_least=1.7),
        Figure("ask beside 1 s of computing, p50", "isolated.beside_computing.p50_us"),
        Figure("beside computing / quiet, p50", "isolated.beside_computing.ratio", at_most=1.5),
        Figure("ask beside a crash every 100 ms, p99", "isolated.beside_crashing.p99_us"),
        Figure("beside crashes / quiet, p99", "isolated.beside_crashing.ratio", at_most=2),
        Figure("1,000 of 1 ms and one of 1 s, p99", "isolated.slow_among_short.p99_us"),
        Figure("with the one of 1 s / without, p99", "isolated.slow_among_short.ratio", at_most=3),
    ],
    "raw: grpcio's echo, the limit": [
        Figure("stream, 256 messages a frame", "raw.batched.rate"),
        Figure("stream, one by one, p50", "raw.stream.p50_us"),
        Figure("stream, one by one, p99", "raw.stream.p99_us"),
        Figure("unary, p50", "raw.unary.p50_us"),
        Figure("unary, p99", "raw.unary.p99_us"),
        Figure("unary, 64 in flight", "raw.unary_64.rate"),
    ],
}

WORKLOADS = list(dict.fromkeys(figure.workload for figures in TABLE.values() for figure in figures))


def table_lines(measured: Rounds, broken: Collection[str]) -> list[tuple[str, ...]]:
    """The cells of the table, a section's title being a line of one cell."""
    lines: list[tuple[str, ...]] = [("", "median", "min .. max", "ratio", "to", "target", "met")]
    for title, figures in TABLE.items():
        shown = [figure for figure in figures if figure.workload in measured]
        if shown:
            lines.append((title,))
        for figure in shown:
            values = _values(figure.metric, measured)
            if figure.workload in broken or not values:
                lines.append((f"  {figure.label}", "BROKEN", "", "", "", "", ""))
                continue
            form, unit = UNITS[figure.metric.rpartition(".")[2]]
            value = f"{median(values):{form}} {unit}".rstrip()
            spread = f"{min(values):{form}} .. {max(values):{form}}"
            lines.append((f"  {figure.label}", value, spread, *_judgement(figure, measured)))
    return lines


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


def _values(metric: str, measured: Rounds) -> list[float]:
    workload, _, name = metric.rpartition(".")
    return [metrics[name] for metrics in measured.get(workload, [])]


def _judgement(figure: Figure, measured: Rounds) -> tuple[str, str, str, str]:
    """A figure's ratio to its reference, the reference, the target, whether it is met; each empty if there is none."""
    judged = median(_values(figure.metric, measured))
    ratio, reference = "", ""
    if figure.reference is not None:
        references = _values(figure.reference, measured)
        if not references:
            return "", "", "", ""
        reference = figure.reference.rpartition(".")[0]
        if figure.inverse:
            judged, reference = median(references) / judged, f"{reference} / this"
        else:
            judged /= median(references)
        ratio = f"{judged:.2f}"
    if figure.at_least is not None:
        return ratio, reference, f">= {figure.at_least}", "yes" if judged >= figure.at_least else "NO"
    if figure.at_most is not None:
        return ratio, reference, f"<= {figure.at_most}", "yes" if judged <= figure.at_most else "NO"
    return ratio, reference, "", ""
