"""Other packages' arrays, and what of them can be made an array of NumPy's.

CuPy is imported only where an array of it is met.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy

from pydotcompute.schema.names import type_name

__all__ = ["AnyArray", "as_numpy", "is_cupy"]

AnyArray: TypeAlias = "numpy.ndarray[Any, numpy.dtype[Any]]"

_HOST_DEVICES = (1, 3, 11, 13)
"""DLPack's numbers of the devices whose memory the host can read: CPU, pinned and managed memory."""


def is_cupy(cls: type) -> bool:
    """Returns True if the class is CuPy's array. It is told by its name, so that CuPy need not be there."""
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
