"""What can be made an array."""

import sys
from dataclasses import make_dataclass
from typing import Annotated, Any

import ml_dtypes
import numpy as np
import pytest

from pydotcompute import Array, message
from pydotcompute.exceptions import MessageTypeError
from pydotcompute.schema.check import checker
from tests.schema.array_fields import one, passed, refusal

AnyArray = np.ndarray[Any, Any]


class Exports:
    """What has these attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class HasDLPack:
    """What has DLPack and, if it is given one, `__array__`."""

    def __init__(self, array: AnyArray, device: int = 1, error: Exception | None = None) -> None:
        self.array, self.device, self.error = array, device, error

    def __dlpack__(self, **options: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


class HasBoth(HasDLPack):
    def __array__(self, dtype: Any = None, copy: Any = None) -> AnyArray:
        return self.array


def test_what_has_dlpack_becomes_an_array_that_shares_its_memory() -> None:
    array = np.arange(6.0).reshape(2, 3).T
    settled = passed(np.ndarray, HasDLPack(array))
    assert type(settled) is np.ndarray
    assert np.shares_memory(settled, array)
    assert (settled == array).all()


def test_what_has_the_array_interface_becomes_an_array_of_any_byte_order() -> None:
    array = np.arange(6, dtype=">i4")[::2]
    settled = passed(np.ndarray, Exports(__array_interface__=array.__array_interface__, owner=array))
    assert type(settled) is np.ndarray
    assert (settled.dtype, settled.tolist()) == (array.dtype, array.tolist())


def test_what_numpys_dlpack_does_not_know_may_have_an_array() -> None:
    array = np.ones(3, ml_dtypes.bfloat16)
    assert passed(np.ndarray, HasBoth(array, error=BufferError("unsupported"))) is array


@pytest.mark.parametrize(
    "value", [np.float32(1.5), np.array([1.5], "f4").view(np.recarray), np.array([1.5], "f4").view(np.memmap)], ids=type
)
def test_numpys_scalars_and_subclasses_become_plain_arrays(value: Any) -> None:
    settled = passed(np.ndarray, value)
    assert type(settled) is np.ndarray
    assert settled.dtype == np.float32
    assert settled.shape == value.shape


def test_arrays_are_made_inside_containers_and_when_the_message_is_made() -> None:
    many: Any = message(make_dataclass("Many", [("items", dict[str, list[np.ndarray]])]))
    made = many({"a": [HasDLPack(np.arange(3))]})
    assert type(made.items["a"][0]) is np.ndarray


def test_the_mere_check_makes_no_array() -> None:
    made = one(np.ndarray)(HasDLPack(np.arange(3)))
    with pytest.raises(MessageTypeError):
        checker(type(made))(made)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (HasDLPack(np.arange(3), error=RuntimeError("it requires grad; use detach()")), "use detach()"),
        (HasDLPack(np.arange(3), device=2), "cupy"),
        (Exports(__cuda_array_interface__={}), "cupy"),
        (Exports(__array_interface__={"version": 3}), "__array_interface__"),
        (np.ma.masked_array([1.0], mask=[True]), "mask"),
        ([1.0, 2.0], "list"),
        (b"bytes", "bytes"),
        (Exports(__array__=lambda: np.arange(3)), "Exports"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_can_be_no_array_is_refused_with_the_reason(value: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    error = refusal(one(np.ndarray)(value))
    assert error.path == "$.x"
    assert error.expected == "an ndarray of numbers"
    assert why in error.actual


def on_device(array: AnyArray) -> Any:
    """What looks like an array of CuPy's."""
    members = {"__module__": "cupy", "dtype": array.dtype, "shape": array.shape, "get": lambda self: array}
    return type("ndarray", (), members)()


def test_cupys_array_stays_on_the_device_only_in_a_field_for_it() -> None:
    value, host = on_device(np.zeros((2, 3), "f4")), np.zeros((2, 3), "f4")
    assert type(passed(np.ndarray, value)) is np.ndarray
    assert passed(type(value), value) is value
    assert passed(type(value), host) is host
    assert passed(Annotated[np.ndarray, Array(on_device=True)], value) is value
    assert passed(Annotated[np.ndarray, Array(on_device=True)], host) is host
    assert passed(Annotated[type(value), Array("float32", ("n", 3))], value) is value
    error = refusal(one(Annotated[type(value), Array("float32", (5, 3))])(value))
    assert error.actual == "float32 of (2, 3)"
