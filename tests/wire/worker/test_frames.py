"""The frames between a kernel and its worker: what goes comes, in whatever pieces, and what is none is refused."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydotcompute.wire.exchange.batches import Columns
from pydotcompute.wire.worker.frames import (
    Frame,
    Handed,
    Letter,
    LinkError,
    Note,
    Reader,
    Recall,
    Report,
    Returned,
    packed,
    to_bytes,
)

sequences = st.lists(st.integers(1, 2**64 - 1), max_size=5)
ids = st.integers(1, 2**128 - 1)
messages = st.lists(
    st.builds(packed, st.binary(max_size=40), ids, st.integers(0, 255), ids | st.none(), st.integers(0, 3)),
    min_size=1,
    max_size=5,
)
json_values = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3)


@st.composite
def handed(draw: st.DrawFn) -> Handed:
    some = draw(messages)

    def column(each: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(each, min_size=len(some), max_size=len(some)))

    return Handed(
        column(st.integers(1, 2**64 - 1)),
        some,
        column(st.integers(0, 2**32 - 1)),
        column(st.integers(0, 2**62)),
        column(st.floats(0, 1e12) | st.just(float("inf"))),
        column(st.integers(0, 2)),
        column(st.text(max_size=5) | st.none()),
    )


@st.composite
def reports(draw: st.DrawFn) -> Report:
    some = draw(messages | st.just([]))
    answers = draw(st.lists(st.integers(0, 2**128 - 1), min_size=len(some), max_size=len(some)))
    return Report(draw(sequences), draw(sequences), draw(sequences), draw(sequences), answers, some)


frames = st.one_of(
    handed(),
    reports(),
    st.builds(Recall, sequences),
    st.builds(Returned, sequences),
    st.builds(Note, st.text(max_size=8), json_values, st.binary(max_size=20)),
    st.builds(Letter, st.text(max_size=8), json_values, messages.map(lambda some: some[:1]) | st.just(())),
)


def plain(frame: Frame) -> tuple[Any, ...]:
    """The content of a frame in one form, whether it is to be sent or was received."""
    values: list[Any] = [frame.__class__.__name__]
    for value in vars(frame).values():
        if isinstance(value, Columns):
            header = [(each.int) for each in value.message_ids]
            correlations = [None if each is None else each.int for each in value.correlation_ids]
            values.append([*zip(value.bodies, header, value.priorities, correlations, value.types, strict=True)])
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            values.append([each[:5] if isinstance(each, tuple) else each for each in value])
        else:
            values.append([*value] if isinstance(frame, Handed) and isinstance(value, bytes) else value)
    return tuple(values)


@given(st.lists(frames, max_size=4), st.integers(1, 60))
def test_frames_come_as_they_were_sent_in_whatever_pieces(sent: list[Frame], length: int) -> None:
    data = b"".join(map(to_bytes, sent))
    reader = Reader()
    received = [frame for start in range(0, len(data), length) for frame in reader.feed(data[start : start + length])]
    assert [*map(plain, received)] == [*map(plain, sent)]


@given(st.binary(max_size=200))
def test_whatever_bytes_come_they_are_frames_or_refused(data: bytes) -> None:
    with suppress(LinkError):
        [*Reader().feed(data)]


@given(frames, st.data())
def test_a_frame_with_a_wrong_byte_is_a_frame_or_refused(frame: Frame, data: st.DataObject) -> None:
    content = bytearray(to_bytes(frame))
    content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(LinkError):
        [*Reader().feed(bytes(content))]


def test_a_frame_of_no_kind_is_refused() -> None:
    with pytest.raises(LinkError, match="no frames of kind 9"):
        [*Reader().feed(b"\0\0\0\0\x09")]
