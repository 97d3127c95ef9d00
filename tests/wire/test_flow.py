"""The rules of a session: each by itself, and all together, in whole sessions over a connection that breaks."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pydotcompute.wire.exchange.flow import Chunk, Credit, Incoming, Outgoing, ProtocolError
from pydotcompute.wire.exchange.frames import PartFrame, read_request, request_part
from pydotcompute.wire.exchange.parts import LEAST_PART_BYTES, InParts, PartsReader


class Item(NamedTuple):
    """What is sent."""

    body: bytes | InParts
    number: int
    """Its place in the order of queueing, from 1: its sequence, too, as long as nothing goes in parts."""


SMALL = st.integers(0, 12)
SIZES = st.lists(st.integers(0, 6), max_size=12)
CREDIT = st.builds(Credit, st.integers(-2, 12), st.integers(-5, 40))
PART_BYTES = st.sampled_from((0, 2, 4))
PLENTY = Credit(1_000, 1_000_000)


def queue(outgoing: Outgoing[Item], sizes: Sequence[int]) -> None:
    """Give a side something to send."""
    for size in sizes:
        outgoing.queue.append(Item(bytes(size), outgoing.sent + len(outgoing.queue) + 1))
        outgoing.queued_bytes += size


def sender(sizes: Sequence[int] = (), credit: Credit = PLENTY) -> Outgoing[Item]:
    """A side with something to send."""
    outgoing: Outgoing[Item] = Outgoing()
    outgoing.grant(credit)
    queue(outgoing, sizes)
    return outgoing


def send_all(outgoing: Outgoing[Item], most: int = 1_000, most_bytes: int = 1_000_000) -> list[list[int]]:
    """Send as much as may be sent; the sequences in each chunk."""
    chunks = []
    while (chunk := outgoing.next_chunk(most, most_bytes)) is not None:
        assert isinstance(chunk, Chunk), "nothing goes in parts"
        assert [number for _, number in chunk.items] == list(range(chunk.first, chunk.last + 1))
        chunks.append([number for _, number in chunk.items])
    return chunks


def sent(count: int, acknowledged: int = 0) -> Outgoing[Item]:
    """A side that has sent so much in one chunk."""
    outgoing = sender([1] * count)
    send_all(outgoing)
    outgoing.acknowledge(acknowledged)
    return outgoing


def numbers(items: Sequence[Item]) -> list[int]:
    return [number for _, number in items]


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_what_waits_is_sent_in_one_chunk() -> None:
    outgoing = sender([3, 0, 4])
    assert not outgoing.all_sent
    assert send_all(outgoing) == [[1, 2, 3]]
    assert (outgoing.sent, outgoing.queued_bytes, outgoing.all_sent, outgoing.all_acknowledged) == (3, 0, True, False)


def test_without_credit_nothing_is_sent() -> None:
    assert send_all(sender([1], Credit())) == []
    assert send_all(sender([1], Credit(messages=5))) == []
    assert send_all(sender([1], Credit(bytes=5))) == []


class Free(NamedTuple):
    """What needs no credit."""

    body: bytes
    number: int


def test_what_needs_no_credit_goes_ahead_of_what_waits_for_some_and_uses_up_what_comes() -> None:
    outgoing: Outgoing[Any] = sender([1, 1], Credit(1, 1))
    outgoing.queue += [Free(b"", 3), Free(b"", 4), Free(b"", 5)]
    assert send_all(outgoing) == [[1]]
    assert outgoing.next_free(Item, most=0, through=99) is None
    chunk = outgoing.next_free(Free, most=99, through=3)
    assert chunk is not None
    assert (chunk.first, chunk.items) == (2, [Free(b"", 3), Free(b"", 4)])
    assert outgoing.next_free(Free, most=99, through=3) is None, "no sequence is left"
    outgoing.grant(Credit(3, 99))
    assert outgoing.next_chunk(99, 99) is None
    outgoing.grant(Credit(4, 99))
    last = outgoing.next_chunk(99, 99)
    assert isinstance(last, Chunk)
    assert (last.first, numbers(last.items)) == (4, [2])


def test_what_goes_ahead_does_not_change_what_was_queued_before_a_long_message_and_what_after() -> None:
    outgoing: Outgoing[Any] = sender([1], Credit())
    outgoing.queue.append(Free(b"", 2))
    outgoing.put(Item(in_parts(b"long", 2), 3))
    outgoing.queue += [Free(b"", 4), Item(b"x", 5)]
    outgoing.queued_bytes += 1
    chunk = outgoing.next_free(Free, most=99, through=99)
    assert chunk is not None
    assert numbers(chunk.items) == [2, 4]
    outgoing.grant(PLENTY)
    before = []
    while (found := outgoing.next_chunk(99, 99)) is not None:
        if isinstance(found, Chunk):
            before.append((numbers(found.items), numbers(found.before)))
    assert before == [([1], []), ([5], [3]), ([3], [])]


def test_what_needs_no_credit_is_received_without_any() -> None:
    incoming = Incoming()
    assert incoming.receive(1, [0, 0], free=True) == 0
    with pytest.raises(ProtocolError, match="beyond 0, the credit"):
        incoming.receive(3, [0])
    with pytest.raises(ProtocolError, match="expected 3"):
        incoming.receive(4, [0], free=True)


def test_credit_in_messages_is_used_up_and_not_passed() -> None:
    outgoing = sender([1] * 5, Credit(3, 100))
    assert send_all(outgoing) == [[1, 2, 3]]
    outgoing.grant(Credit(4, 100))
    assert send_all(outgoing) == [[4]]


def test_credit_in_bytes_lets_the_last_message_be_of_any_length() -> None:
    outgoing = sender([3, 3, 500, 0], Credit(10, 7))
    assert send_all(outgoing) == [[1, 2, 3]]
    outgoing.grant(Credit(10, 506))
    assert send_all(outgoing) == [], "the messages before have 506 bytes, which are not fewer"
    outgoing.grant(Credit(10, 507))
    assert send_all(outgoing) == [[4]]


def test_a_message_without_bytes_needs_credit_in_bytes_too() -> None:
    assert send_all(sender([3, 4, 0], Credit(10, 7))) == [[1, 2]]
    assert send_all(sender([3, 4, 0], Credit(10, 8))) == [[1, 2, 3]]


def test_a_chunk_has_no_more_messages_than_it_may() -> None:
    assert send_all(sender([1] * 5), most=2) == [[1, 2], [3, 4], [5]]


def test_a_chunk_has_no_more_bytes_than_it_may_unless_it_is_one_message() -> None:
    assert send_all(sender([3, 3, 3, 50, 1, 9]), most_bytes=7) == [[1, 2], [3], [4], [5], [6]]


@given(sizes=SIZES, messages=SMALL, size=st.integers(0, 40), most=st.integers(1, 5), most_bytes=st.integers(1, 15))
def test_as_much_is_sent_as_is_allowed_and_no_more(
    sizes: list[int], messages: int, size: int, most: int, most_bytes: int
) -> None:
    outgoing = sender(sizes, Credit(messages, size))
    chunks = send_all(outgoing, most, most_bytes)
    before = [0, *accumulate(sizes)]  # The bytes of those before each.
    may = [number for number in range(1, len(sizes) + 1) if number <= messages and before[number - 1] < size]
    assert list(chain.from_iterable(chunks)) == may
    for chunk in chunks:
        assert len(chunk) <= most
        assert len(chunk) == 1 or sum(sizes[number - 1] for number in chunk) <= most_bytes
    for chunk, following in pairwise(chunks):  # None is smaller than it need be.
        fits = sum(sizes[number - 1] for number in [*chunk, following[0]]) < most_bytes
        assert len(chunk) == most or not fits


@given(credits=st.lists(st.builds(Credit, SMALL, SMALL), max_size=10))
def test_credit_never_falls(credits: list[Credit]) -> None:
    outgoing, incoming = sender(credit=Credit()), Incoming()
    for count, credit in enumerate(credits, 1):
        before = incoming.credit
        outgoing.grant(credit)
        assert incoming.grant(*credit) == (incoming.credit != before)
        highest = Credit(max(each.messages for each in credits[:count]), max(each.bytes for each in credits[:count]))
        assert outgoing.credit == incoming.credit == highest


@given(count=SMALL, acknowledged=st.lists(SMALL, max_size=4), most=st.integers(1, 5))
def test_only_what_was_sent_can_be_acknowledged_and_each_once(count: int, acknowledged: list[int], most: int) -> None:
    outgoing = sender([1] * count)
    send_all(outgoing, most)
    heard: list[int] = []
    for through in acknowledged:
        before = outgoing.acknowledged
        if through > count:
            with pytest.raises(ProtocolError):
                outgoing.acknowledge(through)
            assert outgoing.acknowledged == before
        else:
            heard += numbers(outgoing.acknowledge(through))
            assert outgoing.acknowledged == max(before, through), "it never falls"
    assert heard == list(range(1, outgoing.acknowledged + 1))
    assert numbers(list(outgoing.unacknowledged())) == list(range(outgoing.acknowledged + 1, count + 1))
    assert outgoing.all_acknowledged == (outgoing.acknowledged == count)


@given(count=SMALL, acknowledged=SMALL, wanted=st.integers(-2, 14), most=st.integers(1, 5))
def test_only_what_is_under_way_can_be_found(count: int, acknowledged: int, wanted: int, most: int) -> None:
    outgoing = sender([1] * count)
    send_all(outgoing, most)
    outgoing.acknowledge(acknowledged := min(count, acknowledged))
    if acknowledged < wanted <= count:
        assert outgoing.find(wanted)[1] == wanted
    else:
        with pytest.raises(ProtocolError):
            outgoing.find(wanted)
        with pytest.raises(ProtocolError):
            outgoing.replace(wanted, Item(b"", 0))


@given(count=st.integers(1, 12), most=st.integers(1, 5), data=st.data())
def test_what_is_replaced_keeps_its_place(count: int, most: int, data: st.DataObject) -> None:
    outgoing = sender([1] * count)
    send_all(outgoing, most)
    outgoing.acknowledge(acknowledged := data.draw(st.integers(0, count - 1)))
    sequence = data.draw(st.integers(acknowledged + 1, count))
    outgoing.replace(sequence, Item(b"", -1))
    kept = [-1 if number == sequence else number for number in range(acknowledged + 1, count + 1)]
    assert outgoing.find(sequence) == (b"", -1)
    assert numbers(outgoing.acknowledge(count)) == kept


# -- what is sent again ------------------------------------------------------------------------------------------------


def test_a_new_stream_gets_again_what_the_other_side_has_not_and_then_what_is_new() -> None:
    outgoing = sent(5, acknowledged=1)
    queue(outgoing, [1, 1])
    outgoing.resume(3)
    assert not outgoing.all_sent
    assert send_all(outgoing) == [[4, 5], [6, 7]]
    assert outgoing.sent == 7
    assert numbers(list(outgoing.unacknowledged())) == [2, 3, 4, 5, 6, 7], "to be received is not to be done with"


def test_what_is_sent_again_needs_no_new_credit() -> None:
    outgoing = sender([1] * 4, Credit(3, 3))
    send_all(outgoing)
    outgoing.resume(0)
    assert send_all(outgoing) == [[1, 2, 3]]


def test_what_is_sent_again_comes_in_chunks_of_the_allowed_size() -> None:
    outgoing = sent(5)
    outgoing.resume(0)
    assert not outgoing.all_sent
    assert send_all(outgoing, most=2) == [[1, 2], [3, 4], [5]]


def test_a_stream_that_breaks_while_all_is_sent_again_changes_nothing() -> None:
    outgoing = sent(5)
    outgoing.resume(1)
    outgoing.next_chunk(2, 100)
    outgoing.resume(1)
    assert send_all(outgoing) == [[2, 3, 4, 5]]
    assert outgoing.all_sent


def test_a_new_stream_on_which_all_had_come_gets_nothing_again() -> None:
    outgoing = sent(5, acknowledged=2)
    outgoing.resume(5)
    assert send_all(outgoing) == []
    assert outgoing.acknowledged == 2


@given(count=SMALL, acknowledged=SMALL, received=st.integers(-2, 14), most=st.integers(1, 5))
def test_the_other_side_can_have_received_only_what_was_under_way(
    count: int, acknowledged: int, received: int, most: int
) -> None:
    outgoing = sender([1] * count)
    send_all(outgoing, most)
    outgoing.acknowledge(acknowledged := min(count, acknowledged))
    if acknowledged <= received <= count:
        outgoing.resume(received)
        assert list(chain.from_iterable(send_all(outgoing))) == list(range(received + 1, count + 1))
    else:
        with pytest.raises(ProtocolError):
            outgoing.resume(received)


# -- what is received --------------------------------------------------------------------------------------------------


def receiver(received: int = 0, messages: int = 100, size: int = 1_000) -> Incoming:
    """A side that has received so many messages of a byte, and allows so much more."""
    incoming = Incoming()
    if received:
        incoming.grant(received, received)
        assert incoming.receive(1, [1] * received) == 0
    incoming.grant(messages, size)
    return incoming


@given(received=SMALL, first=st.integers(-1, 14), count=SMALL, messages=SMALL)
def test_a_batch_is_taken_only_if_it_follows_and_is_allowed(
    received: int, first: int, count: int, messages: int
) -> None:
    incoming = receiver(received, messages)
    new = first + count - 1 - received
    if 1 <= first <= received + 1 and count > 0 and new <= messages:
        assert incoming.receive(first, [1] * count) == min(count, received + 1 - first), "so many had come before"
        assert incoming.received == incoming.received_bytes == max(received, first + count - 1)
    else:
        with pytest.raises(ProtocolError):
            incoming.receive(first, [1] * count)
        assert (incoming.received, incoming.received_bytes) == (received, received), "it is taken whole or not at all"


@given(sizes=st.lists(st.integers(0, 6), min_size=1), again=st.integers(0, 3), size=st.integers(0, 30))
def test_a_batch_is_taken_only_if_its_bytes_are_allowed_but_for_its_last_message(
    sizes: list[int], again: int, size: int
) -> None:
    incoming = receiver(3, size=size)
    if sum(sizes[:-1]) < size:
        assert incoming.receive(4 - again, [1] * again + sizes) == again
        assert (incoming.received, incoming.received_bytes) == (3 + len(sizes), 3 + sum(sizes))
    else:
        with pytest.raises(ProtocolError):
            incoming.receive(4 - again, [1] * again + sizes)
        assert (incoming.received, incoming.received_bytes) == (3, 3)


def test_what_comes_again_needs_no_credit() -> None:
    incoming = receiver(3, messages=0, size=0)
    assert incoming.receive(1, [1, 1, 1]) == 3
    assert incoming.receive(2, [1]) == 1


def test_credit_counts_from_what_was_received() -> None:
    incoming = receiver(3)
    assert incoming.credit == Credit(103, 1_003)
    assert not incoming.grant(50, 500)
    assert incoming.grant(100, 1_001)
    assert incoming.credit == Credit(103, 1_004)


def test_nobody_is_done_with_what_never_came() -> None:
    incoming = receiver(3)
    incoming.finish(2)
    incoming.finish()
    assert incoming.done == 3
    with pytest.raises(AssertionError):
        incoming.finish()


# -- what goes in parts ------------------------------------------------------------------------------------------------

LONG_BODY = bytes(range(10))
PARTS = ["0 to 4", "4 to 8", "8 to 10"]
"""Those in which it goes."""


def in_parts(body: bytes, most: int) -> InParts:
    """A body that goes in parts of so many bytes."""
    return InParts(body, most, request_part)


def part_of(frame: bytes) -> PartFrame:
    """What is in the frame of a part."""
    part = read_request(frame)
    assert isinstance(part, PartFrame)
    return part


def parting(sizes: Sequence[int] = (), credit: Credit = PLENTY) -> Outgoing[Item]:
    """A side with something to send, after which an item of number 0 goes in three parts."""
    outgoing = sender(sizes, credit)
    outgoing.put(Item(in_parts(LONG_BODY, 4), 0), "its sender")
    return outgoing


def send_next(outgoing: Outgoing[Item], most: int = 1_000) -> str | list[int] | None:
    """Send what is next: which bytes of the long body there are in a part, or the numbers of the items in a chunk."""
    found = outgoing.next_chunk(most, 1_000_000)
    if isinstance(found, bytes):
        body_bytes, offset, data = part_of(found)
        assert body_bytes == len(LONG_BODY)
        assert data == LONG_BODY[offset : offset + len(data)]
        return f"{offset} to {offset + len(data)}"
    return None if found is None else numbers(found.items)


def send_everything(outgoing: Outgoing[Item]) -> list[str | list[int] | None]:
    sent: list[str | list[int] | None] = []
    while (found := send_next(outgoing)) is not None:
        sent.append(found)
    return sent


def test_a_long_body_goes_in_parts_and_then_its_item_gets_a_sequence() -> None:
    outgoing = parting()
    assert not outgoing.all_sent
    assert not outgoing.all_acknowledged
    assert send_everything(outgoing) == [*PARTS, [0]]
    assert (outgoing.sent, outgoing.all_sent, outgoing.has_pieces) == (1, True, False)
    assert numbers(list(outgoing.unacknowledged())) == [0]


def test_what_was_queued_before_a_long_item_goes_before_its_parts() -> None:
    assert send_everything(parting([1, 1])) == [[1, 2], *PARTS, [0]]


def test_what_is_queued_later_goes_between_the_parts_by_turns() -> None:
    outgoing = parting()
    sent = [send_next(outgoing)]
    for _ in range(2):
        queue(outgoing, [1])
        sent += [send_next(outgoing), send_next(outgoing)]
    queue(outgoing, [1])
    assert [*sent, *send_everything(outgoing)] == [PARTS[0], [1], PARTS[1], [2], PARTS[2], [0], [3]]


def test_when_its_parts_are_out_a_long_item_goes_before_all_others() -> None:
    outgoing = parting(credit=Credit(1, 100))
    for part in PARTS:
        assert send_next(outgoing) == part
    queue(outgoing, [1])
    assert send_everything(outgoing) == [[0]], "though there was credit for the other too"


def test_a_long_item_does_not_begin_without_credit() -> None:
    assert send_everything(parting(credit=Credit(0, 100))) == []
    outgoing = parting([5], Credit(2, 5))
    assert send_everything(outgoing) == [[1]]
    outgoing.grant(Credit(2, 6))
    assert send_everything(outgoing) == [*PARTS, [0]], "and then it may be of any length"


def test_a_long_item_whose_credit_others_have_used_up_waits_for_more() -> None:
    outgoing = parting(credit=Credit(1, 100))
    send_next(outgoing)
    queue(outgoing, [1])
    assert send_everything(outgoing) == [[1], *PARTS[1:]]
    outgoing.grant(Credit(2, 100))
    assert send_everything(outgoing) == [[0]]


def test_a_chunk_says_which_long_items_were_queued_before_it() -> None:
    outgoing = parting([1])
    queue(outgoing, [1, 1])
    outgoing.put(Item(in_parts(bytes(9), 4), -1))
    queue(outgoing, [1])
    chunks = []
    while (found := outgoing.next_chunk(9, 99)) is not None:
        if isinstance(found, Chunk):
            chunks.append((numbers(found.items), numbers(found.before)))
    assert chunks == [([1], []), ([2, 3], [0]), ([4], [0, -1]), ([0], []), ([-1], [])]


def test_a_long_item_that_is_dropped_leaves_nothing_behind() -> None:
    outgoing = parting()
    send_next(outgoing)
    (long,) = outgoing.unsent()
    assert outgoing.is_held_up("its sender")
    assert outgoing.drop(long)
    assert not outgoing.drop(long)
    assert not outgoing.is_held_up("its sender")
    assert (send_next(outgoing), outgoing.all_acknowledged) == (None, True)


def test_an_item_can_be_dropped_until_it_is_sent() -> None:
    outgoing = sender([3, 4])
    first, second = outgoing.unsent()
    assert outgoing.drop(first)
    assert outgoing.queued_bytes == 4
    assert numbers(outgoing.queue) == [2]
    outgoing.next_chunk(9, 99)
    assert not outgoing.drop(second)


def test_a_long_item_begins_again_on_a_new_stream() -> None:
    outgoing = parting()
    send_next(outgoing)
    outgoing.resume(0)
    assert send_everything(outgoing) == [*PARTS, [0]]


def test_a_long_item_that_had_a_sequence_is_sent_again_in_parts_and_in_its_place() -> None:
    outgoing = parting([1])
    send_everything(outgoing)
    queue(outgoing, [1])
    send_everything(outgoing)
    outgoing.resume(0)
    assert send_next(outgoing) == [1]
    assert send_next(outgoing) == PARTS[0]
    outgoing.resume(0)
    queue(outgoing, [1])
    assert send_everything(outgoing) == [[1], *PARTS, [0], [3], [4]]
    outgoing.resume(2)
    assert send_everything(outgoing) == [[3], [4]]


def a_part(body_bytes: int, offset: int, size: int) -> PartFrame:
    """A part of so many zeros."""
    return PartFrame(body_bytes, offset, memoryview(bytes(size)))


def test_parts_make_the_body() -> None:
    reader = PartsReader(receiver(), 10, most=4, least=2)
    for offset in (0, 4, 8):
        reader.take(PartFrame(10, offset, memoryview(LONG_BODY)[offset : offset + 4]))
    assert reader.join() == LONG_BODY
    with pytest.raises(ProtocolError):
        reader.join()


WRONG_PARTS: dict[str, list[tuple[int, int, int]]] = {
    "it does not begin": [(10, 4, 4)],
    "there is a gap": [(10, 0, 4), (10, 8, 2)],
    "it comes twice": [(10, 0, 4), (10, 4, 4), (10, 4, 4)],
    "the body has another length": [(10, 0, 4), (9, 4, 4)],
    "it goes beyond the body": [(10, 0, 4), (10, 4, 4), (10, 8, 3)],
    "the body is too long": [(21, 0, 4)],
    "the part is too long": [(10, 0, 6)],
    "the part is too short": [(10, 0, 4), (10, 4, 1)],
    "there is nothing in it": [(0, 0, 0)],
}
"""Lengths of the body, offsets and lengths of parts, of which the last is wrong."""


@pytest.mark.parametrize("parts", WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_a_part_that_does_not_fit_is_refused(parts: list[tuple[int, int, int]]) -> None:
    reader = PartsReader(receiver(), 20, most=5, least=2)
    for part in parts[:-1]:
        reader.take(a_part(*part))
    with pytest.raises(ProtocolError):
        reader.take(a_part(*parts[-1]))


def test_a_body_is_not_taken_before_all_its_parts_have_come() -> None:
    reader = PartsReader(receiver(), 10, most=9, least=1)
    reader.take(a_part(10, 0, 9))
    with pytest.raises(ProtocolError):
        reader.join()


def test_small_parts_are_not_taken() -> None:
    size = LEAST_PART_BYTES
    reader = PartsReader(receiver(), 9 * size, most=size)
    reader.take(a_part(2 * size, 0, size))
    with pytest.raises(ProtocolError):
        reader.take(a_part(2 * size, size, size - 1))


@pytest.mark.parametrize("credit", [Credit(3, 100), Credit(100, 3)], ids=["messages", "bytes"])
def test_a_part_that_begins_a_body_needs_credit(credit: Credit) -> None:
    incoming = receiver(3, credit.messages - 3, credit.bytes - 3)
    reader = PartsReader(incoming, 10, most=4, least=1)
    with pytest.raises(ProtocolError):
        reader.take(a_part(10, 0, 4))
    incoming.begin(2)
    reader.take(a_part(10, 0, 4))  # It may be one that comes again.


def test_a_new_body_or_a_new_stream_makes_an_unfinished_one_forgotten() -> None:
    reader = PartsReader(receiver(), 10, most=4, least=1)
    for new_stream in (False, True):
        reader.take(a_part(10, 0, 4))
        if new_stream:
            reader.forget()
        reader.take(PartFrame(3, 0, memoryview(b"new")))
        assert reader.join() == b"new"


# -- whole sessions ----------------------------------------------------------------------------------------------------


@dataclass
class Peer:
    """One of the two sides, with its end of the connection."""

    outgoing: Outgoing[Item] = field(default_factory=Outgoing)
    incoming: Incoming = field(default_factory=Incoming)
    part_bytes: int = 0
    """How long the parts are in which it sends long bodies; 0 if it sends none in parts."""
    arriving: deque[tuple[Any, ...]] = field(default_factory=deque)
    """Frames on their way to it."""
    is_open: bool = False
    """Whether it has heard the other's first frame on this connection."""
    made: list[Item] = field(default_factory=list)
    """All it ever had to send."""
    log: list[Item] = field(default_factory=list)
    """All it ever sent, by sequence."""
    senders: dict[int, int] = field(default_factory=dict)
    """Who has sent an item, by its number."""
    delivered: list[Item] = field(default_factory=list)
    """All it received, but for what came twice."""
    heard_acknowledged: list[Item] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = PartsReader(self.incoming, 6, most=4, least=1)


class WholeSession(RuleBasedStateMachine):
    """Two sides that talk to each other, both ways, over connections that lose the last of what is on its way.

    The first to open a connection is the client; each says first what it has, and what the other may send.
    """

    def __init__(self) -> None:
        super().__init__()
        self.client, self.daemon = Peer(), Peer()
        self.connected = False

    def other(self, peer: Peer) -> Peer:
        return self.daemon if peer is self.client else self.client

    @initialize(
        credits=st.tuples(CREDIT, CREDIT),
        sizes=st.tuples(SIZES, SIZES),
        parts=st.tuples(*[st.sampled_from((0, 2, 4))] * 2),
    )
    def begin(self, credits: tuple[Credit, Credit], sizes: tuple[list[int], list[int]], parts: tuple[int, int]) -> None:
        for peer, credit, has, part_bytes in zip((self.client, self.daemon), credits, sizes, parts, strict=True):
            peer.incoming.grant(*credit)
            peer.part_bytes = part_bytes
            self.give(peer, has, 0)
        self.connect(0, at_once=True)

    def any_peer(self, data: st.DataObject, may: Callable[[Peer], object] = lambda peer: True) -> Peer:
        peers = [peer for peer in (self.client, self.daemon) if may(peer)]
        return peers[0] if len(peers) == 1 else data.draw(st.sampled_from(peers))

    # -- connections

    @precondition(lambda self: not self.connected)
    @rule(modesty=st.integers(0, 3), at_once=st.booleans())
    def connect(self, modesty: int, at_once: bool) -> None:
        """A side may say that it has less than it has, if only it is done with that: the rest will come twice."""
        self.connected = True
        through = self.has(self.client, modesty)
        self.client.incoming.begin(through)
        self.daemon.arriving.append(("open", through, self.client.incoming.credit, modesty))
        if at_once:
            self.receive(self.daemon)
            self.receive(self.client)

    @precondition(lambda self: self.connected)
    @rule(modesty=st.integers(0, 3))
    def lose_the_connection_and_connect(self, modesty: int) -> None:
        self.lose()
        self.connect(modesty, at_once=True)

    def has(self, peer: Peer, modesty: int) -> int:
        return max(peer.incoming.done, peer.incoming.received - modesty)

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """What was on its way arrives up to somewhere, and the rest does not."""
        for peer in (self.client, self.daemon):
            for _ in range(data.draw(st.integers(0, len(peer.arriving)))):
                self.receive(peer)
        self.lose()

    def lose(self) -> None:
        for peer in (self.client, self.daemon):
            peer.arriving.clear()
            peer.is_open = False
        self.connected = False

    # -- what the sides do

    @rule(data=st.data(), sizes=SIZES, sender=st.integers(0, 2))
    def have_something_to_send(self, data: st.DataObject, sizes: list[int], sender: int) -> None:
        self.give(self.any_peer(data), sizes, sender)

    def give(self, peer: Peer, sizes: list[int], sender: int) -> None:
        """One that has something going in parts waits until that is gone."""
        outgoing = peer.outgoing
        for size in sizes:
            if outgoing.is_held_up(sender):
                break
            body = bytes([len(peer.made) % 251]) * size
            is_long = 0 < peer.part_bytes < size
            item = Item(in_parts(body, peer.part_bytes) if is_long else body, len(peer.made) + 1)
            peer.made.append(item)
            peer.senders[item[1]] = sender
            outgoing.put(item, sender)

    def send_next(self, peer: Peer, most: int, most_bytes: int) -> bool:
        """Send what is next; whether there was anything."""
        waiting = {long.item[1] for long in peer.outgoing.long}
        found = peer.outgoing.next_chunk(most, most_bytes)
        arriving = self.other(peer).arriving
        if isinstance(found, bytes):
            arriving.append(("part", part_of(found)))
        elif found is not None:
            if found.first > len(peer.log):
                for _, number in found.items:
                    assert set(numbers(found.before)) == {each for each in waiting if each < number}
                peer.log += found.items
            assert found.items == peer.log[found.first - 1 : found.last]
            arriving.append(("batch", found.first, found.items))
        return found is not None

    def may_write(self, peer: Peer) -> bool:
        return peer.is_open and (peer.outgoing.allowed > 0 or not peer.outgoing.all_sent)

    @precondition(lambda self: self.may_write(self.client) or self.may_write(self.daemon))
    @rule(data=st.data(), most=st.integers(1, 6), most_bytes=st.integers(1, 12), times=st.integers(1, 3))
    def write(self, data: st.DataObject, most: int, most_bytes: int, times: int) -> None:
        peer = self.any_peer(data, self.may_write)
        for _ in range(times):
            self.send_next(peer, most, most_bytes)

    @precondition(lambda self: self.client.arriving or self.daemon.arriving)
    @rule(data=st.data(), count=st.integers(1, 4))
    def read(self, data: st.DataObject, count: int) -> None:
        peer = self.any_peer(data, lambda peer: peer.arriving)
        for _ in range(min(count, len(peer.arriving))):
            self.receive(peer)

    @rule(data=st.data(), count=st.integers(0, 5), more=CREDIT, told=st.booleans())
    def acknowledge(self, data: st.DataObject, count: int, more: Credit, told: bool) -> None:
        peer = self.any_peer(data)
        peer.incoming.finish(min(count, peer.incoming.received - peer.incoming.done))
        peer.incoming.grant(*more)
        if told:
            self.tell(peer)

    def tell(self, peer: Peer) -> None:
        if peer.is_open:
            self.other(peer).arriving.append(("ack", peer.incoming.done, peer.incoming.credit))

    def receive(self, peer: Peer) -> None:
        """Act on the next frame."""
        kind, *content = peer.arriving.popleft()
        if kind == "part":
            peer.parts.take(*content)
            return
        if kind == "batch":
            first, items = content
            if isinstance(items[0][0], InParts):
                assert peer.parts.join() == bytes([(items[0][1] - 1) % 251]) * len(items[0][0])
            again = peer.incoming.receive(first, [len(body) for body, _ in items])
            peer.delivered += items[again:]
            return
        through, credit, *_ = content
        if kind == "ack":
            peer.heard_acknowledged += peer.outgoing.acknowledge(through)
        else:
            peer.outgoing.resume(through)
            peer.parts.forget()
            peer.is_open = True
        peer.outgoing.grant(credit)
        if kind == "open":
            through = self.has(peer, content[2])
            peer.incoming.begin(through)
            self.client.arriving.append(("opened", through, peer.incoming.credit))

    # -- what holds at every moment

    @invariant()
    def each_message_is_delivered_once_and_in_order(self) -> None:
        for peer in (self.client, self.daemon):
            other = self.other(peer)
            assert peer.delivered == other.log[: len(peer.delivered)]
            assert len(peer.delivered) == peer.incoming.received

    @invariant()
    def those_of_one_sender_are_sent_in_the_order_in_which_they_were_made(self) -> None:
        for peer in (self.client, self.daemon):
            for sender in range(3):
                made = [item for item in peer.made if peer.senders[item[1]] == sender]
                sent = [item for item in peer.log if peer.senders[item[1]] == sender]
                assert sent == made[: len(sent)]

    @invariant()
    def nothing_is_sent_beyond_the_credit(self) -> None:
        for peer in (self.client, self.daemon):
            outgoing, allowed = peer.outgoing, self.other(peer).incoming.credit
            assert outgoing.sent <= outgoing.credit.messages <= allowed.messages
            assert outgoing.credit.bytes <= allowed.bytes
            if outgoing.sent:
                assert sum(len(body) for body, _ in peer.log[: outgoing.sent - 1]) < outgoing.credit.bytes

    @invariant()
    def kept_is_what_was_sent_and_not_acknowledged(self) -> None:
        for peer in (self.client, self.daemon):
            outgoing, receiver = peer.outgoing, self.other(peer).incoming
            assert outgoing.acknowledged <= receiver.done <= receiver.received <= outgoing.sent
            assert peer.heard_acknowledged == peer.log[: outgoing.acknowledged]
            assert list(outgoing.unacknowledged()) == peer.log[outgoing.acknowledged : outgoing.sent]
            assert sorted([*peer.log, *outgoing.unsent()], key=itemgetter(1)) == peer.made
            assert outgoing.queued_bytes == sum(len(body) for body, _ in outgoing.queue)

    # -- what holds in the end

    def teardown(self) -> None:
        """When the connection holds, and both sides read and allow enough, all arrives and all is acknowledged."""
        if not self.connected:
            self.connect(0, at_once=True)
        while self.client.arriving or self.daemon.arriving:
            for peer in (self.daemon, self.client):
                while peer.arriving:
                    self.receive(peer)
        for peer in (self.client, self.daemon):
            peer.incoming.grant(1_000, 1_000_000)
            self.tell(peer)
            self.receive(self.other(peer))
        for peer in (self.client, self.daemon):
            while self.send_next(peer, 5, 20):
                self.receive(self.other(peer))
            receiver = self.other(peer).incoming
            receiver.finish(receiver.received - receiver.done)
            self.tell(self.other(peer))
            self.receive(peer)
        for peer in (self.client, self.daemon):
            assert sorted(self.other(peer).delivered, key=itemgetter(1)) == peer.made
            assert peer.heard_acknowledged == peer.log
            assert peer.outgoing.all_sent
            assert peer.outgoing.all_acknowledged


TestWholeSession = WholeSession.TestCase


# -- a way that is too narrow ------------------------------------------------------------------------------------------


def part(body_bytes: int, offset: int, data: memoryview) -> bytes:
    """The frame of a part, as far as these tests look at it."""
    return bytes(data)


def test_what_is_sent_again_is_cut_into_chunks_of_the_bytes_that_are_asked_for() -> None:
    outgoing = sender([4, 4, 4, 20, 1])
    assert send_all(outgoing) == [[1, 2, 3, 4, 5]]
    outgoing.resume(1)
    assert send_all(outgoing, most_bytes=8) == [[2, 3], [4], [5]]
    outgoing.resume(4)
    assert send_all(outgoing, most_bytes=8) == [[5]]


def test_while_long_items_are_held_others_go_and_after_that_they_do() -> None:
    outgoing = sender()
    long = Item(InParts(b"12345", 4, part), 1)
    outgoing.put(long)
    assert outgoing.long_under_way is None
    assert outgoing.next_chunk(10, 100) == b"1234"
    assert outgoing.long_under_way is long
    outgoing.resume(0)
    assert outgoing.long_under_way is None, "it begins again"
    outgoing.holds_long = True
    assert outgoing.next_chunk(10, 100) is None
    outgoing.put(short := Item(b"x", 2))
    chunk = outgoing.next_chunk(10, 100)
    assert isinstance(chunk, Chunk)
    assert chunk.items == [short]
    outgoing.holds_long = False
    assert [outgoing.next_chunk(10, 100) for _ in range(2)] == [b"1234", b"5"]
    chunk = outgoing.next_chunk(10, 100)
    assert isinstance(chunk, Chunk)
    assert (chunk.first, chunk.items) == (2, [long])


def test_a_body_of_which_parts_have_come_is_known_until_it_is_whole() -> None:
    incoming = Incoming()
    incoming.grant(10, 1_000)
    reader = PartsReader(incoming, 100, most=10, least=1)
    assert reader.coming is None
    for offset in (0, 10):
        reader.take(PartFrame(20, offset, memoryview(bytes(10))))
        assert reader.coming == (0, 20)
    reader.join()
    assert reader.coming is None
    reader.take(PartFrame(30, 0, memoryview(bytes(10))))
    assert reader.coming == (1, 30)
    reader.forget()
    assert reader.coming is None
