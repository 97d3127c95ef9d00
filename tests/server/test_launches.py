"""Launch with a `request_id`: the same request again launches nothing."""

import asyncio
from typing import Any
from uuid import uuid4

import grpc
import pytest

from pydotcompute.exceptions import KernelFailedError, MessageDeserializationError
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute_server.bounds.shares import Owner
from pydotcompute_server.limits import Limits
from pydotcompute_server.services.launches import Launches
from tests.stubs import Wire, failure_of

KEPT, SECONDS = 3, 600.0


# -- over the wire -----------------------------------------------------------------------------------------------------


async def test_the_same_request_is_answered_as_the_first_was(wire: Wire) -> None:
    request = pb.LaunchRequest(kernel_id=f"once-{uuid4()}", kernel_type="square", request_id=str(uuid4()))
    wire.launched.append(request.kernel_id)
    first = await wire.kernels.Launch(request)
    assert first.kernel.state == pb.KERNEL_STATE_LAUNCHED
    await wire.kernels.Activate(pb.ActivateRequest(kernel_id=request.kernel_id))
    assert await wire.kernels.Launch(request) == first
    listed = (await wire.kernels.ListKernels(pb.ListKernelsRequest())).kernels
    assert [each.state for each in listed if each.kernel_id == request.kernel_id] == [pb.KERNEL_STATE_ACTIVE]
    await wire.terminate(request.kernel_id)
    assert await wire.kernels.Launch(request) == first, "it was launched, and has ended since"
    assert request.kernel_id not in {
        each.kernel_id for each in (await wire.kernels.ListKernels(pb.ListKernelsRequest())).kernels
    }


async def test_another_request_of_the_same_id_is_refused(wire: Wire) -> None:
    request = pb.LaunchRequest(kernel_id=f"once-{uuid4()}", kernel_type="square", request_id=str(uuid4()))
    wire.launched.append(request.kernel_id)
    await wire.kernels.Launch(request)
    request.config.input_queue_size = 7
    failure = await failure_of(wire.kernels.Launch(request))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")
    assert failure.violations == [("$.request_id", "another launch had this id")]


@pytest.mark.parametrize("text", ["mine", "{%s}", "%s0", "urn:uuid:%s", "g" * 36, "x" * 100_000])
async def test_an_id_that_is_no_uuid_is_refused(wire: Wire, text: str) -> None:
    request_id = text.replace("%s", str(uuid4()))
    request = pb.LaunchRequest(kernel_id="never", kernel_type="square", request_id=request_id)
    failure = await failure_of(wire.kernels.Launch(request))
    assert failure.reason == "MESSAGE_INVALID"
    ((path, problem),) = failure.violations
    assert path == "$.request_id"
    assert problem.startswith("not a UUID: ")


async def test_a_launch_that_failed_is_tried_again(wire: Wire) -> None:
    kernel_id = await wire.launch("square", activate=False)
    request = pb.LaunchRequest(kernel_id=kernel_id, kernel_type="square", request_id=str(uuid4()))
    for _ in range(2):
        assert (await failure_of(wire.kernels.Launch(request))).reason == "KERNEL_ALREADY_EXISTS"
    await wire.terminate(kernel_id)
    assert (await wire.kernels.Launch(request)).kernel.kernel_id == kernel_id


# -- what is remembered ------------------------------------------------------------------------------------------------


class Clock:
    """A clock that goes when it is told to."""

    now = 1.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Kernels:
    """Launches kernels as soon as it may, and counts them."""

    def __init__(self, launches: Launches) -> None:
        self._launches = launches
        self.launched = 0
        self.may = asyncio.Event()
        self.fails: Exception | None = None

    async def launch(self, request: pb.LaunchRequest, principal: str = "somebody") -> pb.LaunchResponse:
        """The answer to a request, by way of the launches of late."""
        return await self._launches.once(request, Owner(principal, "ipv4:127.0.0.1:50000"), self._launch)

    async def _launch(self) -> pb.LaunchResponse:
        await self.may.wait()
        if self.fails is not None:
            raise self.fails
        self.launched += 1
        return pb.LaunchResponse(kernel=pb.Kernel(kernel_id=str(self.launched)))


@pytest.fixture
def kernels(clock: Clock) -> Kernels:
    return Kernels(Launches(Limits(launches_kept=KEPT, launches_kept_time=SECONDS), clock))


def request_of(number: int = 0, **fields: Any) -> pb.LaunchRequest:
    return pb.LaunchRequest(kernel_id="k", request_id=f"00000000-0000-4000-8000-{number:012}", **fields)


async def test_a_request_that_comes_twice_waits_for_the_first(kernels: Kernels) -> None:
    both = [asyncio.create_task(kernels.launch(request_of())) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(MessageDeserializationError, match="another launch has this id"):
        await kernels.launch(request_of(kernel_type="other"))
    kernels.may.set()
    assert {(await each).kernel.kernel_id for each in both} == {"1"}


async def test_when_the_first_is_cancelled_or_fails_the_next_launches(kernels: Kernels) -> None:
    first, second, third = (asyncio.create_task(kernels.launch(request_of())) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    kernels.fails = KernelFailedError("k", "ValueError", "no")
    kernels.may.set()
    results = await asyncio.gather(second, third, return_exceptions=True)
    assert [type(result) for result in results] == [KernelFailedError] * 2
    kernels.fails = None
    assert (await kernels.launch(request_of())).kernel.kernel_id == "1"


async def test_requests_without_an_id_are_all_launched(kernels: Kernels) -> None:
    kernels.may.set()
    request = pb.LaunchRequest(kernel_id="k")
    assert [(await kernels.launch(request)).kernel.kernel_id for _ in range(2)] == ["1", "2"]


async def test_case_makes_no_difference(kernels: Kernels) -> None:
    kernels.may.set()
    request = pb.LaunchRequest(kernel_id="k", request_id="ABCDEFAB-0000-4000-8000-000000000000")
    await kernels.launch(request)
    assert (await kernels.launch(request)).kernel.kernel_id == "1"


async def test_the_last_ones_are_remembered_for_their_time(kernels: Kernels, clock: Clock) -> None:
    kernels.may.set()
    for number in range(KEPT + 1):
        await kernels.launch(request_of(number))
    assert (await kernels.launch(request_of(1))).kernel.kernel_id == "2"
    assert (await kernels.launch(request_of(0))).kernel.kernel_id == str(KEPT + 2), "it was the oldest"
    clock.now += SECONDS + 1
    assert (await kernels.launch(request_of(0))).kernel.kernel_id == str(KEPT + 3)


async def test_an_id_is_the_principals_own(kernels: Kernels) -> None:
    kernels.may.set()
    assert (await kernels.launch(request_of(), "alice")).kernel.kernel_id == "1"
    assert (await kernels.launch(request_of(), "bob")).kernel.kernel_id == "2"


async def test_who_launches_much_displaces_only_its_own(kernels: Kernels) -> None:
    kernels.may.set()
    await kernels.launch(request_of(0), "modest")
    for number in range(1, 3 * KEPT):
        await kernels.launch(request_of(number), "greedy")
    assert (await kernels.launch(request_of(0), "modest")).kernel.kernel_id == "1"
