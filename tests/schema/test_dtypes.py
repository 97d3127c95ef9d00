"""Which number types travel, and under which names."""

import sys

import ml_dtypes
import numpy as np
import pytest

from pydotcompute.schema import dtypes

EXTENSIONS = [
    getattr(ml_dtypes, name)
    for name in dir(ml_dtypes)
    if getattr(getattr(ml_dtypes, name), "__module__", "") == "ml_dtypes"
    and isinstance(getattr(ml_dtypes, name), type)
    and name not in ("finfo", "iinfo")
]


@pytest.mark.parametrize(
    "scalar", [*dict.fromkeys(np.sctypeDict.values()), *EXTENSIONS], ids=lambda scalar: scalar.__name__
)
def test_every_number_type_has_a_name_on_the_wire(scalar: type) -> None:
    dtype = np.dtype(scalar)
    assert dtypes.travels(dtype) == (dtype.kind in "biufc" or scalar in EXTENSIONS)
    if dtypes.travels(dtype):
        name, sent_as = dtypes.as_sent(dtype)
        assert dtypes.dtype_of(name) == sent_as == dtype


@pytest.mark.parametrize("name", ["", "O", "|O8", "<V2", "f4", "<M8[s]", "finfo", "float32", "bfloat17", "no-name"])
def test_no_other_name_is_taken(name: str) -> None:
    with pytest.raises(TypeError, match="dtype"):
        dtypes.dtype_of(name)


def test_without_ml_dtypes_its_types_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes.dtype_of.cache_clear()
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(TypeError, match=r"'float8_e4m3fn' .* need the package ml_dtypes, which is not installed here"):
        dtypes.dtype_of("float8_e4m3fn")


def test_binary128_is_not_taken_for_the_long_double_of_x86() -> None:
    if np.finfo(np.longdouble).nmant != 63:
        pytest.skip("not the long double of x86")
    assert dtypes.as_sent(np.dtype(np.longdouble))[0] == "float80"
    assert dtypes.as_sent(np.dtype(np.clongdouble).newbyteorder(">"))[0] == "complex160"
    with pytest.raises(TypeError, match="binary128"):
        dtypes.dtype_of("<f16")
