"""Wrong input of every kind, made from descriptors alone: it follows the wire as the wire changes."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["Mutator"]

DEEPEST = 4
"""Messages inside messages."""
MOST_REPEATED = 5

_Type = FieldDescriptor
SIGNED = {_Type.TYPE_INT32: 31, _Type.TYPE_SINT32: 31, _Type.TYPE_SFIXED32: 31, _Type.TYPE_ENUM: 31}
SIGNED |= {_Type.TYPE_INT64: 63, _Type.TYPE_SINT64: 63, _Type.TYPE_SFIXED64: 63}
UNSIGNED = {_Type.TYPE_UINT32: 32, _Type.TYPE_FIXED32: 32, _Type.TYPE_UINT64: 64, _Type.TYPE_FIXED64: 64}
FLOATS = (0.0, -0.0, 1.5, -1e308, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", " ", "\0", "nobody", "../..", "a/b\n", "x" * 3_000, "\U0001f600" * 700, "é" * 300, "-1", "null", "{}")


class Mutator:
    """Makes input of a random generator.

    Args:
        dice: decides everything.
        words: texts worth trying, such as the ids of kernels that exist.
        bodies: classes of messages that an Any may hold, by their full names.
    """

    def __init__(self, dice: random.Random, words: Sequence[str], bodies: Mapping[str, type[Message]]) -> None:
        self._dice = dice
        self._words = words
        self._bodies = bodies

    # -- messages ------------------------------------------------------------------------------------------------------

    def message(self, descriptor: Any, share: float = 0.7, depth: int = 0) -> Any:
        """A message of this type with random values in this share of its fields."""
        made = message_factory.GetMessageClass(descriptor)()
        if isinstance(made, any_pb2.Any):
            self._fill_any(made)
            return made
        for field in descriptor.fields:
            if self._dice.random() < share:
                self._fill(made, field, depth)
        return made

    def _fill_any(self, made: any_pb2.Any) -> None:
        name = self._dice.choice([*self._bodies, "google.protobuf.Any", "no.such.Type"])
        prefix = self._dice.choice(["type.googleapis.com/"] * 8 + ["", "/", "https://example.org/"])
        made.type_url = prefix + name
        if name in self._bodies and self._dice.random() < 0.9:
            value = self.message(self._bodies[name].DESCRIPTOR, depth=1).SerializePartialToString()
            made.value = self.garbled(value) if self._dice.random() < 0.2 else value
        else:
            made.value = self._dice.randbytes(self._dice.randrange(40))

    def _fill(self, made: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._fill_map(made, field, depth)
        elif field.is_repeated:
            for _ in range(self._dice.randrange(MOST_REPEATED)):
                if field.message_type is None:
                    getattr(made, field.name).append(self._value(field))
                elif depth < DEEPEST:
                    getattr(made, field.name).append(self.message(field.message_type, depth=depth + 1))
        elif field.message_type is None:
            setattr(made, field.name, self._value(field))
        elif depth < DEEPEST:
            part = getattr(made, field.name)
            part.SetInParent()
            part.CopyFrom(self.message(field.message_type, depth=depth + 1))

    def _fill_map(self, made: Any, field: FieldDescriptor, depth: int) -> None:
        entry = field.message_type
        assert entry is not None
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(self._dice.randrange(MOST_REPEATED)):
            if value.message_type is None:
                getattr(made, field.name)[self._value(key)] = self._value(value)
            elif depth < DEEPEST:
                getattr(made, field.name)[self._value(key)].CopyFrom(self.message(value.message_type, depth=depth + 1))

    def _value(self, field: FieldDescriptor) -> Any:
        dice = self._dice
        if field.type in SIGNED:
            bits = SIGNED[field.type]
            edges = (0, 1, 2, 3, -1, -2, 1 << (bits - 1), (1 << bits) - 1, -(1 << bits))
            return dice.choice((*edges, dice.randrange(-(1 << bits), 1 << bits), dice.randrange(20)))
        if field.type in UNSIGNED:
            bits = UNSIGNED[field.type]
            edges = (0, 1, 2, 3, 128, 256, (1 << (bits - 1)) - 1, 1 << (bits - 1), (1 << bits) - 1)
            return dice.choice((*edges, dice.randrange(1 << bits), dice.randrange(20)))
        if field.type in (_Type.TYPE_DOUBLE, _Type.TYPE_FLOAT):
            value = dice.choice(FLOATS)
            return value if field.type == _Type.TYPE_DOUBLE else struct.unpack("f", struct.pack("f", value % 1e30))[0]
        if field.type == _Type.TYPE_BOOL:
            return dice.random() < 0.5
        if field.type == _Type.TYPE_BYTES:
            return dice.randbytes(dice.choice((0, 1, 15, 16, 16, 16, 17, 32, 200, 5_000)))
        assert field.type == _Type.TYPE_STRING, field
        return dice.choice(self._words) if dice.random() < 0.7 else dice.choice(TEXTS)

    def tweaked(self, message: Message) -> Any:
        """The same message with one value, anywhere in it, replaced or removed."""
        made = type(message)()
        made.CopyFrom(message)
        inside: Any = made
        while True:
            parts = [part for _, value in inside.ListFields() for part in _messages(value)]
            if not parts or self._dice.random() < 0.3:
                break
            inside = self._dice.choice(parts)
        if not inside.DESCRIPTOR.fields:
            return made
        field = self._dice.choice(inside.DESCRIPTOR.fields)
        if field.type == _Type.TYPE_BYTES and not field.is_repeated and self._dice.random() < 0.5:
            setattr(inside, field.name, self.garbled(getattr(inside, field.name)))
            return made
        if field.is_repeated or self._dice.random() < 0.3:
            inside.ClearField(field.name)
        if self._dice.random() < 0.8:
            self._fill(inside, field, depth=1)
        return made

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def garbled(self, data: bytes) -> bytes:
        """The same bytes with a few of them flipped, lost, doubled, swapped, or new."""
        dice = self._dice
        garbled = bytearray(data)
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            at = dice.randrange(len(garbled) + 1)
            to = min(len(garbled), at + dice.choice((1, 2, 8, 64)))
            match dice.randrange(7):
                case 0 if at < len(garbled):
                    garbled[at] ^= 1 << dice.randrange(8)
                case 1:
                    del garbled[at:]
                case 2:
                    del garbled[at:to]
                case 3:
                    garbled[at:at] = garbled[at:to]
                case 4:
                    garbled[at:at] = dice.randbytes(dice.choice((1, 1, 4, 40)))
                case 5:
                    garbled[at:to] = b"\xff" * (to - at)
                case 6:
                    part = bytes(garbled[at:to])
                    del garbled[at:to]
                    where = dice.randrange(len(garbled) + 1)
                    garbled[where:where] = part
        return bytes(garbled)


def _messages(value: Any) -> list[Message]:
    """The messages in the value of a field."""
    if isinstance(value, Message):
        return [value]
    if hasattr(value, "values"):
        return [part for part in value.values() if isinstance(part, Message)]
    if isinstance(value, str | bytes | int | float):
        return []
    return [part for part in value if isinstance(part, Message)]
