"""Messages as the protobuf type `Message`, the form that people can read and write.

An error about such a message names the place in the request as a path of the request's JSON: `$.message.body.a`.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import UUID

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from pydotcompute.exceptions import (
    LimitExceededError,
    MessageDeserializationError,
    MessageTooLargeError,
    MessageTypeError,
)
from pydotcompute.messages.header import DEFAULT_PRIORITY, MAX_PRIORITY
from pydotcompute.messages.ids import new_message_id, uuid_from_text
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.elements import counter
from pydotcompute.protobuf.json.read import document_of, read_json
from pydotcompute.schema.names import shortened
from pydotcompute.v1 import message_service_pb2 as pb

__all__ = [
    "BODY",
    "LONGEST_STRUCT",
    "MESSAGE",
    "every_problem",
    "from_message",
    "type_url",
    "write_body",
    "write_message",
]

MESSAGE = "$.message"
"""The path of the `Message` in a request that has one."""
BODY = f"{MESSAGE}.body"
"""The path of the body in such a request."""
LONGEST_STRUCT = 1 << 20
"""The most bytes of a body that is read as JSON, which takes long."""

_STRUCT = Struct.DESCRIPTOR.full_name
_count_struct = counter(Struct.DESCRIPTOR)


def write_message(into: pb.Message, message: Any, codec: Codec[Any]) -> None:
    """Write a message into an empty `Message`.

    To return a new `Message`, which protobuf would then copy, would cost three times as much.

    Args:
        into: the empty `Message`.
        message: an instance of the codec's message class.
        codec: the codec of the message class.
    """
    write_body(into, message, codec, codec.encode(message))


def write_body(into: pb.Message, message: Any, codec: Codec[Any], body: bytes) -> None:
    """Write a message into an empty `Message`, as `write_message` does. `body` is its body, already encoded."""
    into.message_id = _text(message.message_id)
    into.priority = message.priority
    if message.correlation_id is not None:
        into.correlation_id = _text(message.correlation_id)
    into.body.type_url = type_url(codec)
    into.body.value = body


@cache
def type_url(codec: Codec[Any]) -> str:
    """Return the `Any.type_url` of a codec's type. It is cached: protobuf makes the name anew at each call."""
    return f"type.googleapis.com/{codec.descriptor.full_name}"


def _text(uuid: UUID) -> str:
    """Return `str(uuid)` at half its cost. Every answer needs it twice."""
    pairs = uuid.int.to_bytes(16).hex("-", 2)
    return pairs[:4] + pairs[5:29] + pairs[30:34] + pairs[35:]


def from_message(
    message: pb.Message, codec: Codec[Any], value: bytes | None = None, most_elements: int | None = None
) -> Any:
    """Return the message that a `Message` holds. A message without an id gets a new one.

    The body is of the codec's type, or a Struct that holds the JSON of that type.

    Args:
        message: the `Message`.
        codec: the codec of the kernel's input type.
        value: `message.body.value`, if the caller has it: protobuf copies it each time that it is asked for it.
        most_elements: the most elements of the body; None for any number.

    Raises:
        LimitExceededError: the body has more elements than that.
        MessageTypeError: the body is of another type.
        MessageTooLargeError: the body is a Struct of more than `LONGEST_STRUCT` bytes.
        MessageDeserializationError: the header or the body is malformed. The error lists every problem of the body.
    """
    body = message.body
    if value is None:
        value = body.value
    is_struct = False
    if body.type_url != type_url(codec):  # The URL may have another prefix, or none.
        type_name = body.type_url.rpartition("/")[2]
        is_struct = type_name == _STRUCT
        if not is_struct and type_name != codec.descriptor.full_name:
            expected = f"{codec.descriptor.full_name}, or {_STRUCT} with its fields"
            raise MessageTypeError(expected, shortened(type_name) or "no body", BODY)
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
    if most_elements is not None:
        found = (_count_struct if is_struct else codec.count)(value, most_elements)
        if found > most_elements:
            raise LimitExceededError("max_message_elements", most_elements, found)
    if is_struct:
        return _from_struct(value, codec, header)
    try:
        return codec.decode(value, *header)
    except MessageDeserializationError as error:
        raise every_problem(error, value, codec).moved("$", BODY) from error.__cause__


def _from_struct(value: bytes, codec: Codec[Any], header: tuple[UUID, int, UUID | None]) -> Any:
    """Return the message whose body is a serialized Struct."""
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


def every_problem(error: MessageDeserializationError, value: bytes, codec: Codec[Any]) -> MessageDeserializationError:
    """Return an error that lists every problem of a body, found by reading the body as JSON.

    The result is `error`, the first that the codec has met, if the body has no JSON or is too long to be read as JSON.
    """
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
        return uuid_from_text(text)
    except ValueError:
        problem = f"not a UUID in its form of 36 characters: {shortened(text)!r}"
        raise MessageDeserializationError(codec.schema.name, problem, path) from None
