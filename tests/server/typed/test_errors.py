"""The errors of kernels' own services."""

from typing import Any

import grpc
import pytest

from pydotcompute.v1 import dead_letter_service_pb2
from tests.server.typed.services import dead_letters, keys, launched, service_of
from tests.stubs import MAX_MESSAGE_BYTES, PATIENCE, Wire, failure_of


@pytest.mark.parametrize("method", ["ask", "send", "receive", "stream"])
async def test_a_kernel_of_another_type_is_refused_with_the_name_of_its_service(wire: Wire, method: str) -> None:
    service = await service_of(wire, "till")
    kernel_id = await wire.launch("square")
    call = getattr(service, method)({"kernel-id": kernel_id})
    failure = await failure_of(call.read() if method == "stream" else call)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONFIGURATION_INVALID")
    assert "'square', which has the service kernels.v1.Square" in failure.detail["problem"]


@pytest.mark.parametrize("method", ["ask", "send", "receive", "stream"])
async def test_a_kernel_that_does_not_exist_is_refused_with_those_that_do(wire: Wire, method: str) -> None:
    service = await service_of(wire, "till")
    call = getattr(service, method)({"kernel-id": "tilt"})
    failure = await failure_of(call.read() if method == "stream" else call)
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "KERNEL_NOT_FOUND")
    assert "till" in failure.detail["available"]


async def test_a_type_of_which_no_kernel_is_launched_is_not_unknown(wire: Wire) -> None:
    service = await service_of(wire, "slow_till")
    for metadata, is_type in (({}, True), ({"kernel-id": "tilt"}, False)):
        call = service.ask(metadata)
        failure = await failure_of(call)
        assert (failure.reason, failure.detail["is_type"]) == ("KERNEL_NOT_FOUND", is_type)
        assert ("`pydotcompute launch slow_till --activate`" in await call.details()) is is_type


async def test_a_body_that_is_none_is_refused_with_its_path(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    for method in ("Ask", "Send"):
        call: Any = wire.channel.unary_unary(f"/{service.name}/{method}")
        failure = await failure_of(call(b"\x08", metadata=keys(kernel), timeout=PATIENCE))
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")
        assert failure.detail["path"] == "$"


async def test_a_body_that_is_too_long_is_refused(wire: Wire) -> None:
    service, kernel = await launched(wire, "till")
    failure = await failure_of(service.ask(kernel, note="x" * MAX_MESSAGE_BYTES))
    assert (failure.reason, failure.detail["limit"]) == ("MESSAGE_INVALID", MAX_MESSAGE_BYTES)


@pytest.mark.parametrize("method", ["ask", "receive", "stream"])
async def test_a_reply_of_another_class_than_declared_is_a_dead_letter(wire: Wire, method: str) -> None:
    service, kernel = await launched(wire, "till")
    if method == "ask":
        failure = await failure_of(service.ask(kernel, note="back"))
    elif method == "receive":
        await service.send(kernel, note="back")
        failure = await failure_of(service.receive(kernel))
    else:
        stream = service.stream(kernel)
        await stream.write(service.message(note="back"))
        failure = await failure_of(stream.read())
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "MESSAGE_INVALID")
    assert failure.detail == {"expected": "shop.v1.Receipt", "actual": "shop.v1.Order", "path": "$"}
    assert not failure.violations
    (letter,) = await dead_letters(wire, kernel["kernel-id"])
    promise = f"kernel {kernel['kernel-id']!r} answered with shop.v1.Order; the service promises shop.v1.Receipt"
    assert letter.detail == promise
    assert letter.reason == dead_letter_service_pb2.DEAD_LETTER_REASON_UNDELIVERABLE


async def test_a_kernel_that_is_not_active_is_refused(wire: Wire) -> None:
    service, kernel = await launched(wire, "till", activate=False)
    for call in (service.ask(kernel), service.stream(kernel).read()):
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KERNEL_STATE_INVALID")
