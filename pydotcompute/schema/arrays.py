"""The dtype and the shape that a field requires of its arrays, and the test of an array against them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.schema import nodes
from pydotcompute.schema.dtypes import DType, dtype_named, travels
from pydotcompute.schema.foreign_arrays import as_numpy, is_cupy
from pydotcompute.schema.names import type_name

__all__ = ["Array", "check_spec", "misfit", "tester"]


@dataclass(frozen=True, slots=True, init=False)
class Array:
    """The requirements of a field for its arrays.

    A field with requirements is written `points: Annotated[np.ndarray, Array(dtype="float32", shape=("n", 3))]`.
    Sending an array that does not meet them raises `MessageTypeError`.

    Args:
        dtype: the name of a number type, such as "float32" or "bfloat16", or the type itself, such as `np.float32`.
            None allows any number type. Both byte orders are allowed.
        shape: the length of each dimension, or None for any shape. In place of a length there may be a name or None.
            Dimensions with the same name must have the same length everywhere in one message. None allows any length.
        on_device: True if CuPy's arrays in this field stay on the GPU when they are sent in-process. A field that is
            annotated with `cp.ndarray` does the same, but needs CuPy to be installed.
    """

    dtype: str | None = None
    shape: tuple[int | str | None, ...] | None = None
    on_device: bool = False

    def __init__(
        self,
        dtype: numpy.typing.DTypeLike | None = None,
        shape: Sequence[int | str | None] | None = None,
        *,
        on_device: bool = False,
    ) -> None:
        if dtype is not None and not isinstance(dtype, str):
            dtype = numpy.dtype(dtype).name
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", tuple(shape) if isinstance(shape, list) else shape)
        object.__setattr__(self, "on_device", on_device)


def check_spec(spec: Array, path: str) -> None:
    """Raises MessageTypeError if `spec` itself is invalid, so that no array could meet it."""
    if spec.dtype is not None:
        try:
            known = re.match("[a-z]", spec.dtype) is not None and travels(dtype_named(spec.dtype))
        except TypeError as error:
            raise MessageTypeError("the name of a number type, such as 'float32'", str(error), path) from None
        if not known:
            raise MessageTypeError("the name of a number type, such as 'float32'", repr(spec.dtype), path)
    if spec.shape is None:
        return
    if not isinstance(spec.shape, tuple):
        raise MessageTypeError("a tuple as the shape of an array", repr(spec.shape), path)
    for length in spec.shape:
        if not (
            length is None
            or (isinstance(length, str) and length.isidentifier())
            or (type(length) is int and length >= 0)
        ):
            raise MessageTypeError("a length, a name or None for each dimension of an array", repr(length), path)


def tester(node: nodes.Array) -> Callable[[Any, dict[str, int]], bool]:
    """Returns a function that returns True if a value is an array that fits the node.

    The second argument of the function is a dict from the names of dimensions to their lengths in this message so far.
    The function adds the names that it meets for the first time.
    """
    shape, on_device = node.shape, node.on_device
    dtypes = None if node.dtype is None else _both_orders(dtype_named(node.dtype))

    def fits(value: Any, lengths: dict[str, int]) -> bool:
        if type(value) is not numpy.ndarray and not (on_device and is_cupy(type(value))):
            return False
        if value.dtype not in dtypes if dtypes is not None else not travels(value.dtype):
            return False
        if shape is None:
            return True
        if len(shape) != len(value.shape):
            return False
        for wanted, length in zip(shape, value.shape, strict=True):
            if wanted is not None:
                if type(wanted) is str:
                    wanted = lengths.setdefault(wanted, length)
                if wanted != length:
                    return False
        return True

    return fits


def misfit(node: nodes.Array, value: Any, lengths: dict[str, tuple[int, str]], path: str) -> tuple[str, str] | None:
    """Returns what was expected and what is there instead, as two texts. Returns None if the array fits.

    `lengths` is a dict as for `tester`, but its values also hold the path of the array that the length was taken from.
    """
    expected = node.wanted or "an ndarray of numbers"
    if type(value) is not numpy.ndarray and not (node.on_device and is_cupy(type(value))):
        try:
            as_numpy(value)
        except TypeError as error:
            return expected, str(error)
        return expected, type_name(type(value))
    if not travels(value.dtype):
        return expected, f"an array of dtype {value.dtype}"
    known = {name: lengths[name] for name in node.shape or () if isinstance(name, str) and name in lengths}
    if tester(node)(value, {name: length for name, (length, _) in known.items()}):
        for name, length in zip(node.shape or (), value.shape, strict=False):
            if isinstance(name, str):
                lengths.setdefault(name, (length, path))
        return None
    where = [f"{name} = {length} as in {of}" for name, (length, of) in known.items()]
    return expected + (f" with {', '.join(where)}" if where else ""), f"{value.dtype.name} of {value.shape}"


def _both_orders(dtype: DType) -> tuple[DType, DType]:
    return dtype, dtype.newbyteorder()
