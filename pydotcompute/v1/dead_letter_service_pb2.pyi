import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pydotcompute.v1 import access_pb2 as _access_pb2
from pydotcompute.v1 import message_service_pb2 as _message_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeadLetterReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEAD_LETTER_REASON_UNSPECIFIED: _ClassVar[DeadLetterReason]
    DEAD_LETTER_REASON_DROPPED: _ClassVar[DeadLetterReason]
    DEAD_LETTER_REASON_EXPIRED: _ClassVar[DeadLetterReason]
    DEAD_LETTER_REASON_KERNEL_ENDED: _ClassVar[DeadLetterReason]
    DEAD_LETTER_REASON_CALLER_GONE: _ClassVar[DeadLetterReason]
    DEAD_LETTER_REASON_UNDELIVERABLE: _ClassVar[DeadLetterReason]
    DEAD_LETTER_REASON_WORKER_LOST: _ClassVar[DeadLetterReason]

class DeadLetterDirection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEAD_LETTER_DIRECTION_UNSPECIFIED: _ClassVar[DeadLetterDirection]
    DEAD_LETTER_DIRECTION_TO_KERNEL: _ClassVar[DeadLetterDirection]
    DEAD_LETTER_DIRECTION_FROM_KERNEL: _ClassVar[DeadLetterDirection]
DEAD_LETTER_REASON_UNSPECIFIED: DeadLetterReason
DEAD_LETTER_REASON_DROPPED: DeadLetterReason
DEAD_LETTER_REASON_EXPIRED: DeadLetterReason
DEAD_LETTER_REASON_KERNEL_ENDED: DeadLetterReason
DEAD_LETTER_REASON_CALLER_GONE: DeadLetterReason
DEAD_LETTER_REASON_UNDELIVERABLE: DeadLetterReason
DEAD_LETTER_REASON_WORKER_LOST: DeadLetterReason
DEAD_LETTER_DIRECTION_UNSPECIFIED: DeadLetterDirection
DEAD_LETTER_DIRECTION_TO_KERNEL: DeadLetterDirection
DEAD_LETTER_DIRECTION_FROM_KERNEL: DeadLetterDirection

class DeadLetter(_message.Message):
    __slots__ = ("id", "message", "problem", "reason", "detail", "time", "direction")
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    id: int
    message: _message_service_pb2.Message
    problem: str
    reason: DeadLetterReason
    detail: str
    time: _timestamp_pb2.Timestamp
    direction: DeadLetterDirection
    def __init__(self, id: _Optional[int] = ..., message: _Optional[_Union[_message_service_pb2.Message, _Mapping]] = ..., problem: _Optional[str] = ..., reason: _Optional[_Union[DeadLetterReason, str]] = ..., detail: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., direction: _Optional[_Union[DeadLetterDirection, str]] = ...) -> None: ...

class ListDeadLettersRequest(_message.Message):
    __slots__ = ("kernel_id", "page_size", "page_token")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    page_size: int
    page_token: str
    def __init__(self, kernel_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDeadLettersResponse(_message.Message):
    __slots__ = ("dead_letters", "next_page_token", "types", "discarded")
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    DISCARDED_FIELD_NUMBER: _ClassVar[int]
    dead_letters: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    next_page_token: str
    types: _containers.RepeatedCompositeFieldContainer[_message_service_pb2.MessageType]
    discarded: int
    def __init__(self, dead_letters: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., types: _Optional[_Iterable[_Union[_message_service_pb2.MessageType, _Mapping]]] = ..., discarded: _Optional[int] = ...) -> None: ...

class RequeueDeadLettersRequest(_message.Message):
    __slots__ = ("kernel_id", "ids")
    KERNEL_ID_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    kernel_id: str
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, kernel_id: _Optional[str] = ..., ids: _Optional[_Iterable[int]] = ...) -> None: ...

class RequeueDeadLettersResponse(_message.Message):
    __slots__ = ("ids", "remaining")
    IDS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    remaining: int
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., remaining: _Optional[int] = ...) -> None: ...
