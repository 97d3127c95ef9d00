"""Latencies within their promise, and counters that say what was counted."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydotcompute.ring_kernels.mail import telemetry as telemetry_module
from pydotcompute.ring_kernels.mail.telemetry import Counters, LatencyHistogram, RingKernelTelemetry, summarize

latencies = st.integers(0, 2**50) | st.integers(0, 100) | st.integers(10**5, 10**9)  # 2**50 ns are 13 days.
fractions = st.floats(0, 1) | st.sampled_from([0.5, 0.95, 0.99])


def recorded(values: list[int]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    histogram.gathered.extend(values)
    histogram.settle()
    return histogram


@given(st.lists(latencies, min_size=1, max_size=200), fractions)
def test_every_percentile_is_within_4_percent(values: list[int], fraction: float) -> None:
    exact = sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]
    assert abs(recorded(values).percentile(fraction) - exact) <= 0.04 * exact


@given(st.lists(latencies, min_size=1, max_size=200))
def test_extremes_sum_and_count_are_exact(values: list[int]) -> None:
    histogram = recorded(values)
    assert (histogram.minimum, histogram.maximum, histogram.total, histogram.count) == (
        min(values),
        max(values),
        sum(values),
        len(values),
    )


@given(st.lists(latencies, min_size=1, max_size=200), st.lists(fractions, min_size=2, max_size=10))
def test_percentiles_are_in_order_and_between_the_extremes(values: list[int], asked: list[float]) -> None:
    histogram = recorded(values)
    percentiles = [histogram.percentile(fraction) for fraction in sorted(asked)]
    assert percentiles == sorted(percentiles)
    assert min(values) <= percentiles[0]
    assert percentiles[-1] <= max(values)


@given(latencies)
def test_one_value_is_reported_exactly(value: int) -> None:
    histogram = recorded([value])
    assert {histogram.percentile(fraction) for fraction in (0.0, 0.5, 1.0)} == {value}


@given(st.integers(0, 31))
def test_the_smallest_values_are_told_apart(value: int) -> None:
    assert recorded([value, 10**9, 10**9]).percentile(0.3) == value


@given(st.lists(st.lists(latencies, max_size=20), max_size=10))
def test_it_makes_no_difference_how_many_are_counted_at_once(batches: list[list[int]]) -> None:
    by_batch = LatencyHistogram()
    for batch in batches:
        by_batch.gathered.extend(batch)
        by_batch.settle()
    at_once = recorded([value for batch in batches for value in batch])
    for name in ("count", "total", "minimum", "maximum"):
        assert getattr(by_batch, name) == getattr(at_once, name)
    for fraction in (0.0, 0.5, 0.95, 1.0):
        assert by_batch.percentile(fraction) == at_once.percentile(fraction)


def test_without_values_everything_is_zero() -> None:
    histogram = LatencyHistogram()
    assert (histogram.percentile(0.5), histogram.minimum, histogram.maximum, histogram.count) == (0, 0, 0, 0)


def test_memory_is_bounded_however_many_messages_are_completed() -> None:
    counters = Counters()
    for number in range(20_000):
        counters.complete(time.perf_counter_ns() - number % 1_000)
    assert len(counters.latency.gathered) < 10_000
    assert len(recorded([1_000 + number % 1_000 for number in range(20_000)])._buckets) <= 40
    assert counters.snapshot("k", "ACTIVE", 0).messages_processed == counters.latency.count == 20_000


def test_a_snapshot_says_what_was_counted() -> None:
    counters = Counters()
    before = counters.snapshot("k", "ACTIVE", 3)
    assert (before.messages_processed, before.throughput, before.avg_latency_ns) == (0, 0.0, 0.0)
    now = time.perf_counter_ns()
    counters.complete(now - 1_000_000)
    counters.complete(now - 3_000_000)
    counters.end()
    snapshot = counters.snapshot("k", "TERMINATED", 0)
    assert (snapshot.kernel_id, snapshot.state, snapshot.queue_depth, before.queue_depth) == ("k", "TERMINATED", 0, 3)
    assert snapshot.messages_processed == 2
    assert snapshot.throughput == 2 / snapshot.uptime_seconds
    assert 1_000_000 <= snapshot.min_latency_ns <= snapshot.avg_latency_ns <= snapshot.max_latency_ns
    assert 3_000_000 <= snapshot.max_latency_ns < 1_000_000_000
    assert snapshot.avg_latency_ms == snapshot.avg_latency_ns / 1e6


def test_the_clock_of_a_kernel_stops_at_its_first_end() -> None:
    counters = Counters()
    counters.end()
    first = counters.snapshot("k", "FAILED", 0)
    counters.end()
    assert counters.snapshot("k", "FAILED", 0) == first


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ns = 10**15
        monkeypatch.setattr(telemetry_module, "perf_counter_ns", lambda: self.ns)

    def go_on(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


def work(counters: Counters, clock: Clock, count: int, every: float) -> None:
    """Complete so many messages at this pace, as an actor does that waits for each."""
    for _ in range(count):
        clock.go_on(every)
        counters.complete(clock.ns)
        if counters.completed_ns >= counters.due_ns or every > 0.01:  # It waits.
            counters.mark()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_rate_is_that_of_the_last_ten_seconds(clock: Clock) -> None:
    counters = Counters()
    counters.mark()
    assert counters.rate() == 0.0
    work(counters, clock, 5_000, 0.0002)
    assert counters.rate() == pytest.approx(5_000), "one second since the launch"
    clock.go_on(9.0)
    assert counters.rate() == pytest.approx(500, rel=0.01), "5,000 in ten seconds"
    clock.go_on(1.1)
    assert counters.rate() == 0.0, "idle for more than ten seconds"
    work(counters, clock, 1, 10.0)
    assert counters.rate() == pytest.approx(0.1, rel=0.06)
    work(counters, clock, 2_000, 0.01)
    assert counters.rate() == pytest.approx(100, rel=0.06)


# Pauses that are so long that the actor waits: then it makes a mark first.
@given(st.lists(st.floats(0.02, 30.0), min_size=1, max_size=200), st.floats(0.0, 30.0))
def test_the_rate_is_within_a_step_of_what_was_done(pauses: list[float], idle: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        counters, times = Counters(), []
        counters.mark()
        for pause in pauses:
            work(counters, clock, 1, pause)
            times.append(clock.ns)
        clock.go_on(idle)
        begin, step = clock.ns - 10 * 10**9, 10**9 // 2
        most, least = (sum(each > since for each in times) for since in (begin - step, begin))
        uptime = (clock.ns - (10**15)) / 1e9
        span = min(uptime, 10.0)
        assert least / (span + 0.5) <= counters.rate() * (1 + 1e-9)
        assert counters.rate() <= most / span * (1 + 1e-9)


def test_a_kernel_that_has_ended_has_no_rate_but_keeps_its_average(clock: Clock) -> None:
    counters = Counters()
    work(counters, clock, 10, 0.1)
    counters.end()
    snapshot = counters.snapshot("k", "TERMINATED", 0)
    assert snapshot.rate == 0.0
    assert snapshot.throughput > 0.0


def telemetry(**counts: float) -> RingKernelTelemetry:
    blank = Counters().snapshot("k", "ACTIVE", 0).to_dict()
    return RingKernelTelemetry(**blank | counts)


def test_a_summary_is_the_sum_of_its_parts() -> None:
    parts = [
        telemetry(messages_processed=2, messages_dropped=1, error_count=1, throughput=1.5),
        telemetry(messages_processed=40, messages_dropped=20, error_count=0, throughput=10.0),
    ]
    assert summarize(parts) == {
        "kernel_count": 2,
        "total_messages_processed": 42,
        "total_messages_dropped": 21,
        "total_errors": 1,
        "throughput": 11.5,
    }
    assert summarize([])["kernel_count"] == 0
