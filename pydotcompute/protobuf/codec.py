"""Converts message instances to bytes, and bytes to message instances."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any, Generic, Protocol, TypeAlias, TypeVar
from uuid import UUID

import google.protobuf.message
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor

from pydotcompute.protobuf.compatible import compatible
from pydotcompute.protobuf.compiler import Compiler
from pydotcompute.protobuf.elements import counter
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema import nodes
from pydotcompute.schema.check import checker
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.weight import Weigh, weigher

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

    All values come back exactly, floats bit for bit. A datetime comes back as the same instant in UTC. An array comes
    back as a read-only view of the received bytes. Unknown fields are ignored, as protobuf does. Fields that the type
    lacks have what absent means, when they are read, and must have it when they are written.

    Args:
        cls: the message class.
        pool: the pool that the type of the class is added to, if no `descriptor` is given.
        descriptor: the type to encode to and decode from, for example that of the other side. It must be `compatible`.
        required: the full names of the fields of that type that must have a value.

    Raises:
        MessageTypeError: the class cannot be a protobuf type, or it is not compatible with `descriptor`.
    """

    encode: Callable[[T], bytes]
    """Returns the body of a message as bytes, without the header. The message must have passed `door_check`.

    Raises MessageTypeError or MessageSerializationError, with the path of the value, if protobuf refuses a value, or
    the type has no place for it.
    """
    encode_aligned: Callable[[T], bytes]
    """Does the same as `encode`, but puts `padding` into arrays, so that their elements are at aligned places.

    It is for `Exchange`. Elsewhere people and programs in other languages read the bytes, and compare them.
    """
    gather: Callable[[T], list[Any]] | None
    """Does the same as `encode_aligned`, but returns the bytes in pieces, to avoid copying arrays.

    A piece is a bytes object, or an array of uint8 that shares the memory of an array in the message. `gather` is None
    if the class has no fields for which this is possible. If it is not None, `decode` also takes a memoryview, and the
    decoded arrays share its memory.
    """
    decode: Decode[T]
    """Returns an instance with this body and this header. If the class has no header fields, the header is ignored.

    The header is not checked, because the receiver has already checked it. The constructor runs only if it does more
    than assign the fields, for example if there is a `__post_init__`.

    Raises MessageDeserializationError if the bytes are not a message of this type, or if the constructor refuses the
    body. If the constructor refuses the header, its own error is raised.
    """
    decode_checked: Decode[T]
    """Does the same as `decode`, but also checks the dtypes and shapes of arrays: the sender may not have.

    Raises MessageTypeError if an array does not fit its annotation.
    """
    to_proto: Callable[[T], Proto]
    """Does the same as `encode`, but returns protobuf's own object."""
    from_proto: FromProto[T]
    """Does the same as `decode`, but takes protobuf's own object."""

    @cached_property
    def weigh(self) -> Weigh | None:
        """Weighs messages with their texts and bytes. None if all messages are light."""
        return weigher(self.schema, texts=True)

    @cached_property
    def weigh_elements(self) -> Weigh | None:
        """Weighs messages without their texts and bytes. None if all messages are light then."""
        return weigher(self.schema, texts=False)

    def __init__(
        self, cls: type[T], pool: TypePool, descriptor: Descriptor | None = None, required: Collection[str] = ()
    ) -> None:
        self.schema = introspect(cls)
        self.message_type: type[Any] = cls
        """The class of the messages that `encode` takes and `decode` makes."""
        if descriptor is None:
            descriptor = pool.add(cls)
        else:
            compatible(self.schema, descriptor, required)
        self.descriptor = descriptor
        """The protobuf type of the bytes."""
        self.message_class = message_factory.GetMessageClass(descriptor)
        """Protobuf's own class for that type."""
        functions = Compiler(self.schema, descriptor).compile()
        self.encode = functions["encode"]
        self.encode_aligned = functions.get("encode_aligned", self.encode)
        self.gather = functions.get("gather")
        self.decode = functions["decode"]
        self.decode_checked = _checked(self.decode, self.schema) if _asks_of_arrays(self.schema) else self.decode
        self.count = counter(descriptor)
        """Counts the elements in the bytes of a message."""
        self.is_plain = all(_is_plain(field.node) for field in self.schema.fields)
        """True if messages have only numbers, texts, bytes, arrays and lists of numbers, which are quick to decode."""
        self.to_proto = functions["to_proto"]
        self.from_proto = functions["from_proto"]


def _is_plain(node: nodes.Node) -> bool:
    match node:
        case nodes.Float() | nodes.Int() | nodes.Bool() | nodes.Str() | nodes.Bytes() | nodes.Array():
            return True
        case nodes.Literal() | nodes.Uuid() | nodes.EnumNode() | nodes.Timestamp() | nodes.Duration():
            return True
        case nodes.Optional(item):
            return not nodes.is_boxed(item) and _is_plain(item)
        case nodes.List(item) | nodes.Tuple(item):
            return isinstance(item, nodes.Float | nodes.Int | nodes.Bool)
        case _:
            return False


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
