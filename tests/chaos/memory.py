"""Whether the memory of a process grows."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Memory"]

MIB = 1 << 20
ALLOWED_BYTES = 12 * MIB
"""What may be gained between the first and the last sample: allocators need some time to find their level."""
ALLOWED_SHARE = 0.1
"""Likewise, as a part of what there is."""


@dataclass
class Memory:
    """Samples of one process's resident memory."""

    name: str
    samples: list[tuple[float, int]] = field(default_factory=list)
    """When, in seconds, and how many bytes."""

    def add(self, when: float, resident_bytes: int) -> None:
        """Note a sample."""
        self.samples.append((when, resident_bytes))

    def growth(self, warm_up: float) -> float:
        """Bytes by which the line through the samples since `warm_up` rises from the first to the last."""
        samples = [(when, size) for when, size in self.samples if when >= warm_up]
        if len(samples) < 3:
            return 0.0
        mean_when = sum(when for when, _ in samples) / len(samples)
        mean_size = sum(size for _, size in samples) / len(samples)
        spread = sum((when - mean_when) ** 2 for when, _ in samples)
        slope = sum((when - mean_when) * (size - mean_size) for when, size in samples) / spread
        return slope * (samples[-1][0] - samples[0][0])

    def grows(self, warm_up: float) -> bool:
        """Whether that is more than chance."""
        return self.growth(warm_up) > max(ALLOWED_BYTES, ALLOWED_SHARE * self.samples[-1][1])

    def __str__(self) -> str:
        series = " ".join(f"{size / MIB:.1f}" for _, size in self.samples)
        return f"{self.name}, MiB: {series}"
