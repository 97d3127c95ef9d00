"""Messages as `Message`, the form for people."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from google.protobuf import any_pb2

from pydotcompute.exceptions import MessageDeserializationError, MessageTypeError
from pydotcompute.ring_kernels.message import DEFAULT_PRIORITY, MAX_PRIORITY, new_message_id
from pydotcompute.schema.codec import Codec
from pydotcompute.v1 import message_service_pb2 as pb

__all__ = ["from_message", "to_message"]


def to_message(message: Any, codec: Codec[Any]) -> pb.Message:
    """A message in the form for people."""
    return pb.Message(
        message_id=str(message.message_id),
        priority=message.priority,
        correlation_id="" if message.correlation_id is None else str(message.correlation_id),
        body=any_pb2.Any(type_url=f"type.googleapis.com/{codec.descriptor.full_name}", value=codec.encode(message)),
    )


def from_message(message: pb.Message, codec: Codec[Any]) -> Any:
    """The message that a person wrote; without an id it gets one.

    Raises:
        MessageTypeError: the body is of another type than the codec's.
        MessageDeserializationError: the header or the body is malformed.
    """
    type_name = message.body.type_url.rpartition("/")[2]
    if type_name != codec.descriptor.full_name:
        raise MessageTypeError(codec.descriptor.full_name, type_name or "no body", "$.body")
    name = codec.schema.name
    priority = message.priority if message.HasField("priority") else DEFAULT_PRIORITY
    if priority > MAX_PRIORITY:
        raise MessageDeserializationError(name, f"{priority} is outside 0 to {MAX_PRIORITY}", "$.priority")
    return codec.decode(
        message.body.value,
        message_id=_uuid(message.message_id, name, "$.message_id") or new_message_id(),
        priority=priority,
        correlation_id=_uuid(message.correlation_id, name, "$.correlation_id"),
    )


def _uuid(text: str, name: str, path: str) -> UUID | None:
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise MessageDeserializationError(name, f"not a UUID: {text!r}", path) from None
