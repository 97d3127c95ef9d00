"""Messages as `Message`, the form for people.

What is wrong with one is told with the place in the request, as who wrote that in JSON sees it: `$.message.body.a`.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import UUID

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from pydotcompute.exceptions import MessageDeserializationError, MessageTooLargeError, MessageTypeError
from pydotcompute.messages.header import DEFAULT_PRIORITY, MAX_PRIORITY
from pydotcompute.messages.ids import new_message_id
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.json.read import document_of, read_json
from pydotcompute.v1 import message_service_pb2 as pb

__all__ = ["BODY", "LONGEST_STRUCT", "MESSAGE", "from_message", "type_url", "write_body", "write_message"]

MESSAGE = "$.message"
"""Where a Message is in the requests that have one."""
BODY = f"{MESSAGE}.body"
LONGEST_STRUCT = 1 << 20
"""Bytes of a body that is read as JSON: while that is done, nothing else is."""

_STRUCT = Struct.DESCRIPTOR.full_name


def write_message(into: pb.Message, message: Any, codec: Codec[Any]) -> None:
    """Write a message in the form for people into an empty one. (To make one, and have it copied, costs three times as
    much.)
    """
    write_body(into, message, codec, codec.encode(message))


def write_body(into: pb.Message, message: Any, codec: Codec[Any], body: bytes) -> None:
    """The same with its body, which is encoded already."""
    into.message_id = _text(message.message_id)
    into.priority = message.priority
    if message.correlation_id is not None:
        into.correlation_id = _text(message.correlation_id)
    into.body.type_url = type_url(codec)
    into.body.value = body


@cache
def type_url(codec: Codec[Any]) -> str:
    """What `Any.type_url` says of a codec's type. (Protobuf makes the name anew each time it is asked for it.)"""
    return f"type.googleapis.com/{codec.descriptor.full_name}"


def _text(uuid: UUID) -> str:
    """`str(uuid)`, which every answer needs twice, at half its cost."""
    pairs = uuid.int.to_bytes(16).hex("-", 2)
    return pairs[:4] + pairs[5:29] + pairs[30:34] + pairs[35:]


def from_message(message: pb.Message, codec: Codec[Any]) -> Any:
    """The message that a person wrote; without an id it gets one.

    The body is of the codec's type, or a Struct that holds the JSON of it.

    Raises:
        MessageTypeError: the body is of another type.
        MessageTooLargeError: the body is a Struct of more than `LONGEST_STRUCT`.
        MessageDeserializationError: the header or the body is malformed; with all that is wrong with the body.
    """
    body = message.body
    is_struct = False
    if body.type_url != type_url(codec):  # It may have another prefix, or none.
        type_name = body.type_url.rpartition("/")[2]
        is_struct = type_name == _STRUCT
        if not is_struct and type_name != codec.descriptor.full_name:
            expected = f"{codec.descriptor.full_name}, or {_STRUCT} with its fields"
            raise MessageTypeError(expected, type_name or "no body", BODY)
    priority = message.priority if message.HasField("priority") else DEFAULT_PRIORITY
    if priority > MAX_PRIORITY:
        problem = f"{priority} is outside 0 to {MAX_PRIORITY}"
        raise MessageDeserializationError(codec.schema.name, problem, f"{MESSAGE}.priority")
    message_id, correlation_id = message.message_id, message.correlation_id
    header = (
        _uuid(message_id, codec, f"{MESSAGE}.message_id") if message_id else new_message_id(),
        priority,
        _uuid(correlation_id, codec, f"{MESSAGE}.correlation_id") if correlation_id else None,
    )
    if is_struct:
        return _from_struct(body.value, codec, header)
    try:
        return codec.decode(body.value, *header)
    except MessageDeserializationError as error:
        raise _told_in_json(error, body.value, codec).moved("$", BODY) from error.__cause__


def _from_struct(value: bytes, codec: Codec[Any], header: tuple[UUID, int, UUID | None]) -> Any:
    """The message with the body that a Struct means."""
    if len(value) > LONGEST_STRUCT:
        raise MessageTooLargeError(_STRUCT, len(value), LONGEST_STRUCT)
    try:
        struct = Struct.FromString(value)
    except DecodeError as error:
        raise MessageDeserializationError(_STRUCT, str(error), BODY) from None
    try:
        return codec.from_proto(read_json(document_of(struct), codec.descriptor, codec.schema), *header)
    except MessageDeserializationError as error:
        raise error.moved("$", f"{BODY}.value") from error.__cause__


def _told_in_json(error: MessageDeserializationError, value: bytes, codec: Codec[Any]) -> MessageDeserializationError:
    """What is wrong with a body, as its JSON shows it; the error that the codec has met first, where it has no JSON."""
    if len(value) > LONGEST_STRUCT:
        return error
    try:
        read = codec.message_class.FromString(value)
        document = json_format.MessageToDict(read, preserving_proto_field_name=True)
    except (DecodeError, json_format.SerializeToJsonError, ValueError):
        return error
    try:
        read_json(document, codec.descriptor, codec.schema)
    except MessageDeserializationError as better:
        return better
    return error


def _uuid(text: str, codec: Codec[Any], path: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise MessageDeserializationError(codec.schema.name, f"not a UUID: {text!r}", path) from None
