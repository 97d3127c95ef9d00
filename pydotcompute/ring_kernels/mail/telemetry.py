"""The telemetry of kernels: counters that the hot path changes, and frozen snapshots of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, TypedDict

import numpy as np

from pydotcompute.device.lease import DeviceMemory

__all__ = ["LatencyHistogram", "RingKernelTelemetry", "RuntimeSummary", "WorkerTelemetry", "summarize"]


GATHERED_AT_MOST = 4_096
"""The most durations that a histogram gathers before it counts them."""


RATE_SECONDS = 10
"""The seconds before now that `rate` is about."""
_RATE_NS = RATE_SECONDS * 10**9
_STEP_NS = _RATE_NS // 20
"""The least time between two marks. So a rate is within 5 percent."""


@dataclass(frozen=True)
class WorkerTelemetry:
    """The figures of one worker process at one moment."""

    pid: int
    """The number of the process."""
    resident_bytes: int
    """The bytes of memory that the process has, also those that it shares with others."""
    cpu_seconds: float
    """The seconds that the process has computed, in all of its threads."""
    in_hand: int
    """Messages that the actor has taken and is not known to be done with."""
    ahead: int
    """Messages that were handed on and that the actor has not taken yet."""


@dataclass(frozen=True)
class RingKernelTelemetry:
    """The counters of one kernel at one moment. Latencies are from arrival in the mailbox to completion."""

    kernel_id: str
    state: str
    """The name of the kernel's `KernelState`."""
    messages_processed: int
    """Messages completed: the actor has answered or forwarded them, or has asked for the next one."""
    messages_dropped: int
    """Messages, in either direction, that became dead letters."""
    queue_depth: int
    """Messages that wait in the input mailbox."""
    error_count: int
    """Exceptions that left the actor."""
    last_error: str | None
    """The last exception that left the actor, as "Class: text"; None if there was none."""
    uptime_seconds: float
    """Seconds from the launch to now, or to the end of the kernel."""
    throughput: float
    """Messages processed per second of uptime: the average since the launch. What the kernel does now is `rate`."""
    min_latency_ns: int
    max_latency_ns: int
    avg_latency_ns: float
    p50_latency_ns: int
    """The latency in nanoseconds that half of the messages did not exceed. Percentiles are within 4 percent."""
    p95_latency_ns: int
    p99_latency_ns: int
    batches: int
    """Batches that the actor was handed; 0 if the actor takes its messages one by one."""
    avg_batch_size: float
    """Mean number of messages in a batch; 0 before the first batch."""
    max_batch_size: int
    device_memory_bytes: int | None = None
    """Bytes of a GPU's memory that the kernel holds, for its arrays and as a reserve for new ones. None on the CPU."""
    device_memory_peak_bytes: int | None = None
    """The most bytes of a GPU's memory that the kernel has held. None on the CPU."""
    rate: float = 0.0
    """Messages processed per second over the last 10 seconds, or since the launch if that is less. 0 after the end."""
    output_depth: int = 0
    """Outputs that wait in the output mailbox until somebody receives them."""
    output_queue_size: int = 0
    """The number of outputs that the output mailbox holds."""
    stuck_in_send_seconds: float | None = None
    """Seconds that the actor has waited in `ctx.send` because the output mailbox is full; None if it does not wait."""
    restarts: int = 0
    """How often an actor of the kernel was started again."""
    redelivered: int = 0
    """How often a message was put back to be given to the actor again, after the actor had failed."""
    last_crash: str | None = None
    """How the last worker process died that did, as "SIGSEGV: its worker (process 17) …"; None if none has died."""
    workers: tuple[WorkerTelemetry, ...] = ()
    """The worker processes that run now. Empty for an actor that runs in the process of its runtime."""
    asking: str | None = None
    """The kernel whose reply the actor waits for in `ctx.ask`, the longest if it waits for several; else None."""
    asking_seconds: float | None = None
    """Seconds that the actor has waited for that reply; None if it waits for none."""

    @property
    def avg_latency_ms(self) -> float:
        """The mean latency in milliseconds."""
        return self.avg_latency_ns / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Return every field by name."""
        # All other values are numbers and texts, which `asdict` would copy one by one.
        return {**vars(self), "workers": [dict(vars(worker)) for worker in self.workers]}


class RuntimeSummary(TypedDict):
    """The sums over all kernels of a runtime."""

    kernel_count: int
    total_messages_processed: int
    total_messages_dropped: int
    total_errors: int
    throughput: float


def summarize(snapshots: Iterable[RingKernelTelemetry]) -> RuntimeSummary:
    """Return the sums over the snapshots."""
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

    The buckets are the log-linear ones of Gil Tene's HdrHistogram: each power of two is divided into 16 equal parts,
    and a value is reported as the middle of its bucket. Only buckets in use take memory. Durations are gathered first
    and counted many at a time, because this takes a tenth of the time. To count them is to *settle* the histogram.
    """

    __slots__ = ("_buckets", "count", "gathered", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.gathered: list[int] = []
        """Durations that are not counted yet: whole numbers from 0 to below 2**62.

        Append to this list, and call `settle` now and then.
        """
        self.count = 0
        self.total = 0
        self.minimum = 0
        self.maximum = 0

    def settle(self) -> None:
        """Count the gathered durations. `percentile` and the attributes cover only counted durations."""
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
        """Return the duration that this fraction (0 to 1) of all durations did not exceed; 0 if there are none."""
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
    """The counters of one kernel. Only this kernel changes them."""

    __slots__ = (
        "_batched",
        "_batches",
        "_ended",
        "_largest_batch",
        "_marks",
        "_newest",
        "completed_ns",
        "dropped",
        "due_ns",
        "error_count",
        "last_crash",
        "last_error",
        "latency",
        "processed",
        "redelivered",
        "restarts",
        "started",
    )

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._ended: float | None = None
        self.processed = 0
        self.dropped = 0
        self.error_count = 0
        self.last_error: str | None = None
        self.last_crash: str | None = None
        self.restarts = 0
        self.redelivered = 0
        self.latency = LatencyHistogram()
        self._batches = self._batched = self._largest_batch = 0
        self.completed_ns = perf_counter_ns()
        """When the last message was completed, or else the launch, in nanoseconds of `time.perf_counter_ns()`."""
        # Moments, each with the messages that were processed by then. The newest is replaced until it is to be kept.
        self._newest = self.completed_ns, 0
        self._marks: deque[tuple[int, int]] = deque([self._newest], maxlen=_RATE_NS // _STEP_NS + 4)
        self.due_ns = 0
        """Call `mark` when `completed_ns` has reached this."""

    def handed_batch(self, size: int) -> None:
        """Count a batch of `size` messages that the actor was handed."""
        self._batches += 1
        self._batched += size
        self._largest_batch = max(self._largest_batch, size)

    def complete(self, arrived_ns: int) -> None:
        """Count a completed message that had arrived at this time of `time.perf_counter_ns()`."""
        self.processed += 1
        self.completed_ns = now = perf_counter_ns()
        gathered = self.latency.gathered
        gathered.append(now - arrived_ns)
        if len(gathered) >= GATHERED_AT_MOST:
            self.latency.settle()

    def mark(self) -> None:
        """Note how much is done, for `rate`. Call this when it is due, and always before the actor waits."""
        completed_ns = self.completed_ns
        if completed_ns >= self.due_ns:
            self._marks.append(self._newest)
            self.due_ns = completed_ns + _STEP_NS
        self._newest = completed_ns, self.processed

    def rate(self) -> float:
        """Return the messages processed per second over the last `RATE_SECONDS`, or since the launch."""
        now = perf_counter_ns()
        begin = now - _RATE_NS
        if self._ended is not None or self.completed_ns <= begin:
            return 0.0
        since, before = self._marks[0]
        for mark in (*self._marks, self._newest):
            if mark[0] <= begin:
                since, before = mark
        # Nothing was completed between a mark and the next that is much later.
        return (self.processed - before) * 1e9 / max(now - max(since, begin - _STEP_NS), 1)

    def end(self) -> None:
        """Stop the clock: uptime and throughput stay as they are now."""
        if self._ended is None:
            self._ended = time.monotonic()

    def snapshot(
        self,
        kernel_id: str,
        state: str,
        queue_depth: int,
        device_memory: DeviceMemory | None = None,
        *,
        output_depth: int = 0,
        output_queue_size: int = 0,
        stuck_in_send_seconds: float | None = None,
        workers: tuple[WorkerTelemetry, ...] = (),
        asking: str | None = None,
        asking_seconds: float | None = None,
    ) -> RingKernelTelemetry:
        """Return the counters as they are now. The arguments are the fields of the same names."""
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
            rate=self.rate(),
            output_depth=output_depth,
            output_queue_size=output_queue_size,
            stuck_in_send_seconds=stuck_in_send_seconds,
            restarts=self.restarts,
            redelivered=self.redelivered,
            last_crash=self.last_crash,
            workers=workers,
            asking=asking,
            asking_seconds=asking_seconds,
        )
