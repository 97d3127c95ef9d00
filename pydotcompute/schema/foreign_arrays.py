"""Arrays of other packages, and their conversion to NumPy arrays.

CuPy is imported only when there is an array on a GPU to convert.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy

from pydotcompute.schema.names import type_name

__all__ = ["AnyArray", "as_numpy", "is_cupy"]

AnyArray: TypeAlias = "numpy.ndarray[Any, numpy.dtype[Any]]"

_HOST_DEVICES = (1, 3, 11, 13)
"""DLPack's device numbers for memory that the host can read: CPU, pinned and managed memory."""


def is_cupy(cls: type) -> bool:
    """Returns True if the class is CuPy's array. Only names are compared, so CuPy need not be installed."""
    return cls.__name__ == "ndarray" and cls.__module__.partition(".")[0] == "cupy"


def as_numpy(value: Any) -> AnyArray:
    """Returns `value` as a NumPy array.

    The result shares the memory of `value` if the host can read that memory. Otherwise the elements are copied.

    Args:
        value: an array of NumPy or CuPy, or an object with DLPack, `__array_interface__` or `__cuda_array_interface__`.

    Raises:
        TypeError: `value` cannot be converted. The text says its type and, if known, the reason.
    """
    if type(value) is numpy.ndarray:
        return value
    name = type_name(type(value))
    if isinstance(value, numpy.ma.MaskedArray):
        raise TypeError(f"{name}, whose mask would be lost")
    try:
        made = _exported(value)
    except Exception as error:  # The code of another package may raise anything.
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
    except Exception:  # The code of another package may raise anything.
        if not hasattr(value, "__array__"):
            raise
        # NumPy's DLPack does not know bfloat16, but JAX's arrays of bfloat16 do have `__array__`.
        return _plain(value)


def _plain(value: Any) -> AnyArray:
    """Returns `value` as a plain ndarray, never as a subclass such as a matrix, which would not survive the wire."""
    array = numpy.asarray(value)
    return array if type(array) is numpy.ndarray else array.view(numpy.ndarray)
