"""Arrays as pydotcompute.v1.Tensor, and back, without a copy that is not needed.

Protobuf copies bytes into its own objects and out of them again. So the arrays that are fields of a message itself, or
items of a list there, do not go through protobuf: they are written in front of all other fields, straight into the
message's bytes, and where they are found there, the array is a view of these. Protobuf's parsers take fields in any
order. What is laid out in another way goes through protobuf; the tests hold that both ways always give the same.

Two arrays of 12 MB are so encoded in 2.0 instead of 52 ms, the time of one copy, and decoded in 0.01 instead of 29 ms.
"""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

import numpy

from pydotcompute.protobuf.varints import read_varint, varint
from pydotcompute.schema.dtypes import as_sent, dtype_of
from pydotcompute.schema.foreign_arrays import AnyArray, as_numpy

__all__ = ["append", "read_tensor", "tag_of", "take", "write_tensor"]

Found: TypeAlias = "dict[int, list[AnyArray]]"

_DTYPE, _SHAPE, _DATA, _FORTRAN_DATA, _PADDING = (number << 3 | 2 for number in (1, 2, 3, 4, 15))
"""The tags of Tensor's fields. The padding is none of them: see tensor.proto."""
_ALIGNMENT = 16
"""Python's bytes objects begin at multiples of this."""


def write_tensor(pb: Any, value: Any) -> None:
    """Fills a Tensor with an array."""
    pb.dtype, array, fortran = _laid_out(value)
    pb.shape.extend(array.shape)
    if fortran:
        pb.fortran_data = array.T.tobytes()
    else:
        pb.data = array.tobytes()


def read_tensor(pb: Any) -> AnyArray:
    """A read-only view of the bytes that protobuf gives out for a Tensor.

    Raises:
        ValueError: it is no array, or one of a type that is not known here.
    """
    fortran = bool(pb.fortran_data)
    if fortran and pb.data:
        raise ValueError("there is both data and fortran_data")
    data = pb.fortran_data if fortran else pb.data
    return _view(pb.dtype, tuple(pb.shape), fortran, data, 0, len(data))


def append(parts: list[Any], at: int, tag: bytes, value: Any) -> int:
    """Adds a field that is an array to the parts of a message, `at` bytes so far; returns its new length.

    The array is not copied, if its elements are in C or Fortran order without gaps.
    """
    name, array, fortran = _laid_out(value)
    if not array.nbytes:
        head = _head(name, array.shape)
        head = tag + varint(len(head)) + head
        parts.append(head)
        return at + len(head)
    head = _head(name, array.shape)
    data_head = bytes([_FORTRAN_DATA if fortran else _DATA]) + varint(array.nbytes)
    size = len(head) + len(data_head) + array.nbytes
    padding = b""
    if array.itemsize > 1:
        length_bytes = len(varint(size))
        before = at + len(tag) + length_bytes + len(head) + len(data_head)
        missing = -(before + 2) % _ALIGNMENT
        if len(varint(size + 2 + missing)) > length_bytes:  # The padding makes the length in front a byte longer.
            missing = (missing - 1) % _ALIGNMENT
            if len(varint(size + 2 + missing)) == length_bytes:
                missing += _ALIGNMENT
        padding = bytes([_PADDING, missing]) + bytes(missing)
    whole_head = b"".join([tag, varint(size + len(padding)), head, padding, data_head])
    parts.append(whole_head)
    # As bytes of NumPy's: memoryviews do not know all types, and have none without elements.
    parts.append((array.T if fortran else array).reshape(-1).view(numpy.uint8))
    return at + len(whole_head) + array.nbytes


def take(data: bytes | memoryview, tags: dict[int, bool]) -> tuple[Found, int] | None:
    """The arrays at the beginning of a message's bytes, as views of these: those of each tag, and where they end.

    `tags` says which there may be, and whether more than once. None if they are not laid out as `append` does it, or
    something is wrong. Of a memoryview, which should be read-only, the bytes may change meanwhile: then the arrays have
    other elements, and nothing worse.
    """
    if type(data) not in (bytes, memoryview):
        return None
    found: Found = {}
    at = 0
    try:
        while at < len(data):
            tag, start = read_varint(data, at)
            if tag not in tags:
                break
            size, start = read_varint(data, start)
            at = start + size
            arrays = found.setdefault(tag, [])
            if at > len(data) or (arrays and not tags[tag]):
                return None
            arrays.append(_take(data, start, at))
    except (IndexError, ValueError):
        return None
    return found, at


def tag_of(number: int) -> tuple[int, bytes]:
    """The tag of a field of this number that holds a message, and how it is written."""
    tag = number << 3 | 2
    return tag, varint(tag)


def _take(data: bytes | memoryview, at: int, end: int) -> AnyArray:
    name, shape, fortran, start, size = "", [], False, at, 0
    while at < end:
        tag = data[at]
        length, at = read_varint(data, at + 1)
        if tag == _DTYPE:
            name = bytes(data[at : at + length]).decode()
        elif tag == _SHAPE:
            stop = at + length
            while at < stop:
                each, at = read_varint(data, at)
                shape.append(each)
            if at > stop:
                raise ValueError("a varint is cut off")
            continue
        elif tag in (_DATA, _FORTRAN_DATA) and not size:
            fortran, start, size = tag == _FORTRAN_DATA, at, length
        elif tag != _PADDING:
            raise ValueError("no Tensor as it is written here")
        at += length
    if at != end:
        raise ValueError("a field is cut off")
    return _view(name, tuple(shape), fortran, data, start, size)


def _laid_out(value: Any) -> tuple[str, AnyArray, bool]:
    """The name of the array's type on the wire, the array without gaps, and whether it is in Fortran order."""
    array = as_numpy(value)
    name, dtype = as_sent(array.dtype)
    if array.flags.c_contiguous and dtype is array.dtype:
        return name, array, False
    if dtype != array.dtype:
        array = array.astype(dtype, order="A")  # So Fortran order stays, and what has none gets C order.
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    # Not `ascontiguousarray`, which gives an array without dimensions one.
    return name, array if fortran else numpy.asarray(array, order="C"), fortran


def _view(
    name: str, shape: tuple[int, ...], fortran: bool, data: bytes | memoryview, start: int, size: int
) -> AnyArray:
    try:
        dtype = dtype_of(name)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{size} bytes are no array of shape {shape} and dtype {name}")
    # Raises ValueError for too many dimensions, or too long ones beside one of length 0.
    return numpy.ndarray(shape, dtype, data, start, order="F" if fortran else "C")


@functools.lru_cache(256)
def _head(name: str, shape: tuple[int, ...]) -> bytes:
    """The fields of a Tensor in front of its elements."""
    lengths = b"".join(map(varint, shape))
    dtype = name.encode()
    head = bytes([_DTYPE]) + varint(len(dtype)) + dtype
    return head + bytes([_SHAPE]) + varint(len(lengths)) + lengths if shape else head
