"""The memory that a kernel and a worker share: both ends in this process."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pydotcompute import message
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute.wire.worker import memory
from pydotcompute.wire.worker.frames import Handed, LinkError, Reader, packed, to_bytes
from pydotcompute.wire.worker.memory import LONG, LinkMemory


@message
class Picture:
    """Long, as a rule."""

    pixels: np.ndarray[Any, Any]


@message
class Text:
    """Has no array, so its body is copied out of the memory."""

    text: str = ""


Ends = tuple[LinkMemory, LinkMemory]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """The kernel's end and the worker's end of a link, with room for some 1 MiB each way."""
    monkeypatch.setattr(memory, "SEGMENT_BYTES", 1 << 20)
    pool = TypePool()
    codecs: list[Codec[Any]] = [Codec(Picture, pool), Codec(Text, pool)]
    here, there = LinkMemory(codecs), LinkMemory(codecs)
    assert here.want()
    assert not here.want()
    there.attach(here.offer())
    here.settle()
    yield here, there
    here.close()
    there.close()


def frame(body: Any, index: int = 0) -> bytes:
    return to_bytes(Handed([1], [packed(body, 1, 128, None, index)], [0], [0], [0.0], b"\0", [None]))


def read(data: bytes, end: LinkMemory | None) -> Any:
    reader = Reader()
    reader.bodies = end
    (handed,) = reader.feed(data)
    assert isinstance(handed, Handed)
    messages: Any = handed.messages
    return messages.bodies[0]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_long_body_goes_by_the_memory_in_both_directions(ends: Ends, order: tuple[int, int]) -> None:
    sender, receiver = (ends[index] for index in order)
    pixels = np.arange(LONG, dtype=np.float64)[: LONG // 8 + 1]
    data = frame(sender.encode(Picture(pixels), 0))
    assert len(data) < 200
    body = read(data, receiver)
    assert isinstance(body, memoryview)
    codec: Codec[Any] = Codec(Picture, TypePool())
    received = codec.decode(body, Picture(pixels).message_id, 1, None)  # type: ignore[attr-defined]
    assert np.array_equal(received.pixels, pixels)
    data = frame(sender.encode(Text("x" * (LONG + 1)), 1), 1)
    assert len(data) < 200
    assert isinstance(read(data, receiver), bytes)


def test_a_short_body_and_one_without_room_go_in_the_frame(ends: Ends) -> None:
    here, there = ends
    assert here.place(b"x" * LONG) == b"x" * LONG
    first = here.place(memoryview(b"y" * 900_000))
    assert not isinstance(first, bytes)
    data = frame(first)
    assert here.place(b"z" * 900_000) == b"z" * 900_000
    body = read(data, there)
    assert here.place(b"z" * 900_000) == b"z" * 900_000
    del body  # Its place is free again.
    assert not isinstance(here.place(b"z" * 900_000), bytes)


def test_without_memory_all_bodies_go_in_frames() -> None:
    alone = LinkMemory([Codec(Picture, TypePool())])
    assert alone.place(b"y" * (2 * LONG)) == b"y" * (2 * LONG)
    alone.attach(pb.SharedMemory().SerializeToString())  # There is no such memory.
    assert alone.place(b"y" * (2 * LONG)) == b"y" * (2 * LONG)
    with pytest.raises(ProtocolError):
        alone.open(pb.Batch(body_in_parts=True), [])


def test_a_place_where_nothing_is_breaks_the_rules(ends: Ends) -> None:
    here, there = ends
    data = frame(here.place(b"x" * (2 * LONG)))
    kept = read(data, there)
    for end in (there, None):
        with pytest.raises(LinkError):
            read(data, end)
    assert len(kept) == 2 * LONG
