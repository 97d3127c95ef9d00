"""Batches of messages, column by column: the path of every message of `Exchange`.

Whole columns are moved by C code (`zip`, `map`, `extend`, `join`): a message costs little more than its body.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import methodcaller
from typing import Any, NamedTuple
from uuid import UUID

from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute.messages.header import DEFAULT_PRIORITY, MAX_PRIORITY
from pydotcompute.messages.ids import uuids_from_bytes
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.flow import Credit, ProtocolError
from pydotcompute.wire.exchange.shared_memory import Block, Reader

__all__ = ["Columns", "Packed", "credit_to_proto", "fill", "read", "spread"]

Packed = tuple["bytes | Block", int, int, "int | None", *tuple[Any, ...]]
"""A message for a batch: body (a block: it is in shared memory), `message_id.int`, priority, `correlation_id.int`, and
what else its sender keeps."""

_to_16_bytes = methodcaller("to_bytes", 16, "big")
_NO_ID = bytes(16)


def credit_to_proto(credit: Credit) -> pb.Credit:
    """A credit for the wire."""
    return pb.Credit(messages=credit.messages, bytes=credit.bytes)


def fill(
    batch: pb.Batch, first: int, items: Sequence[Packed], *, in_parts: bool = False, in_memory: bool = False
) -> None:
    """Put messages into a batch: all but the columns `types`, `outputs` and `timeouts_us`.

    Args:
        in_parts: it is one message, whose body has gone in parts.
        in_memory: some bodies may be in shared memory.
    """
    bodies, keys, priorities, correlations, *_ = zip(*items, strict=True)
    if in_parts:
        bodies = (b"",)
        batch.body_in_parts = True
    elif in_memory:
        bodies = tuple(_point_to(batch, *each) if isinstance(each[1], Block) else each[1] for each in enumerate(bodies))
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


def _point_to(batch: pb.Batch, index: int, block: Block) -> bytes:
    block.sent = True
    batch.shared_bodies.add(index=index, offset=block.offset, bytes=block.size)
    return b""


class Columns(NamedTuple):
    """The messages of a batch."""

    bodies: Sequence[bytes | memoryview]
    message_ids: list[UUID]
    priorities: Iterable[int]
    correlation_ids: Iterable[UUID | None]
    types: Iterable[int]


def read(batch: pb.Batch, type_count: int = 1, body: bytes | None = None, reader: Reader | None = None) -> Columns:
    """The messages in a batch.

    Args:
        type_count: how many types there are for `types` to point into.
        body: that of its one message, if it has come in parts.
        reader: reads bodies that are in shared memory.

    Raises:
        MessageDeserializationError: the columns do not fit together, or a header is malformed.
        ProtocolError: there is no such shared memory.
    """
    bodies: Sequence[bytes | memoryview] = batch.bodies
    count = len(bodies)
    if body is not None:
        if count != 1 or bodies[0]:
            raise _malformed("body_in_parts", f"{count} messages, expected one with an empty body")
        bodies = [body]
    if len(batch.message_ids) != 16 * count:
        raise _malformed("message_ids", f"{len(batch.message_ids)} bytes for {count} messages of 16 each")
    priorities = spread(batch.priorities, count, DEFAULT_PRIORITY, "priorities")
    if batch.priorities and max(batch.priorities) > MAX_PRIORITY:
        raise _malformed("priorities", f"{max(batch.priorities)} is outside 0 to {MAX_PRIORITY}")
    types = spread(batch.types, count, 0, "types")
    if batch.types and max(batch.types) >= type_count:
        raise _malformed("types", f"{max(batch.types)} is none of the {type_count} types")
    correlation_ids: Iterable[UUID | None] = repeat(None, count)
    if batch.correlation_ids:
        if len(batch.correlation_ids) != 16 * count:
            raise _malformed("correlation_ids", f"{len(batch.correlation_ids)} bytes for {count} messages of 16 each")
        correlation_ids = uuids_from_bytes(batch.correlation_ids)
        if batch.uncorrelated:
            if max(batch.uncorrelated) >= count:
                raise _malformed("uncorrelated", f"{max(batch.uncorrelated)} is none of {count} messages")
            without = set(batch.uncorrelated)
            correlation_ids = [None if index in without else each for index, each in enumerate(correlation_ids)]
    if batch.shared_bodies:
        bodies = _from_memory(batch, [*bodies], list(types) if batch.types else [0] * count, reader)
    return Columns(bodies, uuids_from_bytes(batch.message_ids), priorities, correlation_ids, types)


def _from_memory(
    batch: pb.Batch, bodies: list[bytes | memoryview], types: list[int], reader: Reader | None
) -> list[bytes | memoryview]:
    if reader is None:
        raise ProtocolError("a body is in shared memory, and there is none")
    if sum(place.bytes for place in batch.shared_bodies) > reader.size:
        raise ProtocolError("bodies in shared memory are longer together than that is")
    for place in batch.shared_bodies:
        if place.index >= len(bodies) or bodies[place.index]:
            raise _malformed("shared_bodies", f"{place.index} is no message with an empty body")
        bodies[place.index] = reader.body(place, types[place.index])
    return bodies


def spread(column: Sequence[int], count: int, default: int, name: str) -> Iterable[int]:
    """A column with a value for each message."""
    if not column:
        return repeat(default, count)
    if len(column) == 1:
        return repeat(column[0], count)
    if len(column) != count:
        raise _malformed(name, f"{len(column)} values for {count} messages")
    return column


def _malformed(column: str, problem: str) -> MessageDeserializationError:
    return MessageDeserializationError("Batch", problem, f"$.{column}")
