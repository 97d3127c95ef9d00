"""Clients in Go, TypeScript, Rust and Java. Each program is in `docs/clients/`, word for word."""

import grpc
import pytest

from pydotcompute.v1 import kernel_service_pb2, telemetry_service_pb2
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from pydotcompute.v1.telemetry_service_pb2_grpc import TelemetryServiceStub
from tests.interop.conftest import Client

# The first test of a language builds its client.
pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]

for_all_calls = pytest.mark.parametrize("client", ["go", "typescript"], indirect=True)
"""For what only the longer pages have."""
for_lists = pytest.mark.parametrize("client", ["rust", "java"], indirect=True)


def processed(channel: grpc.Channel) -> int:
    """How many messages the calculator has handled."""
    request = telemetry_service_pb2.GetTelemetryRequest(kernel_ids=["calculator"])
    (kernel,) = TelemetryServiceStub(channel).GetTelemetry(request).kernels
    return int(kernel.messages_processed)


def test_a_typed_ask_is_answered(client: Client) -> None:
    (result,) = client.run("ask")
    assert float(result) == 2


@for_lists
def test_the_kernels_are_listed_and_described(client: Client) -> None:
    limit, *kernels, described = client.run("list")
    assert limit == f"messages have at most {64 << 20} bytes"
    assert "calculator is KERNEL_STATE_ACTIVE" in kernels
    assert described == 'calculator takes {"a": 0, "b": 0, "operation": "add"}'


def test_a_kernel_is_led_through_its_life_and_asked_by_its_id(client: Client, channel: grpc.Channel) -> None:
    kernel = f"from-{client.language}"

    def states(*names: str) -> list[str]:
        prefix = "" if client.language == "typescript" else "KERNEL_STATE_"
        return [f"{kernel} is {prefix}{name}" for name in names]

    before = processed(channel)
    assert client.run("lifecycle") == [
        *states("LAUNCHED", "ACTIVE"),
        "2 + 3 = 5",
        *states("DEACTIVATED", "ACTIVE", "TERMINATED"),
    ]
    listed = KernelServiceStub(channel).ListKernels(kernel_service_pb2.ListKernelsRequest()).kernels
    assert kernel not in {each.kernel_id for each in listed}
    assert processed(channel) == before, "its request has gone to the calculator"


def test_a_stream_brings_ten_thousand_replies_in_order(client: Client, channel: grpc.Channel) -> None:
    before = processed(channel)
    assert client.run("stream") == ["10000 replies, in the order of their requests"]
    assert processed(channel) == before + 10_000


@for_all_calls
def test_headers_carry_ids_and_a_lease(client: Client) -> None:
    answers, acknowledged = client.run("headers")
    message_ids = {
        "go": "6f1c2a9e-58c4-4b0e-9d3a-0c7f5b1e2d34",
        "typescript": "d3b1f6a0-2c47-4f5e-8a19-5e0c9b7d4821",
    }
    assert answers == f"3 answers {message_ids[client.language]}"
    assert acknowledged == "0 acknowledged too late"


def test_an_error_tells_its_reason_and_what_was_wrong_where(client: Client) -> None:
    missing, *details, wrong, reason, place = client.run("failures")
    java = client.language == "java"
    assert missing.startswith("NOT_FOUND: " if java else "NotFound: ")
    assert details == ["  reason: KERNEL_NOT_FOUND", "  there are: calculator"]
    assert wrong.startswith("INVALID_ARGUMENT: " if java else "InvalidArgument: ")
    assert (reason, place) == ("  reason: MESSAGE_INVALID", "  at $.message.body")


@for_all_calls
def test_the_kernel_never_gets_what_was_given_up_before_it_took_it(client: Client) -> None:
    assert client.run("withdraw") == [
        "after its deadline: DeadlineExceeded QUEUE_TIMEOUT",
        "when cancelled: Canceled",
        "when its stream is: Canceled",
        "3 is the reply to message 1",
    ]


@for_all_calls
def test_a_message_of_any_type_is_packed_and_unpacked(client: Client) -> None:
    assert client.run("any") == ["15"]
