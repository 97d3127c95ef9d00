import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from pydotcompute.v1 import access_pb2 as _access_pb2
from pydotcompute.v1 import kernel_service_pb2 as _kernel_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetTelemetryRequest(_message.Message):
    __slots__ = ("kernel_ids",)
    KERNEL_IDS_FIELD_NUMBER: _ClassVar[int]
    kernel_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kernel_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetTelemetryResponse(_message.Message):
    __slots__ = ("kernels",)
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    kernels: _containers.RepeatedCompositeFieldContainer[KernelTelemetry]
    def __init__(self, kernels: _Optional[_Iterable[_Union[KernelTelemetry, _Mapping]]] = ...) -> None: ...

class WatchTelemetryRequest(_message.Message):
    __slots__ = ("kernel_ids", "interval")
    KERNEL_IDS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    kernel_ids: _containers.RepeatedScalarFieldContainer[str]
    interval: _duration_pb2.Duration
    def __init__(self, kernel_ids: _Optional[_Iterable[str]] = ..., interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchTelemetryResponse(_message.Message):
    __slots__ = ("kernels",)
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    kernels: _containers.RepeatedCompositeFieldContainer[KernelTelemetry]
    def __init__(self, kernels: _Optional[_Iterable[_Union[KernelTelemetry, _Mapping]]] = ...) -> None: ...

class KernelTelemetry(_message.Message):
    __slots__ = ("kernel_id", "state", "messages_processed", "messages_dropped", "queue_depth", "error_count", "last_error", "uptime_seconds", "min_latency_ns", "max_latency_ns", "avg_latency_ns", "p50_latency_ns", "p95_latency_ns", "p99_latency_ns", "throughput", "batches", "avg_batch_size", "max_batch_size", "device_memory_bytes", "device_memory_peak_bytes", "rate", "output_depth", "output_queue_size", "stuck_in_send_seconds", "restarts", "redelivered", "last_crash", "workers", "asking", "asking_seconds")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MIN_LATENCY_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_LATENCY_NS_FIELD_NUMBER: _ClassVar[int]
    AVG_LATENCY_NS_FIELD_NUMBER: _ClassVar[int]
    P50_LATENCY_NS_FIELD_NUMBER: _ClassVar[int]
    P95_LATENCY_NS_FIELD_NUMBER: _ClassVar[int]
    P99_LATENCY_NS_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    AVG_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MEMORY_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_DEPTH_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    STUCK_IN_SEND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    LAST_CRASH_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    ASKING_FIELD_NUMBER: _ClassVar[int]
    ASKING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    state: _kernel_service_pb2.KernelState
    messages_processed: int
    messages_dropped: int
    queue_depth: int
    error_count: int
    last_error: str
    uptime_seconds: float
    min_latency_ns: int
    max_latency_ns: int
    avg_latency_ns: float
    p50_latency_ns: int
    p95_latency_ns: int
    p99_latency_ns: int
    throughput: float
    batches: int
    avg_batch_size: float
    max_batch_size: int
    device_memory_bytes: int
    device_memory_peak_bytes: int
    rate: float
    output_depth: int
    output_queue_size: int
    stuck_in_send_seconds: float
    restarts: int
    redelivered: int
    last_crash: str
    workers: _containers.RepeatedCompositeFieldContainer[WorkerTelemetry]
    asking: str
    asking_seconds: float
    def __init__(self, kernel_id: _Optional[str] = ..., state: _Optional[_Union[_kernel_service_pb2.KernelState, str]] = ..., messages_processed: _Optional[int] = ..., messages_dropped: _Optional[int] = ..., queue_depth: _Optional[int] = ..., error_count: _Optional[int] = ..., last_error: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., min_latency_ns: _Optional[int] = ..., max_latency_ns: _Optional[int] = ..., avg_latency_ns: _Optional[float] = ..., p50_latency_ns: _Optional[int] = ..., p95_latency_ns: _Optional[int] = ..., p99_latency_ns: _Optional[int] = ..., throughput: _Optional[float] = ..., batches: _Optional[int] = ..., avg_batch_size: _Optional[float] = ..., max_batch_size: _Optional[int] = ..., device_memory_bytes: _Optional[int] = ..., device_memory_peak_bytes: _Optional[int] = ..., rate: _Optional[float] = ..., output_depth: _Optional[int] = ..., output_queue_size: _Optional[int] = ..., stuck_in_send_seconds: _Optional[float] = ..., restarts: _Optional[int] = ..., redelivered: _Optional[int] = ..., last_crash: _Optional[str] = ..., workers: _Optional[_Iterable[_Union[WorkerTelemetry, _Mapping]]] = ..., asking: _Optional[str] = ..., asking_seconds: _Optional[float] = ...) -> None: ...

class WorkerTelemetry(_message.Message):
    __slots__ = ("pid", "resident_bytes", "cpu_seconds", "in_hand", "ahead")
    PID_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    IN_HAND_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    pid: int
    resident_bytes: int
    cpu_seconds: float
    in_hand: int
    ahead: int
    def __init__(self, pid: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., cpu_seconds: _Optional[float] = ..., in_hand: _Optional[int] = ..., ahead: _Optional[int] = ...) -> None: ...

class GetDevicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetDevicesResponse(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceTelemetry]
    def __init__(self, devices: _Optional[_Iterable[_Union[DeviceTelemetry, _Mapping]]] = ...) -> None: ...

class GetMemoryRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetMemoryResponse(_message.Message):
    __slots__ = ("resident_bytes", "budget_bytes", "used_bytes", "places")
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    resident_bytes: int
    budget_bytes: int
    used_bytes: int
    places: _containers.RepeatedCompositeFieldContainer[MemoryPlace]
    def __init__(self, resident_bytes: _Optional[int] = ..., budget_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., places: _Optional[_Iterable[_Union[MemoryPlace, _Mapping]]] = ...) -> None: ...

class MemoryPlace(_message.Message):
    __slots__ = ("name", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class DeviceTelemetry(_message.Message):
    __slots__ = ("index", "uuid", "name", "memory_total_bytes", "memory_used_bytes", "utilization_percent", "temperature_celsius", "power_watts")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    index: int
    uuid: str
    name: str
    memory_total_bytes: int
    memory_used_bytes: int
    utilization_percent: int
    temperature_celsius: int
    power_watts: float
    def __init__(self, index: _Optional[int] = ..., uuid: _Optional[str] = ..., name: _Optional[str] = ..., memory_total_bytes: _Optional[int] = ..., memory_used_bytes: _Optional[int] = ..., utilization_percent: _Optional[int] = ..., temperature_celsius: _Optional[int] = ..., power_watts: _Optional[float] = ...) -> None: ...
