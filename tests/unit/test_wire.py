"""Messages, states, settings and telemetry cross the wire whole."""

import dataclasses
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

from pydotcompute import message
from pydotcompute.exceptions import MessageDeserializationError, MessageTypeError, PyDotComputeError
from pydotcompute.ring_kernels.declaration import RingKernelConfig
from pydotcompute.ring_kernels.lifecycle import KernelState
from pydotcompute.ring_kernels.telemetry import RingKernelTelemetry
from pydotcompute.schema.codec import Codec
from pydotcompute.schema.descriptors import TypePool
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import telemetry_service_pb2 as telemetry_pb
from pydotcompute.wire.exchange import ProtocolError
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
from pydotcompute.wire.messages import add_envelope, from_envelope, from_message, pack, write_message


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


def in_envelope(parcel: Parcel, type_index: int = 0) -> pb.Envelope:
    """As it travels: packed, put into a frame, serialized and parsed."""
    batch = pb.Batch(first_sequence=1)
    add_envelope(batch, pack(parcel, CODEC.encode(parcel), type_index))
    (envelope,) = pb.Batch.FromString(batch.SerializeToString()).messages
    return envelope


# -- messages ----------------------------------------------------------------------------------------------------------


@given(parcel=parcels, type_index=st.integers(0, 1))
def test_an_envelope_brings_a_message_back_whole(parcel: Parcel, type_index: int) -> None:
    envelope = in_envelope(parcel, type_index)
    assert from_envelope(envelope, CODEC) == parcel
    assert len(envelope.message_id) == 16
    assert envelope.message_id == parcel.message_id.bytes  # type: ignore[attr-defined]
    assert (envelope.type, envelope.output) == (type_index, False)


@given(parcel=parcels)
def test_the_form_for_people_brings_a_message_back_whole(parcel: Parcel) -> None:
    written = pb.Message()
    write_message(written, parcel, CODEC)
    form = pb.Message.FromString(written.SerializeToString())
    assert from_message(form, CODEC) == parcel
    assert form.body.type_url == f"type.googleapis.com/{CODEC.descriptor.full_name}"


@given(first=parcels, second=parcels)
def test_a_frame_keeps_its_messages_apart(first: Parcel, second: Parcel) -> None:
    batch = pb.Batch()
    for parcel in (first, second):
        add_envelope(batch, pack(parcel, CODEC.encode(parcel)))
    assert [from_envelope(envelope, CODEC) for envelope in batch.messages] == [first, second]


@given(
    message_id=st.binary(max_size=20) | st.binary(min_size=16, max_size=16),
    correlation_id=st.just(b"") | st.binary(max_size=20) | st.binary(min_size=16, max_size=16),
    priority=st.integers(0, 255) | st.integers(0, 2**32 - 1),
    body=st.binary(max_size=40),
)
def test_whatever_an_envelope_holds_gives_a_message_or_an_error_that_names_the_place(
    message_id: bytes, correlation_id: bytes, priority: int, body: bytes
) -> None:
    envelope = pb.Envelope(message_id=message_id, correlation_id=correlation_id, priority=priority, body=body)
    error = error_of(lambda: from_envelope(envelope, CODEC))
    if len(message_id) != 16:
        assert error is not None
        assert error.path == "$.message_id"
    elif priority > 255:
        assert error is not None
        assert error.path == "$.priority"
    elif len(correlation_id) not in (0, 16):
        assert error is not None
        assert error.path == "$.correlation_id"
    elif error is None:
        assert from_envelope(envelope, CODEC).message_id.bytes == message_id
    else:
        assert error.path in ("$", "$.text", "$.weight")
    assert error is None or (error.message_type == "Parcel" and error.problem)


def error_of(read: Callable[[], object]) -> MessageDeserializationError | None:
    """Why it cannot be read; None if it can."""
    try:
        read()
    except MessageDeserializationError as error:
        return error
    return None


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


@pytest.mark.parametrize("form", ["{}", "{{{}}}", "urn:uuid:{}"])
def test_an_id_is_read_in_every_form_that_uuids_have(form: str) -> None:
    wanted = uuid4()
    assert from_message(pb.Message(body=body(), message_id=form.format(wanted)), CODEC).message_id == wanted


def test_a_type_url_of_any_host_names_the_type() -> None:
    elsewhere = any_pb2.Any(type_url=f"example.com/types/{CODEC.descriptor.full_name}")
    assert isinstance(from_message(pb.Message(body=elsewhere), CODEC), Parcel)


BAD_MESSAGES: list[tuple[pb.Message, PyDotComputeError]] = [
    (pb.Message(), MessageTypeError(CODEC.descriptor.full_name, "no body", "$.body")),
    (
        pb.Message(body=body(cls=Letter)),
        MessageTypeError(CODEC.descriptor.full_name, Codec(Letter, POOL).descriptor.full_name, "$.body"),
    ),
    (
        pb.Message(body=body(), priority=256),
        MessageDeserializationError("Parcel", "256 is outside 0 to 255", "$.priority"),
    ),
    (
        pb.Message(body=body(), message_id="x"),
        MessageDeserializationError("Parcel", "not a UUID: 'x'", "$.message_id"),
    ),
    (
        pb.Message(body=body(), correlation_id="x"),
        MessageDeserializationError("Parcel", "not a UUID: 'x'", "$.correlation_id"),
    ),
]


@pytest.mark.parametrize(("form", "error"), BAD_MESSAGES, ids=[error.path for _, error in BAD_MESSAGES])  # type: ignore[attr-defined]
def test_a_message_that_a_person_got_wrong_is_refused_with_the_place(form: pb.Message, error: Any) -> None:
    with pytest.raises(type(error)) as refused:
        from_message(form, CODEC)
    assert refused.value == error


def test_bytes_that_are_no_body_are_refused_in_both_forms() -> None:
    for read in (
        lambda: from_message(pb.Message(body=body(b"\xff")), CODEC),
        lambda: from_envelope(pb.Envelope(message_id=UUID(int=1).bytes, body=b"\xff"), CODEC),
    ):
        with pytest.raises(MessageDeserializationError) as refused:
            read()
        assert (refused.value.message_type, refused.value.path) == ("Parcel", "$")


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
)


@given(snapshot=snapshots)
def test_a_snapshot_comes_back_whole(snapshot: RingKernelTelemetry) -> None:
    sent = telemetry_to_proto(snapshot).SerializeToString()
    assert telemetry_from_proto(telemetry_pb.KernelTelemetry.FromString(sent)) == snapshot


def test_the_fields_of_a_snapshot_are_those_of_its_message() -> None:
    fields = {field.name for field in dataclasses.fields(RingKernelTelemetry)}
    assert fields == set(telemetry_pb.KernelTelemetry.DESCRIPTOR.fields_by_name)


def test_the_settings_are_those_of_their_message() -> None:
    fields = {field.name for field in dataclasses.fields(RingKernelConfig)} - {"kernel_id"}
    assert fields == set(kernel_pb.KernelConfig.DESCRIPTOR.fields_by_name)


def test_a_broken_rule_is_an_error_of_ours() -> None:
    assert issubclass(ProtocolError, PyDotComputeError)
