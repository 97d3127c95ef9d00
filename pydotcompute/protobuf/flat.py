"""A faster way between small messages and bytes, without protobuf's objects.

It works for classes whose fields are floats, bools, texts and bytes, and costs half as much as protobuf. Protobuf's
parsers accept the fields of a message in any order, and accept zeros that are written out. So such a class can have one
fixed layout that nearly all its messages fit:

- first all floats and bools, which `struct` packs at once;
- then all texts and bytes, of at most 127 bytes each. Only a None is left out.

A message that does not fit the layout, or that is wrong, is handled by protobuf. The tests check that both ways always
give the same result.

CalculationRequest of benchmarks/calculator_kernel.py is encoded in 0.17 instead of 0.46 µs, and decoded in 0.38 instead
of 0.65 µs.

A class with an int has no layout: the encoding of an int has a variable length, and decoding it here would cost as much
as it costs in protobuf.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

from google.protobuf.descriptor import Descriptor

from pydotcompute.schema import nodes
from pydotcompute.schema.codegen import Source

__all__ = ["Layout", "layout_of"]

_VARINT, _FIXED64, _DELIMITED = 0, 1, 2
"""Protobuf's wire types: of a bool, of a double, and of texts and bytes."""
_LONGEST = 127
"""The length of a text must be a varint of one byte. In the struct it is a signed byte, which also ends at 127."""


@dataclass(frozen=True)
class _Place:
    """A field in the layout. `tag` is the byte in front of its value."""

    name: str
    node: nodes.Node
    tag: int
    optional: bool = False

    def encoded(self, value: str) -> str:
        """Returns an expression for the bytes of `value`, an expression for a text or bytes."""
        return value if isinstance(self.node, nodes.Bytes) else f"{value}.encode()"

    def decoded(self, value: str) -> str:
        """Returns an expression for the value whose bytes the expression `value` has."""
        return value if isinstance(self.node, nodes.Bytes) else f"{value}.decode()"


@dataclass(frozen=True)
class Layout:
    """The order of the fields of a class in its bytes."""

    numbers: list[_Place]
    texts: list[_Place]

    @property
    def _has_first(self) -> bool:
        """True if the struct includes the tag and the length of the first text, which then have a fixed place."""
        return bool(self.texts) and not self.texts[0].optional

    @cached_property
    def _struct(self) -> struct.Struct:
        numbers = "".join("BB" if isinstance(place.node, nodes.Bool) else "Bd" for place in self.numbers)
        return struct.Struct(f"<{numbers}{'Bb' * self._has_first}")

    def emit_encode(self, source: Source, otherwise: str) -> None:
        """Adds lines to `source` that return the bytes of `message`.

        If the message does not fit the layout, the lines execute the statement `otherwise`, or raise any exception.
        """
        arguments, pieces = [], []
        for place in self.numbers:
            value = f"message.{place.name}"
            if isinstance(place.node, nodes.Bool):  # A struct would accept any number as a bool.
                value = source.fresh("value")
                source.line(f"{value} = message.{place.name}")
                source.line(f"if {value} is not True and {value} is not False: {otherwise}")
            arguments += [str(place.tag), value]
        for place in self.texts:
            heads = source.bind([bytes([place.tag, length]) for length in range(_LONGEST + 1)], "heads")
            text = source.fresh("text")
            if place.optional:
                source.line(f"{text} = message.{place.name}")
                with source.block(f"if {text} is None:"):
                    source.line(f"{text} = b''")
                with source.block("else:"):
                    source.line(f"{text} = {place.encoded(text)}")
                    source.line(f"{text} = {heads}[len({text})] + {text}")
                pieces.append(text)
            else:
                source.line(f"{text} = {place.encoded(f'message.{place.name}')}")
                if place is self.texts[0]:
                    arguments += [str(place.tag), f"len({text})"]
                else:
                    pieces.append(f"{heads}[len({text})]")
                pieces.append(text)
        if arguments:
            pieces.insert(0, f"{source.bind(self._struct.pack, 'pack')}({', '.join(arguments)})")
        source.line(f"return {' + '.join(pieces)}")

    def emit_decode(self, source: Source, otherwise: str) -> dict[str, str]:
        """Adds lines to `source` that read `data`. Returns an expression for the value of each field, by its name.

        If the bytes do not fit the layout, the lines execute the statement `otherwise`, or raise any exception.
        """
        values: dict[str, str] = {}
        if any(isinstance(place.node, nodes.Bytes) for place in self.texts):
            source.line(f"if type(data) is not bytes: {otherwise}")  # A slice of a bytearray would not be bytes.
        tags, targets = [], []
        for place in self.numbers + self.texts[: self._has_first]:
            tag, value = source.fresh("tag"), source.fresh("value")
            tags.append(f"{tag} != {place.tag}")
            targets += [tag, value]
            # A bool is 0 or 1 in the layout. Another number fails as an index into `_BOOLS`.
            values[place.name] = (
                f"{source.bind(_BOOLS, 'bools')}[{value}]" if isinstance(place.node, nodes.Bool) else value
            )
        if targets:
            source.line(f"{', '.join(targets)} = {source.bind(self._struct.unpack_from, 'unpack')}(data)")
            source.line(f"if {' or '.join(tags)}: {otherwise}")
        source.line(f"at = {self._struct.size}")
        for place in self.texts:
            text = source.fresh("text")
            if place.optional:
                source.line(f"{text} = None")
                with source.block(f"if at < len(data) and data[at] == {place.tag}:"):
                    self._emit_text(source, place, text, otherwise)
            elif place is self.texts[0]:
                source.line(f"end = at + {values[place.name]}")
                source.line(f"{text} = {place.decoded('data[at:end]')}")
                source.line("at = end")
            else:
                source.line(f"if data[at] != {place.tag}: {otherwise}")
                self._emit_text(source, place, text, otherwise)
            values[place.name] = text
        # `at` also differs from the length if a text was cut short, or if its length was negative.
        source.line(f"if at != len(data): {otherwise}")
        return values

    def _emit_text(self, source: Source, place: _Place, text: str, otherwise: str) -> None:
        source.line("end = at + 2 + data[at + 1]")
        source.line(f"if data[at + 1] > {_LONGEST}: {otherwise}")
        source.line(f"{text} = {place.decoded('data[at + 2:end]')}")
        source.line("at = end")


_BOOLS = (False, True)


def layout_of(schema: nodes.MessageSchema, descriptor: Descriptor) -> Layout | None:
    """Returns the layout of a class. None if the class has no fields, or fields that no layout can have."""
    numbers, texts = [], []
    for field in schema.fields:
        optional = isinstance(field.node, nodes.Optional)
        node = field.node.item if isinstance(field.node, nodes.Optional) else field.node
        theirs = descriptor.fields_by_name.get(field.name)
        if theirs is None or (optional and not theirs.has_presence):
            return None  # The class and the type differ.
        number = theirs.number
        if number > 15:
            return None  # The tag of the field is longer than a byte.
        match node:
            case nodes.Float() if not optional:
                numbers.append(_Place(field.name, node, number << 3 | _FIXED64))
            case nodes.Bool() if not optional:
                numbers.append(_Place(field.name, node, number << 3 | _VARINT))
            case nodes.Str() | nodes.Literal() | nodes.Bytes():
                texts.append(_Place(field.name, node, number << 3 | _DELIMITED, optional))
            case _:
                return None
    return Layout(numbers, texts) if numbers or texts else None
