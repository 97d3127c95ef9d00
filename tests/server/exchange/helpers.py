"""What the tests of sessions have in common."""

from collections.abc import Callable
from pathlib import Path

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from tests.stubs import Letter, Talk, Wire, failure_of, job_bytes

Talks = Callable[[], Talk]
SESSION_TIMEOUT = 0.2
MIB = 1 << 20


async def pause(wire: Wire, kernel_id: str) -> None:
    """From now on the kernel is handed nothing."""
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))


async def go_on(wire: Wire, kernel_id: str) -> None:
    """The pause is over."""
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))


def jobs(*numbers: int) -> list[Letter]:
    return [Letter(job_bytes(number)) for number in numbers]


def ids(letters: list[Letter]) -> list[bytes]:
    return [letter.message_id for letter in letters]


def answered(replies: list[Letter]) -> list[bytes | None]:
    return [reply.correlation_id for reply in replies]


async def nothing_left(wire: Wire, kernel_id: str) -> bool:
    """Whether the kernel has no output for anybody."""
    return (await failure_of(wire.receive(kernel_id, timeout=0.01))).reason == "QUEUE_TIMEOUT"


def large(size: int) -> Letter:
    """A `Job` with a note of so many bytes."""
    length, left = b"", size
    while left >= 128:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return Letter(b"\x1a" + length + bytes([left]) + b"x" * size)


def memory(process: int) -> int:
    """The bytes that a process holds in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10
