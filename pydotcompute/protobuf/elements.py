"""Counts the elements of a message in its bytes, without reading the message.

Protobuf's parser makes objects for everything in the bytes, all at once, before anyone can look at them. A message of
8 MB can hold four million empty messages, for which it takes seconds and a gigabyte. So the bytes of a long message are
counted first. The count stops at a limit, so that it costs little for the messages that are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pydotcompute.protobuf.conventions import message_type

__all__ = ["Count", "counter"]

Count: TypeAlias = Callable[[bytes | memoryview, int], int]
"""Returns the number of elements in the bytes of a message, or a number above the second argument if there are more.

Elements are the fields that are there, messages in the message with all that is in them, entries of maps, and the
elements of lists. An array is one element: its numbers are not counted. Malformed bytes are counted as far as they can
be read; the parser refuses them there.
"""

_VARINT, _FIXED64, _DELIMITED, _BEGIN_GROUP, _END_GROUP, _FIXED32 = range(6)
"""Protobuf's wire types."""
_LONGEST_VARINT = 10

_Table: TypeAlias = "dict[int, _Table | int]"
"""What is inside the fields with a length: by tag, the table of a message, or the bytes of a number of a packed list.

0 stands for numbers of variable length. Other fields with a length, such as texts, are not in the table.
"""

_WIDTHS = {
    **dict.fromkeys(
        (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64),
        8,
    ),
    **dict.fromkeys((FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32), 4),
}
"""The bytes of the numbers that have a fixed length. All other numbers have a variable one."""


def counter(descriptor: Any) -> Count:
    """Returns a function that counts the elements of messages of the type that has this `Descriptor`."""
    table = _table_of(descriptor, {})

    def count(data: bytes | memoryview, most: int) -> int:
        return _count(data, table, most)

    return count


def _table_of(descriptor: Descriptor, known: dict[str, _Table]) -> _Table:
    table = known.get(descriptor.full_name)
    if table is None:
        table = known[descriptor.full_name] = {}
        for field in descriptor.fields:
            tag = field.number << 3 | _DELIMITED
            if field.message_type is not None:
                table[tag] = _table_of(message_type(field), known)
            elif field.is_repeated and field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                table[tag] = _WIDTHS.get(field.type, 0)
    return table


def _count(data: bytes | memoryview, table: _Table, most: int) -> int:
    """Returns the number of elements, or a number above `most`. See `Count`."""
    found = at = 0
    end = len(data)
    outer: list[tuple[int, _Table]] = []
    try:
        while found <= most:
            if at >= end:
                if at > end or not outer:
                    break
                end, table = outer.pop()
                continue
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = _long_varint(data, at - 1)
            found += 1
            wire_type = tag & 7
            if wire_type == _DELIMITED:
                length = data[at]
                at += 1
                if length > 127:
                    length, at = _long_varint(data, at - 1)
                inside = table.get(tag)
                if inside is None:
                    at += length
                elif isinstance(inside, dict):
                    outer.append((end, table))
                    if at + length > end:
                        break
                    end, table = at + length, inside
                else:
                    found += _packed(data, at, length, inside, most - found)
                    at += length
            elif wire_type == _VARINT:
                while data[at] > 127:
                    at += 1
                at += 1
            elif wire_type == _FIXED64:
                at += 8
            elif wire_type == _FIXED32:
                at += 4
            elif wire_type not in (_BEGIN_GROUP, _END_GROUP):
                break
    except IndexError:
        pass  # The bytes are cut off.
    return found


def _long_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Returns a number of variable length, and the position after it. Raises IndexError if it is malformed."""
    number = 0
    for index in range(_LONGEST_VARINT):
        byte = data[at + index]
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, at + index + 1
    raise IndexError


def _packed(data: bytes | memoryview, at: int, length: int, width: int, most: int) -> int:
    """Returns how many numbers a packed list has, or a number above `most`."""
    if width:
        return length // width
    if length > _LONGEST_VARINT * most:
        return length // _LONGEST_VARINT
    numbers = numpy.frombuffer(data, numpy.uint8, min(length, len(data) - at), at)
    return int(numpy.count_nonzero(numbers < 128))  # The last byte of each number is below 128.
