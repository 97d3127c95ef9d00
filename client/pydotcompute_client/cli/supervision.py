"""Restarts, workers and their limits as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from pydotcompute.device.settings import text_of_bytes
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.wire.kernels import on_crash_from_proto, restart_from_proto

__all__ = ["SUPERVISION_FACTS", "supervision_facts", "worker_columns"]

SUPERVISION_FACTS = ("RESTART", "ON CRASH", "TIME LIMIT", "HANG TIMEOUT", "CPUS", "NICE")
"""The names of the facts."""


def supervision_facts(kernel_type: kernel_pb.KernelType) -> dict[str, str]:
    """Return what happens after the actor has ended, and the limits of a worker. A fact that says nothing is empty."""
    supervision, limits = kernel_type.supervision, kernel_type.worker_limits
    restart, on_crash = restart_from_proto(supervision.restart), on_crash_from_proto(supervision.on_crash)
    facts = dict.fromkeys(SUPERVISION_FACTS, "")
    if restart not in (None, "never"):
        window = f"{supervision.restart_window_seconds:g} s"
        facts["RESTART"] = f"{restart}, at most {supervision.max_restarts} times in {window}"
        deliveries = f", at most {supervision.max_deliveries} deliveries" if on_crash == "redeliver" else ""
        facts["ON CRASH"] = f"{on_crash or '-'}{deliveries}"
    if limits.HasField("time_limit_seconds"):
        facts["TIME LIMIT"] = f"{limits.time_limit_seconds:g} s"
    if limits.HasField("hang_timeout_seconds"):
        facts["HANG TIMEOUT"] = f"{limits.hang_timeout_seconds:g} s"
    facts["CPUS"] = ", ".join(map(str, limits.cpus))
    if limits.HasField("nice"):
        facts["NICE"] = str(limits.nice)
    return facts


def worker_columns(workers: Sequence[telemetry_pb.WorkerTelemetry]) -> tuple[str, str, str]:
    """Return the process numbers of a kernel's workers, and the memory and the CPU time of all of them together."""
    if not workers:
        return "", "", ""
    memory, seconds = sum(each.resident_bytes for each in workers), sum(each.cpu_seconds for each in workers)
    return " ".join(str(each.pid) for each in workers), text_of_bytes(memory), f"{seconds:.1f}s"
