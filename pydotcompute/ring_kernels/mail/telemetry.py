"""What a kernel has done: counters on the hot path, and frozen snapshots for whoever asks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any, TypedDict

import numpy as np

from pydotcompute.device.lease import DeviceMemory

__all__ = ["LatencyHistogram", "RingKernelTelemetry", "RuntimeSummary", "summarize"]


GATHERED_AT_MOST = 4_096
"""Durations that a histogram gathers before it counts them."""


@dataclass(frozen=True)
class RingKernelTelemetry:
    """The counters of one kernel at one moment. Latencies are from arrival in the mailbox to completion."""

    kernel_id: str
    state: str
    """The name of its `KernelState`."""
    messages_processed: int
    """Messages completed: answered, or done with when the actor asked for the next one."""
    messages_dropped: int
    """Messages, in either direction, that became dead letters."""
    queue_depth: int
    """Messages that wait in the input mailbox."""
    error_count: int
    """Exceptions that left the actor."""
    last_error: str | None
    """The last of them, as "Class: text"."""
    uptime_seconds: float
    """From the launch to now, or to the end of the kernel."""
    throughput: float
    """Messages processed per second of uptime."""
    min_latency_ns: int
    max_latency_ns: int
    avg_latency_ns: float
    p50_latency_ns: int
    """Percentiles are within 4 percent."""
    p95_latency_ns: int
    p99_latency_ns: int
    batches: int
    """Batches that the actor was handed; 0 if it takes its messages one by one."""
    avg_batch_size: float
    """Messages a batch; 0 before the first."""
    max_batch_size: int
    device_memory_bytes: int | None = None
    """What the kernel holds of a GPU's memory: its arrays, and what it keeps for the next ones. None on the CPU."""
    device_memory_peak_bytes: int | None = None
    """The most that it has held; None on the CPU."""

    @property
    def avg_latency_ms(self) -> float:
        """The mean latency in milliseconds."""
        return self.avg_latency_ns / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)


class RuntimeSummary(TypedDict):
    """The sums over all kernels of a runtime."""

    kernel_count: int
    total_messages_processed: int
    total_messages_dropped: int
    total_errors: int
    throughput: float


def summarize(snapshots: Iterable[RingKernelTelemetry]) -> RuntimeSummary:
    """The sums over the snapshots."""
    each = list(snapshots)
    return RuntimeSummary(
        kernel_count=len(each),
        total_messages_processed=sum(t.messages_processed for t in each),
        total_messages_dropped=sum(t.messages_dropped for t in each),
        total_errors=sum(t.error_count for t in each),
        throughput=sum(t.throughput for t in each),
    )


class LatencyHistogram:
    """Counts of durations in buckets whose width grows with the value, so that any percentile is within 4 percent.

    The log-linear buckets of Gil Tene's HdrHistogram: each power of two in 16 equal parts, a value reported as the
    middle of its bucket. Only buckets in use take memory. Durations are gathered first and counted many at a time, for
    that takes a tenth of the time.
    """

    __slots__ = ("_buckets", "count", "gathered", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.gathered: list[int] = []
        """Durations, whole numbers from 0 to below 2**62, that are not counted yet: append to it, and `settle` now and
        then.
        """
        self.count = 0
        self.total = 0
        self.minimum = 0
        self.maximum = 0

    def settle(self) -> None:
        """Count what was gathered; `percentile` and the attributes tell only of what is counted."""
        if not self.gathered:
            return
        values = np.array(self.gathered, dtype=np.int64)
        self.gathered.clear()
        low, high = int(values.min()), int(values.max())
        self.minimum = min(low, self.minimum) if self.count else low
        self.maximum = max(high, self.maximum)
        self.total += int(values.sum())
        self.count += len(values)
        exponents = np.frexp(values.astype(np.float64))[1]  # The bit lengths.
        shifts = np.maximum(exponents - 5, 0).astype(np.int64)
        buckets, counts = np.unique((shifts << 5) + (values >> shifts), return_counts=True)
        for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def percentile(self, fraction: float) -> int:
        """The duration that this fraction of all was not above; 0 if there was none."""
        rank = fraction * self.count
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                shift, mantissa = bucket >> 5, bucket & 31
                middle = bucket if shift == 0 else (mantissa << shift) + (1 << shift >> 1)
                return min(max(middle, self.minimum), self.maximum)
        return 0


class Counters:
    """The counters of one kernel, which it alone writes."""

    __slots__ = (
        "_batched",
        "_batches",
        "_ended",
        "_largest_batch",
        "dropped",
        "error_count",
        "last_error",
        "latency",
        "processed",
        "started",
    )

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._ended: float | None = None
        self.processed = 0
        self.dropped = 0
        self.error_count = 0
        self.last_error: str | None = None
        self.latency = LatencyHistogram()
        self._batches = self._batched = self._largest_batch = 0

    def handed_batch(self, size: int) -> None:
        """The actor was handed so many messages together."""
        self._batches += 1
        self._batched += size
        self._largest_batch = max(self._largest_batch, size)

    def complete(self, arrived_ns: int) -> None:
        """One message is done with that had arrived at this `time.perf_counter_ns()`."""
        self.processed += 1
        gathered = self.latency.gathered
        gathered.append(perf_counter_ns() - arrived_ns)
        if len(gathered) >= GATHERED_AT_MOST:
            self.latency.settle()

    def end(self) -> None:
        """The kernel's time is over: uptime and throughput stay as they are now."""
        if self._ended is None:
            self._ended = time.monotonic()

    def snapshot(
        self, kernel_id: str, state: str, queue_depth: int, device_memory: DeviceMemory | None = None
    ) -> RingKernelTelemetry:
        """What the counters say now."""
        self.latency.settle()
        uptime = (time.monotonic() if self._ended is None else self._ended) - self.started
        latency = self.latency
        return RingKernelTelemetry(
            kernel_id=kernel_id,
            state=state,
            messages_processed=self.processed,
            messages_dropped=self.dropped,
            queue_depth=queue_depth,
            error_count=self.error_count,
            last_error=self.last_error,
            uptime_seconds=uptime,
            throughput=self.processed / uptime if uptime > 0 else 0.0,
            min_latency_ns=latency.minimum,
            max_latency_ns=latency.maximum,
            avg_latency_ns=latency.total / latency.count if latency.count else 0.0,
            p50_latency_ns=latency.percentile(0.50),
            p95_latency_ns=latency.percentile(0.95),
            p99_latency_ns=latency.percentile(0.99),
            batches=self._batches,
            avg_batch_size=self._batched / self._batches if self._batches else 0.0,
            max_batch_size=self._largest_batch,
            device_memory_bytes=None if device_memory is None else device_memory.held,
            device_memory_peak_bytes=None if device_memory is None else device_memory.peak,
        )
