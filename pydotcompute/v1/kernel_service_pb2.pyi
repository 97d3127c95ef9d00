import datetime

from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from pydotcompute.v1 import access_pb2 as _access_pb2
from pydotcompute.v1 import message_service_pb2 as _message_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KernelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KERNEL_STATE_UNSPECIFIED: _ClassVar[KernelState]
    KERNEL_STATE_CREATED: _ClassVar[KernelState]
    KERNEL_STATE_LAUNCHED: _ClassVar[KernelState]
    KERNEL_STATE_ACTIVE: _ClassVar[KernelState]
    KERNEL_STATE_DEACTIVATED: _ClassVar[KernelState]
    KERNEL_STATE_TERMINATING: _ClassVar[KernelState]
    KERNEL_STATE_TERMINATED: _ClassVar[KernelState]
    KERNEL_STATE_FAILED: _ClassVar[KernelState]

class Executor(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXECUTOR_UNSPECIFIED: _ClassVar[Executor]
    EXECUTOR_LOOP: _ClassVar[Executor]
    EXECUTOR_THREAD: _ClassVar[Executor]

class Restart(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESTART_UNSPECIFIED: _ClassVar[Restart]
    RESTART_NEVER: _ClassVar[Restart]
    RESTART_ON_FAILURE: _ClassVar[Restart]
    RESTART_ALWAYS: _ClassVar[Restart]

class OnCrash(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_CRASH_UNSPECIFIED: _ClassVar[OnCrash]
    ON_CRASH_DEAD_LETTER: _ClassVar[OnCrash]
    ON_CRASH_REDELIVER: _ClassVar[OnCrash]
KERNEL_STATE_UNSPECIFIED: KernelState
KERNEL_STATE_CREATED: KernelState
KERNEL_STATE_LAUNCHED: KernelState
KERNEL_STATE_ACTIVE: KernelState
KERNEL_STATE_DEACTIVATED: KernelState
KERNEL_STATE_TERMINATING: KernelState
KERNEL_STATE_TERMINATED: KernelState
KERNEL_STATE_FAILED: KernelState
EXECUTOR_UNSPECIFIED: Executor
EXECUTOR_LOOP: Executor
EXECUTOR_THREAD: Executor
RESTART_UNSPECIFIED: Restart
RESTART_NEVER: Restart
RESTART_ON_FAILURE: Restart
RESTART_ALWAYS: Restart
ON_CRASH_UNSPECIFIED: OnCrash
ON_CRASH_DEAD_LETTER: OnCrash
ON_CRASH_REDELIVER: OnCrash

class KernelConfig(_message.Message):
    __slots__ = ("input_queue_size", "output_queue_size", "backpressure_strategy", "grid_size", "block_size")
    INPUT_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    GRID_SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    input_queue_size: int
    output_queue_size: int
    backpressure_strategy: _message_service_pb2.BackpressureStrategy
    grid_size: int
    block_size: int
    def __init__(self, input_queue_size: _Optional[int] = ..., output_queue_size: _Optional[int] = ..., backpressure_strategy: _Optional[_Union[_message_service_pb2.BackpressureStrategy, str]] = ..., grid_size: _Optional[int] = ..., block_size: _Optional[int] = ...) -> None: ...

class KernelType(_message.Message):
    __slots__ = ("name", "documentation", "input_type", "output_type", "config", "service", "device", "memory_limit_bytes", "executor", "supervision", "worker_limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTATION_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    SUPERVISION_FIELD_NUMBER: _ClassVar[int]
    WORKER_LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    documentation: str
    input_type: str
    output_type: str
    config: KernelConfig
    service: str
    device: str
    memory_limit_bytes: int
    executor: Executor
    supervision: Supervision
    worker_limits: WorkerLimits
    def __init__(self, name: _Optional[str] = ..., documentation: _Optional[str] = ..., input_type: _Optional[str] = ..., output_type: _Optional[str] = ..., config: _Optional[_Union[KernelConfig, _Mapping]] = ..., service: _Optional[str] = ..., device: _Optional[str] = ..., memory_limit_bytes: _Optional[int] = ..., executor: _Optional[_Union[Executor, str]] = ..., supervision: _Optional[_Union[Supervision, _Mapping]] = ..., worker_limits: _Optional[_Union[WorkerLimits, _Mapping]] = ...) -> None: ...

class Supervision(_message.Message):
    __slots__ = ("restart", "max_restarts", "restart_window_seconds", "on_crash", "max_deliveries")
    RESTART_FIELD_NUMBER: _ClassVar[int]
    MAX_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    RESTART_WINDOW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ON_CRASH_FIELD_NUMBER: _ClassVar[int]
    MAX_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    restart: Restart
    max_restarts: int
    restart_window_seconds: float
    on_crash: OnCrash
    max_deliveries: int
    def __init__(self, restart: _Optional[_Union[Restart, str]] = ..., max_restarts: _Optional[int] = ..., restart_window_seconds: _Optional[float] = ..., on_crash: _Optional[_Union[OnCrash, str]] = ..., max_deliveries: _Optional[int] = ...) -> None: ...

class WorkerLimits(_message.Message):
    __slots__ = ("time_limit_seconds", "hang_timeout_seconds", "cpus", "nice")
    TIME_LIMIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HANG_TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    NICE_FIELD_NUMBER: _ClassVar[int]
    time_limit_seconds: float
    hang_timeout_seconds: float
    cpus: _containers.RepeatedScalarFieldContainer[int]
    nice: int
    def __init__(self, time_limit_seconds: _Optional[float] = ..., hang_timeout_seconds: _Optional[float] = ..., cpus: _Optional[_Iterable[int]] = ..., nice: _Optional[int] = ...) -> None: ...

class Kernel(_message.Message):
    __slots__ = ("kernel_id", "kernel_type", "state", "queue_depth", "failure", "device", "device_name", "output_depth", "output_queue_size", "stuck_in_send_seconds", "restarts", "restarting", "last_crash", "asking", "asking_seconds", "instances")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_DEPTH_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    STUCK_IN_SEND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    RESTARTING_FIELD_NUMBER: _ClassVar[int]
    LAST_CRASH_FIELD_NUMBER: _ClassVar[int]
    ASKING_FIELD_NUMBER: _ClassVar[int]
    ASKING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    kernel_type: str
    state: KernelState
    queue_depth: int
    failure: str
    device: str
    device_name: str
    output_depth: int
    output_queue_size: int
    stuck_in_send_seconds: float
    restarts: int
    restarting: bool
    last_crash: str
    asking: str
    asking_seconds: float
    instances: int
    def __init__(self, kernel_id: _Optional[str] = ..., kernel_type: _Optional[str] = ..., state: _Optional[_Union[KernelState, str]] = ..., queue_depth: _Optional[int] = ..., failure: _Optional[str] = ..., device: _Optional[str] = ..., device_name: _Optional[str] = ..., output_depth: _Optional[int] = ..., output_queue_size: _Optional[int] = ..., stuck_in_send_seconds: _Optional[float] = ..., restarts: _Optional[int] = ..., restarting: bool = ..., last_crash: _Optional[str] = ..., asking: _Optional[str] = ..., asking_seconds: _Optional[float] = ..., instances: _Optional[int] = ...) -> None: ...

class ListKernelTypesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListKernelTypesResponse(_message.Message):
    __slots__ = ("kernel_types", "next_page_token", "total_size")
    KERNEL_TYPES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    kernel_types: _containers.RepeatedCompositeFieldContainer[KernelType]
    next_page_token: str
    total_size: int
    def __init__(self, kernel_types: _Optional[_Iterable[_Union[KernelType, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class ListKernelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListKernelsResponse(_message.Message):
    __slots__ = ("kernels", "next_page_token", "daemon_epoch", "total_size")
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DAEMON_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    kernels: _containers.RepeatedCompositeFieldContainer[Kernel]
    next_page_token: str
    daemon_epoch: str
    total_size: int
    def __init__(self, kernels: _Optional[_Iterable[_Union[Kernel, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., daemon_epoch: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class DescribeKernelRequest(_message.Message):
    __slots__ = ("kernel_id",)
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    def __init__(self, kernel_id: _Optional[str] = ...) -> None: ...

class DescribeKernelResponse(_message.Message):
    __slots__ = ("kernel_type", "kernel", "input_type", "output_type", "sample_json", "service_files")
    KERNEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_JSON_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FILES_FIELD_NUMBER: _ClassVar[int]
    kernel_type: KernelType
    kernel: Kernel
    input_type: _message_service_pb2.MessageType
    output_type: _message_service_pb2.MessageType
    sample_json: str
    service_files: _descriptor_pb2.FileDescriptorSet
    def __init__(self, kernel_type: _Optional[_Union[KernelType, _Mapping]] = ..., kernel: _Optional[_Union[Kernel, _Mapping]] = ..., input_type: _Optional[_Union[_message_service_pb2.MessageType, _Mapping]] = ..., output_type: _Optional[_Union[_message_service_pb2.MessageType, _Mapping]] = ..., sample_json: _Optional[str] = ..., service_files: _Optional[_Union[_descriptor_pb2.FileDescriptorSet, _Mapping]] = ...) -> None: ...

class LaunchRequest(_message.Message):
    __slots__ = ("kernel_id", "kernel_type", "config", "request_id")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    kernel_type: str
    config: KernelConfig
    request_id: str
    def __init__(self, kernel_id: _Optional[str] = ..., kernel_type: _Optional[str] = ..., config: _Optional[_Union[KernelConfig, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class LaunchResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: Kernel
    def __init__(self, kernel: _Optional[_Union[Kernel, _Mapping]] = ...) -> None: ...

class ActivateRequest(_message.Message):
    __slots__ = ("kernel_id",)
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    def __init__(self, kernel_id: _Optional[str] = ...) -> None: ...

class ActivateResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: Kernel
    def __init__(self, kernel: _Optional[_Union[Kernel, _Mapping]] = ...) -> None: ...

class DeactivateRequest(_message.Message):
    __slots__ = ("kernel_id",)
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    def __init__(self, kernel_id: _Optional[str] = ...) -> None: ...

class DeactivateResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: Kernel
    def __init__(self, kernel: _Optional[_Union[Kernel, _Mapping]] = ...) -> None: ...

class ReactivateRequest(_message.Message):
    __slots__ = ("kernel_id",)
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    def __init__(self, kernel_id: _Optional[str] = ...) -> None: ...

class ReactivateResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: Kernel
    def __init__(self, kernel: _Optional[_Union[Kernel, _Mapping]] = ...) -> None: ...

class TerminateRequest(_message.Message):
    __slots__ = ("kernel_id", "timeout")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    timeout: _duration_pb2.Duration
    def __init__(self, kernel_id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TerminateResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: Kernel
    def __init__(self, kernel: _Optional[_Union[Kernel, _Mapping]] = ...) -> None: ...

class ScaleRequest(_message.Message):
    __slots__ = ("kernel_id", "instances")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    instances: int
    def __init__(self, kernel_id: _Optional[str] = ..., instances: _Optional[int] = ...) -> None: ...

class ScaleResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: Kernel
    def __init__(self, kernel: _Optional[_Union[Kernel, _Mapping]] = ...) -> None: ...

class RestartRequest(_message.Message):
    __slots__ = ("kernel_id", "timeout")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    timeout: _duration_pb2.Duration
    def __init__(self, kernel_id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RestartResponse(_message.Message):
    __slots__ = ("kernel", "launched_again")
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    LAUNCHED_AGAIN_FIELD_NUMBER: _ClassVar[int]
    kernel: Kernel
    launched_again: bool
    def __init__(self, kernel: _Optional[_Union[Kernel, _Mapping]] = ..., launched_again: bool = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: str
    def __init__(self, file: _Optional[str] = ...) -> None: ...

class ReloadResponse(_message.Message):
    __slots__ = ("kernel_ids", "new_kernel_types", "changed_types")
    KERNEL_IDS_FIELD_NUMBER: _ClassVar[int]
    NEW_KERNEL_TYPES_FIELD_NUMBER: _ClassVar[int]
    CHANGED_TYPES_FIELD_NUMBER: _ClassVar[int]
    kernel_ids: _containers.RepeatedScalarFieldContainer[str]
    new_kernel_types: _containers.RepeatedScalarFieldContainer[str]
    changed_types: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kernel_ids: _Optional[_Iterable[str]] = ..., new_kernel_types: _Optional[_Iterable[str]] = ..., changed_types: _Optional[_Iterable[str]] = ...) -> None: ...
