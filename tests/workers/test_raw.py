"""Messages of a kernel in a worker: bytes in the runtime, and of their own class to whoever asks for them in Python."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import MessageDeserializationError, MessageTypeError
from pydotcompute.messages.message import door
from pydotcompute.messages.raw import Raw, door_of_raw, opened, raw_class, stands_for
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.protobuf.raw import RawCodec
from pydotcompute.ring_kernels import DeadLetterReason
from tests.contract.kernels import Cloud, Job
from tests.contract.world import PATIENCE
from tests.workers import kernels
from tests.workers.kernels import Ask, Told


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    """Two kernels that forward to each other, of which one is in a worker."""
    async with RingKernelRuntime() as started:
        await started.launch("there", kernels.passing_on)
        await started.launch("here", kernels.passing_on_here)
        for kernel_id in ("there", "here"):
            await started.activate(kernel_id)
        yield started


@pytest.mark.parametrize("first", ["there", "here"])
async def test_a_request_is_forwarded_between_a_worker_and_this_process(runtime: RingKernelRuntime, first: str) -> None:
    then = "here" if first == "there" else "there"
    told = await runtime.send_and_receive(first, Ask(3, do=then), timeout=PATIENCE)
    assert type(told) is Told
    assert told.number == 3


async def test_outputs_replies_and_dead_letters_are_of_their_own_class(runtime: RingKernelRuntime) -> None:
    await runtime.send("there", Ask(1))
    assert type(await runtime.receive("there", timeout=PATIENCE)) is Told
    mail = runtime.kernel("there").mail
    mail.bury(raw_of(Told)(b"\x08\x05", *_header()), "as the test says")
    mail.bury(raw_of(Told)(b"\xff", *_header()), "as the test says")
    mail.bury(raw_of(Ask)(b"\x08\x07", *_header()), "too", DeadLetterReason.EXPIRED)
    letters = runtime.get_dead_letters("there")
    assert letters[0].message.number == 5
    assert type(letters[1].message) is raw_of(Told)  # It cannot be decoded.
    assert runtime.kernel("there").dead_letters[2].message.number == 7
    await runtime.requeue_dead_letters("there", [letters[2].id])
    told = await runtime.receive("there", timeout=PATIENCE)
    assert told.number == 7


def raw_of(cls: type) -> type[Raw]:
    codec: Codec[Any] = Codec(cls, TypePool())
    return raw_class(cls, codec.decode_checked)


def _header() -> tuple[Any, int, None]:
    message = Ask()
    return message.message_id, message.priority, None  # type: ignore[attr-defined]


def test_a_raw_message_stands_for_one_of_its_class() -> None:
    codec = RawCodec(Codec(Job, TypePool()))
    job = Job(3, note="text")
    raw = codec.decode(codec.real.encode(job), job.message_id, job.priority, None)
    assert isinstance(raw, Raw)
    assert type(raw).__name__ == "Job"
    assert stands_for(type(raw)) is Job
    assert opened(raw) == opened(job) == job
    assert codec.encode(raw) == codec.encode_aligned(raw) == codec.real.encode(job)
    assert codec.decode(b"\xff", job.message_id, 1, None).body == b"\xff"
    with pytest.raises(MessageDeserializationError):
        opened(codec.decode(b"\xff", job.message_id, 1, None))


def test_people_get_arrays_without_padding() -> None:
    codec = RawCodec(Codec(Cloud, TypePool()))
    cloud: Any = Cloud()
    raw = codec.decode(codec.real.encode_aligned(cloud), cloud.message_id, 1, None)
    assert codec.encode(raw) == codec.real.encode(cloud)
    assert codec.encode_aligned(raw) == codec.real.encode_aligned(cloud)


def test_the_door_lets_raw_messages_of_the_kernels_classes_pass() -> None:
    make = raw_of(Ask)
    raw = make(b"", *_header())
    for check in (door_of_raw(door(Ask), Ask), door_of_raw(door(None), None)):
        check(raw)
        check(Ask())
    with pytest.raises(MessageTypeError, match="expected Told or Job, got Ask"):
        door_of_raw(door(Told, Job), Told, Job)(raw)
