"""Message instances as bytes, and bytes as message instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar
from uuid import UUID

import google.protobuf.message
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor

from pydotcompute.protobuf.compatible import compatible
from pydotcompute.protobuf.compiler import Compiler
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema import nodes
from pydotcompute.schema.check import checker
from pydotcompute.schema.introspect import introspect

__all__ = ["Codec"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Proto: TypeAlias = google.protobuf.message.Message


class Decode(Protocol[T_co]):
    """The type of `Codec.decode`."""

    def __call__(
        self, data: bytes | bytearray | memoryview, message_id: UUID, priority: int, correlation_id: UUID | None
    ) -> T_co: ...


class FromProto(Protocol[T_co]):
    """The type of `Codec.from_proto`."""

    def __call__(self, pb: Proto, message_id: UUID, priority: int, correlation_id: UUID | None) -> T_co: ...


class Codec(Generic[T]):
    """Turns instances of one message class into bytes of its protobuf type, and back.

    Floats come back bit for bit, ints, texts, bytes and arrays exactly, datetimes as the same instant in UTC; arrays as
    read-only views of the received bytes. Unknown fields are ignored, as protobuf does.

    Args:
        cls: the message class.
        pool: gets the type of the class, if no `descriptor` is given.
        descriptor: encode as, and decode from, this type, which may be the other side's. It must be `compatible`.

    Raises:
        MessageTypeError: the class cannot be a protobuf type, or not this one.
    """

    encode: Callable[[T], bytes]
    """The body as bytes; the header is not in it. Expects a message that has passed `door_check`.

    Raises MessageTypeError or MessageSerializationError, with the path, where protobuf cannot take a value.
    """
    gather: Callable[[T], list[Any]] | None
    """As `encode`, but gives the pieces of the bytes: bytes objects, and arrays of bytes that share the memory of the
    message's own. None if a message of this class has no arrays that could be given so. Those that have can also be
    decoded from a memoryview, which their arrays then share."""
    decode: Decode[T]
    """An instance with this body and this header; a class without header fields gets none.

    The header is taken as it is: whoever received it has checked it. The constructor runs only where it does more than
    to assign the fields (a `__post_init__`, say).

    Raises MessageDeserializationError: the bytes are no such message, or its constructor refuses it. Errors about the
    header are the constructor's own.
    """
    decode_checked: Decode[T]
    """As `decode`, but also refuses arrays that are not what the annotations ask for: those of the sender's class may
    not. Raises MessageTypeError then.
    """
    to_proto: Callable[[T], Proto]
    """As `encode`, but gives protobuf's own object."""
    from_proto: FromProto[T]
    """As `decode`, but takes protobuf's own object."""

    def __init__(self, cls: type[T], pool: TypePool, descriptor: Descriptor | None = None) -> None:
        self.schema = introspect(cls)
        if descriptor is None:
            descriptor = pool.add(cls)
        else:
            compatible(self.schema, descriptor)
        self.descriptor = descriptor
        """The protobuf type that travels."""
        self.message_class = message_factory.GetMessageClass(descriptor)
        """Protobuf's own class for that type."""
        functions = Compiler(self.schema, descriptor).compile()
        self.encode = functions["encode"]
        self.gather = functions.get("gather")
        self.decode = functions["decode"]
        self.decode_checked = _checked(self.decode, self.schema) if _asks_of_arrays(self.schema) else self.decode
        self.to_proto = functions["to_proto"]
        self.from_proto = functions["from_proto"]


def _asks_of_arrays(schema: nodes.MessageSchema) -> bool:
    return any(isinstance(node, nodes.Array) and node.wanted for node in nodes.walk_all(schema))


def _checked(decode: Decode[T], schema: nodes.MessageSchema) -> Decode[T]:
    check = checker(schema.cls)

    def decode_checked(
        data: bytes | bytearray | memoryview, message_id: UUID, priority: int, correlation_id: UUID | None
    ) -> T:
        message = decode(data, message_id, priority, correlation_id)
        check(message)
        return message

    return decode_checked
