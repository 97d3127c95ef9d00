"""What must be true when the clients have ended: each reply came once, and each request reached the kernel once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry
from pydotcompute_client import connect
from tests.chaos.client import Report
from tests.chaos.kernels import QUESTION, Account, Entry

__all__ = ["nothing_lost_nothing_doubled", "telemetry"]


def _wrong_in(reports: Iterable[Report]) -> list[str]:
    """What the clients complain of."""
    wrong = []
    for report in reports:
        wrong += [f"client {report.number}: {problem}" for problem in report.problems]
        if report.answered != report.sent:
            wrong.append(f"client {report.number}: {report.answered} replies to {report.sent} requests")
    return wrong


def nothing_lost_nothing_doubled(target: str, reports: Iterable[Report], dead: Iterable[int] = ()) -> None:
    """Compare what the clients have seen with what the kernel has, over a connection that nobody mistreats.

    Args:
        target: the daemon.
        reports: of the clients that have ended as they should.
        dead: the numbers of those that were killed: what they sent may be cut off, but never doubled, nor have a gap.
    """
    reports = list(reports)
    wrong = _wrong_in(reports)
    sent = {report.number: report.sent for report in reports}
    for number, account in asyncio.run(_accounts(target, [*sent, *dead])).items():
        if account.again or account.skipped:
            wrong.append(f"client {number}: {account.again} came to the kernel again, {account.skipped} never")
        if account.number != sent.get(number, account.number):
            wrong.append(f"client {number}: the last request is {sent[number]}, the kernel has seen {account.number}")
    assert not wrong, "\n".join(wrong)


async def _accounts(target: str, numbers: Iterable[int]) -> dict[int, Account]:
    async with connect(target) as runtime:
        return {
            number: await runtime.send_and_receive("ledger", Entry(number, QUESTION), timeout=30.0)
            for number in numbers
        }


def telemetry(target: str) -> RingKernelTelemetry:
    """What the ledger has done so far."""

    async def ask() -> RingKernelTelemetry:
        async with connect(target) as runtime:
            snapshot = await runtime.fetch_telemetry("ledger")
            assert snapshot is not None
            return snapshot

    return asyncio.run(ask())
