"""Messages as `Message`, the form for people."""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import UUID

from pydotcompute.exceptions import MessageDeserializationError, MessageTypeError
from pydotcompute.ring_kernels.message import DEFAULT_PRIORITY, MAX_PRIORITY, new_message_id
from pydotcompute.schema.codec import Codec
from pydotcompute.v1 import message_service_pb2 as pb

__all__ = ["from_message", "write_message"]


def write_message(into: pb.Message, message: Any, codec: Codec[Any]) -> None:
    """Write a message in the form for people into an empty one. (To make one, and have it copied, costs three times as
    much.)"""
    into.message_id = _text(message.message_id)
    into.priority = message.priority
    if message.correlation_id is not None:
        into.correlation_id = _text(message.correlation_id)
    body = into.body
    body.type_url = _type_url(codec)
    body.value = codec.encode(message)


@cache
def _type_url(codec: Codec[Any]) -> str:
    """What `Any.type_url` says of a codec's type. (Protobuf makes the name anew each time it is asked for it.)"""
    return f"type.googleapis.com/{codec.descriptor.full_name}"


def _text(uuid: UUID) -> str:
    """`str(uuid)`, which every answer needs twice, at half its cost."""
    pairs = uuid.int.to_bytes(16).hex("-", 2)
    return pairs[:4] + pairs[5:29] + pairs[30:34] + pairs[35:]


def from_message(message: pb.Message, codec: Codec[Any]) -> Any:
    """The message that a person wrote; without an id it gets one.

    Raises:
        MessageTypeError: the body is of another type than the codec's.
        MessageDeserializationError: the header or the body is malformed.
    """
    body = message.body
    if body.type_url != _type_url(codec):  # It may have another prefix, or none.
        type_name = body.type_url.rpartition("/")[2]
        if type_name != codec.descriptor.full_name:
            raise MessageTypeError(codec.descriptor.full_name, type_name or "no body", "$.body")
    priority = message.priority if message.HasField("priority") else DEFAULT_PRIORITY
    if priority > MAX_PRIORITY:
        problem = f"{priority} is outside 0 to {MAX_PRIORITY}"
        raise MessageDeserializationError(codec.schema.name, problem, "$.priority")
    message_id, correlation_id = message.message_id, message.correlation_id
    return codec.decode(
        body.value,
        message_id=_uuid(message_id, codec, "$.message_id") if message_id else new_message_id(),
        priority=priority,
        correlation_id=_uuid(correlation_id, codec, "$.correlation_id") if correlation_id else None,
    )


def _uuid(text: str, codec: Codec[Any], path: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise MessageDeserializationError(codec.schema.name, f"not a UUID: {text!r}", path) from None
