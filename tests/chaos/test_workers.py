"""Workers that die under clients with bad connections; the short form of `make soak`."""

import os
import signal
import tempfile

import pytest

from tests.chaos.killer import descendants, is_worker
from tests.chaos.processes import Processes, eventually, seed_of
from tests.chaos.worker_kernels import JOURNAL
from tests.chaos.workers import KERNELS, REDELIVERS, Attack, run
from tests.properties import examples

pytestmark = pytest.mark.timeout(240)


@pytest.mark.thorough
def test_each_request_is_answered_once_or_told_lost_while_workers_are_killed() -> None:
    run(seed_of(7), Attack(requests=20_000, seconds=60.0, clients=4))


@pytest.mark.thorough
def test_each_request_is_answered_exactly_once_if_what_was_in_hand_is_given_again() -> None:
    run(seed_of(9), Attack(examples(10_000), 60.0, REDELIVERS, clients=2, may_lose=False))


def test_no_process_outlives_a_daemon_that_is_killed() -> None:
    with tempfile.TemporaryDirectory() as folder, Processes(seed_of(8)) as processes:
        daemon, _ = processes.daemon("--launch", "all", kernels=str(KERNELS), env={JOURNAL: folder})
        started = set(descendants(daemon.pid))
        assert sum(map(is_worker, started)) >= 3
        stopped = next(filter(is_worker, started))
        os.kill(stopped, signal.SIGSTOP)  # It cannot do anything for its end.
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        assert eventually(lambda: not any(map(is_worker, started))), [*filter(is_worker, started)]
