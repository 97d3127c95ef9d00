"""Arrays, as NumPy has them: which number types travel and under which names, what a field may ask for, and what can be
made an array of NumPy's.

CuPy and ml_dtypes are imported only where an array of theirs is met.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy
import numpy.typing

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.schema import nodes
from pydotcompute.schema.nodes import type_name

__all__ = [
    "Array",
    "as_numpy",
    "as_sent",
    "check_spec",
    "dtype_named",
    "dtype_of",
    "is_cupy",
    "misfit",
    "tester",
    "travels",
]

AnyArray: TypeAlias = "numpy.ndarray[Any, numpy.dtype[Any]]"
DType: TypeAlias = "numpy.dtype[Any]"

_KINDS = "biufc"
"""The kinds of NumPy's own dtypes that travel: bool, integers, floats and complex numbers."""
_LONG = (numpy.longdouble, numpy.clongdouble)
_LONG_BITS = numpy.finfo(numpy.longdouble).nmant
_X87_NAMES = ("float80", "complex160")
_HOST_DEVICES = (1, 3, 11, 13)
"""DLPack's numbers of the devices whose memory the host can read: CPU, pinned and managed memory."""


@dataclass(frozen=True, slots=True, init=False)
class Array:
    """What the arrays of a field are like: `points: Annotated[np.ndarray, Array(dtype="float32", shape=("n", 3))]`.

    An array that is not is refused when it is sent, with `MessageTypeError`.

    Args:
        dtype: the name of a number type, such as "float32" or "bfloat16", or the type itself, such as `np.float32`;
            None for any. Either byte order fits.
        shape: the length of each dimension; None for any shape. A name in place of a length means the same length
            everywhere in one message, and None any length.
        on_device: whether CuPy's arrays stay on the GPU in this field, in-process, as in one annotated with
            `cp.ndarray`. The annotation needs no CuPy.
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
    """Raises MessageTypeError if no array can be like this."""
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


# What an array must be to fit.


def tester(node: nodes.Array) -> Callable[[Any, dict[str, int]], bool]:
    """A function that tells whether a value is an array that fits the node. Its second argument has the lengths that
    names have in the message so far, and gets those of the names met first."""
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
    """What an array was expected to be and what it is, if it does not fit. `lengths` is as for `tester`, but with the
    path of the array that a name has its length from."""
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


# Number types.


@functools.lru_cache(256)
def travels(dtype: DType) -> bool:
    """Whether arrays of this type can be sent."""
    if dtype.type in _LONG and dtype.itemsize > 8 * (1 + (dtype.kind == "c")):
        # Their bytes mean something else on every machine; two formats have a name.
        return _LONG_BITS in (63, 112)
    return dtype.kind in _KINDS or _is_extension(dtype)


@functools.lru_cache(256)
def as_sent(dtype: DType) -> tuple[str, DType]:
    """The name of a type on the wire, and the type as which its elements are written: that of another byte order, where
    the name has none."""
    if _is_extension(dtype):
        return dtype.name, dtype.newbyteorder("<")
    if dtype.type in _LONG and _is_x87():
        return _X87_NAMES[dtype.kind == "c"], dtype.newbyteorder("<")
    return dtype.str, dtype


@functools.lru_cache(256)
def dtype_of(name: str) -> DType:
    """The type of this name on the wire.

    Raises:
        TypeError: there is none, or not here.
    """
    if name in _X87_NAMES:
        if not _is_x87():
            raise TypeError(f"dtype {name!r} is the long double of x86, which this machine does not have")
        return numpy.dtype(_LONG[_X87_NAMES.index(name)])
    if (likely := _in_array_notation(name)) is not None:
        raise TypeError(f'{_not_in_notation(name)}: did you mean "{likely}"?')
    if re.match("[a-z]", name):
        return _extension(name, _not_in_notation(name))
    if not re.fullmatch(f"[<>|][{_KINDS}][0-9]+", name):
        raise TypeError(_not_in_notation(name))
    try:
        dtype = numpy.dtype(name)
    except TypeError as error:
        raise TypeError(f"dtype {name!r}: {error}") from None
    if dtype.type in _LONG and as_sent(dtype)[0] != name:
        raise TypeError(f"dtype {name!r} is IEEE's binary128, which this machine does not have")
    return dtype


def _not_in_notation(name: str) -> str:
    return f'expected a dtype in NumPy\'s array notation such as "<f4", got {json.dumps(name)}'


def _in_array_notation(name: str) -> str | None:
    """The name on the wire of a type that is given by another of NumPy's names for it, such as "float32"."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        return None
    try:
        dtype = numpy.dtype(name)
    except (TypeError, ValueError):
        return None
    # NumPy knows the names of ml_dtypes', too, where that is imported; on the wire these have no others.
    return as_sent(dtype)[0] if travels(dtype) and not _is_extension(dtype) else None


def _is_x87() -> bool:
    return _LONG_BITS == 63 and numpy.dtype(numpy.longdouble).itemsize == 16


def _both_orders(dtype: DType) -> tuple[DType, DType]:
    return dtype, dtype.newbyteorder()


def dtype_named(name: str) -> DType:
    """The type that NumPy, or else ml_dtypes, has under this name."""
    try:
        return numpy.dtype(name)
    except TypeError:
        return _extension(name, f"dtype {name!r} is neither NumPy's nor ml_dtypes'")


def _is_extension(dtype: DType) -> bool:
    """Whether it is a type of ml_dtypes. NumPy takes some of them for untyped bytes, and some for floats."""
    return dtype.type.__module__ == "ml_dtypes"


def _extension(name: str, problem: str) -> DType:
    """The type of ml_dtypes of this name. Raises TypeError, which tells the problem if there is none."""
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        text = f"dtype {name!r} is none of NumPy's; it may need the package ml_dtypes, which is not installed here"
        raise TypeError(text) from None
    scalar = getattr(ml_dtypes, name, None)
    if not isinstance(scalar, type) or not _is_extension(numpy.dtype(scalar)):
        raise TypeError(problem)
    return numpy.dtype(scalar)


# Other packages' arrays.


def is_cupy(cls: type) -> bool:
    """Whether it is CuPy's array class; told by name, so that CuPy need not be there."""
    return cls.__name__ == "ndarray" and cls.__module__.partition(".")[0] == "cupy"


def as_numpy(value: Any) -> AnyArray:
    """`value` as an array of NumPy's. It shares its memory where the host can read that, and else is copied.

    `value` may be CuPy's, or have DLPack, `__array_interface__` or `__cuda_array_interface__`.

    Raises:
        TypeError: it cannot be one; the text is its type, and why.
    """
    if type(value) is numpy.ndarray:
        return value
    name = type_name(type(value))
    if isinstance(value, numpy.ma.MaskedArray):
        raise TypeError(f"{name}, whose mask would be lost")
    try:
        made = _exported(value)
    except Exception as error:  # Whatever another package's code may raise.
        raise TypeError(f"{name} ({type(error).__name__}: {error})") from error
    if made is None:
        raise TypeError(name)
    return made


def _exported(value: Any) -> AnyArray | None:
    if is_cupy(type(value)):
        return _plain(value.get())
    if hasattr(value, "__array_interface__"):
        return _plain(value)
    if hasattr(value, "__dlpack__"):
        if not hasattr(value, "__dlpack_device__") or value.__dlpack_device__()[0] in _HOST_DEVICES:
            return _from_host(value)
        import cupy

        return _plain(cupy.asnumpy(cupy.from_dlpack(value)))
    if hasattr(value, "__cuda_array_interface__"):
        import cupy

        return _plain(cupy.asnumpy(value))
    return None


def _from_host(value: Any) -> AnyArray:
    try:
        return numpy.from_dlpack(value)
    except Exception:  # Whatever another package's code may raise.
        if not hasattr(value, "__array__"):
            raise
        # NumPy's DLPack has no bfloat16, but JAX's arrays of it do have `__array__`.
        return _plain(value)


def _plain(value: Any) -> AnyArray:
    """No subclass, such as a matrix or a memory map: over the wire, it would not arrive as that."""
    array = numpy.asarray(value)
    return array if type(array) is numpy.ndarray else array.view(numpy.ndarray)
