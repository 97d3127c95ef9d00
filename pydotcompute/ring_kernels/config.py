"""The settings of one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.printable import escaped

__all__ = ["LONGEST_ID", "Backpressure", "BackpressureStrategy", "RingKernelConfig", "backpressure_of", "check_id"]

BackpressureStrategy = Literal["block", "reject", "drop_oldest"]

LONGEST_ID = 200
"""The most characters that a kernel's id may have. Every log line and every error about the kernel contains the id."""


class Backpressure(NamedTuple):
    """The rule for a message that finds the mailbox full. Exactly one of the three fields is True."""

    waits: bool
    """True if the sender of the message waits for room."""
    refuses: bool
    """True if the sender of the message gets QueueFullError at once."""
    drops: bool
    """True if the oldest message of the lowest priority is dropped to make room."""


_BACKPRESSURE: dict[str, Backpressure] = {
    "block": Backpressure(waits=True, refuses=False, drops=False),
    "reject": Backpressure(waits=False, refuses=True, drops=False),
    "drop_oldest": Backpressure(waits=False, refuses=False, drops=True),
}


def backpressure_of(strategy: str) -> Backpressure:
    """Return the rule that a strategy names. Raises InvalidConfigurationError if there is no such strategy."""
    try:
        return _BACKPRESSURE[strategy]
    except (KeyError, TypeError):
        choices = ", ".join(get_args(BackpressureStrategy))
        raise InvalidConfigurationError("backpressure_strategy", strategy, f"choose one of {choices}") from None


def check_id(kernel_id: str) -> None:
    """Raise InvalidConfigurationError if a text cannot be the id of a kernel, or the name of a kernel type.

    Logs, terminals and shells show ids, so an id has no character that could do more there than be seen.
    """
    if not isinstance(kernel_id, str) or not kernel_id:
        raise InvalidConfigurationError("kernel_id", kernel_id, "a kernel's id is a text that is not empty")
    if len(kernel_id) > LONGEST_ID:
        shown = f"{escaped(kernel_id[:20])}…"
        raise InvalidConfigurationError("kernel_id", shown, f"a kernel's id has at most {LONGEST_ID} characters")
    if not kernel_id.isprintable():
        wrong = next(character for character in kernel_id if not character.isprintable())
        problem = f"a kernel's id has printable characters only, and U+{ord(wrong):04X} is none"
        raise InvalidConfigurationError("kernel_id", repr(kernel_id)[1:-1], problem)


@dataclass(frozen=True)
class RingKernelConfig:
    """The settings of one kernel.

    Raises:
        InvalidConfigurationError: a value is of the wrong type or out of range.
    """

    kernel_id: str
    grid_size: int = 1
    """Number of thread blocks of a resident kernel, whose loop runs on the GPU."""
    block_size: int = 256
    """Number of threads in each block of a resident kernel."""
    input_queue_size: int = 4096
    """The most messages that the input mailbox holds."""
    output_queue_size: int = 4096
    """The most outputs that the output mailbox holds, and the most replies that wait for one caller."""
    backpressure_strategy: BackpressureStrategy = "block"
    """The rule for a message that finds the input mailbox full."""

    def __post_init__(self) -> None:
        check_id(self.kernel_id)
        for name in ("grid_size", "block_size", "input_queue_size", "output_queue_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidConfigurationError(name, value, "must be a whole number of at least 1")
        backpressure_of(self.backpressure_strategy)
