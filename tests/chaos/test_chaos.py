"""Clients, a proxy that mistreats their connections, and a daemon: each a process of its own.

The short forms; `make soak` runs the long one. CHAOS_SEED sets the seed.
"""

import signal

import pytest

from tests.chaos.checks import nothing_lost_nothing_doubled, telemetry
from tests.chaos.processes import Client, Processes, Proxy, eventually, seed_of
from tests.properties import examples

pytestmark = pytest.mark.timeout(120)

STORM = "cut=4,reset=2,stall=2,halve=1,trickle=1"
"""All but what only keepalive notices, which takes its time."""
MIB = 1 << 20
FAULTS = examples(20)
"""Connections that are broken."""
REQUESTS = examples(4_000)
"""Requests of a client that is measured."""


def all_live(clients: list[Client]) -> bool:
    """Whether none of these has ended."""
    return all(client.popen.poll() is None for client in clients)


def wait_until_passed(proxy: Proxy, more: int, clients: list[Client]) -> None:
    """Wait until so many more bytes have passed."""
    before = proxy.statistics()["bytes"]
    assert eventually(lambda: proxy.statistics()["bytes"] >= before + more or not all_live(clients))


def test_nothing_is_lost_or_doubled_while_connections_break() -> None:
    with Processes(seed_of(1)) as processes:
        _, target = processes.daemon()
        proxy, through = processes.proxy(target, "--every", "50-150", "--faults", STORM)
        clients = [processes.client(through) for _ in range(3)]
        for client in clients:
            client.under_way()
        eventually(lambda: proxy.faults() >= FAULTS or not all_live(clients))
        for client in clients:
            client.signal(signal.SIGTERM)
        reports = [client.last_words() for client in clients]
        nothing_lost_nothing_doubled(target, reports)
        assert proxy.faults() >= FAULTS
        assert telemetry(target).messages_dropped == 0, "no reply has become a dead letter"


@pytest.mark.thorough
@pytest.mark.parametrize("mebibytes", [16, 64])
def test_long_messages_come_once_and_whole_while_connections_break_in_their_middle(mebibytes: int) -> None:
    limit = 80 * MIB
    with Processes(seed_of(5)) as processes:
        _, target = processes.daemon("--launch", "all", "--max-message-bytes", str(limit))
        proxy, through = processes.proxy(target)
        clients = [
            processes.client(through, window=8, long=mebibytes * MIB, long_every=4, max_message_bytes=limit)
            for _ in range(2)
        ]
        for client in clients:
            client.under_way()
        for number in range(6):
            # Where in a message that is, and whether there or on the way back, is different each time.
            wait_until_passed(proxy, (mebibytes * 2 * number // 3 + mebibytes // 2) * MIB, clients)
            proxy.order("reset" if number % 2 else "cut")
        for client in clients:
            client.signal(signal.SIGTERM)
        nothing_lost_nothing_doubled(target, [client.last_words(60) for client in clients])
        assert telemetry(target).messages_dropped == 0, "no reply has become a dead letter"


@pytest.mark.thorough
def test_what_goes_through_shared_memory_is_not_lost_or_doubled_while_connections_break() -> None:
    with Processes(seed_of(6)) as processes:
        _, target = processes.daemon("--launch", "all", "--shared-memory-bytes", str(32 * MIB))
        proxy, through = processes.proxy(target, "--every", "50-150", "--faults", STORM)
        clients = [
            processes.client(through, window=8, long=3 * MIB, long_every=2, shared_memory=True) for _ in range(2)
        ]
        for client in clients:
            client.under_way()
        eventually(lambda: proxy.faults() >= FAULTS or not all_live(clients))
        for client in clients:
            client.signal(signal.SIGTERM)
        nothing_lost_nothing_doubled(target, [client.last_words() for client in clients])
        assert proxy.faults() >= FAULTS
        assert telemetry(target).messages_dropped == 0, "no reply has become a dead letter"


@pytest.mark.thorough
def test_what_is_lost_without_a_trace_is_found_by_keepalive() -> None:
    with Processes(seed_of(2)) as processes:
        _, target = processes.daemon()
        proxy, through = processes.proxy(target)
        client = processes.client(through, keepalive=1.0)
        client.under_way()
        assert proxy.order("half_open") == "half_open 1"
        assert eventually(lambda: proxy.statistics()["connections"] > 1 or not all_live([client])), "it came back"
        report = client.stop()
        nothing_lost_nothing_doubled(target, [report])
        assert report.slowest < 20.0


@pytest.mark.thorough
def test_the_end_of_other_clients_is_nothing_to_those_that_live() -> None:
    with Processes(seed_of(3)) as processes:
        daemon, target = processes.daemon(session_timeout=2.0)
        survivors = [processes.client(target, window=8, pause=1) for _ in range(2)]
        for survivor in survivors:
            survivor.under_way()
        dead = []
        sizes = []
        for _ in range(2):
            victims = [processes.client(target, window=256, padding=10_000) for _ in range(2)]
            for victim in victims:
                victim.under_way()
            for victim in victims:
                dead.append(victim.number)
                victim.signal(signal.SIGKILL)
                victim.wait()
            sizes.append(daemon.resident_bytes)
        assert eventually(lambda: telemetry(target).messages_dropped > 0), (
            "the replies to the dead are dead letters once their time is up"
        )
        nothing_lost_nothing_doubled(target, [survivor.stop() for survivor in survivors], dead)
        assert sizes[1] - sizes[0] < 50 * MIB, sizes


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["reads every 10 ms", "stops reading"])
def test_a_slow_client_does_not_delay_a_fast_one(way: str) -> None:
    with Processes(seed_of(4)) as processes:
        daemon, target = processes.daemon()
        quiet = processes.client(target, count=REQUESTS).last_words()
        stops = way == "stops reading"
        slow = processes.client(target, window=3_000 if stops else 100, padding=1_000, pause=0 if stops else 10)
        slow.under_way()
        if stops:
            assert eventually(lambda: telemetry(target).messages_processed > 8_000), "it is in full flow"
            slow.signal(signal.SIGSTOP)
        before = daemon.resident_bytes
        busy = processes.client(target, count=REQUESTS).last_words()
        grown = daemon.resident_bytes - before
        slow.signal(signal.SIGCONT)
        nothing_lost_nothing_doubled(target, [quiet, busy, slow.stop()])
        ratio = (quiet.answered / quiet.seconds) / (busy.answered / busy.seconds)
        assert ratio < 5.0, f"{ratio:.1f} times slower than without the slow one"
        assert grown < 50 * MIB, grown
