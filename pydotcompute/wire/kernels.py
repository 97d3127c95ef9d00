"""States, settings and telemetry as protobuf, and back."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import cast

from pydotcompute.device.monitor import DeviceReading
from pydotcompute.ring_kernels.config import BackpressureStrategy, RingKernelConfig
from pydotcompute.ring_kernels.declaration import Executor
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry, WorkerTelemetry
from pydotcompute.ring_kernels.supervision import OnCrash, Restart, Supervision
from pydotcompute.ring_kernels.worker_limits import WorkerLimits
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb

__all__ = [
    "config_from_proto",
    "config_to_proto",
    "device_to_proto",
    "executor_from_proto",
    "executor_to_proto",
    "on_crash_from_proto",
    "restart_from_proto",
    "state_from_proto",
    "state_to_proto",
    "strategy_from_proto",
    "strategy_to_proto",
    "supervision_to_proto",
    "telemetry_from_proto",
    "telemetry_to_proto",
    "worker_limits_to_proto",
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
_RESTARTS: dict[Restart, kernel_pb.Restart] = {
    "never": kernel_pb.RESTART_NEVER,
    "on_failure": kernel_pb.RESTART_ON_FAILURE,
    "always": kernel_pb.RESTART_ALWAYS,
}
_RESTART_NAMES = {number: name for name, number in _RESTARTS.items()}
_ON_CRASHES: dict[OnCrash, kernel_pb.OnCrash] = {
    "dead_letter": kernel_pb.ON_CRASH_DEAD_LETTER,
    "redeliver": kernel_pb.ON_CRASH_REDELIVER,
}
_ON_CRASH_NAMES = {number: name for name, number in _ON_CRASHES.items()}
_OPTIONAL = ("device_memory_bytes", "device_memory_peak_bytes", "stuck_in_send_seconds", "asking", "asking_seconds")
MOST_UINT32 = (1 << 32) - 1
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


def supervision_to_proto(supervision: Supervision, limits: RuntimeLimits) -> kernel_pb.Supervision:
    """Return what happens after an actor has ended, as protobuf. The limits fill in what the type leaves to them."""
    most, window = supervision.max_restarts, supervision.restart_window
    return kernel_pb.Supervision(
        restart=_RESTARTS[supervision.restart],
        max_restarts=limits.max_restarts if most is None else min(most, MOST_UINT32),
        restart_window_seconds=limits.restart_window if window is None else window,
        on_crash=_ON_CRASHES[supervision.on_crash],
        max_deliveries=min(supervision.max_deliveries, MOST_UINT32),
    )


def restart_from_proto(restart: kernel_pb.Restart) -> Restart | None:
    """Return when an actor is started again; None for a number that nobody knows here. An older daemon sets none."""
    return _RESTART_NAMES.get(restart)


def on_crash_from_proto(on_crash: kernel_pb.OnCrash) -> OnCrash | None:
    """Return what becomes of messages in hand; None as in `restart_from_proto`."""
    return _ON_CRASH_NAMES.get(on_crash)


def worker_limits_to_proto(limits: WorkerLimits) -> kernel_pb.WorkerLimits | None:
    """Return what a worker process may use, as protobuf; None if nothing is said."""
    if limits == WorkerLimits():
        return None
    return kernel_pb.WorkerLimits(
        time_limit_seconds=limits.time_limit,
        hang_timeout_seconds=limits.hang_timeout,
        cpus=limits.cpus,
        nice=limits.nice,
    )


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
    values["last_crash"] = telemetry.last_crash or ""
    values["workers"] = [telemetry_pb.WorkerTelemetry(**worker) for worker in values["workers"]]
    return telemetry_pb.KernelTelemetry(**values)


def telemetry_from_proto(telemetry: telemetry_pb.KernelTelemetry) -> RingKernelTelemetry:
    """Return the snapshot of a kernel's counters that a protobuf message holds."""
    values = {field.name: getattr(telemetry, field.name) for field in fields(RingKernelTelemetry)}
    values["state"] = state_from_proto(telemetry.state).name
    values["last_error"] = telemetry.last_error or None
    values["last_crash"] = telemetry.last_crash or None
    values["workers"] = tuple(
        WorkerTelemetry(**{field.name: getattr(worker, field.name) for field in fields(WorkerTelemetry)})
        for worker in telemetry.workers
    )
    values |= {name: None for name in _OPTIONAL if not telemetry.HasField(name)}
    return RingKernelTelemetry(**values)


def device_to_proto(reading: DeviceReading) -> telemetry_pb.DeviceTelemetry:
    """Return the readings of a GPU as protobuf."""
    return telemetry_pb.DeviceTelemetry(**asdict(reading))
