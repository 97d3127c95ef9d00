import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.rpc import status_pb2 as _status_pb2
from pydotcompute.v1 import access_pb2 as _access_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BackpressureStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BACKPRESSURE_STRATEGY_UNSPECIFIED: _ClassVar[BackpressureStrategy]
    BACKPRESSURE_STRATEGY_BLOCK: _ClassVar[BackpressureStrategy]
    BACKPRESSURE_STRATEGY_REJECT: _ClassVar[BackpressureStrategy]
    BACKPRESSURE_STRATEGY_DROP_OLDEST: _ClassVar[BackpressureStrategy]
BACKPRESSURE_STRATEGY_UNSPECIFIED: BackpressureStrategy
BACKPRESSURE_STRATEGY_BLOCK: BackpressureStrategy
BACKPRESSURE_STRATEGY_REJECT: BackpressureStrategy
BACKPRESSURE_STRATEGY_DROP_OLDEST: BackpressureStrategy

class Message(_message.Message):
    __slots__ = ("message_id", "priority", "correlation_id", "body")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    priority: int
    correlation_id: str
    body: _any_pb2.Any
    def __init__(self, message_id: _Optional[str] = ..., priority: _Optional[int] = ..., correlation_id: _Optional[str] = ..., body: _Optional[_Union[_any_pb2.Any, _Mapping]] = ...) -> None: ...

class SendRequest(_message.Message):
    __slots__ = ("kernel_id", "message", "timeout", "client_id", "daemon_epoch")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    DAEMON_EPOCH_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    message: Message
    timeout: _duration_pb2.Duration
    client_id: str
    daemon_epoch: str
    def __init__(self, kernel_id: _Optional[str] = ..., message: _Optional[_Union[Message, _Mapping]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., client_id: _Optional[str] = ..., daemon_epoch: _Optional[str] = ...) -> None: ...

class SendResponse(_message.Message):
    __slots__ = ("message_id", "daemon_epoch")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    DAEMON_EPOCH_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    daemon_epoch: str
    def __init__(self, message_id: _Optional[str] = ..., daemon_epoch: _Optional[str] = ...) -> None: ...

class ReceiveRequest(_message.Message):
    __slots__ = ("kernel_id", "timeout", "client_id", "lease", "daemon_epoch")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    DAEMON_EPOCH_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    timeout: _duration_pb2.Duration
    client_id: str
    lease: _duration_pb2.Duration
    daemon_epoch: str
    def __init__(self, kernel_id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., client_id: _Optional[str] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., daemon_epoch: _Optional[str] = ...) -> None: ...

class ReceiveResponse(_message.Message):
    __slots__ = ("message", "delivery_id", "redelivered", "daemon_epoch")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    DAEMON_EPOCH_FIELD_NUMBER: _ClassVar[int]
    message: Message
    delivery_id: str
    redelivered: bool
    daemon_epoch: str
    def __init__(self, message: _Optional[_Union[Message, _Mapping]] = ..., delivery_id: _Optional[str] = ..., redelivered: bool = ..., daemon_epoch: _Optional[str] = ...) -> None: ...

class AcknowledgeRequest(_message.Message):
    __slots__ = ("kernel_id", "delivery_ids")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_IDS_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    delivery_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kernel_id: _Optional[str] = ..., delivery_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class AcknowledgeResponse(_message.Message):
    __slots__ = ("unknown_delivery_ids",)
    UNKNOWN_DELIVERY_IDS_FIELD_NUMBER: _ClassVar[int]
    unknown_delivery_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, unknown_delivery_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class AskRequest(_message.Message):
    __slots__ = ("kernel_id", "message", "timeout")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    message: Message
    timeout: _duration_pb2.Duration
    def __init__(self, kernel_id: _Optional[str] = ..., message: _Optional[_Union[Message, _Mapping]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AskResponse(_message.Message):
    __slots__ = ("message", "daemon_epoch")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DAEMON_EPOCH_FIELD_NUMBER: _ClassVar[int]
    message: Message
    daemon_epoch: str
    def __init__(self, message: _Optional[_Union[Message, _Mapping]] = ..., daemon_epoch: _Optional[str] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("open", "batch", "bye", "part", "inquiry", "ack")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    INQUIRY_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    open: Open
    batch: Batch
    bye: Bye
    part: Part
    inquiry: Inquiry
    ack: Ack
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., inquiry: _Optional[_Union[Inquiry, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("opened", "batch", "refused", "closed", "bye", "part", "explanation", "types", "accepted")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    batch: Batch
    refused: Refused
    closed: Closed
    bye: Bye
    part: Part
    explanation: Explanation
    types: NewTypes
    accepted: Accepted
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ..., types: _Optional[_Union[NewTypes, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("kernel_id", "session_token", "received_through", "credit", "max_message_bytes", "part_bytes", "shared_memory", "new_types", "error_in_bye")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PART_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    NEW_TYPES_FIELD_NUMBER: _ClassVar[int]
    ERROR_IN_BYE_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    session_token: bytes
    received_through: int
    credit: Credit
    max_message_bytes: int
    part_bytes: int
    shared_memory: bool
    new_types: bool
    error_in_bye: bool
    def __init__(self, kernel_id: _Optional[str] = ..., session_token: _Optional[bytes] = ..., received_through: _Optional[int] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., max_message_bytes: _Optional[int] = ..., part_bytes: _Optional[int] = ..., shared_memory: bool = ..., new_types: bool = ..., error_in_bye: bool = ...) -> None: ...

class NewTypes(_message.Message):
    __slots__ = ("types",)
    TYPES_FIELD_NUMBER: _ClassVar[int]
    types: _containers.RepeatedCompositeFieldContainer[MessageType]
    def __init__(self, types: _Optional[_Iterable[_Union[MessageType, _Mapping]]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session_token", "received_through", "acks_received", "credit", "types", "backpressure_strategy", "input_queue_size", "output_queue_size", "max_message_bytes", "closed", "session_timeout", "part_bytes", "shared_memory", "explains", "daemon_epoch")
    SESSION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    ACKS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    INPUT_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    SESSION_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PART_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    EXPLAINS_FIELD_NUMBER: _ClassVar[int]
    DAEMON_EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_token: bytes
    received_through: int
    acks_received: int
    credit: Credit
    types: _containers.RepeatedCompositeFieldContainer[MessageType]
    backpressure_strategy: BackpressureStrategy
    input_queue_size: int
    output_queue_size: int
    max_message_bytes: int
    closed: _status_pb2.Status
    session_timeout: _duration_pb2.Duration
    part_bytes: int
    shared_memory: SharedMemory
    explains: bool
    daemon_epoch: str
    def __init__(self, session_token: _Optional[bytes] = ..., received_through: _Optional[int] = ..., acks_received: _Optional[int] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., types: _Optional[_Iterable[_Union[MessageType, _Mapping]]] = ..., backpressure_strategy: _Optional[_Union[BackpressureStrategy, str]] = ..., input_queue_size: _Optional[int] = ..., output_queue_size: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., closed: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., session_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., part_bytes: _Optional[int] = ..., shared_memory: _Optional[_Union[SharedMemory, _Mapping]] = ..., explains: bool = ..., daemon_epoch: _Optional[str] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("requests", "replies")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    requests: SharedSegment
    replies: SharedSegment
    def __init__(self, requests: _Optional[_Union[SharedSegment, _Mapping]] = ..., replies: _Optional[_Union[SharedSegment, _Mapping]] = ...) -> None: ...

class SharedSegment(_message.Message):
    __slots__ = ("process_id", "file_descriptor", "key")
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    FILE_DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    process_id: int
    file_descriptor: int
    key: bytes
    def __init__(self, process_id: _Optional[int] = ..., file_descriptor: _Optional[int] = ..., key: _Optional[bytes] = ...) -> None: ...

class SharedBody(_message.Message):
    __slots__ = ("index", "offset", "bytes")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    index: int
    offset: int
    bytes: int
    def __init__(self, index: _Optional[int] = ..., offset: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("messages", "bytes")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    messages: int
    bytes: int
    def __init__(self, messages: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class MessageType(_message.Message):
    __slots__ = ("full_name", "files")
    FULL_NAME_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    full_name: str
    files: _descriptor_pb2.FileDescriptorSet
    def __init__(self, full_name: _Optional[str] = ..., files: _Optional[_Union[_descriptor_pb2.FileDescriptorSet, _Mapping]] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("first_sequence", "message_ids", "bodies", "priorities", "correlation_ids", "uncorrelated", "types", "outputs", "timeouts_us", "body_in_parts", "before_replies_to", "shared_bodies")
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    PRIORITIES_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_IDS_FIELD_NUMBER: _ClassVar[int]
    UNCORRELATED_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUTS_US_FIELD_NUMBER: _ClassVar[int]
    BODY_IN_PARTS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_REPLIES_TO_FIELD_NUMBER: _ClassVar[int]
    SHARED_BODIES_FIELD_NUMBER: _ClassVar[int]
    first_sequence: int
    message_ids: bytes
    bodies: _containers.RepeatedScalarFieldContainer[bytes]
    priorities: _containers.RepeatedScalarFieldContainer[int]
    correlation_ids: bytes
    uncorrelated: _containers.RepeatedScalarFieldContainer[int]
    types: _containers.RepeatedScalarFieldContainer[int]
    outputs: _containers.RepeatedScalarFieldContainer[int]
    timeouts_us: _containers.RepeatedScalarFieldContainer[int]
    body_in_parts: bool
    before_replies_to: bytes
    shared_bodies: _containers.RepeatedCompositeFieldContainer[SharedBody]
    def __init__(self, first_sequence: _Optional[int] = ..., message_ids: _Optional[bytes] = ..., bodies: _Optional[_Iterable[bytes]] = ..., priorities: _Optional[_Iterable[int]] = ..., correlation_ids: _Optional[bytes] = ..., uncorrelated: _Optional[_Iterable[int]] = ..., types: _Optional[_Iterable[int]] = ..., outputs: _Optional[_Iterable[int]] = ..., timeouts_us: _Optional[_Iterable[int]] = ..., body_in_parts: bool = ..., before_replies_to: _Optional[bytes] = ..., shared_bodies: _Optional[_Iterable[_Union[SharedBody, _Mapping]]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("body_bytes", "offset", "data")
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    body_bytes: int
    offset: int
    data: bytes
    def __init__(self, body_bytes: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("through", "credit", "acks_received")
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    ACKS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    through: int
    credit: Credit
    acks_received: int
    def __init__(self, through: _Optional[int] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., acks_received: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("first_sequence", "refusals")
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    first_sequence: int
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    def __init__(self, first_sequence: _Optional[int] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("sequence", "message_id", "status")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    message_id: bytes
    status: _status_pb2.Status
    def __init__(self, sequence: _Optional[int] = ..., message_id: _Optional[bytes] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Inquiry(_message.Message):
    __slots__ = ("message_ids", "receive")
    MESSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_FIELD_NUMBER: _ClassVar[int]
    message_ids: bytes
    receive: bool
    def __init__(self, message_ids: _Optional[bytes] = ..., receive: bool = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("delays",)
    DELAYS_FIELD_NUMBER: _ClassVar[int]
    delays: _containers.RepeatedCompositeFieldContainer[Delay]
    def __init__(self, delays: _Optional[_Iterable[_Union[Delay, _Mapping]]] = ...) -> None: ...

class Delay(_message.Message):
    __slots__ = ("message_id", "cause", "before", "seconds", "asking")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ASKING_FIELD_NUMBER: _ClassVar[int]
    message_id: bytes
    cause: str
    before: int
    seconds: float
    asking: str
    def __init__(self, message_id: _Optional[bytes] = ..., cause: _Optional[str] = ..., before: _Optional[int] = ..., seconds: _Optional[float] = ..., asking: _Optional[str] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("number", "through", "credit", "outputs", "undeliverable", "returned", "withdrawn")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    UNDELIVERABLE_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    number: int
    through: int
    credit: Credit
    outputs: int
    undeliverable: _containers.RepeatedScalarFieldContainer[int]
    returned: _containers.RepeatedScalarFieldContainer[int]
    withdrawn: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, number: _Optional[int] = ..., through: _Optional[int] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., outputs: _Optional[int] = ..., undeliverable: _Optional[_Iterable[int]] = ..., returned: _Optional[_Iterable[int]] = ..., withdrawn: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...
