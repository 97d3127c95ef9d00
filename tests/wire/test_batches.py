"""Messages, states, settings and telemetry cross the wire whole."""

import dataclasses
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

from pydotcompute import message
from pydotcompute.exceptions import MessageDeserializationError, MessageTypeError, PyDotComputeError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry, WorkerTelemetry
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.wire.exchange.batches import Packed, fill, read, spread
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute.wire.kernels import (
    config_from_proto,
    config_to_proto,
    state_from_proto,
    state_to_proto,
    strategy_from_proto,
    strategy_to_proto,
    telemetry_from_proto,
    telemetry_to_proto,
)
from pydotcompute.wire.messages import from_message, write_message


@message
class Parcel:
    """A message."""

    text: str = ""
    weight: float = 1.0


@message
class Letter:
    """Another one."""

    text: str = ""


POOL = TypePool()
CODEC = Codec(Parcel, POOL)

parcels = st.builds(
    Parcel,
    text=st.text(),
    weight=st.floats(allow_nan=False),
    message_id=st.uuids(),
    priority=st.integers(0, 255),
    correlation_id=st.none() | st.uuids(),
)


# -- messages ----------------------------------------------------------------------------------------------------------


@given(parcel=parcels)
def test_the_form_for_people_brings_a_message_back_whole(parcel: Parcel) -> None:
    written = pb.Message()
    write_message(written, parcel, CODEC)
    form = pb.Message.FromString(written.SerializeToString())
    assert from_message(form, CODEC) == parcel
    assert form.body.type_url == f"type.googleapis.com/{CODEC.descriptor.full_name}"


def body(value: bytes = b"", cls: type = Parcel) -> any_pb2.Any:
    name = CODEC.descriptor.full_name if cls is Parcel else Codec(cls, POOL).descriptor.full_name
    return any_pb2.Any(type_url=f"type.googleapis.com/{name}", value=value)


def test_what_a_person_leaves_out_is_filled_in() -> None:
    first, second = (from_message(pb.Message(body=body()), CODEC) for _ in range(2))
    assert (first.text, first.weight, first.priority, first.correlation_id) == ("", 1.0, 128, None)
    assert first.message_id != second.message_id
    assert first.message_id.version == 4


def test_a_priority_of_zero_is_not_an_absent_one() -> None:
    assert from_message(pb.Message(body=body(), priority=0), CODEC).priority == 0


@pytest.mark.parametrize("write", [str, lambda uuid: str(uuid).upper()])
def test_an_id_is_read_in_its_form_of_36_characters(write: Callable[[UUID], str]) -> None:
    wanted = uuid4()
    assert from_message(pb.Message(body=body(), message_id=write(wanted)), CODEC).message_id == wanted


@pytest.mark.parametrize("form", ["{{{}}}", "urn:uuid:{}"])
def test_an_id_in_another_form_is_refused_as_in_a_body(form: str) -> None:
    with pytest.raises(MessageDeserializationError, match="form of 36 characters"):
        from_message(pb.Message(body=body(), message_id=form.format(uuid4())), CODEC)


def test_a_type_url_of_any_host_names_the_type() -> None:
    elsewhere = any_pb2.Any(type_url=f"example.com/types/{CODEC.descriptor.full_name}")
    assert isinstance(from_message(pb.Message(body=elsewhere), CODEC), Parcel)


EXPECTED = f"{CODEC.descriptor.full_name}, or google.protobuf.Struct with its fields"
BAD_MESSAGES: list[tuple[pb.Message, PyDotComputeError]] = [
    (pb.Message(), MessageTypeError(EXPECTED, "no body", "$.message.body")),
    (
        pb.Message(body=body(cls=Letter)),
        MessageTypeError(EXPECTED, Codec(Letter, POOL).descriptor.full_name, "$.message.body"),
    ),
    (
        pb.Message(body=body(), priority=256),
        MessageDeserializationError("Parcel", "256 is outside 0 to 255", "$.message.priority"),
    ),
    (
        pb.Message(body=body(), message_id="x"),
        MessageDeserializationError("Parcel", "not a UUID in its form of 36 characters: 'x'", "$.message.message_id"),
    ),
    (
        pb.Message(body=body(), correlation_id="x"),
        MessageDeserializationError(
            "Parcel", "not a UUID in its form of 36 characters: 'x'", "$.message.correlation_id"
        ),
    ),
]


@pytest.mark.parametrize(("form", "error"), BAD_MESSAGES, ids=[error.path for _, error in BAD_MESSAGES])  # type: ignore[attr-defined]
def test_a_message_that_a_person_got_wrong_is_refused_with_the_place(form: pb.Message, error: Any) -> None:
    with pytest.raises(type(error)) as refused:
        from_message(form, CODEC)
    assert refused.value == error


def test_bytes_that_are_no_body_are_refused() -> None:
    with pytest.raises(MessageDeserializationError) as refused:
        from_message(pb.Message(body=body(b"\xff")), CODEC)
    assert (refused.value.message_type, refused.value.path) == ("Parcel", "$.message.body")


# -- batches -----------------------------------------------------------------------------------------------------------

NIL = UUID(int=0)


def packed(
    body: bytes,
    key: int,
    priority: int = 128,
    answers: int | None = None,
    type_: int = 0,
    *,
    is_output: bool = False,
    deadline: float | None = None,
    message: object = None,
) -> Packed:
    """A message for a batch."""
    return body, key, priority, answers, type_, is_output, deadline, message


ids = st.uuids() | st.just(NIL)
headers = st.tuples(
    st.binary(max_size=9),
    ids.map(lambda each: each.int),
    st.integers(0, 255) | st.just(128),
    st.none() | ids.map(lambda each: each.int),
).map(lambda fields: packed(*fields))
alike = st.tuples(st.integers(1, 9), headers).map(lambda drawn: [drawn[1]] * drawn[0])


def sent(items: Sequence[Packed], first: int = 1) -> pb.Batch:
    """A batch, after its journey."""
    batch = pb.Batch()
    fill(batch, first, items)
    return pb.Batch.FromString(batch.SerializeToString())


def received(batch: pb.Batch) -> list[Packed]:
    """What is read of it."""
    bodies, message_ids, priorities, correlation_ids, types = read(batch)
    assert list(types) == [0] * len(bodies)
    return [
        packed(bytes(body), message_id.int, priority, None if correlation_id is None else correlation_id.int)
        for body, message_id, priority, correlation_id in zip(
            bodies, message_ids, priorities, correlation_ids, strict=True
        )
    ]


@given(items=st.lists(headers, min_size=1) | alike, first=st.integers(1, 2**64 - 1))
def test_a_batch_brings_its_messages_back_whole(items: list[Packed], first: int) -> None:
    batch = sent(items, first)
    assert received(batch) == items
    assert batch.first_sequence == first


@given(items=st.lists(headers, min_size=1), message=st.text())
def test_what_a_sender_keeps_of_a_message_does_not_travel(items: list[Packed], message: str) -> None:
    assert sent([(*item[:-1], message) for item in items]) == sent(items)


@given(types=st.lists(st.integers(0, 2), min_size=1), outputs=st.lists(st.booleans(), min_size=20, max_size=20))
def test_types_and_outputs_are_told(types: list[int], outputs: list[bool]) -> None:
    types = types[: len(outputs)]
    items = [
        packed(b"", number, 128, None, type_, is_output=is_output)
        for number, (type_, is_output) in enumerate(zip(types, outputs, strict=False))
    ]
    batch = sent(items)
    assert list(spread(batch.types, len(types), 0, "types")) == types
    assert list(batch.outputs) == [index for index, is_output in enumerate(outputs[: len(types)]) if is_output]


def test_types_that_are_all_alike_are_told_once_and_the_first_not_at_all() -> None:
    assert list(sent([packed(b"", 1, 128, None, 1)] * 3).types) == [1]
    assert list(sent([packed(b"", 1, 128, None, 0)] * 3).types) == []


def test_how_long_a_caller_still_waits_is_told() -> None:
    soon = monotonic() + 60
    batch = sent([packed(b"", 1, 128, None, deadline=each) for each in (None, soon, monotonic() - 1)])
    never, later, over = batch.timeouts_us
    assert (never, over) == (0, 1)
    assert 50e6 < later <= 60e6


def test_the_nil_uuid_is_an_answer_and_none_is_not() -> None:
    batch = sent([packed(b"", 1, 128, 0), packed(b"", 2, 128, None), packed(b"", 3, 128, 7)])
    assert list(batch.uncorrelated) == [1]
    assert [answers for _, _, _, answers, *_ in received(batch)] == [0, None, 7]
    batch = sent([packed(b"", 1, 128, 0)])
    assert batch.correlation_ids == NIL.bytes
    assert list(batch.uncorrelated) == []


def test_a_column_that_says_nothing_is_left_out() -> None:
    batch = sent([packed(b"a", 1, 128, None), packed(b"b", 2, 128, None)])
    assert {field.name for field, _ in batch.ListFields()} == {"first_sequence", "message_ids", "bodies"}
    assert batch.message_ids == UUID(int=1).bytes + UUID(int=2).bytes


@pytest.mark.parametrize("column", ["priorities", "types"])
def test_one_value_holds_for_all(column: str) -> None:
    batch = pb.Batch(message_ids=bytes(48), bodies=[b""] * 3)
    getattr(batch, column).append(1)
    columns = read(batch, type_count=2)
    assert list(getattr(columns, column)) == [1, 1, 1]


def test_one_value_each_holds_for_each() -> None:
    batch = pb.Batch(message_ids=bytes(48), bodies=[b""] * 3, priorities=[0, 255, 7], types=[1, 0, 1])
    columns = read(batch, type_count=2)
    assert (list(columns.priorities), list(columns.types)) == ([0, 255, 7], [1, 0, 1])


BAD_BATCHES: list[tuple[str, dict[str, Any], str]] = [
    ("message_ids", {"message_ids": bytes(31)}, "31 bytes for 2 messages of 16 each"),
    ("message_ids", {"message_ids": b""}, "0 bytes for 2 messages of 16 each"),
    ("message_ids", {"bodies": []}, "32 bytes for 0 messages of 16 each"),
    ("priorities", {"priorities": [1, 2, 3]}, "3 values for 2 messages"),
    ("priorities", {"priorities": [256]}, "256 is outside 0 to 255"),
    ("priorities", {"priorities": [0, 2**32 - 1]}, "4294967295 is outside 0 to 255"),
    ("types", {"types": [0, 0, 0]}, "3 values for 2 messages"),
    ("types", {"types": [0, 2]}, "2 is none of the 2 types"),
    ("correlation_ids", {"correlation_ids": bytes(16)}, "16 bytes for 2 messages of 16 each"),
    ("correlation_ids", {"correlation_ids": bytes(33)}, "33 bytes for 2 messages of 16 each"),
    ("uncorrelated", {"correlation_ids": bytes(32), "uncorrelated": [2]}, "2 is none of 2 messages"),
]


@pytest.mark.parametrize(("column", "columns", "problem"), BAD_BATCHES)
def test_a_batch_whose_columns_do_not_fit_together_is_refused_with_the_column(
    column: str, columns: dict[str, Any], problem: str
) -> None:
    batch = pb.Batch(**{"message_ids": bytes(32), "bodies": [b"a", b"b"], **columns})
    with pytest.raises(MessageDeserializationError) as refused:
        read(batch, type_count=2)
    assert refused.value == MessageDeserializationError("Batch", problem, f"$.{column}")


numbers = st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=4)
columns_of_all_lengths = st.builds(
    pb.Batch,
    bodies=st.lists(st.binary(max_size=3), max_size=3),
    message_ids=st.integers(0, 3).map(lambda count: bytes(16 * count)) | st.binary(max_size=50),
    priorities=numbers,
    correlation_ids=st.integers(0, 3).map(lambda count: bytes(16 * count)) | st.binary(max_size=50),
    uncorrelated=numbers,
    types=numbers,
)


@given(batch=columns_of_all_lengths)
def test_whatever_a_batch_holds_gives_messages_or_an_error_that_names_a_column(batch: pb.Batch) -> None:
    error = None
    try:
        columns = read(batch, type_count=2)
    except MessageDeserializationError as refused:
        error = refused
    if error is not None:
        assert error.message_type == "Batch"
        assert error.path.removeprefix("$.") in pb.Batch.DESCRIPTOR.fields_by_name
        assert error.problem
        return
    priorities, correlation_ids, types = map(list[Any], (columns.priorities, columns.correlation_ids, columns.types))
    lengths = {len(column) for column in (columns.message_ids, priorities, correlation_ids, types)}
    assert lengths == {len(batch.bodies)}
    assert all(0 <= priority <= 255 for priority in priorities)
    assert all(0 <= each < 2 for each in types)
    if batch.correlation_ids:
        assert {index for index, each in enumerate(correlation_ids) if each is None} == set(batch.uncorrelated)


# -- kernels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", KernelState)
def test_every_state_has_its_number(state: KernelState) -> None:
    assert state_to_proto(state) != kernel_pb.KERNEL_STATE_UNSPECIFIED
    assert state_from_proto(state_to_proto(state)) is state


def test_every_number_of_a_state_but_zero_has_its_state() -> None:
    numbers = set(kernel_pb.KernelState.values()) - {kernel_pb.KERNEL_STATE_UNSPECIFIED}
    assert {state_to_proto(state) for state in KernelState} == numbers


@pytest.mark.parametrize("strategy", ["block", "reject", "drop_oldest"])
def test_every_strategy_has_its_number(strategy: Any) -> None:
    number = strategy_to_proto(strategy)
    assert number != pb.BACKPRESSURE_STRATEGY_UNSPECIFIED
    assert strategy_from_proto(number, "block") == strategy
    assert strategy_from_proto(pb.BACKPRESSURE_STRATEGY_UNSPECIFIED, strategy) == strategy


sizes = st.integers(1, 2**32 - 1)
configs = st.builds(
    RingKernelConfig,
    kernel_id=st.just("k"),
    grid_size=sizes,
    block_size=sizes,
    input_queue_size=sizes,
    output_queue_size=sizes,
    backpressure_strategy=st.sampled_from(["block", "reject", "drop_oldest"]),
)


@given(config=configs, declared=configs)
def test_settings_come_back_whole_whatever_was_declared(config: RingKernelConfig, declared: RingKernelConfig) -> None:
    assert config_from_proto(config_to_proto(config), declared) == config


@given(declared=configs)
def test_settings_that_are_not_stated_are_as_declared(declared: RingKernelConfig) -> None:
    assert config_from_proto(kernel_pb.KernelConfig(), declared) == declared
    changed = config_from_proto(kernel_pb.KernelConfig(input_queue_size=7), declared)
    assert changed == dataclasses.replace(declared, input_queue_size=7)


counts = st.integers(0, 2**64 - 1)
workers = st.builds(
    WorkerTelemetry,
    pid=st.integers(0, 2**32 - 1),
    resident_bytes=counts,
    cpu_seconds=st.floats(0, 1e12),
    in_hand=st.integers(0, 2**32 - 1),
    ahead=st.integers(0, 2**32 - 1),
)
snapshots = st.builds(
    RingKernelTelemetry,
    kernel_id=st.text(),
    state=st.sampled_from([state.name for state in KernelState]),
    messages_processed=counts,
    messages_dropped=counts,
    queue_depth=st.integers(0, 2**32 - 1),
    error_count=counts,
    last_error=st.none() | st.text(min_size=1),
    uptime_seconds=st.floats(0, 1e12),
    throughput=st.floats(0, 1e12),
    min_latency_ns=counts,
    max_latency_ns=counts,
    avg_latency_ns=st.floats(0, 1e18),
    p50_latency_ns=counts,
    p95_latency_ns=counts,
    p99_latency_ns=counts,
    batches=counts,
    avg_batch_size=st.floats(0, 1e9),
    max_batch_size=st.integers(0, 2**32 - 1),
    workers=st.lists(workers, max_size=2).map(tuple),
)


@given(snapshot=snapshots)
def test_a_snapshot_comes_back_whole(snapshot: RingKernelTelemetry) -> None:
    sent = telemetry_to_proto(snapshot).SerializeToString()
    assert telemetry_from_proto(telemetry_pb.KernelTelemetry.FromString(sent)) == snapshot


def test_the_fields_of_a_snapshot_are_those_of_its_message() -> None:
    fields = {field.name for field in dataclasses.fields(RingKernelTelemetry)}
    assert fields == set(telemetry_pb.KernelTelemetry.DESCRIPTOR.fields_by_name)
    fields = {field.name for field in dataclasses.fields(WorkerTelemetry)}
    assert fields == set(telemetry_pb.WorkerTelemetry.DESCRIPTOR.fields_by_name)


def test_the_settings_are_those_of_their_message() -> None:
    fields = {field.name for field in dataclasses.fields(RingKernelConfig)} - {"kernel_id"}
    assert fields == set(kernel_pb.KernelConfig.DESCRIPTOR.fields_by_name)


def test_a_broken_rule_is_an_error_of_ours() -> None:
    assert issubclass(ProtocolError, PyDotComputeError)
