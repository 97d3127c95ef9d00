"""Arrays on the wire: in front, copied once, and a view where they arrive; and the same as by way of protobuf."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any, Literal
from uuid import UUID

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from pydotcompute.exceptions import MessageDeserializationError, MessageError
from pydotcompute.protobuf import tensors
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import tensor_pb2

AnyArray = np.ndarray[Any, Any]
HEADER: Any = (UUID(int=1), 7, None)


@dataclass
class Scene:
    """Every place in which an array can be."""

    one: AnyArray
    label: str = ""
    maybe: AnyArray | None = None
    many: list[AnyArray] = field(default_factory=list)
    pair: tuple[AnyArray, ...] = ()
    named: dict[str, AnyArray] = field(default_factory=dict)
    count: int = 0


SCENES = Codec(Scene, TypePool())
TENSOR = SCENES.descriptor.fields_by_name["one"].message_type

# -- any array ---------------------------------------------------------------------------------------------------------

ORDERS: tuple[Literal["<"], Literal[">"]] = ("<", ">")
TYPES = [
    *[np.dtype(code).newbyteorder(order) for code in "?bBhHiIqQefdgFDG" for order in ORDERS],
    *[np.dtype(scalar) for scalar in (ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.int4)],
    np.dtype(ml_dtypes.bfloat16).newbyteorder(">"),
]


@st.composite
def any_array(draw: st.DrawFn) -> AnyArray:
    """Of any type and shape, in any order, with steps, backwards, repeated, or at an odd address."""
    dtype = draw(st.sampled_from(TYPES))
    shape = draw(numpy_strategies.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    numbers = np.asarray(np.random.default_rng(draw(st.integers(0, 99))).integers(0, 8, shape))
    array = numbers.astype(dtype.newbyteorder("=")).astype(dtype)
    match draw(st.sampled_from(["C", "F", "axes", "steps", "broadcast", "odd", "read-only"])):
        case "F":
            array = np.asfortranarray(array).reshape(shape, order="F")
        case "axes":
            array = array.transpose(draw(st.permutations(range(array.ndim))))
        case "steps":
            steps = [slice(None, None, draw(st.sampled_from([1, 2, -1, -2]))) for _ in shape]
            index: tuple[EllipsisType | slice, ...] = (..., *steps)
            array = array[index]
        case "broadcast":
            array = np.broadcast_to(array, (draw(st.integers(0, 3)), *shape))
        case "odd":
            memory = np.zeros(array.nbytes + 1, np.uint8)
            odd: AnyArray = np.ndarray(shape, dtype, memory.data, 1)
            odd[...] = array
            array = odd
        case "read-only":
            array.flags.writeable = False
        case _:
            pass
    return array


SCENE = st.builds(
    Scene,
    one=any_array(),
    label=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    maybe=st.none() | any_array(),
    many=st.lists(any_array(), max_size=3),
    pair=st.lists(any_array(), max_size=2).map(tuple),
    named=st.dictionaries(st.sampled_from("ab"), any_array()),
    count=st.integers(0, 5),
)


def bits(array: AnyArray) -> bytes:
    """The elements in C order; of a type that the wire has only as little-endian, these."""
    if array.dtype.char not in "gG" and array.dtype.type.__module__ != "ml_dtypes":
        return array.tobytes()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def same(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray):
        return type(a) is type(b) and bool(a == b)
    is_native = a.dtype.char not in "gG" and a.dtype.type.__module__ != "ml_dtypes"
    return (
        type(b) is np.ndarray
        and (a.dtype == b.dtype if is_native else a.dtype.type is b.dtype.type)
        and a.shape == b.shape
        and bits(a) == bits(b)
    )


def arrays_of(scene: Scene) -> list[AnyArray]:
    """Those of the message itself, so not of the dict."""
    return [scene.one, *([] if scene.maybe is None else [scene.maybe]), *scene.many, *scene.pair]


def assert_same(back: Scene, sent: Scene) -> None:
    assert all(map(same, arrays_of(sent), arrays_of(back)))
    assert len(arrays_of(back)) == len(arrays_of(sent))
    assert (back.label, back.count, back.maybe is None) == (sent.label, sent.count, sent.maybe is None)
    assert back.named.keys() == sent.named.keys()
    assert all(same(sent.named[key], back.named[key]) for key in sent.named)


@given(SCENE)
def test_any_array_arrives_bit_for_bit_both_ways(scene: Scene) -> None:
    by_protobuf = SCENES.to_proto(scene)
    for in_front in (SCENES.encode(scene), SCENES.encode_aligned(scene)):
        parsed: Any = SCENES.message_class.FromString(in_front)
        assert_same(SCENES.decode(in_front, *HEADER), scene)
        assert_same(SCENES.from_proto(parsed, *HEADER), scene)
    assert_same(SCENES.decode(by_protobuf.SerializeToString(), *HEADER), scene)
    assert SCENES.message_class.FromString(SCENES.encode(scene)) == by_protobuf
    for tensor_of in (parsed.one, parsed.maybe, *parsed.many, *parsed.pair, *parsed.named.values()):
        assert not tensor_of.padding.strip(b"\0")
        tensor_of.ClearField("padding")
    if scene.maybe is None:
        parsed.ClearField("maybe")
    assert parsed == by_protobuf


@given(SCENE)
def test_an_array_is_a_read_only_view_of_the_received_bytes(scene: Scene) -> None:
    data = SCENES.encode_aligned(scene)
    received = np.frombuffer(data, np.uint8)
    for array in arrays_of(SCENES.decode(data, *HEADER)):
        assert not array.flags.writeable
        assert np.shares_memory(array, received) or not array.size


@given(any_array())
def test_fortran_order_stays(array: AnyArray) -> None:
    back = SCENES.decode(SCENES.encode(Scene(array)), *HEADER).one
    if array.flags.forc:
        assert (back.flags.c_contiguous, back.flags.f_contiguous) == (
            array.flags.c_contiguous,
            array.flags.f_contiguous,
        )
    else:
        assert back.flags.c_contiguous


@given(st.lists(any_array(), min_size=1, max_size=4))
def test_elements_are_at_aligned_places(many: list[AnyArray]) -> None:
    for array in SCENES.decode(SCENES.encode_aligned(Scene(np.zeros(3, "u1"), many=many)), *HEADER).many:
        assert array.flags.aligned or not array.size


@pytest.mark.parametrize("begin", range(16))
def test_elements_are_at_aligned_places_where_the_padding_makes_the_length_longer(begin: int) -> None:
    for size in (*range(1, 20), *range(2_020, 2_050)):
        parts: list[Any] = []
        end = tensors.append(parts, begin, b"\x0a", np.zeros(size), aligned=True)
        assert (end - 8 * size) % 16 == 0, "the elements are the last"


def test_elements_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Into the bytes: what is joined is the array's own memory."""
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    parts: list[Any] = []
    tensors.append(parts, 0, b"\x0a", array, aligned=True)
    assert np.shares_memory(parts[1], array)


PLAIN = "0a16 0a033c6634 120103 1a0c 0000803f 00000040 00004040 1201 61"
"""A scene of the numbers 1, 2 and 3 as float32, labelled a: field 1, and in it dtype, shape, data; then field 2."""
ALIGNED = "0a1a 0a033c6634 120103 2a020000 1a0c 0000803f 00000040 00004040 1201 61"


def test_the_bytes_of_an_array_are_these() -> None:
    scene = Scene(np.array([1, 2, 3], np.float32), "a")
    assert SCENES.encode(scene) == bytes.fromhex(PLAIN)
    assert SCENES.encode_aligned(scene) == bytes.fromhex(ALIGNED)
    ours = tensor_pb2.Tensor(dtype="<f4", shape=[3], data=np.array([1, 2, 3], "<f4").tobytes())
    parsed: list[Any] = [SCENES.message_class.FromString(bytes.fromhex(text)) for text in (PLAIN, ALIGNED)]
    plain, aligned = (tensor_pb2.Tensor.FromString(each.one.SerializeToString()) for each in parsed)
    assert plain == ours
    assert aligned != ours
    aligned.ClearField("padding")
    assert aligned == ours


def test_bytes_that_can_change_are_not_looked_into() -> None:
    data = bytearray(SCENES.encode(Scene(np.arange(3))))
    one = SCENES.decode(data, *HEADER).one
    assert not one.flags.writeable
    assert not np.shares_memory(one, np.frombuffer(data, np.uint8))


def test_a_required_array_that_is_none_is_refused() -> None:
    with pytest.raises(MessageError):
        SCENES.encode(Scene(None))  # type: ignore[arg-type]


# -- bytes from elsewhere ----------------------------------------------------------------------------------------------


def tensor(number: int, *fields: tuple[int, bytes]) -> bytes:
    """A field of this number that holds a Tensor with these fields, written by hand."""
    inside = b"".join(bytes([tag << 3 | 2, len(value)]) + value for tag, value in fields)
    return bytes([number << 3 | 2, len(inside)]) + inside


ONE = ((1, b"<i2"), (2, b"\x02"), (3, b"\x01\x00\x02\x00"))


@pytest.mark.parametrize(
    "data",
    [
        tensor(1, *ONE),
        tensor(1, *reversed(ONE)),
        b"\x12\x01a" + tensor(1, *ONE),
        b"\x38\x05" + tensor(1, *ONE),
        tensor(1, (15, b"\0" * 5), *ONE),
        tensor(1, (7, b"unknown"), *ONE),
        tensor(1, ONE[0], (2, b"\x01"), (2, b"\x02"), ONE[2]),
        tensor(1, *ONE[:2], (3, b"\x09\x09\x09\x09"), ONE[2]),
        tensor(1, *ONE[:2]) + tensor(1, ONE[2]),
        tensor(1, (1, b"<i4"), (3, b"\x09\x09\x09\x09")) + tensor(1, *ONE),
        tensor(1, *ONE) + b"\x12\x01a" + tensor(1, (15, b"")),
        tensor(1, *ONE[:2], (4, b"\x01\x00\x02\x00")),
        tensor(1, *ONE[:2], (3, b""), (4, b"\x01\x00\x02\x00")),
        tensor(1, (1, b"<i2"), (2, b"\x82\x00"), ONE[2]),
    ],
)
def test_protobuf_laid_out_in_another_way_is_read_all_the_same(data: bytes) -> None:
    one = SCENES.decode(data, *HEADER).one
    assert one.dtype == "<i2"
    assert one.ravel().tolist() == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x12\x01a",
        tensor(1, *ONE[:2]),
        tensor(1, *ONE, (4, ONE[2][1])),
        tensor(1, (1, b"<i4"), *ONE[1:]),
        tensor(1, (1, b"|O2"), *ONE[1:]),
        tensor(1, (1, b"\xff"), *ONE[1:]),
        tensor(1, ONE[0], (2, b"\x80"), ONE[2]),
        tensor(1, ONE[0], (2, b"\xfe" + b"\xff" * 8 + b"\x01"), ONE[2]),
        tensor(1, ONE[0], (2, b"\xff" * 11), ONE[2]),
        tensor(1, ONE[0], (2, b"\x02" + b"\x01" * 100), ONE[2]),
        tensor(1, *ONE)[:-1],
        b"\x0a\x05" + tensor(1, *ONE),
        b"\x0a",
        b"\x0a" + b"\xff" * 12,
    ],
)
def test_what_is_no_array_is_refused(data: bytes) -> None:
    with pytest.raises(MessageDeserializationError):
        SCENES.decode(data, *HEADER)


@given(SCENE, st.data())
def test_bytes_that_are_spoilt_give_the_same_as_by_way_of_protobuf(scene: Scene, data: st.DataObject) -> None:
    spoilt = bytearray(SCENES.encode_aligned(scene) if data.draw(st.booleans()) else SCENES.encode(scene))
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    spoilt = spoilt[: data.draw(st.integers(0, len(spoilt)))] if data.draw(st.booleans()) else spoilt
    results: list[Any] = [
        result_of(bytes(spoilt)),
        result_of(bytearray(spoilt)),
    ]  # The latter always goes through protobuf.
    if isinstance(results[0], Scene) and isinstance(results[1], Scene):
        assert_same(*results)
    else:
        assert results[0] == results[1]


def result_of(data: Any) -> Scene | MessageError:
    try:
        return SCENES.decode(data, *HEADER)
    except MessageError as error:
        return error


@dataclass
class Defaults:
    required: AnyArray
    given: AnyArray = field(default_factory=lambda: np.arange(3))
    pair: tuple[AnyArray, AnyArray] = field(default_factory=lambda: (np.zeros(1), np.ones(1)))


def some(arrays: Iterable[int]) -> bytes:
    return b"".join(tensor(number, *ONE) for number in arrays)


def test_absent_arrays_are_the_default_or_refused() -> None:
    codec = Codec(Defaults, TypePool())
    assert codec.decode(some([1, 3, 3]), *HEADER).given.tolist() == [0, 1, 2]
    for arrays, path in ([2, 3, 3], "$.required"), ([1, 3], "$.pair"), ([1, 3, 3, 3], "$.pair"):
        with pytest.raises(MessageDeserializationError) as caught:
            codec.decode(some(arrays), *HEADER)
        assert caught.value.path == path


# -- the work of hostile arrays ----------------------------------------------------------------------------------------


def refusal_of_tensor(**fields: Any) -> str:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # The text is looked at by the caller.
        tensors.read_tensor(tensor_pb2.Tensor(**fields))
    return str(refused.value)


def test_more_dimensions_than_numpy_has_are_refused_by_their_number() -> None:
    told = refusal_of_tensor(dtype="<f4", data=bytes(4), shape=[1 << 62] * 20_000)
    assert told == "20000 dimensions, and an array has at most 64"
    array = tensors.read_tensor(tensor_pb2.Tensor(dtype="<f4", data=bytes(4), shape=[1] * 64))
    assert array.shape == (1,) * 64


def test_the_error_for_a_wrong_shape_is_short() -> None:
    assert len(refusal_of_tensor(dtype="<f4", data=bytes(4), shape=[1 << 62] * 64)) < 2_000
    assert len(refusal_of_tensor(dtype="x" * 1_000_000)) < 200


@pytest.mark.parametrize(("shape", "size"), [([], 4), ([0, 5], 0), ([5, 0], 0), ([2, 3], 24)])
def test_a_shape_that_fits_its_bytes_is_taken(shape: list[int], size: int) -> None:
    assert list(tensors.read_tensor(tensor_pb2.Tensor(dtype="<i4", data=bytes(size), shape=shape)).shape) == shape


@pytest.mark.parametrize(("shape", "size"), [([], 8), ([0, 5], 4), ([2, 3], 20), ([1 << 62] * 64, 4), ([-1], 4)])
def test_a_shape_that_does_not_fit_is_refused(shape: list[int], size: int) -> None:
    assert "are no array of shape" in refusal_of_tensor(dtype="<i4", data=bytes(size), shape=shape)
