"""How a body travels is said in its batch alone, and read there."""

from collections.abc import Callable

import pytest

from pydotcompute import message
from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.batches import Packed, fill, read
from pydotcompute.wire.exchange.bodies import Bodies, Body
from pydotcompute.wire.exchange.flow import Ahead, Incoming, ProtocolError
from pydotcompute.wire.exchange.frames import PartFrame, read_request, request_part
from pydotcompute.wire.exchange.shared_memory import SharedMemory

PART_BYTES = 4_096
LONG = bytes(range(250)) * 40
"""A body of three parts."""
SHARED = bytes(range(250)) * 400
"""A body that goes through shared memory, if there is any."""


@message
class Note:
    """A message."""

    text: str = ""


CODECS = [Codec(Note, TypePool())]


def bodies(*, part_bytes: int = PART_BYTES, memory: SharedMemory | None = None) -> Bodies:
    """Those of a session in which everything is allowed."""
    incoming = Incoming()
    incoming.grant(100, 1 << 30)
    return Bodies(
        incoming, request_part, longest=1 << 20, longest_received=1 << 20, part_bytes=part_bytes, memory=memory
    )


def there_and_back(body: bytes | Body, reader: Bodies) -> bytes:
    """What the other side reads of a message with this body, and of another in the same batch, if there may be one."""
    items: list[Packed] = [(body, 1, 128, None, 0, False, None, None)]
    if isinstance(body, Ahead):
        while not body.all_out:
            part = read_request(body.next_piece())
            assert isinstance(part, PartFrame)
            reader.take_part(part)
    else:
        items.append((b"another", 2, 128, None, 0, False, None, None))
    batch = pb.Batch()
    fill(batch, 1, items)
    opened, *others = read(pb.Batch.FromString(batch.SerializeToString()), bodies=reader).bodies
    assert others in ([], [b"another"])
    return bytes(opened)


def test_a_short_body_travels_in_the_frame() -> None:
    assert there_and_back(b"short", bodies()) == b"short"
    assert bodies().longest_plain == PART_BYTES


def test_a_long_body_travels_in_parts_to_a_side_that_takes_them() -> None:
    packed = bodies().pack(LONG)
    assert isinstance(packed, Ahead)
    assert there_and_back(packed, bodies()) == LONG


def test_a_long_body_travels_whole_to_a_side_that_takes_no_parts() -> None:
    whole = bodies(part_bytes=0)
    assert whole.longest_plain == whole.longest
    assert whole.pack(LONG) is LONG


def test_a_body_in_shared_memory_is_read_from_there_and_never_goes_in_parts() -> None:
    daemon = SharedMemory.create(1 << 20, CODECS)
    client = SharedMemory.open(pb.Opened(shared_memory=daemon.offer), CODECS)
    at_daemon, at_client = bodies(memory=daemon), bodies(memory=client)
    assert at_daemon.offer is not None
    at_daemon.settle()
    assert at_daemon.offer is None
    block = client.writer.put([SHARED], len(SHARED))
    assert block is not None
    packed = at_client.pack(block)
    assert packed is block
    assert there_and_back(packed, at_daemon) == SHARED
    for each in (at_client, at_daemon):
        each.close()


def no_memory(batch: pb.Batch) -> None:
    batch.shared_bodies.add(index=0, offset=4_160, bytes=10)


def no_parts(batch: pb.Batch) -> None:
    batch.body_in_parts = True


def two_messages(batch: pb.Batch) -> None:
    batch.body_in_parts = True
    batch.bodies.append(b"")
    batch.message_ids = bytes(32)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [(no_memory, ProtocolError), (no_parts, ProtocolError), (two_messages, MessageDeserializationError)],
)
def test_a_body_that_has_not_come_is_not_read(spoil: Callable[[pb.Batch], None], error: type[Exception]) -> None:
    batch = pb.Batch(bodies=[b""], message_ids=bytes(16))
    spoil(batch)
    with pytest.raises(error):
        read(batch, bodies=bodies())


def test_a_side_without_bodies_reads_only_what_is_in_the_frame() -> None:
    with pytest.raises(ProtocolError):
        read(pb.Batch(bodies=[b""], message_ids=bytes(16), body_in_parts=True))


def test_parts_that_would_cost_more_than_their_data_are_not_sent() -> None:
    with pytest.raises(ProtocolError):
        bodies(part_bytes=PART_BYTES - 1)
