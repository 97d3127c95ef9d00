"""Messages gathered into batches, for actors that handle many as cheaply as one."""

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
    """What a batch needs of the actor's context."""

    kernel_id: str
    output_type: type[Any] | None
    lease: DeviceLease

    @property
    def xp(self) -> ModuleType: ...
    def to_device(self, array: Any) -> Any: ...
    async def send(self, message: Any) -> None: ...


class Messages(Sequence[TIn], Generic[TIn]):
    """Messages that an actor was handed together, the highest priority first.

    All of them are in the actor's hands: each is done with when it is answered, by `reply` or by `ctx.send`, or when
    the actor asks for the next batch; and if the actor fails, the caller of each that is not is told.
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
        """One array of `ctx.xp` with a field's values, of shape (messages, *shape of a value), copied to the device at
        once.

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
        # NumPy makes Python's numbers of a whole array in a tenth of the time that it takes one by one.
        rows: Sequence[Any] = column.tolist() if getattr(column, "ndim", 0) == 1 else column
        return rows


class Batch(Messages[TIn]):
    """A batch of an actor on the event loop."""

    async def reply(self, **columns: Any) -> None:
        """Answer each message with an instance of the kernel's output type.

        Args:
            columns: for each field an array, list or tuple with a value for each message, in their order; or a single
                value of another kind, which is everyone's.

        Raises:
            ValueError: a column has not as many rows as the batch has messages.
            MessageTypeError: the kernel was declared without an output type, or the values do not fit it.
        """
        lease = self._context.lease
        if lease.on_gpu:
            columns, any_on_device = fetch_columns(lease, columns)
            if any_on_device:
                await lease.synchronize()
        for reply in self._replies(columns):
            await self._context.send(reply)
