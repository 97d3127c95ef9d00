"""Points 10 and 11 for arrays: they arrive as they are, and what is not as the field asks is refused at the door."""

import sys
from dataclasses import field, make_dataclass
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pydotcompute import message
from pydotcompute.exceptions import KernelFailedError, MessageTypeError
from tests.contract import kernels
from tests.contract.kernels import Cloud
from tests.contract.world import PATIENCE, World

AnyArray = np.ndarray[Any, Any]


class OnlyDLPack:
    """What has DLPack, and nothing else that NumPy knows: as a tensor of torch, in the memory of the host."""

    def __init__(self, array: AnyArray, device: tuple[int, int] = (1, 0)) -> None:
        self._array = array
        self._device = device

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


class OnlyInterface:
    """What has the array interface, and nothing else."""

    def __init__(self, array: AnyArray) -> None:
        self._array = array

    @property
    def __array_interface__(self) -> Any:
        return self._array.__array_interface__


class OnDevice:
    """What has CUDA's array interface, which only CuPy can read."""

    def __init__(self, array: AnyArray) -> None:
        self.array = array
        self.__cuda_array_interface__: dict[str, Any] = {}


def points(count: int = 4) -> AnyArray:
    return np.arange(3.0 * count, dtype=np.float32).reshape(count, 3)


async def echoed(world: World, array: Any) -> AnyArray:
    """The array as it comes back."""
    kernel_id = await world.launch(kernels.echo_cloud)
    back = await world.runtime.send_and_receive(kernel_id, Cloud(others=[array]), timeout=PATIENCE)
    echo: AnyArray = back.others[0]
    return echo


def assert_same(back: AnyArray, sent: AnyArray) -> None:
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape, back.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())
    assert back.flags.f_contiguous == sent.flags.f_contiguous or not sent.flags.forc


@pytest.mark.parametrize(
    "sent",
    [
        points(),
        points().T,
        np.asfortranarray(np.arange(24, dtype=">i2").reshape(2, 3, 4)),
        np.arange(24.0).reshape(4, 6)[::2, ::-1],
        np.array(2.5, np.float16),
        np.zeros((0, 3), bool),
        np.array([1 + 2j, np.nan], ">c8"),
        np.arange(5).astype(ml_dtypes.bfloat16),
        np.arange(4).astype(ml_dtypes.float8_e5m2),
        np.array([1, 3], np.longdouble) / 7,
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
async def test_an_array_arrives_as_it_is(world: World, sent: AnyArray) -> None:
    assert_same(await echoed(world, sent), sent)


@pytest.mark.parametrize("wrap", [OnlyDLPack, OnlyInterface])
async def test_what_can_be_an_array_arrives_as_one(world: World, wrap: Any) -> None:
    assert_same(await echoed(world, wrap(points().T)), points().T)
    kernel_id = await world.launch(kernels.describe_cloud)
    others: list[Any] = [wrap(points()), np.float32(1.5)]
    sent = Cloud(others=others)
    back = await world.runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE)
    assert back.note == "numpy <f4 (4, 3), numpy <f4 ()"


@pytest.mark.parametrize("make", [OnDevice, lambda array: OnlyDLPack(array, (2, 0))], ids=["interface", "DLPack"])
async def test_what_is_on_a_device_arrives_from_there(world: World, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy: Any = ModuleType("cupy")
    cupy.from_dlpack = lambda value: OnDevice(value._array)
    cupy.asnumpy = lambda value: value.array.copy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert_same(await echoed(world, make(points())), points())


async def test_what_is_on_a_device_is_refused_where_there_is_no_cupy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MessageTypeError, match="cupy") as refused:
        await echoed(world, OnDevice(points()))
    assert refused.value.path == "$.others[0]"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (
            Cloud(np.zeros((5, 2))),
            MessageTypeError("float32 array of shape (n, 3)", "float64 of (5, 2)", "$.points"),
        ),
        (
            Cloud(points(4), np.zeros(5)),
            MessageTypeError("array of shape (n,) with n = 4 as in $.points", "float64 of (5,)", "$.weights"),
        ),
        (
            Cloud(others=[points(), np.array([None])]),
            MessageTypeError("an ndarray of numbers", "an array of dtype object", "$.others[1]"),
        ),
        (Cloud([[1.0, 2.0, 3.0]]), MessageTypeError("float32 array of shape (n, 3)", "list", "$.points")),  # type: ignore[arg-type]
    ],
    ids=["dtype and shape", "two lengths of one name", "objects", "a list"],
)
async def test_an_array_that_does_not_fit_is_refused_at_send(
    world: World, sent: Cloud, error: MessageTypeError
) -> None:
    kernel_id = await world.launch(kernels.echo_cloud)
    with pytest.raises(MessageTypeError) as refused:
        await world.runtime.send(kernel_id, sent)
    assert refused.value == error
    good = Cloud(points(2), np.ones(2, ">f8"))
    back = await world.runtime.send_and_receive(kernel_id, good, timeout=PATIENCE)
    assert_same(back.points, points(2))
    assert_same(back.weights, np.ones(2, ">f8"))


async def test_an_actors_array_that_does_not_fit_fails_its_kernel(world: World) -> None:
    kernel_id = await world.launch(kernels.echo_cloud)
    with pytest.raises(KernelFailedError) as failed:
        await world.runtime.send_and_receive(kernel_id, Cloud(points(2), priority=1), timeout=PATIENCE)  # type: ignore[call-arg]
    assert failed.value.cause_type == "MessageTypeError"
    assert "(3, 2)" in failed.value.cause_message


async def test_the_daemon_refuses_an_array_that_the_clients_class_lets_through(world: World) -> None:
    if world.name == "local":
        pytest.skip("there is only one class in-process")
    fields = [("points", np.ndarray), ("weights", np.ndarray | None), ("others", list[np.ndarray])]
    lax: Any = message(make_dataclass("Cloud", [(name, kind, field(kw_only=True)) for name, kind in fields]))
    kernel_id = await world.launch(kernels.echo_cloud)
    sent = lax(points=np.zeros((5, 2)), weights=None, others=[])
    with pytest.raises(MessageTypeError) as refused:
        await world.runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE)
    assert refused.value == MessageTypeError("float32 array of shape (n, 3)", "float64 of (5, 2)", "$.points")
