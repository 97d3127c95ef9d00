"""What a daemon says of a kernel, and of its memory, and the functions that read its answers."""

from __future__ import annotations

from dataclasses import dataclass

from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.wire.kernels import config_from_proto, state_from_proto
from pydotcompute_client.types import RemoteTypes

__all__ = ["DaemonMemory", "KernelDescription", "Reloaded", "read_description", "read_memory"]


@dataclass(frozen=True)
class DaemonMemory:
    """How much memory a daemon takes, in bytes."""

    resident_bytes: int
    """The resident memory of its process, with all that kernels and libraries have in it."""
    budget_bytes: int
    """The most that messages may take, wherever they wait: its `--memory-bytes`."""
    used_bytes: int
    """What they take, in part estimated."""
    places: dict[str, int]
    """What they take in each place where messages wait."""


def read_memory(response: telemetry_pb.GetMemoryResponse) -> DaemonMemory:
    """Return the figures in a daemon's response."""
    places = {place.name: place.bytes for place in response.places}
    return DaemonMemory(response.resident_bytes, response.budget_bytes, response.used_bytes, places)


@dataclass(frozen=True)
class Reloaded:
    """What is new after a daemon has loaded files again."""

    kernel_ids: list[str]
    """The kernels that have new workers."""
    new_kernel_types: list[str]
    """The kernel types that can be launched now and could not before."""
    changed_types: list[str]
    """The full names of the message types that have changed."""


@dataclass(frozen=True)
class KernelDescription:
    """A daemon's description of a kernel, or of a kernel type."""

    kernel_id: str
    kernel_type: str
    """The name of the kernel's type."""
    documentation: str
    """The actor's docstring."""
    state: KernelState | None
    """The state of the kernel; None for a kernel type that is not launched under its own name."""
    config: RingKernelConfig
    """The kernel's settings, or those that the kernel type declares."""
    input_type: type | None
    """The class of the kernel's input messages: this program's own, or one made from the daemon's description. None if
    the kernel declares none."""
    output_type: type | None
    """The class of the kernel's output messages, likewise."""
    input_type_name: str
    """The full name of the input's protobuf type; empty if there is none."""
    output_type_name: str
    """The full name of the output's protobuf type; empty if there is none."""
    sample_json: str
    """A body of the input type as JSON, ready to be edited."""
    instances: int = 0
    """The worker processes that share the kernel's mailbox; 0 if it has none, or is not launched."""


def read_description(kernel_id: str, response: pb.DescribeKernelResponse, types: RemoteTypes) -> KernelDescription:
    """Return the description in a daemon's response, and learn its message types."""
    kernel_type = response.kernel_type
    classes: list[type | None] = []
    for field, message_type in (("input_type", response.input_type), ("output_type", response.output_type)):
        known = response.HasField(field)
        classes.append(types.receiving_codec(types.learn(message_type)).schema.cls if known else None)
    return KernelDescription(
        kernel_id=kernel_id,
        kernel_type=response.kernel.kernel_type or kernel_type.name,
        documentation=kernel_type.documentation,
        state=state_from_proto(response.kernel.state) if response.HasField("kernel") else None,
        config=config_from_proto(kernel_type.config, RingKernelConfig(kernel_id)),
        input_type=classes[0],
        output_type=classes[1],
        input_type_name=kernel_type.input_type,
        output_type_name=kernel_type.output_type,
        sample_json=response.sample_json,
        instances=response.kernel.instances,
    )
