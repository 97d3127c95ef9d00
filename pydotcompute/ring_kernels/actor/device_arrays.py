"""CuPy arrays in the messages that an actor sends.

Before anybody else gets the message, its arrays are copied to the host, all together. Arrays that stay on the device
are computed by then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from pydotcompute.device.lease import DeviceLease
from pydotcompute.exceptions import MessageTypeError
from pydotcompute.schema import nodes
from pydotcompute.schema.foreign_arrays import is_cupy
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.nodes import walk

__all__ = ["fetch_columns", "make_ready", "prepare"]

Found = tuple[Any, Callable[[Any], None]]


async def make_ready(lease: DeviceLease, message: Any, receiver: DeviceLease | None) -> None:
    """Prepare a message as `prepare` does, and wait until the device is done with it."""
    if prepare(lease, message, receiver):
        await lease.synchronize()


def prepare(lease: DeviceLease, message: Any, receiver: DeviceLease | None) -> bool:
    """Replace the CuPy arrays in a message by NumPy arrays. Return True if the message had arrays on the device.

    The elements of the new arrays are valid once the lease is synchronized. An array in a field for CuPy arrays stays
    on the device, and is computed once the lease is synchronized. It is replaced too if the receiver computes on
    another device.

    Args:
        lease: the lease of the kernel that sends.
        message: the message, which is changed in place.
        receiver: the lease of the kernel that receives; None is anyone in this process.
    """
    if not dataclasses.is_dataclass(message):
        return False
    on_device: frozenset[str] = frozenset()
    if receiver is None or receiver.device == lease.device:
        on_device = _fields_for_cupy(type(message))
    staying: list[Found] = []
    leaving: list[Found] = []
    for field in dataclasses.fields(message):
        found = staying if field.name in on_device else leaving
        found += _in_value(getattr(message, field.name, None), partial(object.__setattr__, message, field.name))
    _fetch(lease, leaving)
    if receiver is not None:
        for array, put in staying:
            put(lease.lend(array, receiver))
    return bool(staying or leaving)


def fetch_columns(lease: DeviceLease, columns: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Replace the CuPy arrays in the columns of a batch's replies by NumPy arrays.

    Returns:
        The new columns, and True if any column had an array on the device.
    """
    fetched = {name: list(value) if isinstance(value, list | tuple) else value for name, value in columns.items()}
    found = [each for name, value in fetched.items() for each in _in_value(value, partial(fetched.__setitem__, name))]
    _fetch(lease, found)
    return fetched, bool(found)


def _fetch(lease: DeviceLease, found: list[Found]) -> None:
    if found:
        for (_, put), host in zip(found, lease.fetch([array for array, _ in found]), strict=True):
            put(host)


def _in_value(value: Any, put: Callable[[Any], None]) -> Iterator[Found]:
    if is_cupy(type(value)):
        yield value, put
    elif type(value) is list:
        for index, item in enumerate(value):
            yield from _in_value(item, partial(value.__setitem__, index))
    elif type(value) is tuple:
        yield from _in_tuple(value, put)
    elif type(value) is dict:
        for key, item in value.items():
            yield from _in_value(item, partial(value.__setitem__, key))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name, None)
            yield from _in_value(inner, partial(object.__setattr__, value, field.name))


def _in_tuple(value: tuple[Any, ...], put: Callable[[Any], None]) -> Iterator[Found]:
    items = list(value)

    def put_item(index: int, new: Any) -> None:
        items[index] = new
        put(tuple(items))

    for index, item in enumerate(value):
        yield from _in_value(item, partial(put_item, index))


def _fields_for_cupy(cls: type) -> frozenset[str]:
    try:
        schema = introspect(cls)
    except MessageTypeError:  # The class cannot cross the wire. In-process any field may hold any array.
        return frozenset(field.name for field in dataclasses.fields(cls))
    return frozenset(field.name for field in schema.fields if any(_is_for_cupy(node) for node in walk(field.node)))


def _is_for_cupy(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Array) and node.on_device
