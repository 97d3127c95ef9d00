"""A sampling profiler of the main thread, for programs that run an event loop.

The kernel interrupts the process each few milliseconds of its CPU time; what the main thread has used since the last
time is then put down to the functions on its stack. Time of other threads, as gRPC's, thus counts for nobody, and a
C function's time (protobuf's, gRPC's Cython, the event loop's) counts for the Python function that called it.
"""

import signal
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType

INTERVAL_SECONDS = 0.002


@dataclass
class Samples:
    """CPU seconds of the main thread, by place."""

    total: float = 0.0
    self_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By function, without what it called."""
    cumulative_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By function, with what it called."""
    line_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By line."""


def _place(code: CodeType) -> str:
    path = Path(code.co_filename)
    return f"{code.co_qualname} ({path.parent.name}/{path.name})"


class Sampler:
    """Collects samples between `start` and `stop`, both called in the main thread."""

    def __init__(self) -> None:
        self._samples = Samples()
        self._last = 0.0

    def start(self) -> None:
        """Begins anew."""
        self._samples = Samples()
        self._last = time.thread_time()
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def stop(self) -> Samples:
        """Ends, and gives what there is."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        return self._samples

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        samples = self._samples
        now = time.thread_time()
        used, self._last = now - self._last, now
        samples.total += used
        if frame is None:
            return
        samples.self_seconds[_place(frame.f_code)] += used
        path = Path(frame.f_code.co_filename)
        samples.line_seconds[f"{path.parent.name}/{path.name}:{frame.f_lineno}"] += used
        places = set()
        while frame is not None:
            places.add(_place(frame.f_code))
            frame = frame.f_back
        for place in places:
            samples.cumulative_seconds[place] += used
        self._last = time.thread_time()  # the sample itself is nobody's
