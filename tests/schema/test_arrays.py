"""What an array field asks for, and what can be an array."""

from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

import ml_dtypes
import numpy as np
import pytest

from pydotcompute import Array
from pydotcompute.exceptions import MessageTypeError
from pydotcompute.protobuf.export.render import render
from pydotcompute.protobuf.json.sample import sample_json
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema import nodes
from pydotcompute.schema.check import door_check
from pydotcompute.schema.introspect import FieldNumber, introspect
from tests.schema.array_fields import one, passed, refusal

AnyArray = np.ndarray[Any, Any]
Points = Annotated[AnyArray, Array(dtype="float32", shape=("n", 3))]
POINTS = nodes.Array("float32", ("n", 3))


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
    *_, file = pool.file_set("clouds.v1.Cloud").file
    assert [line.strip() for line in render(file).splitlines() if "//" in line] == [
        "// Where.",
        "// Must be this: float32 array of shape (n, 3).",
        "// Required.",
        "// Each must be this: float32 array of shape (n, 3).",
        "// Required.",
    ]


def test_the_sample_is_as_asked() -> None:
    sample = sample_json(introspect(one(Points)))
    assert (sample["x"]["dtype"], sample["x"]["shape"]) == ("<f4", [2, 3])
    sample = sample_json(introspect(one(Annotated[np.ndarray, Array("bfloat16", ())])))
    assert sample["x"] == {"dtype": "bfloat16", "shape": [], "data": "gD8="}
    sample = sample_json(introspect(one(Annotated[np.ndarray, Array("uint8", (1080, 1920))])))
    assert sample["x"] == {"dtype": "|u1", "shape": [1080, 1920], "data": ""}
