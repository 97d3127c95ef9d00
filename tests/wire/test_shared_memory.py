"""Shared memory by itself: bodies stay whole while anything looks at them, and their places are used again."""

import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pydotcompute import RingKernelMessage, message
from pydotcompute.exceptions import BackendUnavailableError, MessageDeserializationError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange import shared_memory
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute.wire.exchange.shared_memory import LONGEST_IN_FRAME, Block, Reader, Segment, Writer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared so on Linux")

SIZE = 1 << 20
AnyArray = np.ndarray[Any, Any]


@message
class Picture(RingKernelMessage):
    """A message whose array can be looked at where it is."""

    pixels: AnyArray
    title: str = ""


@message
class Note:
    """A message without an array."""

    text: str


CODECS: list[Codec[Any]] = [Codec(Picture, TypePool()), Codec(Note, TypePool())]


def both_ends(size: int = SIZE) -> tuple[Writer, Reader]:
    """The daemon's end that writes, and the client's that reads."""
    made = Segment.create(size)
    opened = Segment.open(made.place)
    made.settle()
    return Writer(made), Reader(opened, CODECS)


def sent(block: Block | None, index: int = 0) -> pb.SharedBody:
    """Where a body is, that is on its way from now on."""
    assert block is not None
    block.sent = True
    return pb.SharedBody(index=index, offset=block.offset, bytes=block.size)


class AnyTraffic(RuleBasedStateMachine):
    """Bodies of any length come and go in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patient = patch.object(shared_memory, "_FULL_SECONDS", 0.0)
        self.patient.start()
        self.writer, self.reader = both_ends()
        self.unsent: list[Block] = []
        self.seen: list[tuple[memoryview, bytes]] = []
        self.count = 0

    @rule(size=st.integers(1, SIZE), repeat=st.integers(1, 3))
    def put(self, size: int, repeat: int) -> None:
        for _ in range(repeat):
            self.count += 1
            body = (self.count.to_bytes(4) * (size // 4 + 1))[:size]
            block = self.writer.put([body[: size // 2], np.frombuffer(body[size // 2 :], np.uint8)], size)
            if block is None:
                held = [len(view) for view, _ in self.seen] + [len(each) for each in self.unsent]
                assert held or size > SIZE - 64, "there is room for what fits, if nothing is there"
                continue
            if self.count % 3:
                self.seen.append((self.reader.view(sent(block)), body))
            else:
                self.unsent.append(block)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.seen:
            del self.seen[data.draw(st.integers(0, len(self.seen) - 1))]

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.unsent:
            del self.unsent[data.draw(st.integers(0, len(self.unsent) - 1))]

    @invariant()
    def what_is_looked_at_stays_as_it_was(self) -> None:
        assert all(view == body for view, body in self.seen)

    def teardown(self) -> None:
        self.patient.stop()
        self.seen.clear()
        self.unsent.clear()
        assert self.writer.put([bytes(SIZE - 64)], SIZE - 64) is not None, "all of it is free again"


TestAnyTraffic = AnyTraffic.TestCase


def test_arrays_of_a_message_look_at_the_memory_and_keep_their_place() -> None:
    writer, reader = both_ends()
    pixels = np.arange(100_000, dtype=np.float32).reshape(100, 1000)
    encode = writer.encoder(CODECS[0])
    message_id = Picture(pixels).message_id

    def there_and_back(picture: Picture) -> Picture:
        block = encode(picture)
        assert isinstance(block, Block)
        decoded: Picture = CODECS[0].decode(reader.body(sent(block), 0), message_id, 128, None)
        return decoded

    first = there_and_back(Picture(pixels, "first"))
    second = there_and_back(Picture(2 * pixels.T, "second"))
    assert isinstance(encode(Picture(pixels)), bytes), "there is room for two"
    assert (first.title, second.title) == ("first", "second")
    assert np.array_equal(first.pixels, pixels)
    assert np.array_equal(second.pixels, 2 * pixels.T)
    assert not first.pixels.flags.writeable
    assert not first.pixels.flags.owndata
    corner = first.pixels[:2, :2].astype(np.float64, copy=False), first.pixels[50:]
    del first
    assert isinstance(encode(Picture(pixels)), bytes), "a slice of it is still there"
    del corner
    third = there_and_back(Picture(3 * pixels))
    assert np.array_equal(third.pixels, 3 * pixels)


def test_what_has_no_array_is_copied_and_leaves_its_place_at_once() -> None:
    writer, reader = both_ends()
    text = "x" * (SIZE // 2)
    for _ in range(5):
        block = writer.encoder(CODECS[1])(Note(text))
        assert isinstance(block, Block)
        body = reader.body(sent(block), 1)
        assert type(body) is bytes
        assert text.encode() in body


def test_short_bodies_stay_in_their_frames() -> None:
    writer, _ = both_ends()
    assert isinstance(writer.encoder(CODECS[1])(Note("x" * (LONGEST_IN_FRAME - 10))), bytes)
    assert isinstance(writer.encoder(CODECS[1])(Note("x" * LONGEST_IN_FRAME)), Block)
    assert isinstance(writer.encoder(CODECS[0])(Picture(np.zeros(LONGEST_IN_FRAME - 100, np.uint8))), bytes)


def test_nothing_is_laid_out_before_the_other_side_is_there() -> None:
    made = Segment.create(SIZE)
    writer = Writer(made)
    assert writer.put([b"x" * 1000], 1000) is None
    Segment.open(made.place)
    made.settle()
    assert writer.put([b"x" * 1000], 1000) is not None


@pytest.mark.parametrize(
    "place",
    [
        pb.SharedBody(offset=0, bytes=10),
        pb.SharedBody(offset=4096, bytes=10),
        pb.SharedBody(offset=4096 + 64 + 1, bytes=10),
        pb.SharedBody(offset=4096 + 128, bytes=10),
        pb.SharedBody(offset=4096 + 64, bytes=0),
        pb.SharedBody(offset=4096 + 64, bytes=SIZE),
        pb.SharedBody(offset=1 << 63, bytes=1),
        pb.SharedBody(offset=4096 + 64, bytes=(1 << 64) - 1),
    ],
)
def test_a_place_where_no_body_is_breaks_the_rules(place: pb.SharedBody) -> None:
    writer, reader = both_ends()
    block = writer.put([b"x" * 1000], 1000)
    assert block is not None
    with pytest.raises(ProtocolError):
        reader.view(place)


def test_a_body_that_changes_while_it_is_read_is_never_worse_than_other_bytes() -> None:
    made = Segment.create(SIZE)
    segment = Segment.open(made.place)
    made.settle()
    writer, reader = Writer(made), Reader(segment, CODECS)
    block = writer.encoder(CODECS[0])(Picture(np.zeros(100_000, np.uint8), "title"))
    assert isinstance(block, Block)
    place = sent(block)
    random = np.random.default_rng(1)
    message_id = Picture(np.zeros(0)).message_id
    wrong = 0
    for _ in range(3_000):
        before = made.memory[place.offset : place.offset + 40]
        at = place.offset + int(random.integers(0, 40))
        made.memory[at] = int(random.integers(0, 256))
        try:
            CODECS[0].decode(reader.body(place, 0), message_id, 128, None).pixels.tobytes()
        except MessageDeserializationError:
            wrong += 1
        made.memory[place.offset : place.offset + 40] = before
        made.memory[place.offset - 64] = 1
    assert wrong > 100


def test_a_segment_that_is_closed_keeps_what_is_looked_at_and_gives_the_rest_back() -> None:
    made = Segment.create(SIZE)
    watched = os.dup(made.place.file_descriptor)
    try:
        writer, reader = Writer(Segment.open(made.place)), Reader(made, CODECS)
        view = reader.view(sent(writer.put([b"a" * 100_000], 100_000)))
        others = [reader.view(sent(writer.put([b"b" * 300_000], 300_000))) for _ in range(2)]
        assert os.fstat(watched).st_blocks * 512 >= 700_000
        others.clear()
        reader.close()
        writer.close()
        assert os.fstat(watched).st_blocks * 512 <= 100_000 + 3 * 4096
        assert view == b"a" * 100_000
        del view, reader, made
        gc.collect()
        assert _open_files_of(watched) == [str(watched)], "only the one that is watched"
    finally:
        os.close(watched)


def _open_files_of(descriptor: int) -> list[str]:
    """The open files of this process that are the same file."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.stat(f"/proc/self/fd/{name}"), os.fstat(descriptor)):
                found.append(name)
        except FileNotFoundError:  # That of the listing itself.
            continue
    return found


def test_what_is_looked_at_of_a_closed_segment_goes_when_nothing_looks_at_it() -> None:
    made = Segment.create(SIZE)
    watched = os.dup(made.place.file_descriptor)
    try:
        writer, reader = Writer(Segment.open(made.place)), Reader(made, CODECS)
        large, small = (reader.view(sent(writer.put([bytes(size)], size))) for size in (500_000, 1_000))
        reader.close()
        assert os.fstat(watched).st_blocks * 512 >= 500_000
        del large
        assert os.fstat(watched).st_blocks * 512 <= 3 * 4096
        assert small == bytes(1_000)
    finally:
        os.close(watched)


@pytest.mark.parametrize("length", [4096 - 64, 4096 - 128, 8192 - 64, 100])
def test_a_segment_that_is_closed_keeps_the_heads_of_what_is_looked_at(length: int) -> None:
    writer, reader = both_ends()
    first = reader.view(sent(writer.put([b"a" * length], length)))
    second = reader.view(sent(writer.put([b"b" * 5_000], 5_000)))  # It may begin a page, and its head end another.
    del first
    reader.close()
    for _ in range(3):
        writer.put([b"c" * 50_000], 50_000)
    assert second == b"b" * 5_000


def test_what_a_child_process_lets_go_of_stays_the_parents() -> None:
    writer, reader = both_ends()
    view = reader.view(sent(writer.put([b"a" * 100_000], 100_000)))
    unsent = writer.put([b"b" * 100_000], 100_000)
    child = os.fork()
    if child == 0:
        del view, unsent
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    third = writer.put([b"c" * 100_000], 100_000)
    assert view == b"a" * 100_000
    assert {block.offset for block in (unsent, third) if block is not None} == {
        4096 + 64 + 100_096,
        4096 + 64 + 200_192,
    }


def test_a_body_is_not_looked_at_twice() -> None:
    writer, reader = both_ends()
    place = sent(writer.put([b"a" * 1_000], 1_000))
    view = reader.view(place)
    with pytest.raises(ProtocolError):
        reader.view(place)
    assert view == b"a" * 1_000


def test_many_short_bodies_are_found_room_for_again_and_again() -> None:
    writer, reader = both_ends()
    views = []
    while (block := writer.put([b"x" * 1_000], 1_000)) is not None:
        views.append(reader.view(sent(block)))
    assert len(views) == SIZE // 1_088
    for each in range(0, len(views), 2):
        views[each] = memoryview(b"")
    freed = (len(views) + 1) // 2
    eventually_there = 0
    deadline = time.monotonic() + 10
    while eventually_there < freed and time.monotonic() < deadline:
        if (block := writer.put([b"y" * 1_000], 1_000)) is not None:
            views.append(reader.view(sent(block)))
            eventually_there += 1
    assert eventually_there == freed
    assert all(set(view) <= {ord("x")} for view in views[: SIZE // 1_088])


def test_a_received_array_cannot_be_made_writable() -> None:
    writer, reader = both_ends()
    array = np.frombuffer(reader.view(sent(writer.put([b"a" * 1_000], 1_000))), np.uint8)
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.setflags(write=True)


def test_a_segment_cannot_be_cut_off_under_a_reader() -> None:
    made = Segment.create(SIZE)
    for size in (0, 2 * SIZE):
        with pytest.raises(PermissionError):
            os.truncate(made.place.file_descriptor, size)


def other_file() -> pb.SharedSegment:
    """A file of this process that is something else."""
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return pb.SharedSegment(process_id=os.getpid(), file_descriptor=descriptor, key=bytes(32))


def unsealed() -> pb.SharedSegment:
    """Memory that its owner could cut off."""
    descriptor = os.memfd_create("pydotcompute", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SIZE)
    return pb.SharedSegment(process_id=os.getpid(), file_descriptor=descriptor, key=bytes(32))


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        (lambda: pb.SharedSegment(process_id=1 << 30, file_descriptor=3), "another host"),
        (lambda: pb.SharedSegment(process_id=os.getpid(), file_descriptor=999), "another host"),
        (other_file, "another host"),
        (unsealed, "no segment of ours"),
    ],
)
def test_what_is_not_the_daemons_memory_is_not_taken(place: Callable[[], pb.SharedSegment], problem: str) -> None:
    wrong = place()
    try:
        with pytest.raises(BackendUnavailableError, match=problem):
            Segment.open(wrong)
    finally:
        if wrong.process_id == os.getpid() and wrong.file_descriptor != 999:
            os.close(wrong.file_descriptor)


def test_another_segment_of_the_same_numbers_is_not_taken() -> None:
    made = Segment.create(SIZE)
    wrong = pb.SharedSegment()
    wrong.CopyFrom(made.place)
    wrong.key = bytes(32)
    with pytest.raises(BackendUnavailableError, match="another host"):
        Segment.open(wrong)
    made.settle()
    assert not made.attached


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(("ours", "theirs"), [(0, 65534), (65534, 0), (65534, 65533)])
def test_another_user_does_not_get_the_memory(ours: int, theirs: int) -> None:
    """By real processes: `ours` makes the segment, `theirs` opens it."""
    place_in, place_out = os.pipe()
    done_in, done_out = os.pipe()
    maker = os.fork()
    if maker == 0:
        os.setuid(ours)
        made = Segment.create(SIZE)
        os.write(place_out, made.place.SerializeToString())
        os.close(done_out)
        os.read(done_in, 1)
        os._exit(0)
    place = pb.SharedSegment.FromString(os.read(place_in, 1000))
    told_in, told_out = os.pipe()
    opener = os.fork()
    if opener == 0:
        os.setuid(theirs)
        try:
            Segment.open(place)
            os.write(told_out, b"opened")
        except BackendUnavailableError as error:
            os.write(told_out, str(error).encode())
        os._exit(0)
    told = os.read(told_in, 1000).decode()
    os.close(done_out)
    for child in (opener, maker):
        os.waitpid(child, 0)
    for each in (place_in, place_out, done_in, told_in, told_out):
        os.close(each)
    assert "another user" in told


def test_where_memory_cannot_be_shared_so_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BackendUnavailableError, match="needs Linux"):
        Segment.create(SIZE)
