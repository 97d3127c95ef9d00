"""What the actors in workers want of other kernels: they forward to them and ask them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from pydotcompute.exceptions import KernelNotFoundError, MessageError, PyDotComputeError
from pydotcompute.messages.raw import Raw, stands_for
from pydotcompute.ring_kernels.actor.asking import Asker
from pydotcompute.ring_kernels.actor.forwarding import Receiver
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.wire.exchange.bodies import Body
from pydotcompute.wire.worker.errors import to_values
from pydotcompute.wire.worker.frames import Letter, LinkError, packed
from pydotcompute.wire.worker.ledger import Entry
from pydotcompute.wire.worker.memory import LONG
from pydotcompute.workers.instance import Instance

__all__ = ["Calls"]


class Calls:
    """Carries out what the actors of one kernel want of other kernels, and tells them how that went.

    Args:
        kernel: the kernel.
        find: returns the kernel of an id; None if there is no other.
    """

    def __init__(self, kernel: RingKernel[Any, Any], find: Callable[[str], Receiver] | None) -> None:
        self._kernel, self._mail = kernel, kernel.mail
        self._find = find

    def begin(self, instance: Instance, what: str, values: dict[str, Any], message: Any) -> None:
        """Begin to carry out a call: to "forward" a message, or to "ask". Raises LinkError if it is malformed."""
        match values:
            case {"call": int(number), "kernel_id": str()}:
                pass
            case _:
                raise LinkError(f"a call is malformed: {values}")
        do = self._forward if what == "forward" else self._ask
        task = asyncio.create_task(self._carry_out(instance, number, do(instance, values, message)))
        instance.calls[number] = task
        task.add_done_callback(partial(_is_over, instance, number))

    async def _carry_out(self, instance: Instance, number: int, call: Coroutine[Any, Any, Any]) -> None:
        process = instance.process
        error = reply = None
        try:
            reply = await call
        except PyDotComputeError as raised:
            error = raised
        if process is not None:
            process.send(_answer(instance, number, reply, error))

    async def _forward(self, instance: Instance, values: dict[str, Any], message: Any) -> None:
        entry = _entry(instance, values["sequence"])
        item = None if entry is None else entry.item
        await self._receiver(values["kernel_id"]).take_forwarded(self._mail, message, values["key"], item)
        if entry is not None:
            entry.passed_on = True

    async def _ask(self, instance: Instance, values: dict[str, Any], message: Any) -> Any:
        entry = _entry(instance, values["sequence"])
        item = None if entry is None else entry.item
        asker = Asker(self._mail, instance, bool(values["holds"]), values["key"], item)
        return await self._receiver(values["kernel_id"]).answer(asker, message, values["timeout"])

    def _receiver(self, kernel_id: str) -> Receiver:
        if self._find is None:
            raise KernelNotFoundError(kernel_id, [self._kernel.kernel_id])
        return self._find(kernel_id)


def _entry(instance: Instance, sequence: int | None) -> Entry[Item[Any]] | None:
    return None if sequence is None else instance.ledger.in_hand.get(sequence)


def _answer(instance: Instance, number: int, reply: Any, error: PyDotComputeError | None) -> Letter:
    """Return the letter that answers a call."""
    values: dict[str, Any] = {"call": number, "error": None}
    if error is None and reply is not None:
        try:
            return _letter(instance, values, reply)
        except MessageError as raised:
            error = raised
    return Letter("answered", values | {"error": None if error is None else to_values(error)})


def _letter(instance: Instance, values: dict[str, Any], reply: Any) -> Letter:
    """Return the letter with a reply. Raises MessageTypeError or MessageSerializationError."""
    types, memory = instance.types, instance.memory
    cls = stands_for(type(reply))
    codec, index = types.of(cls), types.index(cls)
    body: bytes | Body
    if index is None:  # The memory knows only classes of the link.
        body = bytes(reply.body) if isinstance(reply, Raw) else codec.encode_aligned(reply)
    else:
        body = memory.place(reply.body) if isinstance(reply, Raw) else memory.encode(reply, index)
        if len(body) > LONG:
            instance.share_memory()
    correlation = None if reply.correlation_id is None else reply.correlation_id.int
    message = packed(body, reply.message_id.int, reply.priority, correlation, index or 0)
    return Letter("answered", values | {"type": codec.schema.full_name}, [message])


def _is_over(instance: Instance, number: int, task: asyncio.Task[None]) -> None:
    if instance.calls.get(number) is task:
        del instance.calls[number]
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "a call of an actor failed", "exception": error})
