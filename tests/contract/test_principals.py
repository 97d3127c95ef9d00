"""Who a message is from: everybody in the process is local, and a client of a daemon whom the daemon takes it for."""

import pytest

from pydotcompute.ring_kernels.declaration import KernelFunction
from tests.contract.kernels import Job, concierge, concierge_of_batches
from tests.contract.world import World


@pytest.mark.parametrize("kernel", [concierge, concierge_of_batches], ids=lambda kernel: kernel.__name__)
async def test_a_kernel_may_ask_who_has_sent_a_message(world: World, kernel: KernelFunction) -> None:
    kernel_id = await world.launch(kernel)
    who = {"local": "local", "remote": "anonymous"}[world.name]
    assert (await world.runtime.send_and_receive(kernel_id, Job(1))).note == who
    await world.runtime.send(kernel_id, Job(2))
    assert (await world.runtime.receive(kernel_id)).note == who
