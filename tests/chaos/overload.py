"""Requests of one client that cost a daemon far more work than their length suggests.

Each function returns a body, or a frame. The bodies are for messages whose first field is the one that the function's
name says. Most of them are valid: they are refused, if they are, because of the work that they would cause.
"""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from pydotcompute.protobuf.varints import varint
from pydotcompute.v1 import dead_letter_service_pb2, message_service_pb2, telemetry_service_pb2, tensor_pb2

__all__ = [
    "acknowledge_ids",
    "array_of_dimensions",
    "array_of_heads",
    "ask",
    "bytes_of",
    "frame_of_bodies",
    "frame_of_withdrawals",
    "integers",
    "map_entries",
    "messages",
    "part_of_heads",
    "repeated_body",
    "requeue_ids",
    "struct_ask",
    "struct_of_nulls",
    "texts",
    "unknown_fields",
    "watch_of_ids",
]

_FIRST = b"\x0a"
"""The tag of the first field of a message, if it has a length in front."""


def _field(data: bytes) -> bytes:
    return _FIRST + varint(len(data)) + data


def array_of_dimensions(dimensions: int = 20_000) -> bytes:
    """An array of many dimensions of 2**62 elements each. It is invalid."""
    tensor = tensor_pb2.Tensor(dtype="<f4", data=bytes(4), shape=[1 << 62] * dimensions)
    return _field(tensor.SerializeToString())


def array_of_heads(count: int = 4 << 20) -> bytes:
    """An array whose dtype is there many times. The last one counts."""
    dtype = b"\x0a\x03<f4"
    return _field(dtype * count + tensor_pb2.Tensor(shape=[1], data=bytes(4)).SerializeToString())


def messages(count: int = 4 << 20) -> bytes:
    """A list of messages that are empty, 2 bytes each."""
    return b"\x0a\x00" * count


def texts(count: int = 8 << 20) -> bytes:
    """A list of texts that are empty, 2 bytes each."""
    return b"\x0a\x00" * count


def integers(count: int = 8 << 20) -> bytes:
    """A list of integers, 2 bytes each."""
    return _field(b"\xac\x02" * count)


def map_entries(count: int = 1 << 20) -> bytes:
    """A map of this many entries with different keys, whose values are left out."""
    keys = (b"\x08" + varint(key) for key in range(count))
    return b"".join(map(_field, keys))


def bytes_of(size: int) -> bytes:
    """One field with this many bytes."""
    return _field(bytes(size))


def unknown_fields(count: int = 16 << 20) -> bytes:
    """Fields that the message does not have, 2 bytes each: number 15, a varint."""
    return b"\x78\x00" * count


def ask(kernel_id: str, full_name: str, body: bytes) -> message_service_pb2.AskRequest:
    """A call of Ask with this body, which is of this type."""
    request = message_service_pb2.AskRequest(kernel_id=kernel_id)
    request.message.body.type_url = f"type.googleapis.com/{full_name}"
    request.message.body.value = body
    return request


def repeated_body(count: int = 16 << 20) -> bytes:
    """The bytes of an AskRequest whose field `message` is there many times, empty."""
    return b"\x12\x00" * count


def struct_of_nulls(name: str, count: int = 500_000) -> bytes:
    """A Struct with a list of values that are empty, 2 bytes each."""
    values = b"\x0a\x00" * count
    list_value = b"\x32" + varint(len(values)) + values
    entry = Struct(fields={name: {}}).SerializeToString()  # type: ignore[dict-item]
    key = entry[entry.index(b"\x0a", 1) :][: 2 + len(name)]
    whole = key + b"\x12" + varint(len(list_value)) + list_value
    return _field(whole)


def struct_ask(kernel_id: str, body: bytes) -> message_service_pb2.AskRequest:
    """A call of Ask whose body is a Struct."""
    return ask(kernel_id, Struct.DESCRIPTOR.full_name, body)


def frame_of_bodies(count: int = 8 << 20) -> bytes:
    """A frame of Exchange with a batch of very many empty bodies."""
    batch = b"\x08\x01" + b"\x1a\x00" * count
    return b"\x12" + varint(len(batch)) + batch


def part_of_heads(count: int = 8 << 20) -> bytes:
    """A frame of Exchange with a part of a body, whose `offset` is there many times."""
    part = b"\x10\x00" * count + b"\x1a\x01\x00"
    return b"\x2a" + varint(len(part)) + part


def frame_of_withdrawals(message_ids: list[bytes], number: int = 1) -> message_service_pb2.ExchangeRequest:
    """A frame of Exchange that gives up all of these requests."""
    frame = message_service_pb2.ExchangeRequest()
    frame.ack.number = number
    frame.ack.withdrawn.extend(message_ids)
    return frame


def acknowledge_ids(kernel_id: str, count: int = 1 << 20) -> message_service_pb2.AcknowledgeRequest:
    """An Acknowledge of very many ids."""
    return message_service_pb2.AcknowledgeRequest(kernel_id=kernel_id, delivery_ids=[f"{n:x}" for n in range(count)])


def requeue_ids(kernel_id: str, count: int = 1 << 20) -> dead_letter_service_pb2.RequeueDeadLettersRequest:
    """A RequeueDeadLetters of very many ids."""
    return dead_letter_service_pb2.RequeueDeadLettersRequest(kernel_id=kernel_id, ids=range(1, count + 1))


def watch_of_ids(kernel_id: str, count: int = 1 << 20) -> telemetry_service_pb2.WatchTelemetryRequest:
    """A WatchTelemetry that names one kernel very many times."""
    return telemetry_service_pb2.WatchTelemetryRequest(kernel_ids=[kernel_id] * count)
