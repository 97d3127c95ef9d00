"""Why a caller of a daemon has waited in vain, where the way to the daemon is the cause."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from pydotcompute.exceptions import QueueTimeoutError
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute_client import RemoteRuntime, connect
from pydotcompute_client.exchange.delays import Delays
from tests.contract.kernels import Job
from tests.contract.world import PATIENCE, eventually
from tests.forwarder import Forwarder
from tests.stubs import KERNELS


async def waited_in_vain(runtime: RemoteRuntime, kernel_id: str, timeout: float = 0.3) -> list[QueueTimeoutError]:
    """The errors of who has asked, and of who has only received."""
    errors = []
    for waiting in (
        runtime.send_and_receive(kernel_id, Job(1), timeout=timeout),
        runtime.receive(kernel_id, timeout=timeout),
    ):
        with pytest.raises(QueueTimeoutError) as late:
            await waiting
        errors.append(late.value)
    return errors


async def test_there_is_no_connection(daemon: Any) -> None:
    async with Forwarder(daemon.target) as way, connect(way.address, scoped=True, timeout=PATIENCE) as runtime:
        await runtime.launch("cut-off", "square")
        await runtime.activate("cut-off")
        await runtime.send_and_receive("cut-off", Job(1), timeout=PATIENCE)
        way.close()
        await eventually(lambda: way.refused >= 1)
        for error in await waited_in_vain(runtime, "cut-off"):
            assert (error.cause, error.before) == ("DISCONNECTED", 0)
            assert error.seconds > 0
            assert "there has been no connection to the daemon for" in str(error)
        way.is_open = True
        assert (await runtime.send_and_receive("cut-off", Job(3), timeout=PATIENCE)).number == 9


async def test_the_daemon_says_nothing(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--launch", "square", "--launch", "echo_job")
    async with connect(daemon.target) as runtime:
        await runtime.send_and_receive("square", Job(1), timeout=PATIENCE)
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            in_a_session = await waited_in_vain(runtime, "square")
            before_a_session = await waited_in_vain(runtime, "echo_job")
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        for error in in_a_session + before_a_session:
            assert error.cause == "SILENT"
            assert "the daemon is connected, but did not say in time why" in str(error)


async def test_an_older_daemon_is_not_asked_and_nothing_is_known() -> None:
    delays = Delays(lambda: pytest.fail("there is nothing to send"))
    delays.connected(explains=False)
    delays.ask(1)
    assert not delays.wants_to_ask
    assert delays.of(1) == ("", 0, 0.0, "")


async def test_what_several_callers_want_to_know_is_asked_at_once_and_kept_until_they_give_up() -> None:
    stirred = asyncio.Event()
    delays = Delays(stirred.set)
    delays.connected(explains=True)
    for key in (1, 2, None, 2):
        delays.ask(key)
    assert stirred.is_set()
    inquiry = pb.Inquiry()
    delays.fill(inquiry)
    assert (inquiry.message_ids, inquiry.receive) == ((1).to_bytes(16) + (2).to_bytes(16), True)
    assert not delays.wants_to_ask
    explanation = pb.Explanation()
    explanation.delays.add(message_id=(2).to_bytes(16), cause="QUEUED", before=3, seconds=0.5)
    explanation.delays.add(cause="A NAME OF A LATER VERSION")
    delays.take(explanation)
    assert delays.of(1) == ("SILENT", 0, 0.0, "")
    assert delays.of(2) == ("QUEUED", 3, 0.5, "")
    later = QueueTimeoutError("k", 1.0, "receive", *delays.of_receive(None))
    assert str(later) == "kernel 'k': receive timed out after 1 s"
