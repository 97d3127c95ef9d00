from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KernelNotFoundDetail(_message.Message):
    __slots__ = ("kernel_id", "available", "is_type")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    IS_TYPE_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    available: _containers.RepeatedScalarFieldContainer[str]
    is_type: bool
    def __init__(self, kernel_id: _Optional[str] = ..., available: _Optional[_Iterable[str]] = ..., is_type: bool = ...) -> None: ...

class KernelAlreadyExistsDetail(_message.Message):
    __slots__ = ("kernel_id",)
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    def __init__(self, kernel_id: _Optional[str] = ...) -> None: ...

class KernelStateDetail(_message.Message):
    __slots__ = ("kernel_id", "state", "operation", "allowed_states", "returned_after")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_STATES_FIELD_NUMBER: _ClassVar[int]
    RETURNED_AFTER_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    state: str
    operation: str
    allowed_states: _containers.RepeatedScalarFieldContainer[str]
    returned_after: int
    def __init__(self, kernel_id: _Optional[str] = ..., state: _Optional[str] = ..., operation: _Optional[str] = ..., allowed_states: _Optional[_Iterable[str]] = ..., returned_after: _Optional[int] = ...) -> None: ...

class KernelFailedDetail(_message.Message):
    __slots__ = ("kernel_id", "cause_type", "cause_message")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_TYPE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    cause_type: str
    cause_message: str
    def __init__(self, kernel_id: _Optional[str] = ..., cause_type: _Optional[str] = ..., cause_message: _Optional[str] = ...) -> None: ...

class QueueFullDetail(_message.Message):
    __slots__ = ("kernel_id", "queue_size")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    queue_size: int
    def __init__(self, kernel_id: _Optional[str] = ..., queue_size: _Optional[int] = ...) -> None: ...

class QueueTimeoutDetail(_message.Message):
    __slots__ = ("kernel_id", "timeout", "operation", "cause", "before", "seconds", "asking")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ASKING_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    timeout: float
    operation: str
    cause: str
    before: int
    seconds: float
    asking: str
    def __init__(self, kernel_id: _Optional[str] = ..., timeout: _Optional[float] = ..., operation: _Optional[str] = ..., cause: _Optional[str] = ..., before: _Optional[int] = ..., seconds: _Optional[float] = ..., asking: _Optional[str] = ...) -> None: ...

class MessageTypeDetail(_message.Message):
    __slots__ = ("expected", "actual", "path")
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    expected: str
    actual: str
    path: str
    def __init__(self, expected: _Optional[str] = ..., actual: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class MessageSerializationDetail(_message.Message):
    __slots__ = ("message_type", "problem", "path")
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    message_type: str
    problem: str
    path: str
    def __init__(self, message_type: _Optional[str] = ..., problem: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class MessageDeserializationDetail(_message.Message):
    __slots__ = ("message_type", "problem", "path", "violations")
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    message_type: str
    problem: str
    path: str
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    def __init__(self, message_type: _Optional[str] = ..., problem: _Optional[str] = ..., path: _Optional[str] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ...) -> None: ...

class Violation(_message.Message):
    __slots__ = ("path", "problem")
    PATH_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    path: str
    problem: str
    def __init__(self, path: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class BackendUnavailableDetail(_message.Message):
    __slots__ = ("backend", "problem")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    backend: str
    problem: str
    def __init__(self, backend: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class InvalidConfigurationDetail(_message.Message):
    __slots__ = ("parameter", "value", "problem")
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    parameter: str
    value: str
    problem: str
    def __init__(self, parameter: _Optional[str] = ..., value: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class LimitExceededDetail(_message.Message):
    __slots__ = ("name", "limit", "asked", "retry_after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    limit: int
    asked: int
    retry_after: float
    def __init__(self, name: _Optional[str] = ..., limit: _Optional[int] = ..., asked: _Optional[int] = ..., retry_after: _Optional[float] = ...) -> None: ...

class MemoryExhaustedDetail(_message.Message):
    __slots__ = ("budget", "used", "asked")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    budget: int
    used: int
    asked: int
    def __init__(self, budget: _Optional[int] = ..., used: _Optional[int] = ..., asked: _Optional[int] = ...) -> None: ...

class MessageTooLargeDetail(_message.Message):
    __slots__ = ("message_type", "size", "limit")
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    message_type: str
    size: int
    limit: int
    def __init__(self, message_type: _Optional[str] = ..., size: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class SessionLostDetail(_message.Message):
    __slots__ = ("target", "problem", "kernel_id", "message_ids", "unsent_ids")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    UNSENT_IDS_FIELD_NUMBER: _ClassVar[int]
    target: str
    problem: str
    kernel_id: str
    message_ids: _containers.RepeatedScalarFieldContainer[str]
    unsent_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, target: _Optional[str] = ..., problem: _Optional[str] = ..., kernel_id: _Optional[str] = ..., message_ids: _Optional[_Iterable[str]] = ..., unsent_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ConnectionLostDetail(_message.Message):
    __slots__ = ("target", "problem")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    target: str
    problem: str
    def __init__(self, target: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class NotAuthenticatedDetail(_message.Message):
    __slots__ = ("problem", "role")
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    problem: str
    role: str
    def __init__(self, problem: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class NotPermittedDetail(_message.Message):
    __slots__ = ("principal", "method", "role", "kernel_id")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    principal: str
    method: str
    role: str
    kernel_id: str
    def __init__(self, principal: _Optional[str] = ..., method: _Optional[str] = ..., role: _Optional[str] = ..., kernel_id: _Optional[str] = ...) -> None: ...

class CircularAskDetail(_message.Message):
    __slots__ = ("kernel_ids",)
    KERNEL_IDS_FIELD_NUMBER: _ClassVar[int]
    kernel_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kernel_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RequestWithdrawnDetail(_message.Message):
    __slots__ = ("kernel_id",)
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    def __init__(self, kernel_id: _Optional[str] = ...) -> None: ...
