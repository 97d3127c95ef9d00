"""Batches of messages, for actors that handle many messages as cheaply as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np

from pydotcompute.device.lease import DeviceLease
from pydotcompute.exceptions import MessageTypeError
from pydotcompute.ring_kernels.actor.device_arrays import fetch_columns
from pydotcompute.schema.foreign_arrays import is_cupy

__all__ = ["Answering", "Batch", "Messages"]

TIn = TypeVar("TIn")


class Answering(Protocol):
    """The part of the actor's context that a batch uses."""

    kernel_id: str
    output_type: type[Any] | None
    lease: DeviceLease

    @property
    def xp(self) -> ModuleType:
        """The module of the kernel's arrays: CuPy on a GPU, else NumPy."""

    def to_device(self, array: Any) -> Any:
        """Return an array of `xp` with the elements of `array`."""

    async def send(self, message: Any) -> None:
        """Send a reply or an output. Raises MessageTypeError if the message is not of the output type."""


class Messages(Sequence[TIn], Generic[TIn]):
    """Messages that were handed to an actor together, the highest priority first.

    All of them are in the actor's hands. A message is done when the actor answers it, by `reply` or by `ctx.send`, or
    asks for the next batch. If the actor fails, the caller of each message that is not done gets an error.
    """

    def __init__(self, context: Answering, messages: Sequence[TIn]) -> None:
        self._context = context
        self._messages = messages

    @overload
    def __getitem__(self, index: int) -> TIn: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TIn]: ...
    def __getitem__(self, index: int | slice) -> TIn | Sequence[TIn]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[TIn]:
        return iter(self._messages)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}>"

    def stack(self, field: str) -> Any:
        """Return the values of one field as one array of `ctx.xp`, copied to the device in one go.

        The shape of the array is (messages, *shape of a value).

        Args:
            field: the name of the field.

        Raises:
            ValueError: the values are arrays of different shapes.
        """
        values = [getattr(message, field) for message in self._messages]
        try:
            if any(is_cupy(type(value)) for value in values):
                return self._context.xp.stack([self._context.to_device(value) for value in values])
            return self._context.to_device(np.stack(values) if hasattr(values[0], "shape") else np.array(values))
        except ValueError:
            shapes = ", ".join(map(str, sorted({np.shape(value) for value in values})))
            raise ValueError(f"{field}: a batch of the shapes {shapes} cannot be stacked") from None

    def _replies(self, columns: dict[str, Any]) -> Iterator[Any]:
        make = self._context.output_type
        if make is None:
            raise MessageTypeError("a kernel declared with an output_type", f"{self._context.kernel_id!r} without one")
        rows = [self._rows(name, column) for name, column in columns.items()]
        for message, *values in zip(self._messages, *rows, strict=True):
            request: Any = message
            yield make(**dict(zip(columns, values, strict=True)), correlation_id=request.message_id)

    def _rows(self, name: str, column: Any) -> Sequence[Any]:
        if not isinstance(column, list | tuple) and not getattr(column, "shape", ()):
            return [column] * len(self)
        if len(column) != len(self):
            raise ValueError(f"{name}: {len(column)} rows for a batch of {len(self)} messages")
        # To convert a whole array to Python numbers takes NumPy a tenth of the time of one by one.
        rows: Sequence[Any] = column.tolist() if getattr(column, "ndim", 0) == 1 else column
        return rows


class Batch(Messages[TIn]):
    """A batch of messages for an actor on the event loop."""

    async def reply(self, **columns: Any) -> None:
        """Answer each message with an instance of the kernel's output type.

        Args:
            columns: for each field an array, list or tuple with one value for each message, in the order of the
                messages. A single value of another kind is used for every message.

        Raises:
            ValueError: the number of rows in a column is not the number of messages in the batch.
            MessageTypeError: the kernel was declared without an output type, or the values do not fit that type.
        """
        lease = self._context.lease
        if lease.on_gpu:
            columns, any_on_device = fetch_columns(lease, columns)
            if any_on_device:
                await lease.synchronize()
        for reply in self._replies(columns):
            await self._context.send(reply)
