"""Frames of `Exchange` as bytes.

A frame with a part of a long body is written and read by hand, because protobuf would copy the data twice more on each
side.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError, Message

from pydotcompute.protobuf.elements import counter
from pydotcompute.protobuf.varints import read_varint, varint
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.limits import WINDOW

__all__ = [
    "LONGEST_FRAME",
    "PART_BYTES",
    "PartFrame",
    "read_request",
    "read_response",
    "request_part",
    "response_part",
    "to_bytes",
]

PART_BYTES = 1 << 20
"""Bytes of data in one part. Larger parts are no faster, and messages between the parts would wait longer."""

LONGEST_FRAME = (1 << 31) - 1
"""The longest frame, in bytes, that gRPC can be told to take. A message in parts may be longer."""

_REQUEST_BEGINS, _RESPONSE_BEGINS = (
    bytes([frame.DESCRIPTOR.fields_by_name["part"].number << 3 | 2])
    for frame in (pb.ExchangeRequest, pb.ExchangeResponse)
)
_DATA_TAG = pb.Part.DESCRIPTOR.fields_by_name["data"].number << 3 | 2
_LONGEST_HEAD = 64
"""The most bytes in front of the data. They are kept with the data, and the other side decides what is in them."""
MOST_ELEMENTS = 16 * WINDOW
"""The most elements of a frame from a client: some for each message that can be under way."""
_ALWAYS_READ = 256 << 10
"""Frames of so many bytes are read without counting their elements, which cannot take long."""
_count_request = counter(pb.ExchangeRequest.DESCRIPTOR)
_VARINT, _BYTES = 0, 2
"""Two wire types of protobuf: a varint, and bytes with their length in front."""


class PartFrame(NamedTuple):
    """A frame that holds one part of a body, and nothing else."""

    body_bytes: int
    """The length of the whole body."""
    offset: int
    """The place of the data in the body, in bytes."""
    data: memoryview
    """The bytes of the part."""


def request_part(body_bytes: int, offset: int, data: memoryview) -> bytes:
    """Return the bytes of an ExchangeRequest with a part. The arguments are the fields of `PartFrame`."""
    return _part(_REQUEST_BEGINS, pb.Part(body_bytes=body_bytes, offset=offset), data)


def response_part(body_bytes: int, offset: int, data: memoryview) -> bytes:
    """Return the bytes of an ExchangeResponse with a part. The arguments are the fields of `PartFrame`."""
    return _part(_RESPONSE_BEGINS, pb.Part(body_bytes=body_bytes, offset=offset), data)


def to_bytes(frame: Message | bytes) -> bytes:
    """Return a frame as bytes. A frame that is bytes already is returned as it is."""
    return frame if isinstance(frame, bytes) else frame.SerializeToString()


def read_request(data: bytes) -> pb.ExchangeRequest | PartFrame:
    """Return the frame that the client has sent as `data`. Raises DecodeError if it is malformed."""
    if data[:1] == _REQUEST_BEGINS and (part := _read_part(data)) is not None:
        return part
    if len(data) > _ALWAYS_READ and _count_request(data, MOST_ELEMENTS) > MOST_ELEMENTS:
        raise DecodeError(f"a frame has at most {MOST_ELEMENTS} elements")
    return pb.ExchangeRequest.FromString(data)


def read_response(data: bytes) -> pb.ExchangeResponse | PartFrame:
    """Return the frame that the daemon has sent as `data`. Raises DecodeError if it is malformed."""
    if data[:1] == _RESPONSE_BEGINS and (part := _read_part(data)) is not None:
        return part
    return pb.ExchangeResponse.FromString(data)


def _part(tag: bytes, head: pb.Part, data: memoryview) -> bytes:
    before = b"".join((head.SerializeToString(), bytes([_DATA_TAG]), varint(len(data))))
    return b"".join((tag, varint(len(before) + len(data)), before, data))


def _read_part(data: bytes) -> PartFrame | None:
    """Return the part in a frame that is laid out as `_part` does it; None for any other, which protobuf then reads."""
    try:
        length, head = read_varint(data, 1)
        if head + length != len(data):
            return None
        at = head
        while (field := data[at]) != _DATA_TAG:
            if at > _LONGEST_HEAD:
                return None
            length, at = read_varint(data, at + 1)
            if field & 7 == _BYTES:
                at += length
            elif field & 7 != _VARINT:
                return None
        length, start = read_varint(data, at + 1)
        if start + length != len(data) or start > _LONGEST_HEAD:
            return None
        part = pb.Part.FromString(data[head:at])
    except (IndexError, ValueError, DecodeError):
        return None
    return PartFrame(part.body_bytes, part.offset, memoryview(data)[start:])
