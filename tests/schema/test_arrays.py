"""What an array field asks for, and what can be an array."""

import sys
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

import ml_dtypes
import numpy as np
import pytest

from pydotcompute import Array, message
from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.descriptors import TypePool
from pydotcompute.protobuf.export.render import render
from pydotcompute.protobuf.json.sample import sample_json
from pydotcompute.schema import dtypes, nodes
from pydotcompute.schema.check import checker, door_check
from pydotcompute.schema.introspect import FieldNumber, introspect

AnyArray = np.ndarray[Any, Any]
Points = Annotated[AnyArray, Array(dtype="float32", shape=("n", 3))]
POINTS = nodes.Array("float32", ("n", 3))


def one(annotation: Any, **options: Any) -> type:
    """A class that has this annotation alone."""
    return make_dataclass("One", [("x", annotation, field(**options))])


def passed(annotation: Any, value: Any) -> Any:
    """What of `value` is in the message after the door."""
    made = one(annotation)(value)
    door_check(type(made))(made)
    return made.x


def refusal(made: Any) -> MessageTypeError:
    """The error of the door."""
    with pytest.raises(MessageTypeError) as caught:
        door_check(type(made))(made)
    return caught.value


# -- what a field asks for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "node"),
    [
        (Points, POINTS),
        (Annotated[np.ndarray, Array(np.float32, ["n", 3])], POINTS),
        (Annotated[np.ndarray, Array()], nodes.Array()),
        (Annotated[np.ndarray, Array(shape=())], nodes.Array(None, ())),
        (Annotated[np.ndarray, Array("bfloat16")], nodes.Array("bfloat16")),
        (Annotated[np.ndarray, FieldNumber(1), Array("float32", ("n", 3))], POINTS),
        (Points | None, nodes.Optional(POINTS)),
        (list[Points], nodes.List(POINTS)),
        (dict[str, tuple[Points, ...]], nodes.Map(nodes.Str(), nodes.Tuple(POINTS, None))),
        (
            Annotated[type("ndarray", (), {"__module__": "cupy"}), Array("float32")],
            nodes.Array("float32", None, on_device=True),
        ),
        (Annotated[np.ndarray, Array("float32", on_device=True)], nodes.Array("float32", None, on_device=True)),
    ],
    ids=str,
)
def test_an_annotation_says_what_the_arrays_are_like(annotation: Any, node: nodes.Node) -> None:
    assert introspect(one(annotation)).fields[0].node == node


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[np.ndarray, Array("float33")],
        Annotated[np.ndarray, Array("object")],
        Annotated[np.ndarray, Array("datetime64[s]")],
        Annotated[np.ndarray, Array("<f4")],
        Annotated[np.ndarray, Array("finfo")],
        Annotated[np.ndarray, Array(shape=(-1,))],
        Annotated[np.ndarray, Array(shape=(2.5,))],  # type: ignore[arg-type]
        Annotated[np.ndarray, Array(shape=("two words",))],
        Annotated[np.ndarray, Array(shape=3)],  # type: ignore[arg-type]
        Annotated[np.ndarray, Array("float32"), Array(shape=(3,))],
        Annotated[np.ndarray | None, Array("float32")],
        Annotated[float, Array("float32")],
    ],
    ids=str,
)
def test_what_no_array_can_be_is_refused_when_it_is_declared(annotation: Any) -> None:
    with pytest.raises(MessageTypeError) as caught:
        introspect(one(annotation))
    assert caught.value.path == "$.x"


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        (Array("float32", ("n", 3)), np.zeros((5, 3), "f4")),
        (Array("float32", ("n", 3)), np.zeros((0, 3), ">f4")),
        (Array("float32", (None, 3)), np.zeros((5, 3), "f4")[::2]),
        (Array("int64"), np.zeros((2, 2, 2), np.longlong)),
        (Array(shape=("n", "n")), np.zeros((4, 4))),
        (Array(shape=()), np.array(5)),
        (Array("bool", (2,)), np.array([True, False])),
        (Array("complex64"), np.zeros(3, "c8")),
        (Array("bfloat16", (2,)), np.zeros(2, ml_dtypes.bfloat16)),
    ],
    ids=str,
)
def test_an_array_that_fits_passes_unchanged(asked: Array, value: AnyArray) -> None:
    assert passed(Annotated[np.ndarray, asked], value) is value


@pytest.mark.parametrize(
    ("asked", "value", "expected", "actual"),
    [
        (
            Array("float32", ("n", 3)),
            np.zeros((5, 2)),
            "float32 array of shape (n, 3)",
            "float64 of (5, 2)",
        ),
        (Array("float32"), np.zeros(3), "float32 array", "float64 of (3,)"),
        (Array("bfloat16"), np.zeros(3, "f2"), "bfloat16 array", "float16 of (3,)"),
        (Array(shape=(3,)), np.zeros((3, 1)), "array of shape (3,)", "float64 of (3, 1)"),
        (Array(shape=()), np.zeros(1), "array of shape ()", "float64 of (1,)"),
        (Array(shape=("n", "n")), np.zeros((2, 3)), "array of shape (n, n)", "float64 of (2, 3)"),
        (Array(shape=(None, 2)), np.zeros((2, 3)), "array of shape (None, 2)", "float64 of (2, 3)"),
        (Array("float32"), np.array([None]), "float32 array", "an array of dtype object"),
        (Array("float32"), 1.5, "float32 array", "float"),
    ],
    ids=str,
)
def test_an_array_that_does_not_fit_is_refused(asked: Array, value: Any, expected: str, actual: str) -> None:
    error = refusal(one(Annotated[np.ndarray, asked])(value))
    assert error == MessageTypeError(expected, actual, "$.x")


@dataclass
class Part:
    weights: Annotated[AnyArray, Array(shape=("n",))]


@dataclass
class Other:
    size: int = 0


@dataclass
class Chosen:
    points: Points
    part: Part | Other


def test_a_name_is_one_length_everywhere_in_a_message() -> None:
    door = door_check(Chosen)
    points = np.zeros((4, 3), "f4")
    door(Chosen(points, Part(np.zeros(4))))
    door(Chosen(points[:2], Part(np.zeros(2))))  # and another in the next
    error = refusal(Chosen(points, Part(np.zeros(5))))
    assert error.path == "$.part.weights"
    assert error.expected == "array of shape (n,) with n = 4 as in $.points"


def test_a_name_is_one_length_in_lists_and_dicts_too() -> None:
    whole = make_dataclass(
        "Whole",
        [("parts", list[Part]), ("named", dict[str, Annotated[AnyArray, Array(shape=("n", "m"))]])],
    )
    door_check(whole)(whole([Part(np.zeros(2)), Part(np.ones(2))], {"a": np.zeros((2, 7)), "b": np.zeros((2, 7))}))
    assert refusal(whole([Part(np.zeros(2)), Part(np.ones(3))], {})).path == "$.parts[1].weights"
    error = refusal(whole([Part(np.zeros(2))], {"a": np.zeros((2, 7)), "b": np.zeros((2, 8))}))
    assert (error.path, error.expected) == (
        '$.named["b"]',
        'array of shape (n, m) with n = 2 as in $.parts[0].weights, m = 7 as in $.named["a"]',
    )


def test_the_type_tells_what_is_asked() -> None:
    cls: Any = make_dataclass(
        "Cloud",
        [("a", Points, field(metadata={"doc": "Where."})), ("b", list[Points]), ("c", np.ndarray)],
        namespace={"__proto_package__": "clouds.v1"},
    )
    pool = TypePool()
    pool.add(cls)
    files = [file for file in pool.file_set("clouds.v1.Cloud").file if file.package == "clouds.v1"]
    assert [line.strip() for line in render(files).splitlines() if "//" in line] == [
        "// Where.",
        "// Must be this: float32 array of shape (n, 3).",
        "// Each must be this: float32 array of shape (n, 3).",
    ]


def test_the_sample_is_as_asked() -> None:
    sample = sample_json(introspect(one(Points)))
    assert (sample["x"]["dtype"], sample["x"]["shape"]) == ("<f4", [2, 3])
    sample = sample_json(introspect(one(Annotated[np.ndarray, Array("bfloat16", ())])))
    assert sample["x"] == {"dtype": "bfloat16", "shape": [], "data": "gD8="}
    sample = sample_json(introspect(one(Annotated[np.ndarray, Array("uint8", (1080, 1920))])))
    assert sample["x"] == {"dtype": "|u1", "shape": [1080, 1920], "data": ""}


# -- what can be an array ----------------------------------------------------------------------------------------------


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
    made: Any = message(make_dataclass("Many", [("items", dict[str, list[np.ndarray]])]))(
        {"a": [HasDLPack(np.arange(3))]}
    )
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


# -- number types ------------------------------------------------------------------------------------------------------

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
