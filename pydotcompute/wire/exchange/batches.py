"""Batches of messages, column by column. Every message of `Exchange` is written and read here.

Whole columns are moved by C code (`zip`, `map`, `extend`, `join`), so that a message costs little more than its body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter, methodcaller
from time import monotonic
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from pydotcompute.messages.header import DEFAULT_PRIORITY, MAX_PRIORITY
from pydotcompute.messages.ids import uuids_from_bytes
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.bodies import Body, Opened, Opens, malformed
from pydotcompute.wire.exchange.flow import Credit, ProtocolError
from pydotcompute.wire.exchange.limits import WINDOW

__all__ = ["Columns", "Packed", "credit_to_proto", "fill", "key_of", "keys_of", "read", "spread"]


Packed: TypeAlias = tuple[bytes | Body, int, int, int | None, int, bool, float | None, Any]
"""A message on its way, and what its sender keeps of it:

* its body,
* its `message_id.int`, which is its key,
* its priority,
* the key of the request that it answers,
* the index of its type,
* whether it is an output,
* the time, of `time.monotonic()`, at which its caller gives up,
* the message itself, where its sender needs it again.
"""

key_of: Callable[[Packed], int] = itemgetter(1)

_to_16_bytes = methodcaller("to_bytes", 16, "big")
_NO_ID = bytes(16)


def keys_of(ids: bytes) -> set[int]:
    """Return the numbers of a column of UUIDs.

    Raises:
        ProtocolError: the column does not have 16 bytes for each, or has more than `WINDOW` of them.
    """
    if len(ids) % 16 or len(ids) > 16 * WINDOW:
        raise ProtocolError(f"there are at most {WINDOW} ids of 16 bytes each, not {len(ids)} bytes")
    return {int.from_bytes(ids[start : start + 16]) for start in range(0, len(ids), 16)}


def credit_to_proto(credit: Credit) -> pb.Credit:
    """Return a credit as protobuf."""
    return pb.Credit(messages=credit.messages, bytes=credit.bytes)


def fill(batch: pb.Batch, first: int, items: Sequence[Packed]) -> None:
    """Put messages into an empty batch.

    Args:
        batch: the batch.
        first: the sequence of the first message.
        items: the messages, with consecutive sequences. There is at least one.
    """
    bodies, keys, priorities, correlations, types, outputs, deadlines, _ = zip(*items, strict=True)
    if [*map(type, bodies)].count(bytes) != len(bodies):
        bodies = tuple(_in_frame(batch, *each) for each in enumerate(bodies))
    batch.first_sequence = first
    batch.bodies.extend(bodies)
    batch.message_ids = b"".join(map(_to_16_bytes, keys))
    if priorities.count(DEFAULT_PRIORITY) != len(priorities):
        batch.priorities.extend(priorities)
    uncorrelated = correlations.count(None)
    if uncorrelated == 0:
        batch.correlation_ids = b"".join(map(_to_16_bytes, correlations))
    elif uncorrelated != len(correlations):
        batch.correlation_ids = b"".join(_NO_ID if each is None else each.to_bytes(16) for each in correlations)
        batch.uncorrelated.extend(index for index, each in enumerate(correlations) if each is None)
    if True in outputs:
        batch.types.extend(types)
        batch.outputs.extend(index for index, is_output in enumerate(outputs) if is_output)
    elif any(types):
        batch.types.extend(types if types.count(types[0]) != len(types) else types[:1])
    if deadlines.count(None) != len(deadlines):
        now = monotonic()
        batch.timeouts_us.extend(0 if each is None else max(1, int((each - now) * 1e6)) for each in deadlines)


def _in_frame(batch: pb.Batch, index: int, body: bytes | Body) -> bytes:
    """Return the bytes of a body that go into the batch: none if the body travels in another way."""
    if isinstance(body, bytes):
        return body
    body.refer(batch, index)
    return b""


class Columns(NamedTuple):
    """The messages of a batch, one column for each field."""

    bodies: Sequence[Opened]
    message_ids: list[UUID]
    priorities: Sequence[int]
    correlation_ids: Sequence[UUID | None]
    types: Sequence[int]


def read(batch: pb.Batch, type_count: int = 1, bodies: Opens | None = None) -> Columns:
    """Return the messages in a batch.

    Args:
        batch: the batch.
        type_count: the number of message types. Each index in `types` must be below it.
        bodies: opens the bodies that do not travel in the batch; None if all bodies must travel in the batch.

    Raises:
        MessageDeserializationError: the columns do not fit together, or a header is malformed.
        ProtocolError: a body travels in a way that was not agreed on, or has not come.
    """
    opened: Sequence[Opened] = batch.bodies
    count = len(opened)
    if len(batch.message_ids) != 16 * count:
        raise malformed("message_ids", f"{len(batch.message_ids)} bytes for {count} messages of 16 each")
    priorities: Sequence[int] = [DEFAULT_PRIORITY] * count
    if batch.priorities:
        priorities = spread(batch.priorities, count, DEFAULT_PRIORITY, "priorities")
        if max(batch.priorities) > MAX_PRIORITY:
            raise malformed("priorities", f"{max(batch.priorities)} is outside 0 to {MAX_PRIORITY}")
    types: Sequence[int] = [0] * count
    if batch.types:
        types = spread(batch.types, count, 0, "types")
        if max(batch.types) >= type_count:
            raise malformed("types", f"{max(batch.types)} is none of the {type_count} types")
    correlation_ids: Sequence[UUID | None] = [None] * count
    if batch.correlation_ids:
        if len(batch.correlation_ids) != 16 * count:
            raise malformed("correlation_ids", f"{len(batch.correlation_ids)} bytes for {count} messages of 16 each")
        correlation_ids = uuids_from_bytes(batch.correlation_ids)
        if batch.uncorrelated:
            if max(batch.uncorrelated) >= count:
                raise malformed("uncorrelated", f"{max(batch.uncorrelated)} is none of {count} messages")
            without = set(batch.uncorrelated)
            correlation_ids = [None if index in without else each for index, each in enumerate(correlation_ids)]
    if batch.body_in_parts or batch.shared_bodies:
        if bodies is None:
            raise ProtocolError("a body travels in a way that was not agreed on")
        opened = bodies.open(batch, list(types))
    return Columns(opened, uuids_from_bytes(batch.message_ids), priorities, correlation_ids, types)


def spread(column: Sequence[int], count: int, default: int, name: str) -> Sequence[int]:
    """Return a column with one value for each of `count` messages.

    On the wire, an empty column means `default` for every message, and a single value is that of every message.

    Raises:
        MessageDeserializationError: the column has another number of values; `name` is its name in the error.
    """
    if not column:
        return [default] * count
    if len(column) == 1:
        return [column[0]] * count
    if len(column) != count:
        raise malformed(name, f"{len(column)} values for {count} messages")
    return column
