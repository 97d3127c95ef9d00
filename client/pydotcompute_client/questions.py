"""Questions to a daemon about its kernels. Each is written once, for calls that block and calls that do not."""

from __future__ import annotations

from collections.abc import Sequence

from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry, RuntimeSummary, summarize
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import server_service_pb2 as server_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.wire.kernels import telemetry_from_proto
from pydotcompute_client.channels import Call, Question
from pydotcompute_client.description import DaemonMemory, read_memory
from pydotcompute_client.server_info import ServerInfo, read_server_info

__all__ = ["all_telemetry", "by_id", "kernel_ids", "kernel_state", "memory", "server_info", "summary", "telemetry"]


def server_info() -> Question[ServerInfo]:
    """What is the daemon?"""
    request = server_pb.GetServerInfoRequest()
    return read_server_info((yield Call(lambda daemon: daemon.server.GetServerInfo, request)))


def kernel_ids() -> Question[list[str]]:
    """Which kernels are launched and not terminated? The answer has all pages."""
    request = kernel_pb.ListKernelsRequest()
    found: list[str] = []
    while True:
        page: kernel_pb.ListKernelsResponse = yield Call(lambda daemon: daemon.kernels.ListKernels, request)
        found += [kernel.kernel_id for kernel in page.kernels]
        if not page.next_page_token:
            return found
        request = kernel_pb.ListKernelsRequest(page_token=page.next_page_token)


def kernel_state(kernel_id: str) -> Question[KernelState]:
    """What is a kernel doing?"""
    return KernelState[(yield from telemetry(kernel_id)).state]


def telemetry(kernel_id: str) -> Question[RingKernelTelemetry]:
    """What has a kernel done?"""
    (snapshot,) = yield from _snapshots([kernel_id])
    return snapshot


def all_telemetry() -> Question[dict[str, RingKernelTelemetry]]:
    """What has each kernel done?"""
    return by_id((yield from _snapshots([])))


def summary() -> Question[RuntimeSummary]:
    """What are the sums over all kernels?"""
    return summarize((yield from _snapshots([])))


def _snapshots(kernel_ids: Sequence[str]) -> Question[list[RingKernelTelemetry]]:
    """Ask for the telemetry of these kernels, or of all if none is named."""
    request = telemetry_pb.GetTelemetryRequest(kernel_ids=kernel_ids)
    response: telemetry_pb.GetTelemetryResponse = yield Call(lambda daemon: daemon.telemetry.GetTelemetry, request)
    return [telemetry_from_proto(snapshot) for snapshot in response.kernels]


def memory() -> Question[DaemonMemory]:
    """How much memory does the daemon take?"""
    response: telemetry_pb.GetMemoryResponse = yield Call(
        lambda daemon: daemon.telemetry.GetMemory, telemetry_pb.GetMemoryRequest()
    )
    return read_memory(response)


def by_id(snapshots: Sequence[RingKernelTelemetry]) -> dict[str, RingKernelTelemetry]:
    """Return the snapshots by their kernels' ids."""
    return {snapshot.kernel_id: snapshot for snapshot in snapshots}
