"""The number types of arrays: which of them can be sent, and under which names.

ml_dtypes is imported only when one of its types is used.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any, TypeAlias

import numpy

from pydotcompute.schema.names import LONGEST_SHOWN, shortened

__all__ = ["DType", "as_sent", "dtype_named", "dtype_of", "travels"]

DType: TypeAlias = "numpy.dtype[Any]"

_KINDS = "biufc"
"""The kinds of NumPy's own dtypes that can be sent: bool, integers, floats and complex numbers."""
_LONG = (numpy.longdouble, numpy.clongdouble)
_LONG_BITS = numpy.finfo(numpy.longdouble).nmant
_X87_NAMES = ("float80", "complex160")


@functools.lru_cache(256)
def travels(dtype: DType) -> bool:
    """Returns True if arrays of this type can be sent."""
    if dtype.type in _LONG and dtype.itemsize > 8 * (1 + (dtype.kind == "c")):
        # The bytes of a long double mean something else on every kind of machine. Only two of the formats have a name.
        return _LONG_BITS in (63, 112)
    return dtype.kind in _KINDS or _is_extension(dtype)


@functools.lru_cache(256)
def as_sent(dtype: DType) -> tuple[str, DType]:
    """Returns the name of a type on the wire, and the type in which its elements are written.

    The two types differ at most in byte order: a name that says no byte order stands for little-endian elements.
    """
    if _is_extension(dtype):
        return dtype.name, dtype.newbyteorder("<")
    if dtype.type in _LONG and _is_x87():
        return _X87_NAMES[dtype.kind == "c"], dtype.newbyteorder("<")
    return dtype.str, dtype


@functools.lru_cache(256)
def dtype_of(name: str) -> DType:
    """Returns the type that has this name on the wire.

    Raises:
        TypeError: no type has this name, or this machine does not have the type.
    """
    if len(name) > LONGEST_SHOWN:
        raise TypeError(_not_in_notation(name))
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
        raise TypeError(f"dtype {shortened(name)!r}: {shortened(str(error))}") from None
    if dtype.type in _LONG and as_sent(dtype)[0] != name:
        raise TypeError(f"dtype {name!r} is IEEE's binary128, which this machine does not have")
    return dtype


def _not_in_notation(name: str) -> str:
    return f'expected a dtype in NumPy\'s array notation such as "<f4", got {json.dumps(shortened(name))}'


def _in_array_notation(name: str) -> str | None:
    """Returns the name on the wire of a type that `name` gives in another way, such as "float32", or else None."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        return None
    try:
        dtype = numpy.dtype(name)
    except (TypeError, ValueError):
        return None
    # Once ml_dtypes is imported, NumPy knows the names of its types too. These types have the same names on the wire.
    return as_sent(dtype)[0] if travels(dtype) and not _is_extension(dtype) else None


def _is_x87() -> bool:
    return _LONG_BITS == 63 and numpy.dtype(numpy.longdouble).itemsize == 16


def dtype_named(name: str) -> DType:
    """Returns the type that NumPy, or else ml_dtypes, has under this name. Raises TypeError if neither has one."""
    try:
        return numpy.dtype(name)
    except TypeError:
        return _extension(name, f"dtype {shortened(name)!r} is neither NumPy's nor ml_dtypes'")


def _is_extension(dtype: DType) -> bool:
    """Returns True if the type belongs to ml_dtypes. Its `kind` does not show it: NumPy says bytes or floats."""
    return dtype.type.__module__ == "ml_dtypes"


def _extension(name: str, problem: str) -> DType:
    """Returns True if the type belongs to ml_dtypes. Its `kind` does not show this: it can be bytes or float."""
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        problem = f"dtype {shortened(name)!r} is none of NumPy's"
        text = f"{problem}; it may need the package ml_dtypes, which is not installed here"
        raise TypeError(text) from None
    scalar = getattr(ml_dtypes, name, None)
    if not isinstance(scalar, type) or not _is_extension(numpy.dtype(scalar)):
        raise TypeError(problem)
    return numpy.dtype(scalar)
