"""States, settings and telemetry as protobuf, and back."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import cast

from pydotcompute.device.monitor import DeviceReading
from pydotcompute.ring_kernels.config import BackpressureStrategy, RingKernelConfig
from pydotcompute.ring_kernels.declaration import Executor
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb

__all__ = [
    "config_from_proto",
    "config_to_proto",
    "device_to_proto",
    "executor_from_proto",
    "executor_to_proto",
    "state_from_proto",
    "state_to_proto",
    "strategy_from_proto",
    "strategy_to_proto",
    "telemetry_from_proto",
    "telemetry_to_proto",
]

_STRATEGIES: dict[BackpressureStrategy, message_pb.BackpressureStrategy] = {
    "block": message_pb.BACKPRESSURE_STRATEGY_BLOCK,
    "reject": message_pb.BACKPRESSURE_STRATEGY_REJECT,
    "drop_oldest": message_pb.BACKPRESSURE_STRATEGY_DROP_OLDEST,
}
_STRATEGY_NAMES = {number: name for name, number in _STRATEGIES.items()}
_EXECUTORS: dict[Executor, kernel_pb.Executor] = {
    "loop": kernel_pb.EXECUTOR_LOOP,
    "thread": kernel_pb.EXECUTOR_THREAD,
}
_EXECUTOR_NAMES = {number: name for name, number in _EXECUTORS.items()}
_OPTIONAL = ("device_memory_bytes", "device_memory_peak_bytes", "stuck_in_send_seconds", "asking", "asking_seconds")
_SIZES = ("input_queue_size", "output_queue_size", "grid_size", "block_size")


def state_to_proto(state: KernelState) -> kernel_pb.KernelState:
    """Return the number of a state on the wire."""
    return cast(kernel_pb.KernelState, kernel_pb.KernelState.Value(f"KERNEL_STATE_{state.name}"))


def state_from_proto(state: kernel_pb.KernelState) -> KernelState:
    """Return the state that a number on the wire stands for. Raises ValueError or KeyError for an unknown number."""
    return KernelState[kernel_pb.KernelState.Name(state).removeprefix("KERNEL_STATE_")]


def strategy_to_proto(strategy: BackpressureStrategy) -> message_pb.BackpressureStrategy:
    """Return the number of a backpressure strategy on the wire."""
    return _STRATEGIES[strategy]


def strategy_from_proto(
    strategy: message_pb.BackpressureStrategy, default: BackpressureStrategy = "block"
) -> BackpressureStrategy:
    """Return the backpressure strategy that a number on the wire stands for; `default` for any other number."""
    return _STRATEGY_NAMES.get(strategy, default)


def executor_to_proto(executor: Executor) -> kernel_pb.Executor:
    """Return the number of an executor on the wire."""
    return _EXECUTORS[executor]


def executor_from_proto(executor: kernel_pb.Executor) -> Executor | None:
    """Return the executor that a number on the wire stands for; None for any other number.

    An older daemon does not set the number.
    """
    return _EXECUTOR_NAMES.get(executor)


def config_to_proto(config: RingKernelConfig) -> kernel_pb.KernelConfig:
    """Return a kernel's settings as protobuf, with every field set."""
    return kernel_pb.KernelConfig(
        backpressure_strategy=strategy_to_proto(config.backpressure_strategy),
        **{name: getattr(config, name) for name in _SIZES},
    )


def config_from_proto(config: kernel_pb.KernelConfig, declared: RingKernelConfig) -> RingKernelConfig:
    """Return the settings that a request asks for. A field that the request does not set is taken from `declared`."""
    return RingKernelConfig(
        kernel_id=declared.kernel_id,
        backpressure_strategy=strategy_from_proto(config.backpressure_strategy, declared.backpressure_strategy),
        **{name: getattr(config, name) or getattr(declared, name) for name in _SIZES},
    )


def telemetry_to_proto(telemetry: RingKernelTelemetry) -> telemetry_pb.KernelTelemetry:
    """Return a snapshot of a kernel's counters as protobuf."""
    values = telemetry.to_dict()
    values["state"] = state_to_proto(KernelState[telemetry.state])
    values["last_error"] = telemetry.last_error or ""
    return telemetry_pb.KernelTelemetry(**values)


def telemetry_from_proto(telemetry: telemetry_pb.KernelTelemetry) -> RingKernelTelemetry:
    """Return the snapshot of a kernel's counters that a protobuf message holds."""
    values = {field.name: getattr(telemetry, field.name) for field in fields(RingKernelTelemetry)}
    values["state"] = state_from_proto(telemetry.state).name
    values["last_error"] = telemetry.last_error or None
    values |= {name: None for name in _OPTIONAL if not telemetry.HasField(name)}
    return RingKernelTelemetry(**values)


def device_to_proto(reading: DeviceReading) -> telemetry_pb.DeviceTelemetry:
    """Return the readings of a GPU as protobuf."""
    return telemetry_pb.DeviceTelemetry(**asdict(reading))
