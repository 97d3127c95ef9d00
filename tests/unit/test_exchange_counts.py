"""The counts of an Exchange conversation: a plain state machine, tried with every order of events."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pydotcompute.wire.exchange import Incoming, Outgoing, ProtocolError

SMALL = st.integers(min_value=0, max_value=30)


# -- both sides, with a wire between them ------------------------------------------------------------------------------


class Conversation(RuleBasedStateMachine):
    """One direction of a conversation: batches and acknowledgements are on their way for as long as it pleases."""

    def __init__(self) -> None:
        super().__init__()
        self.sender: Outgoing[int] = Outgoing(credit=3)
        self.receiver = Incoming(credit=3)
        self.batches: deque[tuple[int, list[int]]] = deque()
        self.grants: deque[tuple[int, int]] = deque()
        self.made = 0
        self.arrived: list[int] = []
        self.acknowledged: list[int] = []

    @precondition(lambda self: self.sender.allowed)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, self.sender.allowed))
        messages = list(range(self.made, self.made + count))
        self.made += count
        self.batches.append((self.sender.sent + 1, messages))
        assert self.sender.send(messages) == self.batches[-1][0]

    @precondition(lambda self: self.batches)
    @rule()
    def receive(self) -> None:
        first, messages = self.batches.popleft()
        self.receiver.receive(first, len(messages))
        self.arrived += messages

    @precondition(lambda self: self.receiver.done < self.receiver.received)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.receiver.finish(data.draw(st.integers(1, self.receiver.received - self.receiver.done)))

    @rule(room=st.integers(0, 10))
    def acknowledge(self, room: int) -> None:
        self.receiver.grant(self.receiver.done + room)
        self.grants.append((self.receiver.done, self.receiver.credit))

    @precondition(lambda self: self.grants)
    @rule()
    def hear(self) -> None:
        through, credit = self.grants.popleft()
        self.acknowledged += self.sender.acknowledge(through)
        self.sender.grant(credit)

    @invariant()
    def nothing_is_lost_doubled_or_out_of_order(self) -> None:
        assert self.arrived == list(range(len(self.arrived)))
        assert self.acknowledged + list(self.sender.unacknowledged) == list(range(self.made))

    @invariant()
    def nobody_gets_ahead_of_the_other(self) -> None:
        assert len(self.acknowledged) == self.sender.acknowledged <= self.receiver.done
        assert self.receiver.done <= self.receiver.received <= self.sender.sent
        assert self.sender.sent <= self.sender.credit <= self.receiver.credit

    @invariant()
    def what_is_under_way_can_be_found(self) -> None:
        for sequence, message in enumerate(self.sender.unacknowledged, self.sender.acknowledged + 1):
            assert self.sender.find(sequence) == message


TestConversation = Conversation.TestCase


# -- what breaks the rules ---------------------------------------------------------------------------------------------


@given(received=SMALL, first=SMALL, count=SMALL, credit=SMALL)
def test_a_batch_is_taken_only_if_it_follows_and_is_allowed(received: int, first: int, count: int, credit: int) -> None:
    incoming = Incoming(credit=max(credit, received))
    if received:
        incoming.receive(1, received)
    fits = first == received + 1 and count > 0 and received + count <= incoming.credit
    if fits:
        incoming.receive(first, count)
        assert incoming.received == received + count
    else:
        with pytest.raises(ProtocolError):
            incoming.receive(first, count)
        assert incoming.received == received, "a batch is taken whole or not at all"


@given(sent=SMALL, acknowledged=st.lists(SMALL, max_size=4))
def test_only_what_was_sent_can_be_acknowledged(sent: int, acknowledged: list[int]) -> None:
    outgoing: Outgoing[int] = Outgoing(credit=sent)
    outgoing.send(range(sent))
    heard: list[int] = []
    for through in acknowledged:
        before = outgoing.acknowledged
        if through > sent:
            with pytest.raises(ProtocolError):
                outgoing.acknowledge(through)
            assert outgoing.acknowledged == before
        else:
            heard += outgoing.acknowledge(through)
            assert outgoing.acknowledged == max(before, through), "it never falls"
    assert heard == list(range(outgoing.acknowledged))


@given(sent=SMALL, acknowledged=SMALL, wanted=st.integers(-2, 40))
def test_only_what_is_under_way_can_be_found(sent: int, acknowledged: int, wanted: int) -> None:
    acknowledged = min(sent, acknowledged)
    outgoing: Outgoing[int] = Outgoing(credit=sent)
    outgoing.send(range(1, sent + 1))
    outgoing.acknowledge(acknowledged)
    if acknowledged < wanted <= sent:
        assert outgoing.find(wanted) == wanted
    else:
        with pytest.raises(ProtocolError):
            outgoing.find(wanted)


@given(sent=st.integers(1, 30), data=st.data())
def test_what_is_replaced_keeps_its_place(sent: int, data: st.DataObject) -> None:
    outgoing: Outgoing[int] = Outgoing(credit=sent)
    outgoing.send(range(1, sent + 1))
    outgoing.acknowledge(acknowledged := data.draw(st.integers(0, sent - 1)))
    sequence = data.draw(st.integers(acknowledged + 1, sent))
    outgoing.replace(sequence, -1)
    kept = [-1 if number == sequence else number for number in range(acknowledged + 1, sent + 1)]
    assert outgoing.find(sequence) == -1
    assert outgoing.acknowledge(sent) == kept
    with pytest.raises(ProtocolError):
        outgoing.replace(sequence, -1)


@given(credits=st.lists(SMALL, max_size=10))
def test_credit_never_falls(credits: list[int]) -> None:
    outgoing: Outgoing[int] = Outgoing()
    incoming = Incoming(credit=0)
    for number, credit in enumerate(credits, 1):
        outgoing.grant(credit)
        more = incoming.grant(credit)
        assert more == (credit > max([0, *credits[: number - 1]]))
        assert outgoing.credit == incoming.credit == max(credits[:number])
    assert outgoing.allowed == outgoing.credit


def test_this_side_cannot_break_the_rules_by_mistake() -> None:
    with pytest.raises(AssertionError):
        Outgoing[int](credit=1).send([1, 2])
    with pytest.raises(AssertionError):
        Incoming(credit=1).finish()
